#!/usr/bin/env python3
"""Time and memory of one training step (both updates, encoder trained too), each configuration in a process of its own.

    python3 benchmarks/train_step.py                      # W=64 at 256x256, W=960 at 256x512 and at 512x1024
    python3 benchmarks/train_step.py --case 960 512 1024 -k optimizer=momentum

Memory is the process's peak resident size, TensorFlow itself (about 0.6 GB) included. Times are the median of --steps after
two steps that trace and warm up. The last column is the time relative to the first line's, for noisy machines.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CASES = [(64, 256, 256), (960, 256, 512), (960, 512, 1024)]  # W, height, width


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs=3, type=int, action="append", metavar=("W", "HEIGHT", "WIDTH"))
    parser.add_argument("--steps", type=int, default=3, help="timed steps (default: 3)")
    parser.add_argument("-k", "--knob", action="append", default=[], metavar="NAME=VALUE", help="of config_train")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # measure in this process
    args = parser.parse_args(argv)
    if args.here:
        seconds, gigabytes = measure(*args.case[0], args.steps, args.knob)
        print(seconds, gigabytes)
        return 0
    first = None
    for case in args.case or CASES:
        knobs = [part for knob in args.knob for part in ("-k", knob)]
        command = [sys.executable, __file__, "--here", "--case", *map(str, case), "--steps", str(args.steps), *knobs]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        seconds, gigabytes = map(float, output.split())
        first = first or seconds
        width, height, image_width = case
        print(
            f"W={width:<4} {height}x{image_width:<5} {seconds:8.3f} s/step {gigabytes:6.2f} GB {seconds / first:8.2f}",
            flush=True,
        )
    return 0


def measure(width: int, height: int, image_width: int, steps: int, knobs: list[str]) -> tuple[float, float]:
    """Seconds a step, and peak memory in GB (10^9 bytes)."""
    from config import config_train
    from utils import Utils

    with Utils.quiet_tensorflow():
        import tensorflow as tf

        from model import Model

    model = Model(config_train(width=width).override(knobs), training=True)
    x = tf.random.uniform((1, height, image_width, 3), -1, 1)
    times = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        model.train_step(x)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    sys.exit(main())
