#!/usr/bin/env python3
"""What the knobs do: small models, each trained with the same budget and one thing changed, and how they compare.

    python3 benchmarks/knob_effects.py -ds photos/train --val photos/val

Prints a line for each case as soon as it is there: mean bytes (by static tables), PSNR and MS-SSIM of held-out images by real
files, and, where there is noise, the mean standard deviation (of 255) of a pixel over four noises. Cases whose results are in
--work already are not trained again.
"""

import json
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import numpy as np

from commands.loading import load_codec
from config import config_test
from evaluation.metrics import measures
from gcodec import Codec
from gcodec.pictures import read_image
from path_tables import read_table
from utils import Utils

BUDGET = [
    "width=96", "n_residual_blocks=2", "discriminator_width=32", "n_scales=2", "crop_size=64", "batch_size=4",
    "normalization=channel", "upsampling=bilinear", "recompute=false", "entropy_steps=0", "diagnostic_steps=1000000",
    "distortion_steps=500", "distortion_learning_rate=4e-4", "discriminator_warmup_steps=100", "G_learning_rate=1e-4",
    "D_learning_rate=2e-4", "lr_decay_rate=0.1", "lr_decay_steps=1000", "lambda_adversarial=0.1", "lambda_feature_matching=1",
]  # fmt: skip
STEPS = 1000
CASES = {
    "least squares": [],
    "no GAN (distortion alone)": ["distortion_steps=1000"],
    "gan_loss=vanilla": ["gan_loss=vanilla"],
    "gan_loss=hinge": ["gan_loss=hinge"],
    "gan_loss=wgan_gp": ["gan_loss=wgan_gp"],
    "gan_loss=wgan_gp, wgan_critic, n_critic_iterations=5": [
        "gan_loss=wgan_gp", "discriminator=wgan_critic", "n_critic_iterations=5",
    ],
    "gan_loss=wgan, weight_clipping": ["gan_loss=wgan", "weight_clipping=true"],
    "spectral_norm": ["spectral_norm=true"],
    "gan_loss=hinge, spectral_norm": ["gan_loss=hinge", "spectral_norm=true"],
    "discriminator=dcgan_discriminator": ["discriminator=dcgan_discriminator"],
    "sample_noise, noise_mode=dcgan": ["sample_noise=true"],
    "sample_noise, noise_mode=map": ["sample_noise=true", "noise_mode=map"],
    "sample_noise, noise_mode=layers": ["sample_noise=true", "noise_mode=layers"],
    "learn_centers": ["learn_centers=true"],
    "learn_centers, L=3": ["learn_centers=true", "centers=-1,0,1"],
    "use_vgg_loss": ["use_vgg_loss=true"],
}  # fmt: skip
NOISES = 4


@Utils.command
def main(argv: list[str] | None = None) -> int:
    parser = Utils.parser(__doc__)
    parser.add_argument("-ds", "--dataset", required=True)
    parser.add_argument("--val", required=True, help="folder or table of held-out images")
    parser.add_argument("--images", type=int, default=20, help="how many of them to measure (default: 20)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of each training (default: {STEPS})")
    parser.add_argument("--work", default="knobs", help="folder for the checkpoints (default: knobs)")
    parser.add_argument("--case", action="append", choices=CASES, help="only these (default: all)")
    parser.add_argument("-k", "--knob", action="append", default=[], metavar="NAME=VALUE", help="of all cases")
    args = parser.parse_args(argv)
    print(f"{'':56} bytes    bpp   PSNR  MS-SSIM  noise", flush=True)
    failures = 0
    for case in args.case or CASES:
        work = Path(args.work) / case.replace(" ", "").replace("=", "-").replace(",", "+")
        result = work / "result.json"
        if not result.exists():
            if complaint := train([*BUDGET, *CASES[case], *args.knob], work, args.dataset, args.val, args.steps):
                print(f"{case:56} failed: {complaint}", flush=True)
                failures += 1
                continue
            result.write_text(json.dumps(measure(work / "run", args.val, args.images)))
        print(f"{case:56} {row(json.loads(result.read_text()))}", flush=True)
    return 1 if failures else 0


def train(knobs: list[str], work: Path, dataset: str, val: str, steps: int) -> str | None:
    """Train a case in a process of its own. Returns the last line of its log if it fails."""
    knobs = [*knobs, f"checkpoints={work}", f"samples={work}/samples", f"tensorboard={work}/tensorboard"]
    command = [sys.executable, str(PROJECT / "train.py"), "-ds", dataset, "--val", val, "--name", "run"]
    command += ["--steps", str(steps), *(part for knob in knobs for part in ("-k", knob))]
    work.mkdir(parents=True, exist_ok=True)
    with (work / "log").open("w") as log:
        status = subprocess.run(command, stdout=log, stderr=log).returncode
    return (work / "log").read_text().splitlines()[-1] if status else None


def row(m: dict) -> str:
    similarity = "     n/a" if m["ms_ssim"] is None else f"{m['ms_ssim']:8.4f}"
    noise = "" if m["noise"] is None else f"{m['noise']:6.2f}"
    return f"{m['bytes']:5.0f} {m['bpp']:.4f} {m['psnr']:6.2f} {similarity} {noise}"


def measure(checkpoint: Path, val: str, n: int) -> dict:
    """Return means over the first n held-out images, by files that are decoded again."""
    with Utils.importing_tensorflow():
        codec = load_codec(checkpoint)
    noises = range(NOISES if codec.config.sample_noise else 1)
    decoders = [Codec(codec.checkpoint, codec.runtime, noise_seed=seed) for seed in noises]
    rows = []
    for path in read_table(val).images[:n]:
        image = read_image(path, config_test().max_pixels)
        data = codec.encode(image)
        pictures = np.stack([decoder.decode(data) for decoder in decoders])
        noise = pictures.std(axis=0).mean() if len(noises) > 1 else None
        rows.append(measures(image, len(data), pictures[0]) | {"noise": noise})
    return {name: None if rows[0][name] is None else float(np.mean([row[name] for row in rows])) for name in rows[0]}


if __name__ == "__main__":
    sys.exit(main())
