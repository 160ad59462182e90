#!/usr/bin/env python3
"""Compress a photo to a .gc file, decode that file, and show both side by side.

    python3 compress.py -i photo.png -o out                # out.gc, and the side-by-side picture out.png
    python3 compress.py -i photo.png -o out.gc             # the file alone
    python3 compress.py -r checkpoints/run -i photos/ -o results/  # every image of a folder, and results.csv
    python3 compress.py -i a.jpg b.tif -o results/         # the same for several images
    python3 compress.py -i photo.png -o out/ --packets 232  # out/photo-001.gcp and so on, for links that lose some
    python3 compress.py -i photos/ -o out/ --packets 232   # the same for every image of a folder, and results.csv
    python3 compress.py -i - -o - < a.jpg > a.gc           # standard input and output
    python3 compress.py -i photo.png -o out.gc --max-bytes 340     # the best picture that fits
    python3 compress.py -r checkpoints/sc -i street.png -sm labels.png --preserve Car,Pedestrian -o out.png

A model whose files have a label map takes it by -sm. A selective model keeps what --preserve, --synthesize, --mask or --box
say, and paints the rest from the label map: the file holds nothing else of it. Without -r, the checkpoint that ships with the
project is used. Every figure is that of the file on disk, header included.

With --max-bytes or --max-bpp, the file is as large as the budget allows: of each model that -r names, or of all that ship, the
image is coded at the largest size that fits, and the file whose picture has the highest MS-SSIM at the image's own size is kept
(PSNR for an image under 161 px a side).

What is there already is replaced only with --overwrite. A folder run that was interrupted goes on when it is started again: it
keeps what is finished, by the same model, with the same options and from the same image.
"""

import argparse
import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cGAN.guide import Guide
from commands.options import (
    add_model_arguments,
    chosen_checkpoint,
    chosen_checkpoints,
    settings_of,
    split_knobs,
    warn_of_large_files,
)
from commands.runtime import load_codec
from config import UserError, config_test, directories
from evaluation.metrics import ms_ssim, psnr, quality
from gcodec import Codec, read_image
from gcodec.budget import Fit, fit
from gcodec.container import unpack
from gcodec.files import atomic_together, refuse_existing
from gcodec.folder_run import FolderRun, Input, check_output_folder, digest, gather, is_folder, outputs_of, progress
from gcodec.knobs import ModelKnobs
from gcodec.labels import Classes, LabelMap
from gcodec.pictures import PICTURE_SUFFIXES, images_in, picture_path, read_standard_image, write_picture
from gcodec.selection import Selection
from gcodec.streams import STANDARD_INPUT, STREAM, check_streams, output_path
from packets_command import check_packet_options, folder_to_packets, image_to_packets
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
    parser = Utils.parser(__doc__)
    add_model_arguments(parser, several=True)
    parser.add_argument("-i", "--input", required=True, nargs="+", action="extend", metavar="IMAGE",
                        help="images, or folders of images; - is standard input")  # fmt: skip
    parser.add_argument("-o", "--output", metavar="OUT", help="OUT.png or OUT.gc, or a folder for more than one image; "
                        "- is standard output, as .gc (default: below the knob `samples`)")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that are there already")
    parser.add_argument("--channels", type=int, metavar="K", help="send the first K channels of the feature map only: a "
                        "smaller file, a worse picture (default: the knob `channels`)")  # fmt: skip
    budget = parser.add_argument_group("a budget, for models without label maps").add_mutually_exclusive_group()
    budget.add_argument("--max-bytes", type=int, metavar="N", help="the best picture in a file of at most N bytes; -r may name "
                        "several models to choose from (default: all photo models that ship)")  # fmt: skip
    budget.add_argument("--max-bpp", type=float, metavar="B", help="the same in bits per pixel of the image")
    budget.add_argument("--packets", type=int, metavar="N", help="write OUT-001.gcp and so on, packets of at most N bytes; the "
                        "picture can be decoded without some of them")  # fmt: skip
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
    check_streams(args.input, args.output)
    in_packets = args.packets is not None
    if in_packets:
        check_packet_options(args, knobs)
    to_folder = is_folder(args.output) and args.input != [STREAM]
    load = functools.partial(load_coder, args, where, knobs, guide)
    if len(args.input) > 1 or Path(args.input[0]).is_dir() or (to_folder and not in_packets):
        inputs = gather(args.input, images_in)
        output = Path(args.output or Path(where.samples) / inputs[0].root.name)
        check_output_folder([Path(path) for path in args.input if Path(path).is_dir()], output)
        if in_packets:
            return folder_to_packets(args, where, knobs, inputs, output)
        return compress_folder(load(several=True), inputs, output, guide, args.overwrite)
    if in_packets:
        return image_to_packets(args, where, knobs)
    with output_path(args.output or Path(where.samples) / f"{Path(args.input[0]).stem}.png", ".gc") as output:
        compress_one(args, output, load, knobs, guide)
    return 0


# ----------------------------------------------------------------------------------------------------------------------
# The models and the budget
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coder:
    """What makes a file of an image: one model; or, with a budget, the best of several models."""

    codecs: list[Codec]
    knobs: config_test
    max_bytes: int | None = None
    max_bpp: float | None = None

    @property
    def has_budget(self) -> bool:
        return self.max_bytes is not None or self.max_bpp is not None

    @property
    def config(self) -> ModelKnobs:
        """The knobs of the model, which say what its files hold. With a budget, the files of all models hold symbols only."""
        return self.codecs[0].config

    def encode(self, image: np.ndarray, labels: LabelMap | None) -> Fit:
        """Return the file of an image, and its picture. Raises UserError if the budget cannot be met."""
        if not self.has_budget:
            data = self.codecs[0].encode(image, labels)
            return Fit(self.codecs[0], data, self.codecs[0].decode(data))
        height, width = image.shape[:2]
        max_bytes = self.max_bytes or int((self.max_bpp or 0) * width * height / 8)
        return fit(image, self.codecs, max_bytes, quality)

    def settings(self, *options: Any) -> str:
        """Return a fingerprint of what decides the files beside the images, for results.csv."""
        first, *others = (codec.checkpoint.fingerprint.hex() for codec in self.codecs)
        budget = [others, self.max_bytes, self.max_bpp] if self.has_budget else []
        return settings_of(self.knobs, first, *options, *budget)


def load_coder(args: argparse.Namespace, where: directories, knobs: config_test, guide: Guide, several: bool = False) -> Coder:
    """Load the models that the command line wants. Raises UserError for options that do not go together."""
    coder = Coder([], knobs, args.max_bytes, args.max_bpp)
    for option, value in {"--max-bytes": args.max_bytes, "--max-bpp": args.max_bpp}.items():
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{option} {value}: must be more than 0")
        if value is not None and (knobs.channels or guide != Guide()):
            raise UserError(f"{option}: does not go with --channels or with label maps")
    if not coder.has_budget and len(args.restore or ()) > 1:
        raise UserError("-r: names several models, which takes --max-bytes or --max-bpp; name one")
    paths = chosen_checkpoints(args, where) if coder.has_budget else [chosen_checkpoint(args, where)]
    coder.codecs.extend(load_codec(path, knobs) for path in paths)
    for codec in coder.codecs:
        if coder.has_budget and codec.config.coded.keys() != {"symbols"}:
            raise UserError(f"{codec.checkpoint.folder}: a budget takes models whose files have no label map")
        guide.check(codec.config, several)
    return coder


# ----------------------------------------------------------------------------------------------------------------------
# One image
# ----------------------------------------------------------------------------------------------------------------------


def compress_one(args: argparse.Namespace, output: Path, load: Callable[[], Coder], knobs: config_test, guide: Guide) -> None:
    """Compress the one image that the command line names, and print what was measured."""
    stream = args.input[0] == STREAM
    source = STANDARD_INPUT if stream else Path(args.input[0])
    if output.suffix.lower() != ".gc":
        output = picture_path(output, (*PICTURE_SUFFIXES, ".gc"))
    if source.resolve() in [path.resolve() for path in outputs(output)]:
        raise UserError(f"{output}: is the input itself; write somewhere else")
    refuse_existing(*outputs(output), overwrite=args.overwrite)
    image = read_standard_image(knobs.max_pixels) if stream else read_image(source, knobs.max_pixels)
    coder = load()
    result = compress_image(coder, image, Input(source, source.parent), output, guide, args.overwrite)
    warn_of_large_files(*coder.codecs)
    print(report(result, coder))
    print(f"compressed file: {'standard output' if args.output == STREAM else output.with_suffix('.gc')}")
    if output.suffix.lower() != ".gc":
        print(f"side by side:    {output}")


def outputs(output: Path) -> list[Path]:
    """Return what is written for an output OUT.png or OUT.gc."""
    file = output.with_suffix(".gc")
    return [file] if output.suffix.lower() == ".gc" else [file, output]


def compress_image(
    coder: Coder, image: np.ndarray, source: Input, output: Path, guide: Guide, overwrite: bool = False
) -> dict[str, Any]:
    """Write OUT.gc, and OUT.png unless `output` is the .gc file itself; return what was measured, by name."""
    labels = guide.read(coder.config, image, source)
    start = time.perf_counter()
    try:
        codec, data, reconstruction = coder.encode(image, labels)
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from None
    name = source.path.name
    result = {"image": name, **measure(image, reconstruction, data), "seconds": time.perf_counter() - start}
    if coder.has_budget:
        coded_height, coded_width = unpack(data).header.coded_size
        result |= {"model": codec.checkpoint.folder.name, "coded_width": coded_width, "coded_height": coded_height}
    if labels is not None:
        result |= measure_parts(image, reconstruction, labels, codec.sections(data))
    with atomic_together(outputs(output), overwrite) as (file, *pictures):
        file.write_bytes(data)
        for picture in pictures:
            panels = {name: image, **label_panels(image, labels, codec.config, result)}
            similarity = "" if result["ms_ssim"] is None else f", MS-SSIM {result['ms_ssim']:.3f}"
            panels[f"{len(data):,} bytes, {result['bpp']:.4f} bpp, PSNR {result['psnr']:.2f} dB{similarity}"] = reconstruction
            write_picture(Utils.side_by_side(list(panels.values()), list(panels)), picture, output)
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
    image: np.ndarray, labels: LabelMap | None, config: ModelKnobs, result: Mapping[str, Any]
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


def report(result: Mapping[str, Any], coder: Coder) -> str:
    """Return what compress_image measured, a line each."""
    C, L = coder.config.channel_bottleneck, coder.config.L
    K = coder.knobs.channels or C
    similarity = "n/a (under 161 px a side)" if result["ms_ssim"] is None else f"{result['ms_ssim']:.4f}"
    bound = " of the symbols" if "code_bytes" in result else ""
    lines = []
    for name, title in {"code": "label map:      ", "mask": "heat map:       ", "symbols": "symbols:        "}.items():
        if "code_bytes" in result and (part := result.get(f"{name}_bytes")) is not None:
            lines.append(f"{title} {part} bytes, {part / result['bytes']:.0%} of the file")
    if "preserved_share" in result:
        quality = "" if result["preserved_psnr"] is None else f", PSNR {result['preserved_psnr']:.2f} dB"
        lines.append(f"preserved:       {result['preserved_share']:.1%} of the picture{quality}")
    bound = f" (bound{bound} {K * math.log2(L) / 256:.4f} for {K} of C={C} channels, L={L})"
    if coder.has_budget:
        lines.append(f"coded:           {result['coded_width']}x{result['coded_height']} by {result['model']}")
        bound = ""
    return "\n".join([
        f"image:           {result['image']}, {result['width']}x{result['height']}",
        f"file:            {result['bytes']} bytes",
        *lines,
        f"bits per pixel:  {result['bpp']:.4f}{bound}",
        f"PSNR:            {result['psnr']:.2f} dB",
        f"MS-SSIM:         {similarity}",
        f"seconds:         {result['seconds']:.2f}, decoding included",
    ])  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------
# A folder
# ----------------------------------------------------------------------------------------------------------------------


def compress_folder(coder: Coder, inputs: list[Input], output: Path, guide: Guide, overwrite: bool = False) -> int:
    """Compress each image into a folder with results.csv. A bad image is named and costs the others nothing."""
    names = {source: output / name for source, name in outputs_of(inputs, ".png").items()}
    taken = {source.path.resolve() for source in inputs}
    if clash := [path for name in names.values() for path in outputs(name) if path.resolve() in taken]:
        raise UserError(f"{clash[0]}: is an input itself; write to another folder")
    mask = digest(guide.selection.mask) if guide.selection.mask else ""
    settings = coder.settings(dataclasses.asdict(guide.selection), mask)
    run = FolderRun(output, "image", settings, overwrite)
    run.check({str(source.name): outputs(name) for source, name in names.items()})
    results, kept = [], 0
    for source, name in progress(names.items(), "image"):
        with run.skipping():
            sha256 = digest(source.path, *guide.files(coder.config, source))
            row = run.finished(str(source.name), sha256, outputs(name))
            if row and row["bytes"] == outputs(name)[0].stat().st_size:
                kept += 1
            else:
                image = read_image(source.path, coder.knobs.max_pixels)
                row = compress_image(coder, image, source, name, guide, overwrite) | {"image": str(source.name)}
                run.add(str(source.name), sha256, row)
            results.append(row)
    if not results:
        raise UserError(f"{inputs[0].root}: none of its {run.failures} images could be compressed")
    warn_of_large_files(*coder.codecs)
    if kept:
        print(f"kept: {kept} images that were finished already")
    print_means(results)
    print(f"results: {run.path}")
    return 2 if run.failures else 0


def print_means(results: list[dict[str, Any]]) -> None:
    for name, form in MEASURED.items():
        if name in results[0]:
            values = [result[name] for result in results if result[name] is not None]
            print(f"mean {name}: " + (f"{np.mean(values):{form}}" if values else "n/a") + f" over {len(values)} images")


if __name__ == "__main__":
    sys.exit(main())
