#!/usr/bin/env python3
"""Measure checkpoints on a folder of images, by real files, beside the codecs that users would pick instead.

    python3 evaluate.py -r checkpoints/photo_c8 -i kodak/ -o report/
    python3 evaluate.py -r checkpoints/photo_c4 checkpoints/photo_c8 checkpoints/photo_c16 -i kodak/ -o report/ --baselines
    python3 evaluate.py -r checkpoints/photo_c8 -i test/ -o report/ --baselines --miou checkpoints/camvid_unet -sm testannot/

Every image becomes a file, which is decoded again; report/results/ gets a JSON file a codec, all of one shape, and
report/results.csv all of it; report/index.html shows tables, plots and pictures without a network. --baselines: JPEG, JPEG
2000, WebP, AVIF and JPEG XL, each at three scales, by files as near to each checkpoint's, image by image, as they come.
What is measured already, in files that are still there, is not measured again: an interrupted run goes on. LPIPS, DISTS and
the distances of EfficientNet-Lite0's features are measured where their weights are: python3 perceptual.py --get, once.
"""

import argparse
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from config import UserError, config_test
from data import Data
from segmentation import Segmenter, miou
from semantic import map_of, read_map
from utils import Utils

METRICS = ("bytes", "bpp", "psnr", "ms_ssim", "encode_seconds", "decode_seconds", "peak_memory")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-r", "--restore", nargs="+", required=True, metavar="CKPT", help="checkpoints, or their runs' folders")
    parser.add_argument("-i", "--input", required=True, metavar="FOLDER", help="of images")
    parser.add_argument("-o", "--output", required=True, metavar="REPORT", help="folder to write")
    parser.add_argument("--baselines", action="store_true", help="measure other codecs, too")
    parser.add_argument("--lpips", metavar="WEIGHTS", help="measure LPIPS by this file's weights, too; perceptual.py "
                        "writes one")  # fmt: skip
    parser.add_argument("--fid", nargs="?", const="imagenet", metavar="WEIGHTS", help="measure FID and KID, too, by Keras' "
                        "Inception v3 (default: the weights in Keras' cache, or a download)")  # fmt: skip
    parser.add_argument("--miou", metavar="CKPT", help="measure by this network how well its pictures can be segmented; "
                        "segmentation.py trains one. Needs -sm")  # fmt: skip
    parser.add_argument("-sm", "--semantic-maps", metavar="FOLDER", help="label maps, by the images' names")
    parser.add_argument("-k", "--knob", action="append", default=[], metavar="NAME=VALUE",
                        help="override a knob of config_test; may be repeated")  # fmt: skip
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    knobs = config_test().override(args.knob)
    source, output = Path(args.input), Path(args.output)
    if not source.is_dir():
        raise UserError(f"{source}: no such folder of images")
    if output.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{output}: write to a folder apart from {source}")
    if bool(args.miou) != bool(args.semantic_maps):
        raise UserError("--miou and -sm: one needs the other")
    names = checkpoint_names(args.restore)
    images = Data.images_in(source)
    measure = Measure(output, source, {path: str(name) for path, name in Utils.output_names(images, source, "").items()}, knobs)

    import report
    from baselines import available
    from entropy import StaticTables

    with Utils.quiet_tensorflow():
        from evaluation import perceptual
        from model import Model
    segmenter = Segmenter.load(args.miou) if args.miou else None
    pairs, sets = perceptual.available(lambda line: print(line, file=sys.stderr))
    pairs += filter(None, [measure.optional(perceptual.lpips_from, args.lpips)])
    inception = measure.optional(perceptual.inception, args.fid)
    sets += [inception] if inception else []

    results = []
    for name, path in names.items():
        model = Model.load(path)
        if model.config.code_channels:
            raise UserError(f"{path}: its files have a label map; compress.py measures such, with -sm")
        if isinstance(model.entropy_model, StaticTables):
            print(f"warning: {path} has no context model: its files are larger than need be; see train.py --fit-entropy",
                  file=sys.stderr)  # fmt: skip
        results.append(measure.codec(OurCodec(name, model, knobs)))
    if args.baselines:
        codecs = available(lambda line: print(line, file=sys.stderr))
        for ours in list(results):
            sizes = {name: record["bytes"] for name, record in ours["images"].items()}
            for codec in codecs:
                results.append(measure.codec(BaselineCodec(codec, ours["codec"], sizes)))
    if segmenter:
        add_miou(results, segmenter, measure, Path(args.semantic_maps))
    if pairs or sets:
        add_perceptual(results, pairs, sets, measure)
    if inception and not any("fid" in r["mean"] for r in results):
        measure.failures.append("FID, KID: the images do not have two patches of 256x256 px")
    report.write(output, results, source)
    print(report.text_table(results))
    print(f"report: {output / 'index.html'}")
    for line in dict.fromkeys(measure.failures):  # several checkpoints tell the same of an image
        print(f"not measured: {line}", file=sys.stderr)
    return 2 if measure.failures else 0


def add_miou(results: list[dict], segmenter, measure: "Measure", maps: Path) -> None:
    """Add to each codec's means the mIoU of its pictures and, to compare, of the originals, by one network."""
    from tqdm import tqdm

    known = {name: record for r in results for name, record in r["images"].items()}
    sources = measure.sources(results)
    label_maps = {}
    for name, path in sources.items():
        try:
            size = known[name]["height"], known[name]["width"]
            label_maps[name] = read_map(map_of(path, measure.source, maps), segmenter.classes, size)
        except UserError as error:
            measure.failures.append(f"mIoU: {error}")
    if not label_maps:
        raise UserError(f"{maps}: no label map of any image there; the last: {measure.failures[-1]}")

    def confusion(pictures: dict) -> np.ndarray:
        read = ((Data.read_image(path, measure.knobs.max_pixels), label_maps[name]) for name, path in pictures.items())
        return sum(segmenter.confusion(image, s) for image, s in read)

    of_originals = miou(confusion({name: sources[name] for name in label_maps}))
    for r in tqdm(results, desc="mIoU", unit="codec"):
        pictures = {name: measure.picture(r["codec"], name) for name in label_maps if name in r["images"]}
        r["mean"] |= {"miou": miou(confusion(pictures)), "miou_of_originals": of_originals}
        measure.write(r)


def add_perceptual(results: list[dict], pairs: list, sets: list, measure: "Measure") -> None:
    """Add the measures of pairs to each image and to the means, and those of sets to the means."""
    from tqdm import tqdm

    for name, path in tqdm(measure.sources(results).items(), desc="perceptual", unit="image"):
        original = Data.read_image(path, measure.knobs.max_pixels)
        records = {r["codec"]: r["images"][name] for r in results if name in r["images"]}
        pictures = {codec: Data.read_image(measure.picture(codec, name), measure.knobs.max_pixels) for codec in records}
        for pair in pairs:
            pair.add(original, pictures, records)
        for each in sets:
            each.add(original, pictures)
        for r in results:
            measure.write(r)
    for r in results:
        r["mean"] |= _means(r["images"].values(), tuple(pair.name for pair in pairs))
        for each in sets:
            r["mean"] |= each.distances(r["codec"])
        measure.write(r)


def checkpoint_names(paths: list[str]) -> dict[str, str]:
    """A name for each checkpoint: its run's."""
    from checkpoint import resolve_checkpoint

    names: dict[str, str] = {}
    for path in paths:
        folder = resolve_checkpoint(path)
        name = folder.resolve().parent.name if folder.name.startswith("ckpt-") else folder.resolve().name
        if name in names:
            raise UserError(f"{path} and {names[name]}: two checkpoints of the name {name}; evaluate them one by one")
        names[name] = path
    return names


# ----------------------------------------------------------------------------------------------------------------------
# Codecs: name, label, suffix, key, and encode(name of the image, image) -> file, decode(file, image's size) -> image
# ----------------------------------------------------------------------------------------------------------------------


class OurCodec:
    """A checkpoint. What was measured with the same `key` needs not be measured again."""

    suffix, matched_to = ".gc", None
    sizes: ClassVar[dict[str, int]] = {}

    def __init__(self, name: str, model, knobs: config_test):
        self.name, self.model, self.knobs = name, model, knobs
        self.label = f"{name} (C={model.config.channel_bottleneck})"
        self.channels = model.config.channel_bottleneck
        self.key = f"{model.fingerprint.hex()} {knobs.to_json()}"

    def prepare(self, name: str, image: np.ndarray) -> Callable[[], bytes]:
        from compress import encode

        return lambda: encode(self.model, image, self.knobs.channels)

    def decode(self, data: bytes, height: int, width: int) -> np.ndarray:
        from decompress import decode

        return decode(self.model, data, self.knobs)


class BaselineCodec:
    """Another codec, whose files are as large as those of `matched_to`, or as near as they come."""

    channels = None

    def __init__(self, baseline, matched_to: str, sizes: dict[str, int]):
        self.baseline, self.matched_to, self.sizes = baseline, matched_to, sizes
        self.name, self.suffix = f"{baseline.name}@{matched_to}", baseline.suffix
        self.label = baseline.label
        self.key = baseline.version
        self.decode = baseline.decode

    def prepare(self, name: str, image: np.ndarray) -> Callable[[], bytes]:
        setting = self.baseline.setting_for(image, self.sizes[name])
        return lambda: self.baseline.encode(image, setting)


# ----------------------------------------------------------------------------------------------------------------------
# Measuring
# ----------------------------------------------------------------------------------------------------------------------


@dataclass
class Measure:
    """Runs codecs over the images below `source`. Files, pictures and results go below `output`."""

    output: Path
    source: Path
    images: dict[str, str]  # path -> name in the results, without its suffix where that is unique
    knobs: config_test
    failures: list[str] = dataclasses.field(default_factory=list)

    def codec(self, codec) -> dict:
        """Results of a codec: what METRICS names, for each image and on average. They are on disk after each image."""
        from tqdm import tqdm

        before = self._before(self._results(codec.name), codec.key)
        self._write(codec, before)  # whether it can be written shows before the work, not after
        records: dict[str, dict] = {}
        for path, name in tqdm(self.images.items(), desc=codec.name, unit="image"):
            if codec.matched_to and name not in codec.sizes:  # it could not be read
                continue
            try:
                image = Data.read_image(path, self.knobs.max_pixels)
                facts = {
                    "source": str(Path(path).relative_to(self.source)),
                    "sha256": hashlib.sha256(image).hexdigest()[:16],  # of the pixels
                    "matched_bytes": codec.sizes.get(name),
                }
                record = before.get(name, {})
                if facts.items() <= record.items() and self._complete(codec, name, record):
                    records[name] = record
                    continue
                records[name] = facts | self._image(codec, image, name)
            except UserError as error:
                self.failures.append(str(error) if path in str(error) else f"{path} by {codec.label}: {error}")
                continue
            self._write(codec, before | records)
        if not records:
            raise UserError(f"{self.source}: no image could be measured with {codec.label}; {self.failures[-1]}")
        return self._write(codec, records)

    def _image(self, codec, image: np.ndarray, name: str) -> dict:
        """One image: a file, decoded from the disk, and a picture."""
        height, width = image.shape[:2]
        encode = codec.prepare(name, image)
        Utils.reset_peak_memory()
        start = time.perf_counter()
        data = encode()
        encoded = time.perf_counter()
        file, picture = self._files(codec, name)
        with Utils.atomic(file) as partial:
            partial.write_bytes(data)
        data = file.read_bytes()
        read = time.perf_counter()
        reconstruction = codec.decode(data, height, width)
        decoded = time.perf_counter()
        peak = None if codec.matched_to else Utils.memory("VmHWM")  # of other codecs, TensorFlow would be the most of it
        Utils.save_picture(reconstruction, picture)
        return {
            "width": width,
            "height": height,
            "bytes": len(data),
            "bpp": 8 * len(data) / (width * height),
            "psnr": Utils.psnr(image, reconstruction),
            "ms_ssim": Utils.ms_ssim(image, reconstruction),
            "encode_seconds": encoded - start,
            "decode_seconds": decoded - read,
            "peak_memory": peak,
        }

    def _files(self, codec, name: str) -> tuple[Path, Path]:
        """Where an image's file and its decoded picture are."""
        return self.output / "files" / codec.name / f"{name}{codec.suffix}", self.picture(codec.name, name)

    def picture(self, codec: str, name: str) -> Path:
        return self.output / "pictures" / codec / f"{name}.png"

    def sources(self, results: list[dict]) -> dict[str, str]:
        """The images that any codec could be measured on: name -> path."""
        return {name: path for path, name in self.images.items() if any(name in r["images"] for r in results)}

    def optional(self, load: Callable, path: str | None):
        """What `load` makes of a path; None where there is none, or, which is reported, where it cannot be loaded."""
        try:
            return load(path) if path else None
        except UserError as error:
            self.failures.append(str(error))
            return None

    def _complete(self, codec, name: str, record: dict) -> bool:
        file, picture = self._files(codec, name)
        return file.exists() and file.stat().st_size == record["bytes"] and picture.exists()

    @staticmethod
    def _before(file: Path, key: str) -> dict:
        """The records of an earlier run, if it was of the same codec in the same version; {} else."""
        try:
            result = json.loads(file.read_text())
            return result["images"] if result["key"] == key else {}
        except (OSError, ValueError, KeyError):
            return {}

    def _write(self, codec, records: dict[str, dict]) -> dict:
        return self.write({
            "codec": codec.name,
            "label": codec.label,
            "channels": codec.channels,
            "matched_to": codec.matched_to,
            "key": codec.key,
            "mean": _means(records.values()),
            "images": records,
        })  # fmt: skip

    def write(self, result: dict) -> dict:
        with Utils.atomic(self._results(result["codec"])) as partial:
            partial.write_text(json.dumps(result, indent=1) + "\n")
        return result

    def _results(self, codec: str) -> Path:
        return self.output / "results" / f"{codec}.json"


def _means(records, metrics: tuple = METRICS) -> dict[str, float | None]:
    """The mean of each metric, over the images that have it."""
    columns = {metric: [record[metric] for record in records if record[metric] is not None] for metric in metrics}
    return {metric: float(np.mean(values)) if values else None for metric, values in columns.items()}


if __name__ == "__main__":
    sys.exit(main())
