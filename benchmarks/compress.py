#!/usr/bin/env python3
"""Where the time of compressing a photo goes, without imports, and the peak memory of the process.

    python3 benchmarks/compress.py                        # images/kodim21.png, 768x512, by the checkpoint that ships
    python3 benchmarks/compress.py -r checkpoints/run -i photo.png

The first encoding and decoding of a process are slower than the later ones. Users of compress.py see the first; both are
printed. Memory is the peak resident size of the process, with the libraries that run the networks.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from commands.runtime import load_codec
from config import config_test
from gcodec.pictures import read_image
from utils import Utils


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Utils.parser(__doc__)
    parser.add_argument("-r", "--restore", default=PROJECT / "checkpoints/photo_c8", metavar="CKPT")
    parser.add_argument("-i", "--input", default=PROJECT / "images/kodim21.png", metavar="IMAGE")
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    image, _ = timed("read the image", read_image, args.input, config_test().max_pixels)
    with Utils.importing_tensorflow():
        codec, _ = timed("load the model", load_codec, args.restore)
    data, encoding = timed("encode, first", codec.encode, image)
    _, decoding = timed("decode, first", codec.decode, data)
    timed("encode, second", codec.encode, image)
    timed("decode, second", codec.decode, data)
    coder, symbols = codec.checkpoint.entropy_models["symbols"], codec.contents(image).symbols
    payload, to_bytes = timed("entropy coding alone, encode", coder.encode, symbols)
    _, to_symbols = timed("entropy coding alone, decode", coder.decode, payload, symbols.shape)
    print(f"share of entropy coding: {to_bytes / encoding:.1%} of encoding, {to_symbols / decoding:.1%} of decoding")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB")
    return 0


def timed(name: str, work: Callable, *arguments: Any) -> tuple[Any, float]:
    """Call a function, print how long it took, and return its result and the seconds."""
    start = time.perf_counter()
    result = work(*arguments)
    seconds = time.perf_counter() - start
    print(f"{name:30} {seconds:8.4f} s")
    return result, seconds


if __name__ == "__main__":
    sys.exit(main())
