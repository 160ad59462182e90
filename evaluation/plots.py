"""Plots: rate against distortion, and the losses of a training run."""

from pathlib import Path
from typing import TYPE_CHECKING

from config import UserError
from gcodec.files import atomic
from utils import Utils

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = {"psnr": "PSNR, dB", "ms_ssim": "MS-SSIM"}
COLOURS = {"avif": "tab:blue", "webp": "tab:green", "jpeg2000": "tab:orange", "jpeg": "tab:brown", "jxl": "tab:purple"}
STYLES = {"": ("-", "o"), "2": ("--", "s"), "4": (":", "^")}  # scale -> line and marker
BPP_TICKS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 2)
PANELS = {  # of the plot of losses; a scalar that is in none of these gets its own
    "generator": ["adversarial", "feature_matching", "vgg"],
    "discriminator": ["discriminator", "gradient_penalty", "D_real", "D_fake"],
    "distortion": ["distortion"],
    "PSNR, dB": ["PSNR", "held_out_PSNR"],
    "bits per pixel": ["bpp"],
    "LPIPS": ["lpips", "lpips_vgg"],
    "learning rate": ["G_learning_rate", "D_learning_rate"],
    "steps per second": ["steps_per_second"],
}


def plot_rates(results: list[dict], metric: str, path: Path) -> str | None:
    """Plot the mean bits per pixel against a metric, a line for each codec and scale.

    Returns the file's name, or None where no image of ours has the metric.
    """
    lines: dict[str, list] = {}
    for r in results:
        if r["mean"][metric] is not None:
            name = r["codec"].partition("@")[0] if r["matched_to"] else ""
            lines.setdefault(name, []).append((r["mean"]["bpp"], r["mean"][metric], r["label"]))
    if "" not in lines:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for name, points in sorted(lines.items()):
        x, y, labels = zip(*sorted(points), strict=True)
        codec, _, scale = name.partition("_")
        if name:
            line, marker = STYLES[scale]
            axes.plot(x, y, line, marker=marker, color=COLOURS[codec], alpha=0.8, label=labels[0])
            continue
        axes.plot(x, y, "-", marker="*", markersize=14, color="black", zorder=3, label="this project")
        for bpp, value, label in zip(x, y, labels, strict=True):
            axes.annotate(label.replace("$", r"\$"), (bpp, value), xytext=(8, -14), textcoords="offset points")
    axes.set_xscale("log")
    left, right = axes.get_xlim()
    ticks = [tick for tick in BPP_TICKS if left <= tick <= right]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("bits per pixel, of the files on disk")
    axes.set_ylabel(AXES[metric])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)
    return path.name


def plot_losses(run: Path, path: Path) -> None:
    """Plot all scalars in a run's TensorBoard log over its steps, the losses of G and D first."""
    scalars = read_scalars(run)
    grouped = {name for names in PANELS.values() for name in names}
    panels = PANELS | {name: [name] for name in sorted(scalars.keys() - grouped)}
    present = [(title, [name for name in names if name in scalars]) for title, names in panels.items()]
    present = [(title, names) for title, names in present if names]
    if not present:
        raise UserError(f"{run}: no losses in its log yet; train.py logs them every `diagnostic_steps` steps")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.6 * len(present)), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(len(present), sharex=True, squeeze=False)[:, 0], present, strict=True):
        for name in names:
            marker = "o" if len(scalars[name]) == 1 else ""  # a line of one point would be invisible
            axes.plot(*zip(*scalars[name], strict=True), label=name, linewidth=1, marker=marker)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    axes.set_xlabel("step")
    _save(figure, path)


def read_scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the points of each scalar, as (step, value) in ascending order. Raises UserError where there is no log."""
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
    return found


def _save(figure: "Figure", path: Path) -> None:
    with atomic(path) as partial:
        figure.savefig(partial, dpi=110)
