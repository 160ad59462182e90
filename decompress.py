#!/usr/bin/env python3
"""Decompress a .gc file to a picture. It needs the file and the checkpoint that it was made with, nothing else.

python3 decompress.py -i photo.gc -o photo.png                  # by the checkpoint that ships with the project
python3 decompress.py -r checkpoints/run -i photo.gc -o photo.png
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from checkpoint import newest_checkpoint
from config import UserError, config_test, directories
from utils import LOSSLESS_SUFFIXES, STRIDE, Utils, padded_size


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
    output = Utils.picture_path(args.output, LOSSLESS_SUFFIXES)
    data = read_file(args.input)
    model = load_model(args, where)
    start = time.perf_counter()
    try:
        image = decode(model, data, knobs)
    except UserError as error:
        raise UserError(f"{args.input}: {error}") from None
    seconds = time.perf_counter() - start
    Utils.save_picture(image, output)
    height, width = image.shape[:2]
    print(f"{output}: {width}x{height}, decoded from {len(data)} bytes in {seconds:.2f} s")
    return 0


def decode(model, data: bytes, knobs: config_test) -> np.ndarray:
    """The bytes of a .gc file -> image (H, W, 3) uint8. Raises UserError for damage, or for another model's file."""
    from codec.container import unpack

    file = unpack(data)
    if file.fingerprint != model.fingerprint:
        raise UserError(f"made with another checkpoint: its fingerprint is {file.fingerprint.hex()}, "
                        f"this one's {model.fingerprint.hex()}; name the right one with -r")  # fmt: skip
    if file.channels > model.config.channel_bottleneck:
        raise UserError(f"damaged ({file.channels} channels, of a model that has {model.config.channel_bottleneck})")
    if file.width * file.height > knobs.max_pixels:
        raise UserError(f"{file.width}x{file.height} px is over max_pixels ({knobs.max_pixels}); "
                        f"raise the cap with -k max_pixels=N")  # fmt: skip
    height, width = padded_size(file.height, file.width)
    h, w = height // STRIDE, width // STRIDE
    coders, parts = model.entropy_models, sections(model, file)
    code = coders["code"].decode(parts["code"], model.code_shape(height, width)) if "code" in parts else None
    m = coders["mask"].decode(parts["mask"], (h, w, 1))[:, :, 0] if "mask" in parts else None
    symbols = coders["symbols"].decode(parts["symbols"], (h, w, file.channels), m)
    return model.decompress(symbols, file.height, file.width, (file.crc, knobs.noise_seed), code, m)


def sections(model, file) -> dict[str, bytes]:
    """The parts of a file's payload by what they code: of "code" (the label map) and "mask" those that the model has."""
    from codec.container import split

    names = [of for of in ("code", "mask", "symbols") if of in model.entropy_models]
    return dict(zip(names, split(file.payload, len(names)), strict=True))


def read_file(path: str) -> bytes:
    """A .gc file's bytes; one too large to be one is refused before it is read."""
    try:
        if Path(path).stat().st_size > 2**28:
            raise UserError(f"{path}: not a .gc file (over 256 MiB)")
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


# ----------------------------------------------------------------------------------------------------------------------
# Shared with compress.py
# ----------------------------------------------------------------------------------------------------------------------


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_mutually_exclusive_group()
    model.add_argument("-r", "--restore", metavar="CKPT", help="checkpoint or run folder (default: the one that ships)")
    model.add_argument("-rl", "--restore-last", action="store_true", help="the newest checkpoint below checkpoints/")
    parser.add_argument("-k", "--knob", action="append", default=[], metavar="NAME=VALUE",
                        help="override a knob of config_test or directories; may be repeated")  # fmt: skip


def split_knobs(assignments: list[str]) -> tuple[directories, config_test]:
    where, own = directories.split(assignments)
    return directories().override(where), config_test().override(own)


def load_model(args: argparse.Namespace, where: directories):
    """The model that -r or -rl names, or the one that ships."""
    with Utils.quiet_tensorflow():
        from model import Model

    if args.restore_last:
        return Model.load(newest_checkpoint(where.checkpoints))
    return Model.load(args.restore or Utils.locate(where.default_checkpoint))


if __name__ == "__main__":
    sys.exit(main())
