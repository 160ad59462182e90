#!/usr/bin/env python3
"""Compress a photo to a .gc file, decode that file, and show both side by side.

    python3 compress.py -i photo.png -o out                # out.gc, and the side-by-side picture out.png
    python3 compress.py -i photo.png -o out.gc             # the file alone
    python3 compress.py -r checkpoints/run -i photos/ -o results/  # every image of a folder, and results.csv
    python3 compress.py -i a.jpg b.tif -o results/         # the same for several images
    python3 compress.py -i table.h5 -o results/            # the same for the images of a path table, with its label maps
    python3 compress.py photos/ results/ --files-only      # .gc files alone, without decoding them: several times as fast
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

IN and OUT by position are the same as -i IN -o OUT.
"""

import argparse
import dataclasses
import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from commands.coder import Budget, Coder, load_coder
from commands.folder_run import (
    FolderRun,
    Input,
    Job,
    Row,
    check_output_folder,
    gather,
    is_folder,
    is_table,
    outputs_of,
    write_files,
)
from commands.guide import Guide
from commands.images import compress_file, compress_image
from commands.options import (
    ModelChoice,
    Say,
    add_model_arguments,
    add_path_arguments,
    add_worker_arguments,
    parse_with_paths,
    split_knobs,
    warn_of_large_files,
)
from commands.packet_runs import check_packet_options, folder_to_packets, image_to_packets
from commands.workers import Workers
from config import UserError
from evaluation.metrics import similarity
from gcodec import read_image
from gcodec.files import refuse_existing
from gcodec.pictures import PICTURE_SUFFIXES, images_in, picture_path, read_standard_image
from gcodec.selection import Selection
from gcodec.streams import STANDARD_INPUT, STREAM, check_streams, output_path
from utils import Utils

SUFFIX = ".gc"
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
    add_path_arguments(
        parser,
        "images, folders of images, or path tables (.h5, .csv), which may name label maps too; - is standard input",
        "OUT.png or OUT.gc, or a folder for several images; - is standard output, as .gc (default: below the knob `samples`)",
        ("IMAGE", "OUT"),
    )
    parser.add_argument("--files-only", action="store_true", help="write .gc files or packets without decoding them: no "
                        "pictures, no PSNR, in a fraction of the time")  # fmt: skip
    add_worker_arguments(parser)
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
    return parse_with_paths(parser, argv, needs_output=False)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.channels is not None and args.channels < 1:
        raise UserError(f"--channels {args.channels}: at least 1")
    where, knobs = split_knobs(args.knob + ([f"channels={args.channels}"] if args.channels else []))
    choice = ModelChoice(tuple(args.restore), args.restore_last, where)
    guide = Guide(args.semantic_map, args.instances, Selection(args.preserve, args.synthesize, args.mask, args.box))
    say, manner = Say(args.quiet, args.verbose), {"files_only": args.files_only, "overwrite": args.overwrite}
    workers = Workers(args.workers, args.scheduler)
    load = functools.partial(load_coder, choice, knobs, guide, Budget(args.max_bytes, args.max_bpp))
    check_streams(args.input, args.output)
    if args.packets is not None:
        check_packet_options(args.packets, choice, args.output, knobs.channels, guide)
    first, samples = Path(args.input[0]), Path(where.samples)
    to_folder = is_folder(args.output) and args.input != [STREAM] and args.packets is None

    if len(args.input) > 1 or first.is_dir() or is_table(first) or to_folder:
        if args.output == STREAM:
            raise UserError("-o -: standard output takes one file, and a table has several images; name a folder")
        inputs = gather(args.input, images_in, tables=True)
        output = Path(args.output or samples / (first.stem if is_table(first) else inputs[0].root.name))
        check_output_folder([Path(path) for path in args.input if Path(path).is_dir()], output)
        if args.packets is not None:
            return folder_to_packets(load(), inputs, output, args.packets, say, workers=workers, **manner)
        return compress_folder(load(), inputs, output, guide, say, workers=workers, **manner)

    source = STANDARD_INPUT if args.input[0] == STREAM else first
    standard = functools.partial(read_standard_image, knobs.max_pixels)
    read = standard if source == STANDARD_INPUT else functools.partial(read_image, source, knobs.max_pixels)
    suffix = (SUFFIX if args.packets is None else ".gcp") if args.files_only else ".png"
    named = args.output or str(samples / f"{source.stem}{suffix}")
    if args.packets is not None:
        image_to_packets(load, read, source, named, args.packets, say, **manner)
        return 0
    with output_path(named, SUFFIX) as output:
        output = picture_path(output, (*PICTURE_SUFFIXES, SUFFIX))
        compress_one(load, read, source, output, guide, say, **manner)
        say(f"compressed file: {'standard output' if named == STREAM else output.with_suffix(SUFFIX)}")
        if output.suffix.lower() != SUFFIX:
            say(f"side by side:    {output}")
    return 0


# ----------------------------------------------------------------------------------------------------------------------
# One image
# ----------------------------------------------------------------------------------------------------------------------


def compress_one(
    load: Callable[[], Coder],
    read: Callable[[], np.ndarray],
    source: Path,
    output: Path,  #                 OUT.png or OUT.gc
    guide: Guide,
    say: Say,
    files_only: bool,
    overwrite: bool,
) -> None:
    """Compress one image, and say what was measured. Mistakes in paths and images show before a model is loaded."""
    if files_only and output.suffix.lower() != SUFFIX:
        raise UserError(f"{output}: --files-only writes no picture; name OUT{SUFFIX}")
    if source.resolve() in [path.resolve() for path in outputs(output)]:
        raise UserError(f"{output}: is the input itself; write somewhere else")
    refuse_existing(*outputs(output), overwrite=overwrite)
    image = read()
    coder = load()
    guide.check(coder.config, [])
    for codec in coder.codecs:
        say.detail(f"model:           {codec.checkpoint.folder}, run by {type(codec.runtime).__name__}")
    item, picture = Input(source, source.parent), output if output.suffix.lower() != SUFFIX else None
    result, made = compress_image(coder, image, item, guide, guide.files(coder.config, item), not files_only, picture)
    write_files(outputs(output), made, overwrite)
    warn_of_large_files(*coder.codecs)
    say(report(result, coder))


def outputs(output: Path) -> list[Path]:
    """Return what is written for an output OUT.png or OUT.gc."""
    file = output.with_suffix(SUFFIX)
    return [file] if output.suffix.lower() == SUFFIX else [file, output]


def report(result: Row, coder: Coder) -> str:
    """Return what compress_image measured, a line each."""
    C, L = coder.config.channel_bottleneck, coder.config.L
    K = coder.knobs.channels or C
    lines = []
    for name, title in {"code": "label map:      ", "mask": "heat map:       ", "symbols": "symbols:        "}.items():
        if "code_bytes" in result and (part := result.get(f"{name}_bytes")) is not None:
            lines.append(f"{title} {part} bytes, {part / result['bytes']:.0%} of the file")
    if "preserved_share" in result:
        decibels = result.get("preserved_psnr")
        quality = "" if decibels is None else f", PSNR {decibels:.2f} dB"
        lines.append(f"preserved:       {result['preserved_share']:.1%} of the picture{quality}")
    of_what = " of the symbols" if "code_bytes" in result else ""
    bound = f" (bound{of_what} {K * math.log2(L) / 256:.4f} for {K} of C={C} channels, L={L})"
    if coder.budget:
        lines.append(f"coded:           {result['coded_width']}x{result['coded_height']} by {result['model']}")
        bound = ""
    lines.append(f"bits per pixel:  {result['bpp']:.4f}{bound}")
    if "psnr" in result:
        lines += [f"PSNR:            {result['psnr']:.2f} dB", f"MS-SSIM:         {similarity(result)}"]
    lines.append(f"seconds:         {result['seconds']:.2f}" + (", decoding included" if "psnr" in result else ""))
    image = f"image:           {result['image']}, {result['width']}x{result['height']}"
    return "\n".join([image, f"file:            {result['bytes']} bytes", *lines])


# ----------------------------------------------------------------------------------------------------------------------
# A folder
# ----------------------------------------------------------------------------------------------------------------------


def compress_folder(
    coder: Coder,
    inputs: list[Input],
    output: Path,
    guide: Guide,
    say: Say = Say(),  # noqa: B008  (it is frozen)
    files_only: bool = False,
    overwrite: bool = False,
    workers: Workers = Workers(),  # noqa: B008
) -> int:
    """Compress each image into a folder with results.csv. A bad image is named and costs the others nothing."""
    guide.check(coder.config, inputs, several=True)
    names = {source: output / name for source, name in outputs_of(inputs, SUFFIX if files_only else ".png").items()}
    taken = {source.path.resolve() for source in inputs}
    if clash := [path for name in names.values() for path in outputs(name) if path.resolve() in taken]:
        raise UserError(f"{clash[0]}: is an input itself; write to another folder")

    def job(source: Input, name: Path) -> Job:
        made = outputs(name)
        files = lambda: [source.path, *guide.files(coder.config, source)]  # noqa: E731
        return Job(source, name, files, lambda: made, lambda row: row["bytes"] == made[0].stat().st_size)

    run = FolderRun(output, "image", coder.settings(dataclasses.asdict(guide.selection)), overwrite)
    make = functools.partial(compress_file, coder, guide, files_only)
    with workers.within_memory([source.path for source in inputs], coder.codecs).started() as spread:
        rows, kept = run.work([job(*pair) for pair in names.items()], make, "compressed", say, spread)
    warn_of_large_files(*coder.codecs)
    if kept:
        say(f"kept: {kept} images that were finished already")
    for name, form in MEASURED.items():
        if any(name in row for row in rows):
            values = [row[name] for row in rows if row.get(name) is not None]
            say(f"mean {name}: " + (f"{np.mean(values):{form}}" if values else "n/a") + f" over {len(values)} images")
    say(f"results: {run.path}")
    return 2 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
