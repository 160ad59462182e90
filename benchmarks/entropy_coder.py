#!/usr/bin/env python3
"""The entropy coder alone: its speed on feature maps of four sizes, and the bytes that the symbols of real photos take.

    python3 benchmarks/entropy_coder.py                   # the checkpoint that ships, images/
    python3 benchmarks/entropy_coder.py -r checkpoints/run -i kodak/

The symbols are those of the photos, repeated to the size. Each line is the best of three. Memory is what numpy and Python
hold at most while they code, beyond the symbols and the payload.
"""

import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from commands.loading import load_codec
from config import UserError, config_test
from gcodec.entropy import EntropyModel
from gcodec.pictures import STRIDE, images_in, read_image
from utils import Utils

SIZES = ["384x256", "768x512", "1920x1080", "4096x2160"]  # width x height, px


@Utils.command
def main(argv: list[str] | None = None) -> int:
    parser = Utils.parser(__doc__)
    parser.add_argument("-r", "--restore", default=PROJECT / "checkpoints/photo_c8", metavar="CKPT")
    parser.add_argument("-i", "--input", default=PROJECT / "images", metavar="FOLDER")
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="WxH", help=f"default: {' '.join(SIZES)}")
    args = parser.parse_args(argv)
    paths = [path for path in images_in(args.input) if Path(path).parent == Path(args.input)]
    if not paths:
        raise UserError(f"{args.input}: no images")
    with Utils.importing_tensorflow():
        codec = load_codec(args.restore)
    symbols = [codec.contents(read_image(path, config_test().max_pixels)).symbols for path in paths]
    coder = codec.checkpoint.entropy_models["symbols"]
    print_contents([codec.checkpoint.static_tables, coder], symbols)
    print(f"\n{'image':>12} {'symbols':>9} {'encode':>9} {'decode':>9} {'symbols/s, encode':>18} {'decode':>9} {'memory':>9}")
    for size in args.sizes:
        width, height = map(int, size.split("x"))
        shape = -(-height // STRIDE), -(-width // STRIDE)
        repeats = [-(-side // own) for side, own in zip(shape, symbols[0].shape, strict=False)]
        print_speed(coder, np.tile(symbols[0], (*repeats, 1))[: shape[0], : shape[1]], size)
    return 0


def print_contents(coders: list[EntropyModel], symbols: list[np.ndarray]) -> None:
    """Print bits per symbol by channel, of the static tables and of the checkpoint's coder, and bytes."""
    n = sum(image[:, :, 0].size for image in symbols)  # positions
    for coder in coders:
        bits = np.sum([coder.information(image) for image in symbols], axis=0)
        channels = " ".join(f"{value:.3f}" for value in bits / n)
        print(f"{type(coder).__name__:14} {bits.mean() / n:.4f} bits per symbol; by channel {channels}; "
              f"{bits.sum() / 8 / len(symbols):.1f} bytes an image")  # fmt: skip
    payload = sum(len(coders[-1].encode(image)) for image in symbols)
    print(f"{'payload':14} {payload / len(symbols):.1f} bytes an image, mean of {len(symbols)}")


def print_speed(coder: EntropyModel, symbols: np.ndarray, name: str) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        payload = coder.encode(symbols)
        middle = time.perf_counter()
        decoded = coder.decode(payload, symbols.shape)
        seconds.append((middle - start, time.perf_counter() - middle))
        if not np.array_equal(decoded, symbols):
            raise SystemExit(f"{name}: decoding did not give back the symbols")
    encoding, decoding = (min(times) for times in zip(*seconds, strict=True))
    tracemalloc.start()
    coder.decode(coder.encode(symbols), symbols.shape)
    peak = tracemalloc.get_traced_memory()[1] - symbols.nbytes - len(payload)
    tracemalloc.stop()
    print(f"{name:>12} {symbols.size:9} {encoding:7.3f} s {decoding:7.3f} s {symbols.size / encoding:18,.0f} "
          f"{symbols.size / decoding:9,.0f} {peak / 1e6:6.1f} MB")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
