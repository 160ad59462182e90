#!/usr/bin/env python3
"""Decompress a .gc file to a picture. It needs the file and the checkpoint that it was made with, nothing else.

python3 decompress.py -i photo.gc -o photo.png                  # by the checkpoint that ships with the project
python3 decompress.py -r checkpoints/run -i photo.gc -o photo.png
"""

import argparse
import sys
import time
from pathlib import Path

from codec import Codec, save_picture
from codec.options import add_model_arguments, chosen_checkpoint, split_knobs
from codec.pictures import LOSSLESS_SUFFIXES, picture_path
from config import UserError
from utils import Utils

MAX_FILE_BYTES = 2**28


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument("-i", "--input", required=True, metavar="FILE.gc", help="the compressed file")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.png", help="the picture to write")
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    where, knobs = split_knobs(args.knob)
    output = picture_path(args.output, LOSSLESS_SUFFIXES)
    data = read_file(Path(args.input))
    codec = Codec.load(chosen_checkpoint(args, where), knobs)
    start = time.perf_counter()
    try:
        image = codec.decode(data)
    except UserError as error:
        raise UserError(f"{args.input}: {error}") from None
    seconds = time.perf_counter() - start
    save_picture(image, output)
    height, width = image.shape[:2]
    print(f"{output}: {width}x{height}, decoded from {len(data)} bytes in {seconds:.2f} s")
    return 0


def read_file(path: Path) -> bytes:
    """Read a .gc file. One that is too large to be a .gc file is refused before it is read."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path}: not a .gc file (over {MAX_FILE_BYTES >> 20} MiB)")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


if __name__ == "__main__":
    sys.exit(main())
