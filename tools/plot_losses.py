#!/usr/bin/env python3
"""Plot the losses of G and D over the steps of a training run, and whatever else its TensorBoard log has.

python3 tools/plot_losses.py tensorboard/run -o losses.png
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import UserError
from gcodec.files import atomic, refuse_existing
from gcodec.pictures import picture_path
from utils import Utils

PANELS = {  # a scalar that is in none of these gets its own
    "generator": ["adversarial", "feature_matching", "vgg"],
    "discriminator": ["discriminator", "gradient_penalty", "D_real", "D_fake"],
    "distortion": ["distortion"],
    "PSNR, dB": ["PSNR", "held_out_PSNR"],
    "bits per pixel": ["bpp"],
    "LPIPS": ["lpips", "lpips_vgg"],
    "learning rate": ["G_learning_rate", "D_learning_rate"],
    "steps per second": ["steps_per_second"],
}
Scalars = dict[str, list[tuple[int, float]]]  # (step, value) in ascending order, by name


@Utils.command
def main(argv: list[str] | None = None) -> int:
    parser = Utils.parser(__doc__)
    parser.add_argument("run", metavar="RUN", help="folder of a run's TensorBoard log")
    parser.add_argument("-o", "--output", default="losses.png", metavar="OUT.png", help="default: losses.png")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.png if it is there already")
    args = parser.parse_args(argv)
    output = picture_path(args.output)
    refuse_existing(output, overwrite=args.overwrite)
    figure = plot_losses(read_scalars(Path(args.run)))
    with atomic(output) as partial:
        figure.savefig(partial, dpi=110)
    print(args.output)
    return 0


def plot_losses(scalars: Scalars):
    """Return a figure of all scalars, the losses of G and D first."""
    from matplotlib.figure import Figure

    grouped = {name for names in PANELS.values() for name in names}
    panels = PANELS | {name: [name] for name in sorted(scalars.keys() - grouped)}
    present = {title: own for title, names in panels.items() if (own := [name for name in names if name in scalars])}
    figure = Figure(figsize=(10, 2.6 * len(present)), layout="constrained")
    plots = figure.subplots(len(present), sharex=True, squeeze=False)[:, 0]
    for axes, (title, names) in zip(plots, present.items(), strict=True):
        for name in names:
            marker = "o" if len(scalars[name]) == 1 else ""  # a line of one point would be invisible
            axes.plot(*zip(*scalars[name], strict=True), label=name, linewidth=1, marker=marker)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    plots[-1].set_xlabel("step")
    return figure


def read_scalars(run: Path) -> Scalars:
    """Return the scalars in a run's log. Raises UserError where there are none."""
    if not list(run.glob("events.out.tfevents.*")):
        raise UserError(f"{run}: no TensorBoard log there; train.py writes it below the knob `tensorboard`")
    with Utils.importing_tensorflow():
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray

        log = EventAccumulator(str(run), size_guidance={"tensors": 0})
        log.Reload()
    found = {}
    for tag in log.Tags()["tensors"]:
        if "/" not in tag:  # tags with a slash are images
            points = {event.step: float(make_ndarray(event.tensor_proto)) for event in log.Tensors(tag)}
            found[tag] = sorted(points.items())
    if not found:
        raise UserError(f"{run}: no losses in its log yet; train.py logs them every `diagnostic_steps` steps")
    return found


if __name__ == "__main__":
    sys.exit(main())
