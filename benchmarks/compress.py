#!/usr/bin/env python3
"""Where the time of compressing a photo goes, imports left out, and the peak memory of the process.

    python3 benchmarks/compress.py                        # images/kodim21.png, 768x512, by the checkpoint that ships
    python3 benchmarks/compress.py -r checkpoints/run -i photo.png

The first encoding and decoding of a process are slower than the later ones, and are what compress.py's users see; both are
printed. Memory is the process's peak resident size, TensorFlow itself (about 0.6 GB) included.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-r", "--restore", default=PROJECT / "checkpoints/photo_c8", metavar="CKPT")
    parser.add_argument("-i", "--input", default=PROJECT / "images/kodim21.png", metavar="IMAGE")
    args = parser.parse_args(argv)

    from config import config_test
    from data import Data
    from utils import Utils

    with Utils.quiet_tensorflow():
        from model import Model
    from compress import encode
    from decompress import decode

    def timed(name: str, work, *arguments):
        start = time.perf_counter()
        result = work(*arguments)
        seconds = time.perf_counter() - start
        print(f"{name:30} {seconds:8.4f} s")
        return result, seconds

    image, _ = timed("read the image", Data.read_image, args.input, config_test().max_pixels)
    model, _ = timed("load the model", Model.load, args.restore)
    data, encoding = timed("encode, first", encode, model, image)
    _, decoding = timed("decode, first", decode, model, data, config_test())
    timed("encode, second", encode, model, image)
    timed("decode, second", decode, model, data, config_test())
    symbols = model.compress(image)
    payload, to_bytes = timed("entropy coding alone, encode", model.entropy_model.encode, symbols)
    _, to_symbols = timed("entropy coding alone, decode", model.entropy_model.decode, payload, symbols.shape)
    print(f"share of entropy coding: {to_bytes / encoding:.1%} of encoding, {to_symbols / decoding:.1%} of decoding")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
