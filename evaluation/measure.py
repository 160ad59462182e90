"""Measure codecs on a folder of images, by files that are written and whose bytes are decoded again."""

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from config import UserError, config_test
from evaluation.baselines import Baseline
from evaluation.metrics import measures, psnr_quarter
from gcodec.files import atomic
from gcodec.labels import map_of, read_classes
from gcodec.pictures import picture_bytes, read_image
from utils import Utils

if TYPE_CHECKING:
    from evaluation.segmentation import Segmenter
    from gcodec import Codec

METRICS = ("bytes", "bpp", "psnr", "psnr_quarter", "ms_ssim", "encode_seconds", "decode_seconds", "peak_memory")

# What is measured, as it is in the JSON files: `codec`, `label`, `channels`, `matched_to`, `key`, `mean` and `images`, where
# the last two have METRICS and more; a PSNR of null is infinite.
Result = dict[str, Any]
T = TypeVar("T")


# ----------------------------------------------------------------------------------------------------------------------
# Codecs
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """A codec as it is measured: what turns an image into the bytes of a file and back."""

    name: str  # of its folders
    label: str  # of its rows in tables
    suffix: str  # of its files
    key: str  # what was measured with the same key need not be measured again
    prepare: Callable[[np.ndarray, str], Callable[[], bytes]]  # does for an image and its name what is not part of encoding
    decode: Callable[[bytes, int, int], np.ndarray]  # file, height, width -> (height, width, 3) uint8
    channels: int | None = None  # of the feature map, for ours
    matched_to: str | None = None  # the name of the codec whose file sizes it aims at
    sizes: Mapping[str, int] | None = None  # those sizes by the names of the images; no others are measured


def of_checkpoint(name: str, codec: "Codec", key: str) -> Contender:
    """Return a checkpoint of this project."""
    channels = codec.config.channel_bottleneck

    def prepare(image: np.ndarray, _: str) -> Callable[[], bytes]:
        return lambda: codec.encode(image)

    def decode(data: bytes, height: int, width: int) -> np.ndarray:
        return codec.decode(data)

    return Contender(name, f"{name} (C={channels})", ".gc", key, prepare, decode, channels)


def matched(baseline: Baseline, matched_to: str, sizes: Mapping[str, int], times: float = 1) -> Contender:
    """Return another codec, asked for `times` the file sizes that a codec of ours needed, image by image."""
    wanted = {name: round(times * size) for name, size in sizes.items()}
    name, label = f"{baseline.name}@{matched_to}", baseline.label
    if times != 1:
        name, label = f"{name}_x{times:g}", f"{label}, bytes x {times:g}"

    def prepare(image: np.ndarray, name: str) -> Callable[[], bytes]:
        setting = baseline.setting_for(image, wanted[name])
        return lambda: baseline.encode(image, setting)

    return Contender(name, label, baseline.suffix, baseline.version, prepare, baseline.decode, None, matched_to, wanted)


# ----------------------------------------------------------------------------------------------------------------------
# Measuring
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photo:
    """An image to measure. `source`: what it is called in the results."""

    path: str
    source: str

    def files(self) -> list[Path]:
        return [Path(self.path)]


@dataclass
class Measure:
    """What is measured: the images below `source`. Files, pictures and results go below `output`."""

    output: Path
    source: Path
    images: dict[str, str]  # path -> name in the results
    knobs: config_test
    failures: list[str] = dataclasses.field(default_factory=list)
    spread: Callable | None = None  # divides the work among workers, see commands/workers.py; None: in this process
    _last: tuple[str, np.ndarray] | None = None  # the image that was read last, which is asked for twice in a row

    def attempt(self, function: Callable[..., T], *args: Any) -> T | None:
        """Return what a measurement returns, or None if it fails: then it is reported, and costs the others nothing."""
        try:
            return function(*args)
        except UserError as error:
            self.failures.append(str(error))
            return None

    def picture(self, codec: str, name: str) -> Path:
        return self.output / "pictures" / codec / f"{name}.png"

    def results(self, name: str) -> Path:
        return self.output / "results" / f"{name}.json"

    def pixels(self, path: str | Path) -> np.ndarray:
        if self._last is None or self._last[0] != str(path):
            self._last = str(path), read_image(path, self.knobs.max_pixels)
        return self._last[1]

    def sources(self, results: list[Result]) -> dict[str, str]:
        """Return the images that any codec could be measured on: name -> path."""
        return {name: path for path, name in self.images.items() if any(name in r["images"] for r in results)}

    def write(self, result: Result, allow_nan: bool = False) -> Result:
        with atomic(self.results(result["codec"])) as partial:
            partial.write_text(json.dumps(result, indent=1, allow_nan=allow_nan) + "\n")
        return result


class Task:
    """Measures something of each image, and keeps it in a JSON file from which an interrupted run goes on.

    Whoever runs it, such as commands/folder_run.py, asks for each of `items` whether it is `kept` from a run with the same key.
    If not, it calls what `work` returns with the item's source and files, in some process, and `add` with the result.
    """

    fields: tuple[str, ...] = ()  # that a record must have

    def __init__(self, measure: Measure, name: str, label: str, key: str):
        """name: of the JSON file. label: what it is called in messages. key: what was measured with another is not kept."""
        self.measure, self.name, self.label, self.key = measure, name, label, key
        self.items = [Photo(path, name) for path, name in measure.images.items()]
        self.records: dict[str, dict] = {}
        try:
            before = json.loads(measure.results(name).read_text())
            self.before: dict[str, dict] = before["images"] if before["key"] == key else {}
        except (OSError, ValueError, KeyError, TypeError):
            self.before = {}
        self.write(self.before)  # whether it can be written shows before the work, not after it

    def facts(self, item: Photo) -> dict[str, Any]:
        """Return what must be as it was for a record to be true still, beside the pixels."""
        return {}

    def has_files(self, name: str, record: dict) -> bool:
        """Whether the files that a record is about are there."""
        return True

    def work(self) -> Callable[[str, Sequence], tuple[dict, list[bytes]]]:
        """Return a function that takes an image's name and files, and returns what was measured and what is to be written."""
        raise NotImplementedError

    def save(self, name: str, contents: list[bytes]) -> None:
        """Write what the work returned."""

    def kept(self, item: Photo) -> dict | None:
        before = self.before.get(item.source, {})
        if not (before.keys() >= set(self.fields) and self.facts(item).items() <= before.items()):
            return None
        if before.get("sha256") != pixels_digest(self.measure.pixels(item.path)) or not self.has_files(item.source, before):
            return None
        self.records[item.source] = before
        return before

    def add(self, item: Photo, made: tuple[dict, list[bytes]]) -> dict:
        record, contents = made
        self.save(item.source, contents)
        self.records[item.source] = self.facts(item) | record
        self.write(self.before | self.records)
        return self.records[item.source]

    def failed(self, item: Photo, error: UserError) -> None:
        self.measure.failures.append(str(error) if item.path in str(error) else f"{item.path} by {self.label}: {error}")

    def write(self, records: dict[str, dict]) -> Result:
        return self.measure.write({"codec": self.name, "key": self.key, "images": records}, allow_nan=True)


def pixels_digest(image: np.ndarray) -> str:
    """Return a fingerprint of an image's pixels."""
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]


class ContenderTask(Task):
    """Measures a codec: each image becomes a file, and the bytes of the file become a picture."""

    fields = METRICS

    def __init__(self, measure: Measure, contender: Contender):
        self.contender = contender
        super().__init__(measure, contender.name, contender.label, contender.key)
        self.items = [item for item in self.items if contender.sizes is None or item.source in contender.sizes]

    def facts(self, item: Photo) -> dict[str, Any]:
        source = str(Path(item.path).relative_to(self.measure.source))
        return {"source": source, "matched_bytes": (self.contender.sizes or {}).get(item.source)}

    def has_files(self, name: str, record: dict) -> bool:
        file = self._file(name)
        same = file.exists() and file.stat().st_size == record.get("bytes")
        return same and self.measure.picture(self.contender.name, name).exists()

    def work(self) -> Callable[[str, Sequence], tuple[dict, list[bytes]]]:
        return functools.partial(measure_file, self.contender, self.measure.knobs.max_pixels)

    def save(self, name: str, contents: list[bytes]) -> None:
        for path, data in zip((self._file(name), self.measure.picture(self.contender.name, name)), contents, strict=True):
            with atomic(path) as partial:
                partial.write_bytes(data)

    def write(self, records: dict[str, dict]) -> Result:
        contender = self.contender
        about = {
            "label": contender.label,
            "channels": contender.channels,
            "matched_to": contender.matched_to,
            "key": contender.key,
        }
        return self.measure.write({"codec": contender.name, **about, "mean": means(records.values()), "images": records})

    def _file(self, name: str) -> Path:
        return self.measure.output / "files" / self.contender.name / f"{name}{self.contender.suffix}"


def measure_file(contender: Contender, max_pixels: int, name: str, files: Sequence) -> tuple[dict[str, Any], list[bytes]]:
    """Return what was measured of a codec on an image, the file, and the PNG of the picture that the file gives."""
    image = read_image(files[0], max_pixels)
    height, width = image.shape[:2]
    encode = contender.prepare(image, name)
    Utils.reset_peak_memory()
    start = time.perf_counter()
    data = encode()
    encoded = time.perf_counter()
    picture = contender.decode(data, height, width)
    decoded = time.perf_counter()
    peak = None if contender.matched_to else Utils.memory("VmHWM")  # of other codecs, our own libraries would be most of it
    record = {"sha256": pixels_digest(image)} | measures(image, len(data), picture)
    record |= {
        "psnr": _finite(record["psnr"]),
        "psnr_quarter": _finite(psnr_quarter(image, picture)),
        "encode_seconds": encoded - start,
        "decode_seconds": decoded - encoded,
        "peak_memory": peak,
    }
    return record, [data, picture_bytes(picture, f"{name}.png")]


def _finite(decibels: float) -> float | None:
    """Return None in the place of infinity, which JSON does not know."""
    return decibels if np.isfinite(decibels) else None


def means(records: Iterable[dict], metrics: tuple[str, ...] = METRICS) -> dict[str, float | None]:
    """Return the mean of each metric over the images that have it."""
    records = list(records)
    columns = {metric: [value for record in records if (value := record.get(metric)) is not None] for metric in metrics}
    return {metric: float(np.mean(values)) if values else None for metric, values in columns.items()}


# ----------------------------------------------------------------------------------------------------------------------
# Measures that need a network of their own
# ----------------------------------------------------------------------------------------------------------------------


def add_miou(results: list[Result], segmenter: "Segmenter", measure: Measure, maps: Path) -> None:
    """Add to each codec's means the mIoU of its pictures and, to compare, of the originals, by one network."""
    from evaluation.segmentation import miou

    known = {name: record for r in results for name, record in r["images"].items()}
    sources = measure.sources(results)
    label_maps = {}
    for name, path in sources.items():
        try:
            size = known[name]["height"], known[name]["width"]
            label_maps[name] = read_classes(map_of(path, measure.source, maps), segmenter.classes, size)
        except UserError as error:
            measure.failures.append(f"mIoU: {error}")
    if not label_maps:
        raise UserError(f"{maps}: no label map of any image there; the last: {measure.failures[-1]}")

    def mean(pictures: Mapping[str, str | Path]) -> float:
        n = len(segmenter.classes)
        confusion = np.zeros((n, n), np.int64)
        for name, path in pictures.items():
            confusion += segmenter.confusion(measure.pixels(path), label_maps[name])
        return miou(confusion)

    of_originals = mean({name: sources[name] for name in label_maps})
    for r in Utils.progress(results, "codec", "mIoU"):
        pictures = {name: measure.picture(r["codec"], name) for name in label_maps if name in r["images"]}
        r["mean"] |= {"miou": mean(pictures), "miou_of_originals": of_originals}
        measure.write(r)


def add_perceptual(results: list[Result], pairs: list, sets: list, measure: Measure) -> None:
    """Add the measures of pairs of pictures to each image and to the means, and those of sets of pictures to the means."""
    for name, path in Utils.progress(measure.sources(results).items(), "image", "perceptual"):
        original = measure.pixels(path)
        records = {r["codec"]: r["images"][name] for r in results if name in r["images"]}
        pictures = {codec: measure.pixels(measure.picture(codec, name)) for codec in records}
        for pair in pairs:
            pair.add(original, pictures, records)
        for each in sets:
            each.add(original, pictures)
        for r in results:
            measure.write(r)
    for r in results:
        r["mean"] |= means(r["images"].values(), tuple(pair.name for pair in pairs))
        for each in sets:
            r["mean"] |= each.distances(r["codec"])
        measure.write(r)
