#!/usr/bin/env python3
"""Decompress a .gc file to a picture. It needs the file and the checkpoint that it was made with, nothing else.

python3 decompress.py -i photo.gc -o photo.png                  # by the checkpoint that ships with the project
python3 decompress.py -r checkpoints/run -i photo.gc -o photo.png
python3 decompress.py -i results/ -o pictures/                  # every .gc file of a folder, and results.csv

What is there already is replaced only with --overwrite. A folder run that was interrupted goes on when it is started again.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from codec import Codec, save_picture
from codec.files import ExistsError, files_in, open_binary, refuse_existing, warn
from codec.folder_run import FolderRun, Input, digest, gather, outputs_of, progress, settings_of
from codec.options import add_model_arguments, chosen_checkpoint, split_knobs
from codec.pictures import LOSSLESS_SUFFIXES, picture_path
from config import UserError
from utils import Utils

SUFFIX = ".gc"
MAX_FILE_BYTES = 2**28


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Utils.parser(__doc__)
    add_model_arguments(parser)
    parser.add_argument("-i", "--input", required=True, nargs="+", action="extend", metavar="FILE.gc",
                        help="compressed files, or folders of them")  # fmt: skip
    parser.add_argument("-o", "--output", required=True, metavar="OUT.png", help="the picture to write, or a folder for more "
                        "than one")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that are there already")
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    where, knobs = split_knobs(args.knob)
    checkpoint = chosen_checkpoint(args, where)
    if len(args.input) > 1 or Path(args.input[0]).is_dir():
        inputs = gather(args.input, compressed_files_in)
        output = Path(args.output)
        if output.suffix.lower() in LOSSLESS_SUFFIXES or output.is_file():
            raise UserError(f"{output}: there are several files, so the output must be a folder")
        return decompress_folder(Codec.load(checkpoint, knobs), inputs, output, args.overwrite)
    source, output = Path(args.input[0]), picture_path(args.output, LOSSLESS_SUFFIXES)
    refuse_existing(output, overwrite=args.overwrite)
    read_file(source)  # what is wrong with it shows before the model is loaded
    result = decompress_file(Codec.load(checkpoint, knobs), source, output, args.overwrite)
    print("{output}: {width}x{height}, decoded from {bytes} bytes in {seconds:.2f} s".format(output=output, **result))
    return 0


def decompress_file(codec: Codec, source: Path, output: Path, overwrite: bool) -> dict[str, Any]:
    """Write the picture of a .gc file; return what was measured, by name."""
    data = read_file(source)
    start = time.perf_counter()
    try:
        image = codec.decode(data)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    seconds = time.perf_counter() - start
    save_picture(image, output, overwrite)
    return {"width": image.shape[1], "height": image.shape[0], "bytes": len(data), "seconds": seconds}


def decompress_folder(codec: Codec, inputs: list[Input], output: Path, overwrite: bool) -> int:
    """Decompress each file with one model, into a folder with results.csv. A bad file is named and costs the others nothing."""
    pictures = {source: output / name for source, name in outputs_of(inputs, ".png").items()}
    run = FolderRun(output, "file", settings_of(codec), overwrite)
    run.check({str(source.name): [picture] for source, picture in pictures.items()})
    done, kept, failures = 0, 0, 0
    for source, picture in progress(pictures.items(), "file"):
        try:
            sha256 = digest(source.path)
            if run.finished(str(source.name), sha256, [picture]):
                kept += 1
            else:
                run.add(str(source.name), sha256, decompress_file(codec, source.path, picture, overwrite))
            done += 1
        except ExistsError:
            raise
        except UserError as error:
            warn(f"skipped: {error}")
            failures += 1
    if not done:
        raise UserError(f"{inputs[0].root}: none of its {failures} files could be decompressed")
    print(f"{output}: {done} pictures" + (f", {kept} of which were finished already" if kept else ""))
    return 2 if failures else 0


def compressed_files_in(folder: str) -> list[str]:
    found, _ = files_in(folder, (SUFFIX,))
    if not found:
        raise UserError(f"{folder}: no {SUFFIX} files in this folder")
    return found


def read_file(path: Path) -> bytes:
    """Read a .gc file. One that is too large to be a .gc file is refused before it is read."""
    with open_binary(path) as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UserError(f"{path}: not a .gc file (over {MAX_FILE_BYTES >> 20} MiB)")
    return data


if __name__ == "__main__":
    sys.exit(main())
