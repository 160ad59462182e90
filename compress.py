#!/usr/bin/env python3
"""Compress a photo to a .gc file, decode that file, and show both side by side.

    python3 compress.py -i photo.png -o out.png            # out.gc, and the side-by-side picture out.png
    python3 compress.py -i photo.png -o out.gc             # the file alone
    python3 compress.py -r checkpoints/run -i photos/ -o results/  # every image of a folder, and results.csv
    python3 compress.py -r checkpoints/sc -i street.png -sm labels.png --preserve Car,Pedestrian -o out.png

A model with a label map in its files wants it with -sm. A selective one keeps what --preserve, --synthesize, --mask or --box
say, and paints the rest from the label map: of the rest, nothing is in the file.
Without -r the checkpoint that ships with the project compresses. Every figure is of the file on disk, header included.
"""

import argparse
import csv
import dataclasses
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codec.container import check_size, join, pack, unpack
from config import UserError, config_test
from data import Data
from decompress import add_model_arguments, decode, load_model, sections, split_knobs
from semantic import Classes, Selection, heat_map, map_of, read_labels, with_boundaries
from utils import Utils, pad


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
    if source.is_dir():
        images = Data.images_in(source)
        model = load_model(args, where)
        guide = dataclasses.replace(guide, root=source)
        guide.check(model)
        output = Path(args.output or Path(where.samples) / source.name)
        return compress_folder(model, images, source, output, knobs, guide)
    output = Path(args.output or Path(where.samples) / f"{source.stem}.png")
    if output.suffix.lower() != ".gc":
        output = Utils.picture_path(output)
    if source.resolve() in (output.resolve(), output.with_suffix(".gc").resolve()):
        raise UserError(f"{output}: is the input itself; write somewhere else")
    image = Data.read_image(source, knobs.max_pixels)
    model = load_model(args, where)
    guide.check(model)
    result = compress_image(model, image, source, output, knobs, guide)
    print(report(result, model, knobs))
    print(f"compressed file: {output.with_suffix('.gc')}")
    if output.suffix.lower() != ".gc":
        print(f"side by side:    {output}")
    return 0


def encode(
    model,
    image: np.ndarray,  #                     (H, W, 3) uint8
    channels: int = 0,  #                     send only the first so many channels of the feature map; 0: all
    labels: np.ndarray | None = None,  #      (H, W, 2 or more) class, boundary, of a model whose files have the label map
    preserved: np.ndarray | None = None,  #   (H, W) bool, the rest is synthesized; for a selective model; default: all
) -> bytes:
    """Image -> the bytes of a .gc file. `decompress.decode` is its inverse, but for the loss."""
    height, width = image.shape[:2]
    check_size(width, height)
    check_channels(model, channels)
    coders, parts, m = model.entropy_models, [], None
    if "code" in coders:
        parts.append(coders["code"].encode(model.encode_labels(labels)))
    if "mask" in coders:
        preserved = np.ones((height, width), bool) if preserved is None else preserved
        m = heat_map(pad(preserved[..., None])[..., 0])
        parts.append(coders["mask"].encode(m[..., None].astype(np.uint8)))
    symbols = model.compress(image, m)[:, :, : channels or None]
    parts.append(model.entropy_model.encode(symbols, m))
    return pack(width, height, symbols.shape[2], model.fingerprint, join(parts))


def check_channels(model, channels: int) -> None:
    if channels > model.config.channel_bottleneck:
        raise UserError(f"channels {channels}: the model has {model.config.channel_bottleneck}; lower --channels")


@dataclass(frozen=True)
class Guide:
    """What the command line says beside the image: its label map and instances, and what to preserve.

    semantic_map, instances: files; or, for the images of a folder `root`, folders with files of the same names below them.
    """

    semantic_map: str | None = None
    instances: str | None = None
    selection: Selection = dataclasses.field(default_factory=Selection)
    root: Path | None = None

    def check(self, model) -> None:
        """Once, before the first image: raise UserError for what the model lacks or cannot do; warn of what it ignores."""
        config = model.config
        wanted = {"-sm": config.code_channels > 0, "--instances": config.code_channels > 0 and config.use_instances}
        for option, given in {"-sm": self.semantic_map, "--instances": self.instances}.items():
            of = "a label map" if option == "-sm" else "an instance map"
            if wanted[option] and not given:
                raise UserError(f"this model compresses with {of}: name it with {option}")
            if given and not wanted[option]:
                print(f"warning: {option} is ignored: this model compresses without {of}", file=sys.stderr)
            if wanted[option] and self.root and not Path(given).is_dir():
                raise UserError(f"{given}: the input is a folder, so the maps must be in one too")
        if self.selection and not config.selective:
            raise UserError("--preserve, --synthesize, --mask, --box: this model was not trained for that (knob selective)")
        self.selection.check(Classes.parse(config.classes, config.n_classes))

    def read(self, model, image: np.ndarray, source: Path) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The labels (H, W, 3) and what is preserved (H, W) bool, for an image; None for what the model does not want."""
        config = model.config
        if not config.code_channels:
            return None, None
        classes = Classes.parse(config.classes, config.n_classes)
        instances = self._of(self.instances, source) if config.use_instances else None
        labels = with_boundaries(read_labels(self._of(self.semantic_map, source), instances, classes, image.shape[:2]))
        if not config.selective:
            return labels, None
        preserved = self.selection.preserved(labels[..., 0], classes)
        if not preserved.any():
            print(f"warning: {source.name}: nothing is preserved: all of it is synthesized", file=sys.stderr)
        elif self.selection and preserved.all():
            print(f"warning: {source.name}: all of it is preserved: nothing is synthesized", file=sys.stderr)
        return labels, preserved

    def _of(self, path: str, source: Path) -> Path:
        """The file itself, or that of a folder which has the image's name."""
        return map_of(source, self.root or source.parent, path) if Path(path).is_dir() else Path(path)


def compress_image(
    model, image: np.ndarray, source: Path, output: Path, knobs: config_test, guide: Guide | None = None
) -> dict:
    """Write OUT.gc, and OUT.png unless `output` is the .gc file itself; return what was measured, by name."""
    height, width = image.shape[:2]
    labels, preserved = (guide or Guide()).read(model, image, source)
    start = time.perf_counter()
    try:
        data = encode(model, image, knobs.channels, labels, preserved)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    encoded = time.perf_counter()
    reconstruction = decode(model, data, knobs)
    decoded = time.perf_counter()
    size = len(data)
    result = {
        "image": source.name,
        "width": width,
        "height": height,
        "bytes": size,
        "bpp": 8 * size / (width * height),
        "psnr": Utils.psnr(image, reconstruction),
        "ms_ssim": Utils.ms_ssim(image, reconstruction),
        "encode_seconds": encoded - start,
        "decode_seconds": decoded - encoded,
    }
    panels, captions = [image], [source.name]
    if labels is not None:
        result |= {f"{of}_bytes": len(part) for of, part in sections(model, unpack(data)).items()}
        classes = Classes.parse(model.config.classes, model.config.n_classes)
        panels.append(classes.colours[labels[..., 0]])
        captions.append(f"label map, {result['code_bytes']:,} bytes")
    if preserved is not None:
        result |= {"preserved_share": float(preserved.mean())}
        result |= {"preserved_psnr": Utils.psnr(image[preserved], reconstruction[preserved]) if preserved.any() else None}
        panels.append(np.where(preserved[..., None], image, 128).astype(np.uint8))
        captions.append(f"preserved: {preserved.mean():.0%} of the picture, {result['symbols_bytes']:,} bytes")
    with Utils.atomic(output.with_suffix(".gc")) as path:  # the file appears after the picture, or neither does
        path.write_bytes(data)
        if output.suffix.lower() != ".gc":
            similarity = "" if result["ms_ssim"] is None else f", MS-SSIM {result['ms_ssim']:.3f}"
            caption = f"{size:,} bytes, {result['bpp']:.4f} bpp, PSNR {result['psnr']:.2f} dB{similarity}"
            Utils.save_picture(Utils.side_by_side([*panels, reconstruction], [*captions, caption]), output)
    return result


def report(result: dict, model, knobs: config_test) -> str:
    """What compress_image measured, a line each."""
    C, L = model.config.channel_bottleneck, model.config.L
    K = knobs.channels or C
    similarity = "n/a (under 161 px a side)" if result["ms_ssim"] is None else f"{result['ms_ssim']:.4f}"
    bound = " of the symbols" if "code_bytes" in result else ""
    lines = []
    for of, name in {"code": "label map:      ", "mask": "heat map:       ", "symbols": "symbols:        "}.items():
        if "code_bytes" in result and (part := result.get(f"{of}_bytes")) is not None:
            lines.append(f"{name} {part} bytes, {part / result['bytes']:.0%} of the file")
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


def compress_folder(
    model, images: list[str], source: Path, output: Path, knobs: config_test, guide: Guide | None = None
) -> int:
    """Compress each image with one model; write results.csv. An unreadable image is named and costs the others nothing."""
    from tqdm import tqdm

    if output.suffix.lower() in (".png", ".gc") or output.is_file():
        raise UserError(f"{output}: the input is a folder, so the output must be one too")
    if output.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{output}: write to a folder apart from {source}")
    check_channels(model, knobs.channels)
    results, failures = [], 0
    for image, name in tqdm(Utils.output_names(images, source, ".png").items(), unit="image"):
        try:
            pixels = Data.read_image(image, knobs.max_pixels)
            result = compress_image(model, pixels, Path(image), output / name, knobs, guide)
        except UserError as error:
            tqdm.write(f"skipped: {error}", file=sys.stderr)
            failures += 1
            continue
        results.append(result | {"image": str(Path(image).relative_to(source))})
    if not results:
        raise UserError(f"{source}: none of its {failures} images could be compressed")
    with Utils.atomic(output / "results.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, results[0])
        writer.writeheader()
        writer.writerows(results)
    measured = {"bytes": ".0f", "code_bytes": ".0f", "mask_bytes": ".0f", "symbols_bytes": ".0f", "bpp": ".4f",
                "psnr": ".2f", "preserved_psnr": ".2f", "preserved_share": ".3f", "ms_ssim": ".4f"}  # fmt: skip
    for name, form in measured.items():
        if name not in results[0]:
            continue
        values = [result[name] for result in results if result[name] is not None]
        print(f"mean {name}: " + (f"{np.mean(values):{form}}" if values else "n/a") + f" over {len(values)} images")
    print(f"results: {output / 'results.csv'}")
    return 2 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
