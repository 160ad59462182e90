"""What fits into a budget of bytes: our models, and other codecs that are given the same freedom.

Ours choose model and coded size as `compress.py --max-bytes` does. The others choose the size to which the image is reduced. At
each size, the highest setting that fits is tried. Of these files, the one with the highest MS-SSIM is taken, as for ours.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from config import UserError
from evaluation.baselines import Baseline
from evaluation.measure import Contender
from evaluation.metrics import quality
from gcodec import Codec
from gcodec.budget import best_file
from gcodec.container import unpack
from gcodec.pictures import resize

REDUCTIONS = tuple(2 ** (k / 2) for k in range(9))  # of the sides: 1, 1.4, 2, ... 16
SLOW_SCAN = (320, 256)  # pixels; the picture of amateur radio's digital slow-scan television, as a JPEG of the lowest quality


def models_within(codecs: list[Codec], max_bytes: int) -> Contender:
    """Return our models within a budget."""
    known = {codec.checkpoint.fingerprint: codec for codec in codecs}
    key = " ".join(fingerprint.hex() for fingerprint in known) + " v1"

    def prepare(image: np.ndarray, _: str) -> Callable[[], bytes]:
        return lambda: best_file(image, list(known.values()), max_bytes, quality).data

    def decode(data: bytes, height: int, width: int) -> np.ndarray:
        return known[unpack(data).header.fingerprint].decode(data)

    return Contender(f"within_{max_bytes}", f"ours within {max_bytes} bytes", ".gc", key, prepare, decode)


def baseline_within(baseline: Baseline, max_bytes: int) -> Contender:
    """Return another codec within a budget."""
    name, matched_to = f"{baseline.name}@within_{max_bytes}", f"within_{max_bytes}"
    decode = replace(baseline, scale=2).decode  # any scale but 1 resizes to the image's size

    def prepare(image: np.ndarray, _: str) -> Callable[[], bytes]:
        reduced = (replace(baseline, scale=scale) for scale in REDUCTIONS)
        files = [data for each in reduced if (data := largest(each, image, max_bytes)) is not None]
        if not files:
            raise UserError(f"{baseline.label}: nothing fits into {max_bytes} bytes")
        best = max(files, key=lambda data: quality(image, decode(data, *image.shape[:2])))
        return lambda: best

    return Contender(name, baseline.label, baseline.suffix, baseline.version, prepare, decode, matched_to=matched_to)


def largest(reduced: Baseline, image: np.ndarray, max_bytes: int) -> bytes | None:
    """Return the file of the highest setting that fits; None if none does."""

    @cache
    def file(i: int) -> bytes:
        return reduced.encode(image, reduced.settings[i])

    if len(file(0)) > max_bytes:
        return None
    return file(bisect_right(range(len(reduced.settings)), max_bytes, key=lambda i: len(file(i))) - 1)


def slow_scan(jpeg: Baseline) -> Contender:
    """Return what slow-scan practice sends: the image at 320x256 as a JPEG of the lowest quality, whatever the budget."""
    width, height = SLOW_SCAN

    def prepare(image: np.ndarray, _: str) -> Callable[[], bytes]:
        return lambda: jpeg.encode(resize(image, height, width), jpeg.settings[0])

    decode = replace(jpeg, scale=2).decode
    return Contender("slow_scan", "JPEG 320x256, lowest quality", ".jpg", jpeg.version, prepare, decode)
