"""The codecs that users would pick instead, as real files of a wanted size: JPEG, JPEG 2000, WebP, AVIF, JPEG XL, by Pillow.

Each also on the image scaled down by 2 and 4, and scaled up again after decoding, which is what people do at such rates.
"""

import importlib.metadata
import importlib.util
import io
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from PIL import Image, features

from config import UserError

SCALES = (2, 4)  # to which images are reduced


@dataclass(frozen=True)
class Baseline:
    """A codec at one scale. `settings`: what can be asked of it, from the smallest file to the largest."""

    name: str
    label: str
    format: str  # Pillow's name of it
    suffix: str
    settings: Sequence[float]
    options: Callable[[float], dict]  # of Image.save
    version: str = f"Pillow {Image.__version__}"
    scale: float = 1

    def encode(self, image: np.ndarray, setting: float) -> bytes:
        """Image (H, W, 3) uint8 -> a file."""
        height, width = image.shape[:2]
        picture = Image.fromarray(image)
        if self.scale > 1:
            size = (max(1, round(width / self.scale)), max(1, round(height / self.scale)))
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        file = io.BytesIO()
        try:
            picture.save(file, self.format, **self.options(setting))
        except Exception as error:  # many kinds, such as for an image that is too small or too large for the format
            raise UserError(f"{self.label}: {error}") from None
        return file.getvalue()

    def decode(self, data: bytes, height: int, width: int) -> np.ndarray:
        """A file -> image (height, width, 3) uint8. Raises UserError for files that Pillow writes but cannot read."""
        try:
            with Image.open(io.BytesIO(data)) as opened:
                picture = opened.convert("RGB")
        except Exception as error:
            raise UserError(f"{self.label}: its own file cannot be read back ({error})") from None
        if self.scale > 1:
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(picture)

    def setting_for(self, image: np.ndarray, size: int) -> float:
        """The setting whose file comes nearest to `size` bytes; sizes grow with the settings, but for a few bytes."""

        @cache
        def bytes_at(i: int) -> int:
            return len(self.encode(image, self.settings[i]))

        enough = bisect_left(range(len(self.settings) - 1), size, key=bytes_at)
        return self.settings[min((max(0, enough - 1), enough), key=lambda i: abs(bytes_at(i) - size))]


def available(report: Callable[[str], None] = print) -> list[Baseline]:
    """All codecs at all scales, without those that this machine's Pillow lacks; they are reported."""
    codecs = [
        Baseline("jpeg", "JPEG", "JPEG", ".jpg", range(1, 96), lambda q: {"quality": q, "optimize": True}),
        Baseline("jpeg2000", "JPEG 2000", "JPEG2000", ".j2k", tuple(np.geomspace(20_000, 8, 160)), _jpeg2000),
        Baseline("webp", "WebP", "WEBP", ".webp", range(101), lambda q: {"quality": q, "method": 6}),
    ]
    if features.check("avif"):
        codecs.append(Baseline("avif", "AVIF", "AVIF", ".avif", range(100), lambda q: {"quality": q, "speed": 4}))
    else:
        report("AVIF is left out: this Pillow lacks it; pip install -U pillow")
    if importlib.util.find_spec("pillow_jxl"):
        version = f"pillow-jxl-plugin {importlib.metadata.version('pillow-jxl-plugin')}"
        codecs.append(Baseline("jxl", "JPEG XL", "JXL", ".jxl", range(100), _jpeg_xl, version))
    else:
        report("JPEG XL is left out: pip install pillow-jxl-plugin")
    reduced = [
        replace(codec, name=f"{codec.name}_{scale}", label=f"{codec.label} 1/{scale}", scale=scale)
        for codec in codecs
        for scale in SCALES
    ]
    return codecs + reduced


def _jpeg_xl(quality: float) -> dict:
    import pillow_jxl  # noqa: F401  (registers the format, in whatever process encodes)

    return {"quality": quality, "effort": 7}


def _jpeg2000(ratio: float) -> dict:
    """A codestream without the JP2 boxes, which take 85 bytes."""
    return {"quality_mode": "rates", "quality_layers": [ratio], "irreversible": True, "no_jp2": True}
