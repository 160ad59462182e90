"""What fits into a budget of bytes: our models, and other codecs that are given the same freedom.

Ours choose model and coded size as `compress.py --max-bytes` does. The others choose the size to which the image is reduced. At
each size, the highest setting that fits is tried. Of these files, the one with the highest MS-SSIM is taken, as for ours.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from config import UserError
from evaluation.baselines import Baseline
from evaluation.metrics import quality
from gcodec import Codec
from gcodec.budget import best_file
from gcodec.container import unpack
from gcodec.pictures import resize

REDUCTIONS = tuple(2 ** (k / 2) for k in range(9))  # of the sides: 1, 1.4, 2, ... 16
SLOW_SCAN = (320, 256)  # pixels; the picture of amateur radio's digital slow-scan television, as a JPEG of the lowest quality


class BudgetedModels:
    """Our models within a budget, as a measure.Codec."""

    suffix = ".gc"
    matched_to: str | None = None
    channels: int | None = None

    def __init__(self, codecs: list[Codec], max_bytes: int):
        self.codecs = {codec.checkpoint.fingerprint: codec for codec in codecs}
        self.max_bytes = max_bytes
        self.name, self.label = f"within_{max_bytes}", f"ours within {max_bytes} bytes"
        self.key = " ".join(fingerprint.hex() for fingerprint in self.codecs) + " v1"

    def can(self, name: str) -> bool:
        return True

    def prepare(self, name: str, image: np.ndarray) -> Callable[[], bytes]:
        return lambda: best_file(image, list(self.codecs.values()), self.max_bytes, quality).data

    def decode(self, data: bytes, height: int, width: int) -> np.ndarray:
        return self.codecs[unpack(data).header.fingerprint].decode(data)


class BudgetedBaseline:
    """Another codec within a budget, as a measure.Codec."""

    channels: int | None = None

    def __init__(self, baseline: Baseline, max_bytes: int):
        self.baseline, self.max_bytes = baseline, max_bytes
        self.matched_to: str | None = f"within_{max_bytes}"
        self.name, self.suffix = f"{baseline.name}@{self.matched_to}", baseline.suffix
        self.label, self.key = baseline.label, baseline.version

    def can(self, name: str) -> bool:
        return True

    def prepare(self, name: str, image: np.ndarray) -> Callable[[], bytes]:
        height, width = image.shape[:2]
        files = [data for reduced in reductions(self.baseline) if (data := self._largest(reduced, image)) is not None]
        if not files:
            raise UserError(f"{self.label}: nothing fits into {self.max_bytes} bytes")
        best = max(files, key=lambda data: quality(image, self.decode(data, height, width)))
        return lambda: best

    def decode(self, data: bytes, height: int, width: int) -> np.ndarray:
        return replace(self.baseline, scale=2).decode(data, height, width)  # any scale but 1 resizes to the image's size

    def _largest(self, reduced: Baseline, image: np.ndarray) -> bytes | None:
        """Return the file of the highest setting that fits at this reduction; None if none does."""
        best = None
        low, high = 0, len(reduced.settings)
        while low < high:
            middle = 0 if best is None else (low + high) // 2
            data = reduced.encode(image, reduced.settings[middle])
            if len(data) > self.max_bytes:
                high = middle
            else:
                best, low = data, middle + 1
        return best


def reductions(baseline: Baseline) -> Iterator[Baseline]:
    """Yield a codec at each of REDUCTIONS."""
    for scale in REDUCTIONS:
        yield replace(baseline, scale=scale)


class SlowScan:
    """What slow-scan practice sends: the image at 320x256 as a JPEG of the lowest quality, whatever the budget."""

    name, label, suffix = "slow_scan", "JPEG 320x256, lowest quality", ".jpg"
    matched_to: str | None = None
    channels: int | None = None

    def __init__(self, jpeg: Baseline):
        self.jpeg, self.key = replace(jpeg, scale=2), jpeg.version

    def can(self, name: str) -> bool:
        return True

    def prepare(self, name: str, image: np.ndarray) -> Callable[[], bytes]:
        width, height = SLOW_SCAN
        return lambda: replace(self.jpeg, scale=1).encode(resize(image, height, width), self.jpeg.settings[0])

    def decode(self, data: bytes, height: int, width: int) -> np.ndarray:
        return self.jpeg.decode(data, height, width)
