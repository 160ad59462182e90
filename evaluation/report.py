"""The report: an HTML page that needs no network, with tables, plots and pictures of what was measured."""

import html
import os
from collections.abc import Iterable
from pathlib import Path, PurePath
from urllib.parse import quote

import numpy as np

from gcodec.files import atomic
from gcodec.pictures import read_image, save_picture
from utils import Utils

COLUMNS = {  # metric -> heading, and how it is written
    "bytes": ("bytes", "{:,.0f}"),
    "within": ("fit", "{:.0%}"),
    "bpp": ("bpp", "{:.4f}"),
    "psnr": ("PSNR, dB", "{:.2f}"),
    "psnr_quarter": ("PSNR at 1/4 of the size, dB", "{:.2f}"),
    "ms_ssim": ("MS-SSIM", "{:.4f}"),
    "lpips_alex": ("LPIPS (AlexNet)", "{:.4f}"),
    "lpips_vgg": ("LPIPS (VGG16)", "{:.4f}"),
    "dists": ("DISTS", "{:.4f}"),
    "frechet_lite0": ("Fréchet (EfficientNet-Lite0)", "{:.2f}"),
    "kernel_lite0": ("kernel (EfficientNet-Lite0)", "{:.4f}"),
    "fid": ("FID", "{:.1f}"),
    "kid": ("KID", "{:.4f}"),
    "miou": ("mIoU", "{:.4f}"),
    "encode_seconds": ("encode, s", "{:.3f}"),
    "decode_seconds": ("decode, s", "{:.3f}"),
    "peak_memory": ("peak memory, GB", "{:.2f}"),
}
AXES = {"psnr": "PSNR, dB", "ms_ssim": "MS-SSIM"}
COLOURS = {"avif": "tab:blue", "webp": "tab:green", "jpeg2000": "tab:orange", "jpeg": "tab:brown", "jxl": "tab:purple"}
STYLES = {"": ("-", "o"), "2": ("--", "s"), "4": (":", "^")}  # scale -> line and marker
BPP_TICKS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 2)
NEAR = 1.1  # times the bytes that a codec was asked for: a larger file is not at these bytes
CROP = 256  # px
MOST_PICTURES = 24


def write(output: Path, results: list[dict], source: Path | None) -> None:
    """Write index.html, results.csv, plots, and, where the images are known, crops."""
    write_csv(output / "results.csv", results)
    ours = sorted((r for r in results if not r["matched_to"]), key=lambda r: (r["channels"], r["codec"]))
    title = text(", ".join(r["label"] for r in ours))
    body = [f"<h1>{title}</h1>", NOTE]
    for r in ours:
        body += [f"<h2>{text(r['label'])}, {len(r['images'])} images, mean</h2>", mean_table(r, results)]
        if original := r["mean"].get("miou_of_originals"):
            body.append(f"<p>mIoU of the originals, by the same segmentation network: {original:.4f}.</p>")
    plots = [path for metric in AXES if (path := plot_rates(results, metric, output))]
    body += ["<h2>Rate and distortion</h2>", *(image(path, path.name, "plot") for path in plots)]
    if source and len(ours) > 1 and (comparison := compare_channels(output, ours, source)):
        body += ["<h2>The rates</h2>", image(comparison, "the checkpoints side by side", "wide")]
    for r in ours:
        if source:
            crops = write_crops(output, r, results, source)
            body += [f"<h2>{text(r['label'])}: crops</h2>", CROP_NOTE, "<div class=crops>", *crops, "</div>"]
        body += [f"<details><summary>{text(r['label'])}, each image</summary>", image_table(r), "</details>"]
    with atomic(output / "index.html") as partial:
        partial.write_text(PAGE.format(title=title, body="\n".join(body)), encoding="utf-8")


# ----------------------------------------------------------------------------------------------------------------------
# HTML
# ----------------------------------------------------------------------------------------------------------------------


def text(name: str) -> str:
    """Return a name as text of the page; bytes of a file name that are no UTF-8 become question marks."""
    return html.escape(_printable(name))


def url(path: PurePath) -> str:
    """Return a relative path as an attribute's value: a file may be called `50% #1 "a"?.png`."""
    return html.escape(quote(os.fsencode(path.as_posix())))


def image(path: PurePath, description: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ' loading="lazy"'
    return f'<img{kind} src="{url(path)}" alt="{text(description)}">'


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")


# ----------------------------------------------------------------------------------------------------------------------
# Tables
# ----------------------------------------------------------------------------------------------------------------------


def write_csv(path: Path, results: list[dict]) -> None:
    import pandas as pd

    rows = [{"codec": r["codec"], "image": name} | record for r in results for name, record in r["images"].items()]
    with atomic(path) as partial:
        pd.DataFrame(rows).to_csv(partial, index=False, errors="surrogateescape")


def text_table(results: list[dict]) -> str:
    """Return the means as text, a line for each codec."""
    metrics = _metrics(r["mean"] for r in results)
    rows = [["", *(COLUMNS[metric][0] for metric in metrics)]]
    rows += [[r["codec"], *_cells(r["mean"], metrics)] for r in results]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[f"{row[0]:{widths[0]}}", *(f"{cell:>{n}}" for cell, n in zip(row[1:], widths[1:], strict=True))] for row in rows]
    return "\n".join("  ".join(line) for line in lines)


def mean_table(ours: dict, results: list[dict]) -> str:
    """Return a table of a checkpoint and the codecs at its bytes. Codecs that cannot make files so small are gray."""
    rows = [ours] + [r for r in results if r["matched_to"] == ours["codec"]]
    metrics = _metrics(r["mean"] for r in rows)
    lines = [_row("th", ["", *(COLUMNS[metric][0] for metric in metrics)])]
    for r in rows:
        style = "ours" if r is ours else "large" if r["mean"]["bytes"] > NEAR * _asked(r, ours) else ""
        lines.append(_row("td", [r["label"], *_cells(r["mean"], metrics)], style))
    return "<table>" + "\n".join(lines) + "</table>"


def _asked(result: dict, ours: dict) -> float:
    """Return how many bytes another codec was asked for, on average."""
    return float(np.mean([record.get("matched_bytes") or ours["mean"]["bytes"] for record in result["images"].values()]))


def image_table(ours: dict) -> str:
    metrics = _metrics(ours["images"].values())
    lines = [_row("th", ["", *(COLUMNS[metric][0] for metric in metrics)])]
    lines += [_row("td", [name, *_cells(record, metrics)]) for name, record in ours["images"].items()]
    return "<table>" + "\n".join(lines) + "</table>"


def _metrics(records: Iterable[dict]) -> list[str]:
    """Return those of COLUMNS that any of the records has."""
    records = list(records)
    return [metric for metric in COLUMNS if any(record.get(metric) is not None for record in records)]


def _cells(values: dict, metrics: list[str]) -> list[str]:
    scaled = values | {"peak_memory": (values.get("peak_memory") or 0) / 1e9 or None}
    return ["n/a" if scaled.get(metric) is None else COLUMNS[metric][1].format(scaled[metric]) for metric in metrics]


def _row(cell: str, texts: list[str], style: str = "") -> str:
    return f'<tr class="{style}">' + "".join(f"<{cell}>{text(content)}</{cell}>" for content in texts) + "</tr>"


# ----------------------------------------------------------------------------------------------------------------------
# Plots and pictures
# ----------------------------------------------------------------------------------------------------------------------


def plot_rates(results: list[dict], metric: str, output: Path) -> Path | None:
    """Write METRIC.png: the mean bits per pixel against the metric, a line for each codec and scale.

    Returns its name, or None where no image of ours has the metric.
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
    plot = Path(f"{metric}.png")
    with atomic(output / plot) as partial:
        figure.savefig(partial, dpi=110)
    return plot


def write_crops(output: Path, ours: dict, results: list[dict], source: Path) -> list[str]:
    """Write the most detailed crop of each image: the original, ours, and each codec at our bytes. Returns <img> elements."""
    matched = [r for r in results if r["matched_to"] == ours["codec"]]
    families = list(dict.fromkeys(_family(r) for r in matched))
    names = list(ours["images"])
    elements = []
    for name in names[:: -(-len(names) // MOST_PICTURES)]:
        original = _read(source / ours["images"][name]["source"])
        box = detailed_crop(original)
        panels, captions = [original[box]], [_printable(name)]
        for r in [ours, *filter(None, (best_at(matched, family, name, ours) for family in families))]:
            panels.append(_read(output / "pictures" / r["codec"] / f"{name}.png")[box])
            captions.append(f"{r['label']}: {_figures(r['images'][name])}")
        crop = Path("crops") / ours["codec"] / f"{name}.png"
        save_picture(Utils.side_by_side(panels, captions), output / crop)
        elements.append(image(crop, name))
    return elements


def _figures(record: dict) -> str:
    distance = "no loss" if record["psnr"] is None else f"{record['psnr']:.1f} dB"
    similarity = "" if record["ms_ssim"] is None else f", MS-SSIM {record['ms_ssim']:.3f}"
    return f"{record['bytes']:,} bytes, {distance}{similarity}"


def _family(result: dict) -> str:
    """Return the codec's name without its scale: "webp" of "webp_2@photo_c8"."""
    return result["codec"].partition("@")[0].partition("_")[0]


def best_at(matched: list[dict], family: str, name: str, ours: dict) -> dict | None:
    """Return the scale of a codec with the best MS-SSIM (or PSNR) at the bytes asked for, or the nearest if none gets there."""
    scales = [r for r in matched if _family(r) == family and name in r["images"]]

    def rank(r: dict) -> tuple:
        record = r["images"][name]
        near = record["bytes"] <= NEAR * (record.get("matched_bytes") or ours["images"][name]["bytes"])
        quality = record["ms_ssim"] or (np.inf if record["psnr"] is None else record["psnr"])
        return near, quality if near else -record["bytes"]

    return max(scales, key=rank, default=None)


def detailed_crop(image: np.ndarray) -> tuple[slice, slice]:
    """Return the window of CROP x CROP px with the strongest gradients, on a grid of CROP / 4."""
    gray = image.mean(axis=-1)
    strength = np.abs(np.diff(gray, axis=0))[:, :-1] + np.abs(np.diff(gray, axis=1))[:-1]
    places = [
        (strength[top : top + CROP, left : left + CROP].sum(), top, left)
        for top in range(0, max(1, image.shape[0] - CROP + 1), CROP // 4)
        for left in range(0, max(1, image.shape[1] - CROP + 1), CROP // 4)
    ]
    _, top, left = max(places)
    return slice(top, top + CROP), slice(left, left + CROP)


def compare_channels(output: Path, ours: list[dict], source: Path) -> Path | None:
    """Write comparison.png: the same images by all checkpoints, from few channels to many. Returns its name."""
    common = [name for name in ours[0]["images"] if all(name in r["images"] for r in ours)]
    rows = []
    for name in common[:: -(-len(common) // 4)]:
        panels = [_read(source / ours[0]["images"][name]["source"])]
        captions = [_printable(name)]
        for r in ours:
            record = r["images"][name]
            panels.append(_read(output / "pictures" / r["codec"] / f"{name}.png"))
            captions.append(f"{r['label']}: {_figures(record)}, {record['bpp']:.4f} bpp")
        rows.append(Utils.side_by_side(panels, captions))
    if not rows:
        return None
    save_picture(Utils.stack(rows), output / "comparison.png")
    return Path("comparison.png")


def _read(path: Path) -> np.ndarray:
    return read_image(path, max_pixels=2**62)


# ----------------------------------------------------------------------------------------------------------------------
# The page
# ----------------------------------------------------------------------------------------------------------------------

NOTE = """<p>Every figure is of files on disk that were decoded again. PSNR and MS-SSIM are of RGB at 8 bits; a picture without
any loss has no PSNR and does not count in the mean. The peak memory is that of the whole process. The other codecs are asked,
image by image, for files of the size of ours, or of the multiple of it that is named; 1/2 and 1/4 mean that the image is scaled
down before encoding and up again after decoding, with Lanczos. Gray codecs need more than 10% above what they were asked for,
because they cannot make smaller files.</p>"""
CROP_NOTE = """<p>The most detailed window of each image. Of each codec, the scale with the best MS-SSIM within 110% of
the bytes it was asked for is shown, or the smallest file that it can make.</p>"""
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
