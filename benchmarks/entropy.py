#!/usr/bin/env python3
"""The entropy coder alone: its speed on feature maps of four sizes, and what it needs for the symbols of real photos.

    python3 benchmarks/entropy.py                         # the checkpoint that ships, images/
    python3 benchmarks/entropy.py -r checkpoints/run -i kodak/

The symbols are those of the photos, repeated to the size; each line is the best of three. Memory is what numpy and Python
hold at most while coding, beyond the symbols and the payload.
"""

import argparse
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from config import UserError
from data import Data
from utils import Utils

SIZES = [(384, 256), (768, 512), (1920, 1080), (4096, 2160)]  # width, height, px


@Utils.command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-r", "--restore", default=PROJECT / "checkpoints/photo_c8", metavar="CKPT")
    parser.add_argument("-i", "--input", default=PROJECT / "images", metavar="FOLDER")
    args = parser.parse_args(argv)

    with Utils.quiet_tensorflow():
        from model import Model

    model = Model.load(args.restore)
    paths = [path for path in Data.images_in(args.input) if Path(path).parent == Path(args.input)]
    if not paths:
        raise UserError(f"{args.input}: no images")
    images = [Data.read_image(path, model.config.max_pixels) for path in paths]
    symbols = [model.compress(image) for image in images]
    contents(model, symbols)
    print(f"\n{'image':>12} {'symbols':>9} {'encode':>9} {'decode':>9} {'symbols/s, encode':>18} {'decode':>9} {'memory':>9}")
    for width, height in SIZES:
        shape = -(-height // 16), -(-width // 16)
        repeats = [-(-side // own) for side, own in zip(shape, symbols[0].shape, strict=False)]
        tiled = np.tile(symbols[0], (*repeats, 1))[: shape[0], : shape[1]]
        speed(model.entropy_model, tiled, f"{width}x{height}")
    return 0


def contents(model, symbols: list[np.ndarray]) -> None:
    """Bits per symbol by channel, of the static tables and of the entropy model, and bytes."""
    n = sum(image.size for image in symbols) / model.config.channel_bottleneck
    payload = sum(len(model.entropy_model.encode(image)) for image in symbols)
    for entropy_model in (model.static_tables, model.entropy_model):
        bits = sum(entropy_model.information(image) for image in symbols)
        channels = " ".join(f"{value:.3f}" for value in bits / n)
        print(f"{type(entropy_model).__name__:14} {bits.mean() / n:.4f} bits per symbol; by channel {channels}; "
              f"{bits.sum() / 8 / len(symbols):.1f} bytes an image")  # fmt: skip
    print(f"{'payload':14} {payload / len(symbols):.1f} bytes an image, mean of {len(symbols)}")


def speed(entropy_model, symbols: np.ndarray, name: str) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        payload = entropy_model.encode(symbols)
        middle = time.perf_counter()
        decoded = entropy_model.decode(payload, symbols.shape)
        seconds.append((middle - start, time.perf_counter() - middle))
    if not np.array_equal(decoded, symbols):
        raise SystemExit(f"{name}: decoding did not give back the symbols")
    encoding, decoding = (min(times) for times in zip(*seconds, strict=True))
    tracemalloc.start()
    entropy_model.decode(entropy_model.encode(symbols), symbols.shape)
    peak = tracemalloc.get_traced_memory()[1] - symbols.nbytes - len(payload)
    tracemalloc.stop()
    print(f"{name:>12} {symbols.size:9} {encoding:7.3f} s {decoding:7.3f} s {symbols.size / encoding:18,.0f} "
          f"{symbols.size / decoding:9,.0f} {peak / 1e6:6.1f} MB")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
