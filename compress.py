#!/usr/bin/env python3
"""Compress a photo to a .gc file, decode that file, and show both side by side.

    python3 compress.py -i photo.png -o out.png            # out.gc, and the side-by-side picture out.png
    python3 compress.py -i photo.png -o out.gc             # the file alone
    python3 compress.py -r checkpoints/run -i photos/ -o results/  # every image of a folder, and results.csv
    python3 compress.py -r checkpoints/sc -i street.png -sm labels.png --preserve Car,Pedestrian -o out.png

A model whose files have a label map takes it by -sm. A selective model keeps what --preserve, --synthesize, --mask or --box
say, and paints the rest from the label map: the file holds nothing else of it. Without -r, the checkpoint that ships with the
project is used. Every figure is that of the file on disk, header included.
"""

import argparse
import csv
import dataclasses
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cGAN.labels import Classes, LabelMap, map_of, read_classes, read_label_map, with_boundaries
from cGAN.selection import Selection
from codec import Codec, read_image, save_picture
from codec.files import atomic, output_names
from codec.options import add_model_arguments, chosen_checkpoint, split_knobs
from codec.pictures import images_in, picture_path
from config import UserError, config_train
from evaluation.metrics import ms_ssim, psnr
from utils import Utils

MEASURED = {  # what is averaged over a folder, and how it is printed
    "bytes": ".0f",
    "code_bytes": ".0f",
    "mask_bytes": ".0f",
    "symbols_bytes": ".0f",
    "bpp": ".4f",
    "psnr": ".2f",
    "preserved_psnr": ".2f",
    "preserved_share": ".3f",
    "ms_ssim": ".4f",
}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument("-i", "--input", required=True, metavar="IMAGE", help="an image, or a folder of images")
    parser.add_argument("-o", "--output", metavar="OUT", help="OUT.png, OUT.gc, or a folder if IMAGE is one "
                        "(default: below the knob `samples`)")  # fmt: skip
    parser.add_argument("--channels", type=int, metavar="K", help="send the first K channels of the feature map only: a "
                        "smaller file, a worse picture (default: the knob `channels`)")  # fmt: skip
    labels = parser.add_argument_group("label maps")
    labels.add_argument("-sm", "--semantic-map", metavar="MAP", help="class indices, or the classes' colours, of IMAGE's size; "
                        "where IMAGE is a folder, a folder of PNGs of the same names")  # fmt: skip
    labels.add_argument("--instances", metavar="MAP", help="for a model with the knob use_instances; likewise")
    labels.add_argument("--preserve", metavar="CLASS[,CLASS...]", help="synthesize the other classes")
    labels.add_argument("--synthesize", metavar="CLASS[,CLASS...]", help="preserve the other classes")
    labels.add_argument("--mask", metavar="PNG", help="preserve what is light in it")
    labels.add_argument("--box", metavar="X,Y,W,H", help="preserve this, in pixels")
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.channels is not None and args.channels < 1:
        raise UserError(f"--channels {args.channels}: at least 1")
    channels = [f"channels={args.channels}"] if args.channels else []
    where, knobs = split_knobs(args.knob + channels)
    guide = Guide(args.semantic_map, args.instances, Selection(args.preserve, args.synthesize, args.mask, args.box))
    source = Path(args.input)
    checkpoint = chosen_checkpoint(args, where)
    if source.is_dir():
        images = images_in(source)
        output = Path(args.output or Path(where.samples) / source.name)
        check_folder(source, output)
        codec = Codec.load(checkpoint, knobs)
        guide = dataclasses.replace(guide, root=source)
        guide.check(codec.config)
        return compress_folder(codec, images, source, output, guide)
    output = Path(args.output or Path(where.samples) / f"{source.stem}.png")
    if output.suffix.lower() != ".gc":
        output = picture_path(output)
    if source.resolve() in (output.resolve(), output.with_suffix(".gc").resolve()):
        raise UserError(f"{output}: is the input itself; write somewhere else")
    image = read_image(source, knobs.max_pixels)
    codec = Codec.load(checkpoint, knobs)
    guide.check(codec.config)
    result = compress_image(codec, image, source, output, guide)
    print(report(result, codec))
    print(f"compressed file: {output.with_suffix('.gc')}")
    if output.suffix.lower() != ".gc":
        print(f"side by side:    {output}")
    return 0


# ----------------------------------------------------------------------------------------------------------------------
# Label maps
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guide:
    """What the command line says beside the image: its label map and instances, and what to preserve.

    semantic_map, instances: files; or, for the images of a folder `root`, folders with files of the same names below them.
    """

    semantic_map: str | None = None
    instances: str | None = None
    selection: Selection = dataclasses.field(default_factory=Selection)
    root: Path | None = None

    def check(self, config: config_train) -> None:
        """Raise UserError, once and before the first image, for what the model lacks; warn of what it ignores."""
        wanted = {"-sm": config.code_channels > 0, "--instances": config.code_channels > 0 and config.use_instances}
        for option, given in {"-sm": self.semantic_map, "--instances": self.instances}.items():
            kind = "a label map" if option == "-sm" else "an instance map"
            if wanted[option] and not given:
                raise UserError(f"this model compresses with {kind}: name it with {option}")
            if given and not wanted[option]:
                print(f"warning: {option} is ignored: this model compresses without {kind}", file=sys.stderr)
            if given and wanted[option] and self.root and not Path(given).is_dir():
                raise UserError(f"{given}: the input is a folder, so the maps must be in one too")
        if self.selection and not config.selective:
            raise UserError("--preserve, --synthesize, --mask, --box: this model was not trained for that (knob selective)")
        self.selection.check(Classes.parse(config.classes, config.n_classes))

    def read(self, config: config_train, image: np.ndarray, source: Path) -> LabelMap | None:
        """Return the label map of an image, with what is preserved; None for a model that wants none."""
        if not config.code_channels or self.semantic_map is None:
            return None
        classes = Classes.parse(config.classes, config.n_classes)
        path, size = self._file(self.semantic_map, source), image.shape[:2]
        if config.use_instances:  # `check` has seen to it that there is a map of them
            labels = with_boundaries(read_label_map(path, self._file(self.instances, source), classes, size))
        else:
            labels = LabelMap(read_classes(path, classes, size))
        if not config.selective:
            return labels
        preserved = self.selection.preserved(labels.classes, classes)
        if not preserved.any():
            print(f"warning: {source.name}: nothing is preserved: all of it is synthesized", file=sys.stderr)
        elif self.selection and preserved.all():
            print(f"warning: {source.name}: all of it is preserved: nothing is synthesized", file=sys.stderr)
        return dataclasses.replace(labels, preserved=preserved)

    def _file(self, path: str, source: Path) -> Path:
        """Return the path itself, or the file below it that has the image's name."""
        return map_of(source, self.root or source.parent, path) if Path(path).is_dir() else Path(path)


# ----------------------------------------------------------------------------------------------------------------------
# One image
# ----------------------------------------------------------------------------------------------------------------------


def compress_image(codec: Codec, image: np.ndarray, source: Path, output: Path, guide: Guide | None = None) -> dict[str, Any]:
    """Write OUT.gc, and OUT.png unless `output` is the .gc file itself; return what was measured, by name."""
    labels = (guide or Guide()).read(codec.config, image, source)
    start = time.perf_counter()
    try:
        data = codec.encode(image, labels)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    encoded = time.perf_counter()
    reconstruction = codec.decode(data)
    seconds = {"encode_seconds": encoded - start, "decode_seconds": time.perf_counter() - encoded}
    result = {"image": source.name, **measure(image, reconstruction, data), **seconds}
    if labels is not None:
        result |= measure_parts(image, reconstruction, labels, codec.sections(data))
    with atomic(output.with_suffix(".gc")) as path:  # the file appears after the picture, or neither does
        path.write_bytes(data)
        if output.suffix.lower() != ".gc":
            panels = {source.name: image, **label_panels(image, labels, codec.config, result)}
            similarity = "" if result["ms_ssim"] is None else f", MS-SSIM {result['ms_ssim']:.3f}"
            panels[f"{len(data):,} bytes, {result['bpp']:.4f} bpp, PSNR {result['psnr']:.2f} dB{similarity}"] = reconstruction
            save_picture(Utils.side_by_side(list(panels.values()), list(panels)), output)
    return result


def measure(image: np.ndarray, reconstruction: np.ndarray, data: bytes) -> dict[str, Any]:
    height, width = image.shape[:2]
    return {
        "width": width,
        "height": height,
        "bytes": len(data),
        "bpp": 8 * len(data) / (width * height),
        "psnr": psnr(image, reconstruction),
        "ms_ssim": ms_ssim(image, reconstruction),
    }


def measure_parts(
    image: np.ndarray, reconstruction: np.ndarray, labels: LabelMap, sections: Mapping[str, bytes]
) -> dict[str, Any]:
    """Return the bytes of each part of the file, and how well what is preserved came out."""
    result: dict[str, Any] = {f"{name}_bytes": len(part) for name, part in sections.items()}
    if labels.preserved is not None:
        kept = labels.preserved
        result["preserved_share"] = float(kept.mean())
        result["preserved_psnr"] = psnr(image[kept], reconstruction[kept]) if kept.any() else None
    return result


def label_panels(
    image: np.ndarray, labels: LabelMap | None, config: config_train, result: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the pictures of the label map and of what is preserved, by their captions."""
    panels: dict[str, np.ndarray] = {}
    if labels is not None:
        colours = Classes.parse(config.classes, config.n_classes).colours
        panels[f"label map, {result['code_bytes']:,} bytes"] = colours[labels.classes]
        if labels.preserved is not None:
            caption = f"preserved: {labels.preserved.mean():.0%} of the picture, {result['symbols_bytes']:,} bytes"
            panels[caption] = np.where(labels.preserved[..., None], image, 128).astype(np.uint8)
    return panels


def report(result: Mapping[str, Any], codec: Codec) -> str:
    """Return what compress_image measured, a line each."""
    C, L = codec.config.channel_bottleneck, codec.config.L
    K = codec.knobs.channels or C
    similarity = "n/a (under 161 px a side)" if result["ms_ssim"] is None else f"{result['ms_ssim']:.4f}"
    bound = " of the symbols" if "code_bytes" in result else ""
    lines = []
    for name, title in {"code": "label map:      ", "mask": "heat map:       ", "symbols": "symbols:        "}.items():
        if "code_bytes" in result and (part := result.get(f"{name}_bytes")) is not None:
            lines.append(f"{title} {part} bytes, {part / result['bytes']:.0%} of the file")
    if "preserved_share" in result:
        quality = "" if result["preserved_psnr"] is None else f", PSNR {result['preserved_psnr']:.2f} dB"
        lines.append(f"preserved:       {result['preserved_share']:.1%} of the picture{quality}")
    return "\n".join([
        f"image:           {result['image']}, {result['width']}x{result['height']}",
        f"file:            {result['bytes']} bytes",
        *lines,
        f"bits per pixel:  {result['bpp']:.4f} (bound{bound} {K * math.log2(L) / 256:.4f} for {K} of C={C} channels, L={L})",
        f"PSNR:            {result['psnr']:.2f} dB",
        f"MS-SSIM:         {similarity}",
        f"seconds:         encode {result['encode_seconds']:.2f}, decode {result['decode_seconds']:.2f}",
    ])  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------
# A folder
# ----------------------------------------------------------------------------------------------------------------------


def check_folder(source: Path, output: Path) -> None:
    """Raise UserError for an output that does not go with a folder of images."""
    if output.suffix.lower() in (".png", ".gc") or output.is_file():
        raise UserError(f"{output}: the input is a folder, so the output must be one too")
    if output.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{output}: write to a folder apart from {source}")


def compress_folder(codec: Codec, images: list[str], source: Path, output: Path, guide: Guide | None = None) -> int:
    """Compress each image with one model; write results.csv. An unreadable image is named and costs the others nothing."""
    results, failures = [], 0
    for k, (image, name) in enumerate(output_names(images, source, ".png").items(), start=1):
        try:
            pixels = read_image(image, codec.knobs.max_pixels)
            result = compress_image(codec, pixels, Path(image), output / name, guide)
        except UserError as error:
            print(f"skipped: {error}", file=sys.stderr)
            failures += 1
            continue
        print(f"{k} of {len(images)}: {output / name.with_suffix('.gc')}, {result['bytes']} bytes, {result['psnr']:.2f} dB")
        results.append(result | {"image": str(Path(image).relative_to(source))})
    if not results:
        raise UserError(f"{source}: none of its {failures} images could be compressed")
    with atomic(output / "results.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(results[0]))
        writer.writeheader()
        writer.writerows(results)
    for key, form in MEASURED.items():
        if key in results[0]:
            values = [result[key] for result in results if result[key] is not None]
            print(f"mean {key}: " + (f"{np.mean(values):{form}}" if values else "n/a") + f" over {len(values)} images")
    print(f"results: {output / 'results.csv'}")
    return 2 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
