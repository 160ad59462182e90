#!/usr/bin/env python3
"""Images a second of folder runs in one process and by --workers, the memory of a worker, and what Dask costs.

    python3 benchmarks/scaling.py kodak/
    python3 benchmarks/scaling.py kodak/ --files-only --workers 1 2 4 --repeat 5

The runs take turns, and the figures are the least of the repetitions. Starting workers and loading models is not in them, and
is printed apart. Memory is the peak resident size of a worker's process. The engine's cost is that of images that take no work:
of those that return a file of 1.5 kB, and of those that return a picture of 600 kB.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from commands.coder import Budget, Coder
from commands.folder_run import Input, Made, in_this_process
from commands.guide import Guide
from commands.loading import load_codec
from commands.options import Say
from commands.workers import Workers
from compress import compress_folder
from config import config_test
from evaluation.measure import Photo
from gcodec.pictures import images_in
from utils import Utils


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Utils.parser(__doc__)
    parser.add_argument("folder", help="of images")
    parser.add_argument("-r", "--restore", default=PROJECT / "checkpoints/photo_c8", metavar="CKPT")
    parser.add_argument("--files-only", action="store_true", help="without pictures, as compress.py --files-only")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="folder runs of each kind")
    parser.add_argument("--empty", type=int, default=400, metavar="N", help="images without work")
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    coder = Coder([load_codec(args.restore)], config_test(), Budget())
    images = images_in(args.folder)
    runs: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        spreads: dict[str, Callable] = {"this process": in_this_process}
        processes: dict[str, list[psutil.Process]] = {}
        for n in args.workers:
            before, start = workers_here(), time.perf_counter()
            spreads[f"--workers {n}"] = stack.enter_context(Workers(n).started())
            processes[f"--workers {n}"] = [process for process in workers_here() if process not in before]
            print(f"--workers {n}: started in {time.perf_counter() - start:.1f} s")
        for name, spread in spreads.items():
            print(f"{name}: the first run, with loading the model, {folder_run(coder, images, args.files_only, spread):.1f} s")
        for _ in range(args.repeat):
            for name, spread in spreads.items():
                runs.setdefault(name, []).append(folder_run(coder, images, args.files_only, spread))
        least = min(runs["this process"])
        for name, seconds in runs.items():
            print(f"{name:14} {len(images) / min(seconds):6.2f} images/s ({least / min(seconds):.2f} times)")
        for name, own in processes.items():
            peaks = ", ".join(f"{(Utils.memory('VmHWM', process.pid) or 0) / 1e9:.2f}" for process in own)
            print(f"{name}: peak memory {peaks} GB")
        one = spreads[f"--workers {args.workers[0]}"]
        for size in (1500, 600_000):
            print(f"engine, {size} bytes a result: {cost(one, size, args.empty):.2f} ms an image")
    return 0


def workers_here() -> list[psutil.Process]:
    """Return the processes that Dask started."""
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def folder_run(coder: Coder, images: list[str], files_only: bool, spread: Callable) -> float:
    """Compress images into a new folder; return the seconds."""
    inputs = [Input(Path(path), Path(path).parent) for path in images]
    with tempfile.TemporaryDirectory() as output, contextlib.redirect_stderr(io.StringIO()):
        start = time.perf_counter()
        if compress_folder(coder, inputs, Path(output), Guide(), Say(quiet=True), files_only, workers=Started(spread)):
            raise SystemExit("an image could not be compressed")
        return time.perf_counter() - start


class Started(Workers):
    """Workers that are there already."""

    spread: Callable

    def __init__(self, spread: Callable):
        object.__setattr__(self, "spread", spread)

    def within_memory(self, *_) -> "Started":
        return self

    @contextlib.contextmanager
    def started(self) -> Iterator[Callable]:
        yield self.spread


def cost(spread: Callable, size: int, n: int) -> float:
    """Return the milliseconds of an image that takes no work and returns `size` bytes."""
    items = [Photo(__file__, str(size))] * n
    start = time.perf_counter()
    for _, made in spread(nothing, items):
        assert len(made[1][0]) == size
    return 1000 * (time.perf_counter() - start) / n


def nothing(source: str, files: list[Path]) -> Made:
    return {"image": source}, [bytes(int(source))]


if __name__ == "__main__":
    sys.exit(main())
