"""Selective compression: which part of a picture is preserved, and which is synthesized from the label map."""

from dataclasses import dataclass

import numpy as np

from gcodec.errors import UserError
from gcodec.labels import Classes, opened
from gcodec.pictures import STRIDE

SYNTHESIZED_INSTANCES = 0.25  # share of the instances of a training image (Agustsson et al., section 4.2)
SYNTHESIZED_CLASSES = 0.5


def heat_map(preserved: np.ndarray) -> np.ndarray:
    """Reduce (H, W) bool to the grid of the feature map, (ceil(H/16), ceil(W/16)) bool: True where any pixel is preserved."""
    height, width = (-(-side // STRIDE) * STRIDE for side in preserved.shape)
    padded = np.zeros((height, width), bool)
    padded[: preserved.shape[0], : preserved.shape[1]] = preserved
    return np.any(padded.reshape(height // STRIDE, STRIDE, width // STRIDE, STRIDE), axis=(1, 3))


# ----------------------------------------------------------------------------------------------------------------------
# Random selections, for training
# ----------------------------------------------------------------------------------------------------------------------


def random_regions(regions: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Synthesize a random share of the regions, at least one of them; return what is preserved, (H, W) bool.

    regions: (H, W), one number for each region, such as instances or classes.
    """
    present, inverse = np.unique(regions, return_inverse=True)
    n = max(1, round(share * len(present)))
    preserved = np.ones(len(present), bool)
    preserved[rng.choice(len(present), n, replace=False)] = False
    return preserved[inverse].reshape(regions.shape)


def random_box(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Preserve a box of random place and size, which is never empty: (H, W) bool."""
    m = np.zeros(shape, bool)
    (top, bottom), (left, right) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in shape)
    m[top:bottom, left:right] = True
    return m


# ----------------------------------------------------------------------------------------------------------------------
# What the user wants preserved
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """What compress.py is told to preserve or to synthesize. Everything is preserved if nothing is said.

    preserve, synthesize: class names; mask: a picture that is light where the image is preserved; box: X,Y,W,H in pixels.
    Several of them together preserve what any of them preserves. `synthesize` alone preserves the other classes.
    """

    preserve: str | None = None
    synthesize: str | None = None
    mask: str | None = None
    box: str | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.preserve, self.synthesize, self.mask, self.box))

    def check(self, classes: Classes) -> None:
        """Raise UserError for mistakes that do not depend on the image."""
        if self.preserve is not None and self.synthesize is not None:
            raise UserError("--preserve and --synthesize: give only one of them; the other follows from it")
        for names in filter(None, (self.preserve, self.synthesize)):
            classes.indices(names)
        if self.box is not None:
            _sides(self.box)

    def preserved(self, s: np.ndarray, classes: Classes) -> np.ndarray:
        """Return what of an image with the classes s (H, W) is preserved, (H, W) bool.

        Raises UserError for names, masks and boxes that do not fit the label map.
        """
        self.check(classes)
        m = np.zeros(s.shape, bool)
        if self.preserve is not None:
            m |= np.isin(s, classes.indices(self.preserve))
        if self.synthesize is not None:
            m |= ~np.isin(s, classes.indices(self.synthesize))
        if self.mask is not None:
            with opened(self.mask, s.shape, "mask") as image:
                m |= np.asarray(image.convert("L")) > 127
        if self.box is not None:
            m |= _inside(self.box, s.shape)
        return m if self else ~m


def _sides(box: str) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (int(part) for part in box.split(","))
    except ValueError:
        raise UserError(f"--box {box}: write it as X,Y,W,H in pixels") from None
    return x, y, width, height


def _inside(box: str, size: tuple[int, ...]) -> np.ndarray:
    x, y, width, height = _sides(box)
    if x < 0 or y < 0 or width < 1 or height < 1 or x + width > size[1] or y + height > size[0]:
        raise UserError(f"--box {box}: not within the image of {size[1]}x{size[0]} px")
    m = np.zeros(size, bool)
    m[y : y + height, x : x + width] = True
    return m
