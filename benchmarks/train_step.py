#!/usr/bin/env python3
"""Time and memory of one training step (both updates, encoder included), each configuration in a process of its own.

    python3 benchmarks/train_step.py                      # W=64 at 256x256, W=960 at 256x512 and at 512x1024
    python3 benchmarks/train_step.py --case 960 512 1024 -k optimizer=momentum
    python3 benchmarks/train_step.py --knobs              # W=64 at 256x256 with one knob after the other changed
    python3 benchmarks/train_step.py --recipes checkpoints/photo_c8/config.json presets/photo_structure.toml  # pixels/s

Memory is the peak resident size of the process, TensorFlow included (about 0.6 GB). Times are the median of --steps after
two steps that trace and warm up. The last columns are time and memory relative to the first line, for noisy machines; of
recipes, they are pixels a second and memory relative to the first one in the same stage.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import UserError, config_train
from utils import Utils

CASES = [(64, 256, 256), (960, 256, 512), (960, 512, 1024)]  # W, height, width
STAGES = {
    "distortion": {"distortion_steps": 10**6},
    "gan": {"distortion_steps": 0, "discriminator_warmup_steps": 0},
}
KNOBS = [
    [],
    ["recompute=false"],
    ["gan_loss=hinge"],
    ["gan_loss=wgan_gp"],
    ["gan_loss=wgan", "weight_clipping=true"],
    ["spectral_norm=true"],
    ["discriminator=wgan_critic"],
    ["use_vgg_loss=true"],
    ["sample_noise=true"],
    ["sample_noise=true", "noise_mode=map"],
    ["sample_noise=true", "noise_mode=layers"],
    ["learn_centers=true"],
    ["mixed_precision=bfloat16"],
    ["mixed_precision=float16"],
    ["jit_compile=true"],
]


@Utils.command
def main(argv: list[str] | None = None) -> int:
    parser = Utils.parser(__doc__)
    parser.add_argument("--case", nargs=3, type=int, action="append", metavar=("W", "HEIGHT", "WIDTH"))
    parser.add_argument("--steps", type=int, default=3, help="timed steps (default: 3)")
    parser.add_argument("-k", "--knob", action="append", default=[], metavar="NAME=VALUE", help="of config_train")
    parser.add_argument("--knobs", action="store_true", help="change one knob after the other")
    parser.add_argument("--recipes", nargs="+", metavar="FILE.json", help="compare knobs in files, at their own crop_size and "
                        "batch_size, in the distortion and in the GAN stage")  # fmt: skip
    parser.add_argument("--here", metavar="JSON", help=argparse.SUPPRESS)  # measure these knobs, in this process
    args = parser.parse_args(argv)
    if args.here:
        _, height, width = args.case[0]
        print(*measure(config_train.from_written(json.loads(args.here)), height, width, args.steps))
        return 0
    if args.recipes:
        return compare_recipes(args.recipes, args.steps, args.knob)
    first = None
    for width, height, image_width in args.case or (CASES[:1] if args.knobs else CASES):
        for changed in KNOBS if args.knobs else [[]]:
            config = config_train(width=width).override([*args.knob, *changed])
            seconds, gigabytes = measure_apart(config, height, image_width, args.steps)
            first = first or (seconds, gigabytes)
            ratios = f"{seconds / first[0]:6.2f} {gigabytes / first[1]:6.2f}  {' '.join(changed)}"
            print(f"W={width:<4} {height}x{image_width:<5} {seconds:8.3f} s/step {gigabytes:6.2f} GB {ratios}", flush=True)
    return 0


def compare_recipes(files: list[str], steps: int, knobs: list[str]) -> int:
    """Print the pixels a second of each recipe in each stage, and their ratio to those of the first recipe."""
    for stage, changes in STAGES.items():
        first = None
        for file in files:
            config = config_train().replace(config_train.read(file) | changes).override(knobs)
            if not config.crop_size:
                raise UserError(f"{file}: give the knob crop_size, the size of the crops to measure")
            seconds, gigabytes = measure_apart(config, config.crop_size, config.crop_size, steps)
            speed = config.batch_size * config.crop_size**2 / seconds / 1e6
            first = first or (speed, gigabytes)
            ratios = f"{speed / first[0]:6.2f} {gigabytes / first[1]:6.2f}"
            print(f"{stage:<10} {speed:8.3f} megapixels/s {gigabytes:6.2f} GB {ratios}  {file}", flush=True)
    return 0


def measure_apart(config: config_train, height: int, width: int, steps: int) -> tuple[float, float]:
    """Call `measure` in a process of its own, whose peak of memory is that of this configuration alone."""
    command = [sys.executable, __file__, "--here", config.to_json(), "--steps", str(steps)]
    command += ["--case", str(config.width), str(height), str(width)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        raise UserError("this configuration cannot be measured; see above")
    seconds, gigabytes = map(float, run.stdout.split())
    return seconds, gigabytes


def measure(config: config_train, height: int, width: int, steps: int) -> tuple[float, float]:
    """Return the seconds of a step on a batch of images of this size, and the peak of memory in GB (10^9 bytes)."""
    with Utils.importing_tensorflow():
        import tensorflow as tf

        from training.trainer import Trainer
    with tempfile.TemporaryDirectory() as folder:
        if config.use_vgg_loss:  # random weights take as long as real ones
            import keras

            config = config.override([f"vgg_weights={folder}/vgg19.weights.h5"])
            keras.applications.VGG19(include_top=False, weights=None).save_weights(config.vgg_weights)
        trainer = Trainer(config)
    x = tf.random.uniform((config.batch_size, height, width, 3), -1, 1)
    times = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        float(trainer.train_step(x)["distortion"])  # a number, which has to be waited for
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    sys.exit(main())
