#!/usr/bin/env python3
"""Where the time of compressing a photo goes, without imports, and the peak memory of the process; and what folder runs take.

    python3 benchmarks/throughput.py                        # images/kodim21.png, 768x512, by the checkpoint that ships
    python3 benchmarks/throughput.py -r checkpoints/run -i photo.png
    python3 benchmarks/throughput.py --copies 8 --repeat 5  # longer folder runs, and more of them

The first encoding and decoding of a process are slower than the later ones. Users of compress.py see the first; both are
printed. Memory is the peak resident size of the process, with the libraries that run the networks.

Folder runs compress copies of the image in turns: with pictures as Pillow writes PNGs, with pictures as compress.py writes
them, and with --files-only. The figures are the least of the repetitions, wall time and CPU time apart.
"""

import argparse
import contextlib
import io
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from commands.coder import Budget, Coder
from commands.folder_run import Input
from commands.guide import Guide
from commands.loading import load_codec
from commands.options import Say
from compress import compress_folder
from config import config_test
from gcodec import Codec, pictures
from gcodec.pictures import read_image
from utils import Utils


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Utils.parser(__doc__)
    parser.add_argument("-r", "--restore", default=PROJECT / "checkpoints/photo_c8", metavar="CKPT")
    parser.add_argument("-i", "--input", default=PROJECT / "images/kodim21.png", metavar="IMAGE")
    parser.add_argument("--copies", type=int, default=4, metavar="N", help="images of a folder run")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="folder runs of each kind")
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
    compare_folder_runs(codec, Path(args.input), args.copies, args.repeat)
    return 0


def timed(name: str, work: Callable, *arguments: Any) -> tuple[Any, float]:
    """Call a function, print how long it took, and return its result and the seconds."""
    start = time.perf_counter()
    result = work(*arguments)
    seconds = time.perf_counter() - start
    print(f"{name:30} {seconds:8.4f} s")
    return result, seconds


def compare_folder_runs(codec: Codec, image: Path, copies: int, repeat: int) -> None:
    """Print the images a second of folder runs of each kind, and how many times as fast as the first kind that is."""
    kinds = {"Pillow's PNGs": ({}, False), "quick PNGs": (pictures.PNG_OPTIONS, False), "files only": ({}, True)}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(copies):
            Path(folder, f"{i}{image.suffix}").symlink_to(image.resolve())
        for k in range(repeat):
            for name, (options, files_only) in kinds.items():
                pictures.PNG_OPTIONS = options
                taken[name].append(folder_run(codec, Path(folder), Path(folder, "out", f"{name}{k}"), files_only))
    first = [min(column) for column in zip(*taken["Pillow's PNGs"], strict=True)]
    for name, runs in taken.items():
        wall, cpu = (min(column) for column in zip(*runs, strict=True))
        print(f"folder, {name:22} {copies / wall:6.2f} images/s ({first[0] / wall:.2f} times), "
              f"{cpu / copies:.3f} CPU seconds an image ({first[1] / cpu:.2f} times)")  # fmt: skip


def folder_run(codec: Codec, folder: Path, output: Path, files_only: bool) -> tuple[float, float]:
    """Compress the images of a folder; return the seconds, and the seconds of all cores together."""
    inputs = [Input(path, folder) for path in sorted(folder.iterdir()) if path.is_file()]
    coder = Coder([codec], config_test(), Budget())
    start = time.perf_counter(), time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):  # a warning of a model without a context model is no news here
        if compress_folder(coder, inputs, output, Guide(), Say(quiet=True), files_only):
            raise SystemExit("an image could not be compressed")
    return time.perf_counter() - start[0], time.process_time() - start[1]


if __name__ == "__main__":
    sys.exit(main())
