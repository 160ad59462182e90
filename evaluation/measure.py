"""Measure codecs on a folder of images, by files that are written, read and decoded again."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from config import UserError, config_test
from evaluation.baselines import Baseline
from evaluation.metrics import ms_ssim, psnr, psnr_quarter
from gcodec.files import atomic
from gcodec.folder_run import progress
from gcodec.labels import map_of, read_classes
from gcodec.pictures import read_image, save_picture
from utils import Utils

if TYPE_CHECKING:
    from evaluation.segmentation import Segmenter

METRICS = ("bytes", "bpp", "psnr", "psnr_quarter", "ms_ssim", "encode_seconds", "decode_seconds", "peak_memory")

# What is measured, as it is in the JSON files: `codec`, `label`, `channels`, `matched_to`, `key`, `mean` and `images`, where
# the last two have METRICS and more; a PSNR of null is infinite.
Result = dict[str, Any]
T = TypeVar("T")


# ----------------------------------------------------------------------------------------------------------------------
# Codecs
# ----------------------------------------------------------------------------------------------------------------------


class Codec(Protocol):
    """Whatever turns an image into the bytes of a file and back."""

    name: str  # of its folders
    label: str  # of its rows in tables
    suffix: str  # of its files
    key: str  # what was measured with the same key need not be measured again
    channels: int | None  # of the feature map, for ours
    matched_to: str | None  # the name of the codec whose file sizes it aims at

    def can(self, name: str) -> bool:
        """Whether it can be asked for a file of the image of this name."""

    def prepare(self, name: str, image: np.ndarray) -> Callable[[], bytes]:
        """Do what is not part of encoding, and return a function that encodes the image."""

    def decode(self, data: bytes, height: int, width: int) -> np.ndarray:
        """Return an image (height, width, 3) uint8."""


class Coder(Protocol):
    """What `OurCodec` needs of a loaded checkpoint."""

    def encode(self, image: np.ndarray) -> bytes: ...

    def decode(self, data: bytes) -> np.ndarray: ...


class OurCodec:
    """A checkpoint of this project."""

    suffix = ".gc"
    matched_to: str | None = None

    def __init__(self, name: str, coder: Coder, channels: int, key: str):
        self.name, self.coder, self.key = name, coder, key
        self.channels: int | None = channels
        self.label = f"{name} (C={channels})"

    def can(self, name: str) -> bool:
        return True

    def prepare(self, name: str, image: np.ndarray) -> Callable[[], bytes]:
        return lambda: self.coder.encode(image)

    def decode(self, data: bytes, height: int, width: int) -> np.ndarray:
        return self.coder.decode(data)


class MatchedBaseline:
    """Another codec, asked for files of the sizes that a codec of ours needed, image by image, or of `times` those sizes."""

    channels: int | None = None

    def __init__(self, baseline: Baseline, matched_to: str, sizes: Mapping[str, int], times: float = 1):
        self.baseline, self.sizes = baseline, {name: round(times * size) for name, size in sizes.items()}
        self.matched_to: str | None = matched_to
        self.name, self.label = f"{baseline.name}@{matched_to}", baseline.label
        if times != 1:
            self.name, self.label = f"{self.name}_x{times:g}", f"{self.label}, bytes x {times:g}"
        self.suffix, self.key = baseline.suffix, baseline.version

    def can(self, name: str) -> bool:
        return name in self.sizes

    def prepare(self, name: str, image: np.ndarray) -> Callable[[], bytes]:
        setting = self.baseline.setting_for(image, self.sizes[name])
        return lambda: self.baseline.encode(image, setting)

    def decode(self, data: bytes, height: int, width: int) -> np.ndarray:
        return self.baseline.decode(data, height, width)


# ----------------------------------------------------------------------------------------------------------------------
# Measuring
# ----------------------------------------------------------------------------------------------------------------------


@dataclass
class Measure:
    """Runs codecs over the images below `source`. Files, pictures and results go below `output`."""

    output: Path
    source: Path
    images: dict[str, str]  # path -> name in the results
    knobs: config_test
    failures: list[str] = dataclasses.field(default_factory=list)

    def codec(self, codec: Codec) -> Result:
        """Measure a codec on each image. Results are on disk after each image, and an interrupted run goes on from them."""
        before = self._before(codec)
        self._write(codec, before)  # whether it can be written shows before the work, not after it
        records: dict[str, dict] = {}
        for path, name in progress(self.images.items(), "image", codec.name):
            if not codec.can(name):
                continue
            try:
                records[name] = self._record(codec, path, name, before.get(name, {}))
            except UserError as error:
                self.failures.append(str(error) if path in str(error) else f"{path} by {codec.label}: {error}")
                continue
            if records[name] != before.get(name):
                self._write(codec, before | records)
        if not records:
            raise UserError(f"{self.source}: no image could be measured with {codec.label}; {self.failures[-1]}")
        return self._write(codec, records)

    def attempt(self, function: Callable[..., T], *args: Any) -> T | None:
        """Return what a measurement returns, or None if it fails: then it is reported, and costs the others nothing."""
        try:
            return function(*args)
        except UserError as error:
            self.failures.append(str(error))
            return None

    def _record(self, codec: Codec, path: str, name: str, before: dict) -> dict:
        """Return what is known of an image already if it is still true; else measure it."""
        image = read_image(path, self.knobs.max_pixels)
        facts = {
            "source": str(Path(path).relative_to(self.source)),
            "sha256": hashlib.sha256(image.tobytes()).hexdigest()[:16],  # of the pixels
            "matched_bytes": codec.sizes.get(name) if isinstance(codec, MatchedBaseline) else None,
        }
        if facts.items() <= before.items() and before.keys() >= set(METRICS) and self._complete(codec, name, before):
            return before
        return facts | self._image(codec, image, name)

    def _image(self, codec: Codec, image: np.ndarray, name: str) -> dict:
        """Encode an image to a file, decode that file from the disk, and save the picture."""
        height, width = image.shape[:2]
        encode = codec.prepare(name, image)
        Utils.reset_peak_memory()
        start = time.perf_counter()
        data = encode()
        encoded = time.perf_counter()
        file, picture = self._files(codec, name)
        with atomic(file) as partial:
            partial.write_bytes(data)
        data = file.read_bytes()
        read = time.perf_counter()
        reconstruction = codec.decode(data, height, width)
        decoded = time.perf_counter()
        peak = None if codec.matched_to else Utils.memory("VmHWM")  # of other codecs, our own libraries would be most of it
        save_picture(reconstruction, picture)
        return {
            "width": width,
            "height": height,
            "bytes": len(data),
            "bpp": 8 * len(data) / (width * height),
            "psnr": _finite(psnr(image, reconstruction)),
            "psnr_quarter": _finite(psnr_quarter(image, reconstruction)),
            "ms_ssim": ms_ssim(image, reconstruction),
            "encode_seconds": encoded - start,
            "decode_seconds": decoded - read,
            "peak_memory": peak,
        }

    def _files(self, codec: Codec, name: str) -> tuple[Path, Path]:
        """Return where an image's file and its decoded picture are."""
        return self.output / "files" / codec.name / f"{name}{codec.suffix}", self.picture(codec.name, name)

    def picture(self, codec: str, name: str) -> Path:
        return self.output / "pictures" / codec / f"{name}.png"

    def pixels(self, path: str | Path) -> np.ndarray:
        return read_image(path, self.knobs.max_pixels)

    def sources(self, results: list[Result]) -> dict[str, str]:
        """Return the images that any codec could be measured on: name -> path."""
        return {name: path for path, name in self.images.items() if any(name in r["images"] for r in results)}

    def optional(self, load: Callable[[str], Any], path: str | None) -> Any:
        """Return what `load` makes of a path, or None where there is none; a failure to load is reported, not fatal."""
        return self.attempt(load, path) if path else None

    def _complete(self, codec: Codec, name: str, record: dict) -> bool:
        file, picture = self._files(codec, name)
        return file.exists() and file.stat().st_size == record.get("bytes") and picture.exists()

    def _before(self, codec: Codec) -> dict[str, dict]:
        """Return the records of an earlier run if it was of the same codec in the same version, else {}."""
        try:
            result = json.loads(self._results(codec.name).read_text())
            return result["images"] if result["key"] == codec.key else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _write(self, codec: Codec, records: dict[str, dict]) -> Result:
        return self.write({
            "codec": codec.name,
            "label": codec.label,
            "channels": codec.channels,
            "matched_to": codec.matched_to,
            "key": codec.key,
            "mean": means(records.values()),
            "images": records,
        })  # fmt: skip

    def write(self, result: Result) -> Result:
        with atomic(self._results(result["codec"])) as partial:
            partial.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        return result

    def _results(self, codec: str) -> Path:
        return self.output / "results" / f"{codec}.json"


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
    for r in progress(results, "codec", "mIoU"):
        pictures = {name: measure.picture(r["codec"], name) for name in label_maps if name in r["images"]}
        r["mean"] |= {"miou": mean(pictures), "miou_of_originals": of_originals}
        measure.write(r)


def add_perceptual(results: list[Result], pairs: list, sets: list, measure: Measure) -> None:
    """Add the measures of pairs of pictures to each image and to the means, and those of sets of pictures to the means."""
    for name, path in progress(measure.sources(results).items(), "image", "perceptual"):
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
