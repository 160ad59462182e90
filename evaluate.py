#!/usr/bin/env python3
"""Measure checkpoints on a folder of images, by real files, beside the codecs that users would pick instead.

    python3 evaluate.py -r checkpoints/photo_c8 -i kodak/ -o report/
    python3 evaluate.py -r checkpoints/photo_c4 checkpoints/photo_c8 checkpoints/photo_c16 -i kodak/ -o report/ --baselines
    python3 evaluate.py -r checkpoints/photo_c4 checkpoints/photo_c8 -i kodak/ -o report/ --budgets 128,340,1024
    python3 evaluate.py -r checkpoints/photo_c8 -i test/ -o report/ --baselines --miou checkpoints/camvid_unet -sm testannot/
    python3 evaluate.py -r checkpoints/photo_c8 -i kodak/ -o report/ --packets 232

Every image becomes a file, which is decoded again. report/results/ gets a JSON file for each codec, report/results.csv has all
of it, and report/index.html shows tables, plots and pictures without a network. --baselines: JPEG, JPEG 2000, WebP, AVIF and
JPEG XL, each at three scales, by files whose sizes come as near as possible to those of each checkpoint, image by image;
--baselines 2: to twice those.
An interrupted run goes on where it stopped: what is measured already, in files that are still there, is not measured again.
LPIPS, DISTS and the distances of EfficientNet-Lite0's features are measured if their weights are in the cache; get them with
python3 tools/get_weights.py.
The report folder is the command's own: it writes the page anew each time. An image, a codec or a measure that fails is named
at the end, and costs the others nothing.
"""

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from commands.folder_run import in_this_process, work_through
from commands.loading import load_codec
from commands.options import add_worker_arguments, warn_of_large_files
from commands.workers import Workers
from config import UserError, config_test
from evaluation import lossy_link, report
from evaluation.baselines import available
from evaluation.budgets import baseline_within, models_within, slow_scan
from evaluation.measure import (
    Contender,
    ContenderTask,
    Measure,
    Result,
    Task,
    add_miou,
    add_perceptual,
    matched,
    of_checkpoint,
)
from evaluation.segmentation import Segmenter
from gcodec.checkpoint import resolve_checkpoint
from gcodec.files import locked, output_names, tell
from gcodec.pictures import images_in
from utils import Utils


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Utils.parser(__doc__)
    parser.add_argument("-r", "--restore", nargs="+", required=True, metavar="CKPT", help="checkpoints, or their runs' folders")
    parser.add_argument("-i", "--input", required=True, metavar="FOLDER", help="of images")
    parser.add_argument("-o", "--output", required=True, metavar="REPORT", help="folder to write")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--baselines", nargs="?", type=float, const=1.0, metavar="TIMES", help="measure other codecs, too, "
                      "at the file sizes of the checkpoints, or at TIMES these")  # fmt: skip
    what.add_argument("--budgets", metavar="N,N,...", help="measure what fits into so many bytes instead: the best of the "
                      "checkpoints at any size, and other codecs with the same freedom")  # fmt: skip
    what.add_argument("--packets", type=int, metavar="BYTES", help="measure instead what is left of each image when some "
                      "of its packets, which have at most BYTES bytes, are lost")  # fmt: skip
    parser.add_argument("--fid", nargs="?", const="imagenet", metavar="WEIGHTS", help="measure FID and KID, too, by Keras' "
                        "Inception v3 (default: the weights in Keras' cache, or a download)")  # fmt: skip
    parser.add_argument("--miou", metavar="CKPT", help="measure by this network how well its pictures can be segmented; "
                        "tools/train_segmenter.py trains one. Needs -sm")  # fmt: skip
    parser.add_argument("-sm", "--semantic-maps", metavar="FOLDER", help="label maps, by the images' names")
    parser.add_argument("-k", "--knob", action="append", default=[], metavar="NAME=VALUE",
                        help="override a knob of config_test; may be repeated")  # fmt: skip
    add_worker_arguments(parser)
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    source, output = Path(args.input), Path(args.output)
    if not source.is_dir():
        raise UserError(f"{source}: no such folder of images")
    if output.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{output}: write to a folder apart from {source}")
    if bool(args.miou) != bool(args.semantic_maps):
        raise UserError("--miou and -sm: one needs the other")
    if args.packets is not None and (args.fid or args.miou):
        raise UserError("--packets: does not go with --fid or --miou")
    if args.baselines is not None and not 0 < args.baselines < math.inf:
        raise UserError(f"--baselines {args.baselines}: must be more than 0")
    knobs = config_test().override(args.knob)
    checkpoints = checkpoint_names(args.restore)
    budgets = read_budgets(args.budgets)
    names = output_names(images_in(source), source, "")
    measure = Measure(output, source, {path: str(name) for path, name in names.items()}, knobs)
    workers = Workers(args.workers, args.scheduler).within_memory(map(Path, names))
    with locked(output, f"report {output.name}"), workers.started() as measure.spread:
        if args.packets is not None:
            measure_packets(checkpoints, args.packets, measure)
        else:
            judges = load_judges(args.miou, args.semantic_maps, args.fid, measure)
            if budgets:
                results = measure_budgets(budgets, checkpoints, measure)
            else:
                results = measure_checkpoints(checkpoints, measure, args.baselines)
            write_report(judges.judge(results, measure), measure)
    for line in dict.fromkeys(measure.failures):  # several checkpoints tell the same of an image
        tell(f"not measured: {line}")
    return 2 if measure.failures else 0


def run(task: Task, measure: Measure) -> None:
    """Measure what an earlier run has not. Raises UserError if nothing could be."""
    bar = lambda items: Utils.progress(items, "image", task.name)  # noqa: E731
    rows, _ = work_through(task.items, task.kept, task.work(), task.add, task.failed, measure.spread or in_this_process, bar)
    task.records = {item.source: task.records[item.source] for item in task.items if item.source in task.records}
    if not rows:
        raise UserError(f"{measure.source}: no image could be measured with {task.label}; {measure.failures[-1]}")


def measure_contender(contender: Contender, measure: Measure) -> Result:
    """Measure a codec on each image."""
    task = ContenderTask(measure, contender)
    run(task, measure)
    return task.write(task.records)


# ----------------------------------------------------------------------------------------------------------------------
# Checkpoints, and other codecs beside them
# ----------------------------------------------------------------------------------------------------------------------


def measure_checkpoints(checkpoints: Mapping[str, str], measure: Measure, times: float | None = None) -> list[Result]:
    """Measure checkpoints and, with `times`, the other codecs at so many times the file sizes of each."""

    def measure_ours(name: str, path: str) -> Result:
        return measure_contender(our_contender(name, path, measure.knobs), measure)

    ours = [result for name, path in checkpoints.items() if (result := measure.attempt(measure_ours, name, path))]
    if not ours:
        raise UserError(f"nothing was measured: {measure.failures[-1]}")
    others = available(tell) if times else []
    sizes = {r["codec"]: {name: record["bytes"] for name, record in r["images"].items()} for r in ours}
    asked = [matched(baseline, name, own, times or 1) for name, own in sizes.items() for baseline in others]
    return ours + [result for contender in asked if (result := measure.attempt(measure_contender, contender, measure))]


def our_contender(name: str, path: str, knobs: config_test) -> Contender:
    """Load a checkpoint. Raises UserError for one whose files have a label map."""
    codec = load_codec(path, knobs)
    if codec.config.code_channels:
        raise UserError(f"{path}: its files have a label map; compress.py measures such models, with -sm")
    warn_of_large_files(codec)
    key = f"{codec.checkpoint.fingerprint.hex()} {knobs.to_json()}"
    return of_checkpoint(name, codec, key)


# ----------------------------------------------------------------------------------------------------------------------
# Packets
# ----------------------------------------------------------------------------------------------------------------------


def measure_packets(checkpoints: Mapping[str, str], size: int, measure: Measure) -> None:
    """Print a table for each checkpoint: what lost packets of at most `size` bytes cost."""
    for name, path in checkpoints.items():
        task = lossy_link.PacketsTask(measure, load_codec(path, measure.knobs), name, size)
        measure.attempt(run, task, measure)
        if task.records:
            print(lossy_link.table(name, size, task.records))


# ----------------------------------------------------------------------------------------------------------------------
# Budgets
# ----------------------------------------------------------------------------------------------------------------------


def read_budgets(text: str | None) -> list[int]:
    """Return the numbers of --budgets. Raises UserError unless all are whole and from 1 up."""
    parts = text.split(",") if text else []
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise UserError(f"--budgets {text}: whole numbers of bytes, such as 128,340,1024")
    return [int(part) for part in parts]


def measure_budgets(budgets: list[int], checkpoints: dict[str, str], measure: Measure) -> list[Result]:
    """Measure what fits into each budget, ours first, and what slow-scan practice sends."""
    ours = [load_codec(path, measure.knobs) for path in checkpoints.values()]
    others = [baseline for baseline in available(tell) if baseline.scale == 1]
    measured = []
    for max_bytes in budgets:
        contenders = [models_within(ours, max_bytes), *(baseline_within(baseline, max_bytes) for baseline in others)]
        measured += [measure.attempt(measure_contender, contender, measure) for contender in contenders]
    measured.append(measure.attempt(measure_contender, slow_scan(others[0]), measure))
    results = [result for result in measured if result]
    if not results:
        raise UserError(f"nothing was measured: {measure.failures[-1]}")
    for result in results:
        result["mean"]["within"] = len(result["images"]) / len(measure.images)
    return results


# ----------------------------------------------------------------------------------------------------------------------
# Measures that need a network of their own, and the report
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judges:
    """The networks that look at the decoded pictures."""

    pairs: list  # measures of a picture beside its original
    sets: list  # measures of all pictures beside all originals
    segmenter: Segmenter | None = None
    maps: Path = Path()  # the label maps, for the segmenter

    def judge(self, results: list[Result], measure: Measure) -> list[Result]:
        """Add what they measure to the results."""
        if self.segmenter:
            measure.attempt(add_miou, results, self.segmenter, measure, self.maps)
        if self.pairs or self.sets:
            measure.attempt(add_perceptual, results, self.pairs, self.sets, measure)
        if any(each.frechet_name == "fid" for each in self.sets) and not any("fid" in r["mean"] for r in results):
            measure.failures.append("FID, KID: the images do not have two patches of 256x256 px")
        return results


def load_judges(miou: str | None, maps: str | None, fid: str | None, measure: Measure) -> Judges:
    """Load the networks whose weights are here, and those that the command line names: a segmenter, and Inception."""
    with Utils.importing_tensorflow():
        segmenter = Segmenter.load(miou) if miou else None
        from evaluation import perceptual

        pairs, sets = perceptual.available(tell)
        sets += filter(None, [measure.attempt(perceptual.inception, fid) if fid else None])
    return Judges(pairs, sets, segmenter, Path(maps or ""))


def write_report(results: list[Result], measure: Measure) -> None:
    """Write the page and its tables, and print the table of means."""
    report.write(measure.output, results, measure.source)
    print(report.text_table(results))
    print(f"report: {measure.output / 'index.html'}")


# ----------------------------------------------------------------------------------------------------------------------
# The command line
# ----------------------------------------------------------------------------------------------------------------------


def checkpoint_names(paths: list[str]) -> dict[str, str]:
    """Return a name for each checkpoint: that of its run, and its own where there are several of a run."""
    folders = [resolve_checkpoint(path).resolve() for path in paths]
    runs = [folder.parent.name if folder.name.startswith("ckpt-") else folder.name for folder in folders]
    names: dict[str, str] = {}
    for path, folder, run in zip(paths, folders, runs, strict=True):
        name = run if runs.count(run) == 1 or run == folder.name else f"{run}-{folder.name}"
        if name in names:
            raise UserError(f"{path} and {names[name]}: two checkpoints of the name {name}; evaluate them one by one")
        names[name] = path
    return names


if __name__ == "__main__":
    sys.exit(main())
