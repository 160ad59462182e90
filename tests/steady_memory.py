#!/usr/bin/env python3
"""Train for 2,000 steps, compress 1,000 images, and check that memory stays flat.

    python3 tests/steady_memory.py                    # both; about ten minutes
    python3 tests/steady_memory.py --only compress --images 1000

It is not part of the gate. Each command runs in a process of its own, whose resident memory is read after each step or image.
The run has checkpoints, sample pictures and summaries on its way, and the images differ in size. What a command sets up at its
beginning is not growth, so the first tenth does not count.
"""

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from conftest import knobs, photo
from PIL import Image

from utils import Utils

WARM_UP = 0.1  # of the readings
LIMIT_MB = 10  # between the means of the first and the second half of the rest


@dataclass(frozen=True)
class Growth:
    """How the memory of a process changed, in MB. The halves are those of the readings after the warm-up."""

    readings: int
    first: float  # mean of the first half
    last: float  # mean of the last half
    slope: float  # per thousand readings, by least squares
    peak: float  # of all readings

    @staticmethod
    def of(memory: list[int]) -> "Growth":
        """memory: bytes after each step or image."""
        megabytes = np.array(memory) / 1e6
        counted = megabytes[int(WARM_UP * len(memory)) :]
        halves = np.array_split(counted, 2)
        slope = np.polyfit(np.arange(len(counted)), counted, 1)[0]
        return Growth(len(memory), halves[0].mean(), halves[1].mean(), 1000 * slope, megabytes.max())

    @property
    def is_flat(self) -> bool:
        return self.last - self.first < LIMIT_MB

    def __str__(self) -> str:
        return (
            f"{'flat' if self.is_flat else 'GROWS'}: {self.first:.1f} MB in the first half of {self.readings} readings, "
            f"{self.last:.1f} MB in the last; {self.slope:+.2f} MB per 1,000; peak {self.peak:.0f} MB"
        )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--only", choices=("train", "compress"))
    args = parser.parse_args(argv)
    grows = False
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        if args.only != "compress":
            growth = measured(train, base, args.steps)
            print(f"train.py, {args.steps} steps: {growth}", flush=True)
            grows |= not growth.is_flat
        if args.only != "train":
            growth = measured(compress, base, args.images)
            print(f"compress.py, {args.images} images: {growth}", flush=True)
            grows |= not growth.is_flat
    return int(grows)


def measured(command: Callable[[Path, int, Callable[[], None]], int], base: Path, n: int) -> Growth:
    """Run a command in a process of its own, and return how its memory changed."""
    context = multiprocessing.get_context("spawn")
    memory: multiprocessing.Queue = context.Queue()
    process = context.Process(target=_run, args=(command, base, n, memory))
    process.start()
    readings = memory.get()  # before the process is joined, which waits until its queue is empty
    process.join()
    if process.exitcode:
        raise SystemExit(f"{command.__name__}: exit status {process.exitcode}")
    if len(readings) < n:
        raise SystemExit(f"{command.__name__}: {len(readings)} readings instead of {n}")
    return Growth.of(readings)


def _run(command: Callable, base: Path, n: int, memory: multiprocessing.Queue) -> None:
    readings: list[int] = []
    try:
        status = command(base, n, lambda: readings.append(Utils.memory()))
    finally:
        memory.put(readings)
    sys.exit(status)


def train(base: Path, steps: int, read: Callable[[], None]) -> int:
    """Train a tiny network, with a sample picture after every 20 steps and a checkpoint after every 24."""
    import train
    from training.trainer import Trainer

    folder = photos(base / "photos", 30)
    where = [part for name in ("checkpoints", "samples", "tensorboard") for part in ("-k", f"{name}={base / name}")]
    smaller = {"width": 16, "crop_size": 32, "batch_size": 1, "n_scales": 1, "discriminator_width": 4}
    small = knobs(**smaller, diagnostic_steps=20, checkpoint_epochs=1)
    Trainer.train_step = read_after(Trainer.train_step, read)
    return train.main(["-ds", str(folder), "--name", "run", "--steps", str(steps), *small, *where])


def compress(base: Path, images: int, read: Callable[[], None]) -> int:
    """Compress a folder with the model that ships."""
    import compress

    compress.compress_image = read_after(compress.compress_image, read)
    return compress.main(["-i", str(photos(base / "many", images)), "-o", str(base / "results")])


def photos(folder: Path, n: int) -> Path:
    """Write photos of different sizes, and return their folder."""
    folder.mkdir()
    sizes = np.random.default_rng(0).integers(33, 97, (n, 2))
    for i, (height, width) in enumerate(sizes.tolist()):
        Image.fromarray(photo(height, width, seed=i)).save(folder / f"{i:04}.png")
    return folder


def read_after(function: Callable, read: Callable[[], None]) -> Callable:
    def wrapped(*args, **options):
        result = function(*args, **options)
        read()
        return result

    return wrapped


if __name__ == "__main__":
    sys.exit(main())
