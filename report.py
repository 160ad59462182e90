#!/usr/bin/env python3
"""Tables, plots and pictures of what evaluate.py measured, as a page that needs no network; and plots of a training run.

python3 report.py report/                                      # the page anew, from report/results/*.json
python3 report.py --losses tensorboard/run -o losses.png       # the losses of G and D, from TensorBoard's log
"""

import argparse
import html
import json
import sys
from pathlib import Path

import numpy as np

from config import UserError
from utils import Utils

COLUMNS = {  # metric -> heading, and how it is written
    "bytes": ("bytes", lambda v: f"{v:,.0f}"),
    "bpp": ("bpp", lambda v: f"{v:.4f}"),
    "psnr": ("PSNR, dB", lambda v: f"{v:.2f}"),
    "ms_ssim": ("MS-SSIM", lambda v: f"{v:.4f}"),
    "lpips": ("LPIPS", lambda v: f"{v:.4f}"),
    "lpips_alex": ("LPIPS (AlexNet)", lambda v: f"{v:.4f}"),
    "lpips_vgg": ("LPIPS (VGG16)", lambda v: f"{v:.4f}"),
    "dists": ("DISTS", lambda v: f"{v:.4f}"),
    "frechet_lite0": ("Fréchet (EfficientNet-Lite0)", lambda v: f"{v:.2f}"),
    "kernel_lite0": ("kernel (EfficientNet-Lite0)", lambda v: f"{v:.4f}"),
    "fid": ("FID", lambda v: f"{v:.1f}"),
    "kid": ("KID", lambda v: f"{v:.4f}"),
    "miou": ("mIoU", lambda v: f"{v:.4f}"),
    "encode_seconds": ("encode, s", lambda v: f"{v:.3f}"),
    "decode_seconds": ("decode, s", lambda v: f"{v:.3f}"),
    "peak_memory": ("peak memory, GB", lambda v: f"{v / 1e9:.2f}"),
}
AXES = {"psnr": "PSNR, dB", "ms_ssim": "MS-SSIM"}
COLOURS = {"avif": "tab:blue", "webp": "tab:green", "jpeg2000": "tab:orange", "jpeg": "tab:brown", "jxl": "tab:purple"}
BPP_TICKS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 2)
NEAR = 1.1  # times our bytes: what is larger is not "at equal bytes"
CROP = 256  # px
MOST_PICTURES = 24


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("report", nargs="?", help="folder that evaluate.py wrote")
    what.add_argument("--losses", metavar="RUN", help="folder of a run's TensorBoard log")
    parser.add_argument("-i", "--input", metavar="FOLDER", help="the images that were measured, for the crops")
    parser.add_argument("-o", "--output", default="losses.png", metavar="OUT.png", help="of --losses (default: losses.png)")
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.losses:
        plot_losses(Path(args.losses), Utils.picture_path(args.output))
        print(args.output)
        return 0
    files = sorted(Path(args.report, "results").glob("*.json"))
    if not files:
        raise UserError(f"{args.report}: no results/*.json there; evaluate.py writes them")
    results = [json.loads(file.read_text()) for file in files]
    write(Path(args.report), results, Path(args.input) if args.input else None)
    print(Path(args.report, "index.html"))
    return 0


def write(output: Path, results: list[dict], source: Path | None) -> None:
    """report/index.html, results.csv, plots and crops."""
    write_csv(output / "results.csv", results)
    ours = sorted((r for r in results if not r["matched_to"]), key=lambda r: (r["channels"], r["codec"]))
    plots = [plot_rates(results, metric, output / f"{metric}.png") for metric in AXES]
    crops = {r["codec"]: write_crops(output, r, results, source) for r in ours} if source else {}
    comparison = compare_channels(output, ours, source) if source and len(ours) > 1 else None
    body = [f"<h1>{html.escape(', '.join(r['label'] for r in ours))}</h1>", NOTE]
    for r in ours:
        body += [f"<h2>{html.escape(r['label'])}, {len(r['images'])} images, mean</h2>", mean_table(r, results)]
        if original := r["mean"].get("miou_of_originals"):
            body.append(f"<p>mIoU of the originals, by the same segmentation network: {original:.4f}.</p>")
    body += ["<h2>Rate and distortion</h2>", *(f'<img class="plot" src="{name}" alt="{name}">' for name in filter(None, plots))]
    if comparison:
        body += ["<h2>The rates</h2>", f'<img class="wide" src="{comparison}" alt="the checkpoints side by side">']
    for r in ours:
        if pictures := crops.get(r["codec"]):
            body += [
                f"<h2>{html.escape(r['label'])}: crops at equal bytes</h2>",
                CROP_NOTE,
                "<div class=crops>",
                *pictures,
                "</div>",
            ]
        body += [f"<details><summary>{html.escape(r['label'])}, each image</summary>", image_table(r), "</details>"]
    page = PAGE.format(title=html.escape(", ".join(r["label"] for r in ours)), body="\n".join(body))
    with Utils.atomic(output / "index.html") as partial:
        partial.write_text(page, encoding="utf-8")


# ----------------------------------------------------------------------------------------------------------------------
# Tables
# ----------------------------------------------------------------------------------------------------------------------


def write_csv(path: Path, results: list[dict]) -> None:
    import pandas as pd

    rows = [{"codec": r["codec"], "image": name} | record for r in results for name, record in r["images"].items()]
    with Utils.atomic(path) as partial:
        pd.DataFrame(rows).to_csv(partial, index=False)


def text_table(results: list[dict]) -> str:
    """The means, a line a codec."""
    rows = [["", *(COLUMNS[metric][0] for metric in _metrics([r["mean"] for r in results]))]]
    rows += [[r["codec"], *_cells(r["mean"], _metrics([r["mean"] for r in results]))] for r in results]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[f"{row[0]:{widths[0]}}", *(f"{text:>{n}}" for text, n in zip(row[1:], widths[1:], strict=True))] for row in rows]
    return "\n".join("  ".join(line) for line in lines)


def mean_table(ours: dict, results: list[dict]) -> str:
    """A checkpoint, and the codecs at its bytes; those that cannot make files so small are gray."""
    rows = [ours] + [r for r in results if r["matched_to"] == ours["codec"]]
    metrics = _metrics([r["mean"] for r in rows])
    lines = [_row("th", ["", *(COLUMNS[metric][0] for metric in metrics)])]
    for r in rows:
        style = "ours" if r is ours else "large" if r["mean"]["bytes"] > NEAR * ours["mean"]["bytes"] else ""
        lines.append(_row("td", [r["label"], *_cells(r["mean"], metrics)], style))
    return "<table>" + "\n".join(lines) + "</table>"


def image_table(ours: dict) -> str:
    metrics = _metrics(list(ours["images"].values()))
    lines = [_row("th", ["", *(COLUMNS[metric][0] for metric in metrics)])]
    lines += [_row("td", [name, *_cells(record, metrics)]) for name, record in ours["images"].items()]
    return "<table>" + "\n".join(lines) + "</table>"


def _metrics(records: list[dict]) -> list[str]:
    """Those of COLUMNS that any of the records has."""
    return [metric for metric in COLUMNS if any(record.get(metric) is not None for record in records)]


def _cells(values: dict, metrics: list[str]) -> list[str]:
    return ["n/a" if values.get(metric) is None else COLUMNS[metric][1](values[metric]) for metric in metrics]


def _row(cell: str, texts: list[str], style: str = "") -> str:
    return f'<tr class="{style}">' + "".join(f"<{cell}>{html.escape(text)}</{cell}>" for text in texts) + "</tr>"


# ----------------------------------------------------------------------------------------------------------------------
# Plots
# ----------------------------------------------------------------------------------------------------------------------


def plot_rates(results: list[dict], metric: str, path: Path) -> str | None:
    """Mean bits per pixel against a metric, a line a codec and scale; None where no image has the metric."""
    lines: dict[str, list] = {}
    for r in results:
        if r["mean"][metric] is not None:
            name = "" if not r["matched_to"] else r["codec"].partition("@")[0]
            lines.setdefault(name, []).append((r["mean"]["bpp"], r["mean"][metric], r["label"]))
    if "" not in lines:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for name, points in sorted(lines.items()):
        x, y, labels = zip(*sorted(points), strict=True)
        codec, _, scale = name.partition("_")
        style = {"": "-", "2": "--", "4": ":"}[scale]
        marker = {"": "o", "2": "s", "4": "^"}[scale]
        if name:
            axes.plot(x, y, style, marker=marker, color=COLOURS[codec], alpha=0.8, label=labels[0])
        else:
            axes.plot(x, y, "-", marker="*", markersize=14, color="black", zorder=3, label="this project")
            for point in zip(x, y, labels, strict=True):
                axes.annotate(point[2], point[:2], xytext=(8, -14), textcoords="offset points")
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
    """The losses of G and D over the steps of a run, from its TensorBoard log."""
    scalars = read_scalars(run)
    panels = [
        ("generator", ["adversarial", "feature_matching", "vgg"]),
        ("discriminator", ["discriminator", "gradient_penalty", "D_real", "D_fake"]),
        ("distortion", ["distortion"]),
        ("PSNR, dB", ["PSNR", "held_out_PSNR"]),
    ]
    present = [(title, [name for name in names if name in scalars]) for title, names in panels]
    present = [(title, names) for title, names in present if names]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.6 * len(present)), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(len(present), sharex=True, squeeze=False)[:, 0], present, strict=True):
        for name in names:
            axes.plot(*zip(*scalars[name], strict=True), label=name, linewidth=1)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    axes.set_xlabel("step")
    _save(figure, path)


def read_scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalar -> (step, value) of each point, ascending. Raises UserError where there is no log."""
    if not list(run.glob("events.out.tfevents.*")):
        raise UserError(f"{run}: no TensorBoard log there; train.py writes it below the knob `tensorboard`")
    with Utils.quiet_tensorflow():
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray

        log = EventAccumulator(str(run), size_guidance={"tensors": 0})
        log.Reload()
    found = {}
    for tag in log.Tags()["tensors"]:
        if "/" not in tag:  # those with one are images
            points = {event.step: float(make_ndarray(event.tensor_proto)) for event in log.Tensors(tag)}
            found[tag] = sorted(points.items())
    return found


def _save(figure, path: Path) -> None:
    with Utils.atomic(path) as partial:
        figure.savefig(partial, dpi=110)


# ----------------------------------------------------------------------------------------------------------------------
# Pictures
# ----------------------------------------------------------------------------------------------------------------------


def write_crops(output: Path, ours: dict, results: list[dict], source: Path) -> list[str]:
    """For each image the most detailed crop: the original, ours, and each codec at our bytes. Returns figures in HTML."""
    matched = [r for r in results if r["matched_to"] == ours["codec"]]
    families = list(dict.fromkeys(r["codec"].partition("@")[0].partition("_")[0] for r in matched))
    names = list(ours["images"])
    figures = []
    for name in names[:: -(-len(names) // MOST_PICTURES)]:
        original = _read(source / ours["images"][name]["source"])
        box = detailed_crop(original)
        panels, captions = [original[box]], [name]
        for r in [ours, *filter(None, (best_at(matched, family, name, ours) for family in families))]:
            record = r["images"][name]
            panels.append(_read(output / "pictures" / r["codec"] / f"{name}.png")[box])
            similarity = "" if record["ms_ssim"] is None else f", MS-SSIM {record['ms_ssim']:.3f}"
            captions.append(f"{r['label']}: {record['bytes']:,} bytes, {record['psnr']:.1f} dB{similarity}")
        crop = Path("crops") / ours["codec"] / f"{name}.png"
        Utils.save_picture(Utils.side_by_side(panels, captions), output / crop)
        figures.append(f'<img loading="lazy" src="{html.escape(crop.as_posix())}" alt="{html.escape(name)}">')
    return figures


def best_at(matched: list[dict], family: str, name: str, ours: dict) -> dict | None:
    """Of a codec's scales the one of the best MS-SSIM (or PSNR) at our bytes, or nearest to them if none gets there."""
    scales = [r for r in matched if r["codec"].partition("@")[0].partition("_")[0] == family and name in r["images"]]
    size = ours["images"][name]["bytes"]

    def rank(r: dict) -> tuple:
        record = r["images"][name]
        near = record["bytes"] <= NEAR * size
        return near, (record["ms_ssim"] or record["psnr"]) if near else -record["bytes"]

    return max(scales, key=rank, default=None)


def detailed_crop(image: np.ndarray) -> tuple[slice, slice]:
    """The window of CROP x CROP px with the strongest gradients, on a grid of CROP / 4."""
    gray = image.mean(axis=-1)
    strength = np.abs(np.diff(gray, axis=0))[:, :-1] + np.abs(np.diff(gray, axis=1))[:-1]
    places = [
        (strength[top : top + CROP, left : left + CROP].sum(), top, left)
        for top in range(0, max(1, image.shape[0] - CROP + 1), CROP // 4)
        for left in range(0, max(1, image.shape[1] - CROP + 1), CROP // 4)
    ]
    _, top, left = max(places)
    return slice(top, top + CROP), slice(left, left + CROP)


def compare_channels(output: Path, ours: list[dict], source: Path) -> str | None:
    """The same images by all checkpoints, from few channels to many: comparison.png."""
    common = [name for name in ours[0]["images"] if all(name in r["images"] for r in ours)]
    rows = []
    for name in common[:: -(-len(common) // 4)]:
        panels = [_read(source / ours[0]["images"][name]["source"])]
        captions = [name]
        for r in ours:
            record = r["images"][name]
            panels.append(_read(output / "pictures" / r["codec"] / f"{name}.png"))
            captions.append(f"{r['label']}: {record['bytes']:,} bytes, {record['bpp']:.4f} bpp, {record['psnr']:.2f} dB")
        rows.append(Utils.side_by_side(panels, captions))
    if not rows:
        return None
    Utils.save_picture(Utils.stack(rows), output / "comparison.png")
    return "comparison.png"


def _read(path: Path) -> np.ndarray:
    from data import Data

    return Data.read_image(path, max_pixels=2**62)


# ----------------------------------------------------------------------------------------------------------------------
# The page
# ----------------------------------------------------------------------------------------------------------------------

NOTE = """<p>Every figure is of files on disk that were decoded again. PSNR and MS-SSIM are of RGB at 8 bits; the peak memory is
the process's, TensorFlow included. The other codecs are asked, image by image, for files of the size of ours; 1/2 and 1/4:
scaled down before encoding and up again after decoding, with Lanczos. Gray: more than 10% above our bytes, because the codec
cannot make smaller files.</p>"""
CROP_NOTE = """<p>The most detailed window of each image. Of each codec the scale with the best MS-SSIM within 110% of our
bytes, or the smallest file it can make.</p>"""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1400px; margin: 2em auto; padding: 0 1em; color: #222; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.2em 0.9em; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
.ours {{ font-weight: bold; background: #eef5ee; }}
.large {{ color: #888; }}
.plot {{ width: min(100%, 690px); }}
.wide, .crops img {{ max-width: 100%; display: block; margin: 0.8em 0; }}
details {{ margin: 1em 0; }}
summary {{ cursor: pointer; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""

if __name__ == "__main__":
    sys.exit(main())
