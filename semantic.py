"""Semantic label maps: read and checked, their instances' boundaries, and the heat maps of selective compression.

s: label map (H, W) uint8, classes 0..n-1; the last class is void, and takes what is unknown.
m: heat map, 1 where the picture is preserved, 0 where it is synthesized from the label map: (H, W) in pixels here, and
(h, w), a sixteenth of it, for the networks.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from config import UserError
from utils import LOSSLESS_SUFFIXES

MAX_VOID_SHARE = 0.95  # a map with more is taken for one of other classes
SYNTHESIZED_INSTANCES = 0.25  # share of those of a training image (Agustsson et al., section 4.2)
SYNTHESIZED_CLASSES = 0.5


@dataclass(frozen=True)
class Classes:
    """Names and RGB colours of the classes, by index. The last is void."""

    names: tuple[str, ...]
    colours: np.ndarray  # (n, 3) uint8

    def __len__(self) -> int:
        return len(self.names)

    @property
    def void(self) -> int:
        return len(self.names) - 1

    @classmethod
    def read(cls, path: str | Path) -> "Classes":
        """A CSV file with the columns index, name, R, G, B; a last class "Void" is added if there is none."""
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows = sorted((int(row["index"]), row["name"], *(int(row[c]) for c in "RGB")) for row in csv.DictReader(file))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not a CSV file with the columns index, name, R, G, B ({error})") from None
        if [row[0] for row in rows] != list(range(len(rows))):
            raise UserError(f"{path}: the indices are not 0, 1, 2, ...")
        return cls.of([row[1] for row in rows], [row[2:] for row in rows], path)

    @classmethod
    def parse(cls, text: str, n: int) -> "Classes":
        """The knobs `classes` and `n_classes`: "Sky 128 128 128, Road 128 64 128, ...", or, for "", n without names."""
        if not text:
            hues = np.arange(n) * 0.61803 % 1  # neighbours far apart
            colours = [[round(127.5 + 127.5 * np.cos(2 * np.pi * (hue - shift / 3))) for shift in range(3)] for hue in hues]
            return cls.of([str(i) for i in range(n - 1)] + ["Void"], colours, "knob n_classes")
        parts = [part.strip().rsplit(" ", 3) for part in text.split(",")]
        try:
            classes = cls.of([part[0] for part in parts], [[int(v) for v in part[1:]] for part in parts], "knob classes")
        except ValueError:
            raise UserError("knob classes: write it as NAME R G B, NAME R G B, ...") from None
        if len(classes) != n:
            raise UserError(f"knob n_classes: {n}, where the knob classes has {len(classes)} with void")
        return classes

    @classmethod
    def of(cls, names: list[str], colours: list, source) -> "Classes":
        if not names or names[-1].lower() != "void":
            names, colours = [*names, "Void"], [*colours, [0, 0, 0]]
        lower = [name.lower() for name in names]
        if len(set(lower)) < len(names) or any("," in name or not name.strip() for name in names):
            raise UserError(
                f"{source}: class names are all different, not empty, and without commas; Void, if there, is the last"
            )
        colours = np.array(colours)
        if colours.shape != (len(names), 3) or colours.min() < 0 or colours.max() > 255:
            raise UserError(f"{source}: not three numbers from 0 to 255 for the colour of each class")
        if not 2 <= len(names) <= 255:
            raise UserError(f"{source}: {len(names)} classes with void; 2 to 255 are possible")
        return cls(tuple(names), colours.astype(np.uint8))

    def __str__(self) -> str:
        pairs = zip(self.names, self.colours.tolist(), strict=True)
        return ", ".join(" ".join([name, *map(str, colour)]) for name, colour in pairs)

    def indices(self, text: str) -> list[int]:
        """ "Car,Road" -> their indices. Raises UserError for a name that is none of these."""
        known = {name.lower(): i for i, name in enumerate(self.names)} | {str(i): i for i in range(len(self.names))}
        wanted = [name.strip() for name in text.split(",")]
        if unknown := [name for name in wanted if name.lower() not in known]:
            raise UserError(f"class {unknown[0]!r}: not among {', '.join(self.names)}")
        return [known[name.lower()] for name in wanted]


@contextmanager
def opened(path: str | Path, size: tuple[int, int] | None, what: str) -> Iterator[Image.Image]:
    """A picture of its photo's size (H, W), checked before it is decoded, if given; whatever is wrong is a UserError."""
    try:
        with Image.open(path) as image:
            if size and image.size[::-1] != tuple(size):
                raise UserError(f"{path}: {image.width}x{image.height} px, where its image is {size[1]}x{size[0]}")
            yield image
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such {what}") from None
    except Exception as error:  # Pillow's decoders throw what they like at a damaged file
        raise UserError(f"{path}: cannot be decoded as a {what} ({error})") from None


def map_of(image: str | Path, root: str | Path, folder: str | Path) -> Path:
    """Where the map of an image below `root` is expected: in the same place below another folder, by the same name."""
    stem = Path(folder) / Path(image).relative_to(root).with_suffix("")
    named = [stem.with_name(stem.name + suffix) for suffix in LOSSLESS_SUFFIXES]
    return next((file for file in named if file.exists()), named[0])


def read_indices(path: str | Path, classes: Classes, size: tuple[int, int] | None = None) -> np.ndarray:
    """A PNG of class indices, or of the classes' RGB colours -> (H, W) int16, -1 for what is none of the classes."""
    with opened(path, size, "label map") as image:
        mode, pixels = image.mode, np.asarray(image.convert("RGB") if image.mode in ("RGB", "RGBA") else image)
    if mode in ("RGB", "RGBA"):
        indices = np.full(pixels.shape[:2], -1, np.int16)
        codes = pixels.astype(np.int32) @ (65536, 256, 1)
        for index, colour in reversed(list(enumerate(classes.colours.astype(np.int32) @ (65536, 256, 1)))):
            indices[codes == colour] = index
        return indices
    if mode in ("L", "P", "1") or mode.startswith("I"):
        pixels = pixels.astype(np.int64)  # int32 or uint16 as it may be
        return np.where((pixels >= 0) & (pixels < len(classes)), pixels, -1).astype(np.int16)
    raise UserError(f"{path}: a picture of mode {mode}; a label map has class indices, or the classes' RGB colours")


def read_map(path: str | Path, classes: Classes, size: tuple[int, int]) -> np.ndarray:
    """A label map as `read_indices` reads it -> s (H, W) uint8. What is none of the classes becomes void.

    Raises UserError for a file that cannot be read, for one not of `size`, and for a map that is next to all void.
    """
    indices = read_indices(path, classes, size)
    s = np.where(indices < 0, classes.void, indices).astype(np.uint8)
    if (s == classes.void).mean() > MAX_VOID_SHARE:
        raise UserError(
            f"{path}: over {MAX_VOID_SHARE:.0%} of its pixels are none of the {len(classes) - 1} classes: not a label map, "
            f"or of other classes than the knobs n_classes and classes say"
        )
    return s


def read_instances(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """An instance map of `size`, as Cityscapes' instanceIds: (H, W) int32, another number for each instance."""
    with opened(path, size, "instance map") as image:
        pixels = np.asarray(image)
    if pixels.ndim != 2:
        raise UserError(f"{path}: has {pixels.shape[2]} channels, where an instance map has one")
    return pixels.astype(np.int32)


def read_labels(path: str | Path, instances: str | Path | None, classes: Classes, size: tuple[int, int]) -> np.ndarray:
    """A label map, and an instance map or None -> labels (H, W, 2) int32: class, instance.

    Without an instance map, the connected regions of a class stand for instances. Raises UserError where a map is not of the
    image's size (H, W).
    """
    s = read_map(path, classes, size)
    regions = connected_regions(s) if instances is None else read_instances(instances, size)
    return np.stack([s.astype(np.int32), regions], axis=-1)


def with_boundaries(labels: np.ndarray) -> np.ndarray:
    """Labels (H, W, 2) as `read_labels` returns them -> (H, W, 3): class, boundary of an instance, instance."""
    return np.insert(labels, 1, boundaries(labels[..., 1]), axis=-1)


def boundaries(instances: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels with a 4-neighbour of another instance (Wang et al. 2018, section 3.3)."""
    edge = np.zeros(instances.shape, bool)
    down, right = instances[1:] != instances[:-1], instances[:, 1:] != instances[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def connected_regions(s: np.ndarray) -> np.ndarray:
    """(H, W) int32: another number for each 4-connected region of one class; stands in for an instance map."""
    numbers = np.zeros(s.shape, np.int32)
    for index in np.unique(s):
        found, _ = ndimage.label(s == index)
        numbers += np.where(found, found + numbers.max(), 0)
    return numbers


def random_regions(regions: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """m (H, W) bool for training: a random share of the regions is synthesized, at least one, the rest preserved.

    regions: (H, W), of one number each, as instances or classes are.
    """
    present, inverse = np.unique(regions, return_inverse=True)
    n = max(1, round(share * len(present)))
    preserved = np.ones(len(present), bool)
    preserved[rng.choice(len(present), n, replace=False)] = False
    return preserved[inverse].reshape(regions.shape)


def random_box(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """m (H, W) bool for training: a box of random place and size, never empty, is preserved."""
    m = np.zeros(shape, bool)
    (top, bottom), (left, right) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in shape)
    m[top:bottom, left:right] = True
    return m


def heat_map(preserved: np.ndarray, stride: int = 16) -> np.ndarray:
    """m in pixels -> on the feature map's grid: (ceil(H/16), ceil(W/16)) bool, 1 where any pixel is preserved."""
    height, width = (-(-side // stride) * stride for side in preserved.shape)
    padded = np.zeros((height, width), bool)
    padded[: preserved.shape[0], : preserved.shape[1]] = preserved
    return padded.reshape(height // stride, stride, width // stride, stride).any(axis=(1, 3))


# ----------------------------------------------------------------------------------------------------------------------
# What the user wants preserved
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """What compress.py is told to preserve, or to synthesize; without any of them, all is preserved.

    preserve, synthesize: class names; mask: a picture, light where to preserve; box: X,Y,W,H in pixels. What several of them
    preserve is preserved; `synthesize` alone preserves the rest.
    """

    preserve: str | None = None
    synthesize: str | None = None
    mask: str | None = None
    box: str | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.preserve, self.synthesize, self.mask, self.box))

    def check(self, classes: Classes) -> None:
        """Raise UserError for what is wrong whatever the image is."""
        if self.preserve is not None and self.synthesize is not None:
            raise UserError("--preserve and --synthesize: one of them, the other follows from it")
        for names in filter(None, (self.preserve, self.synthesize)):
            classes.indices(names)
        if self.box is not None:
            self._sides()

    def preserved(self, s: np.ndarray, classes: Classes) -> np.ndarray:
        """m (H, W) bool. Raises UserError for names, masks and boxes that do not fit the label map s."""
        self.check(classes)
        m = np.zeros(s.shape, bool)
        if self.preserve is not None:
            m |= np.isin(s, classes.indices(self.preserve))
        if self.synthesize is not None:
            m |= ~np.isin(s, classes.indices(self.synthesize))
        if self.mask is not None:
            m |= self._mask(s.shape)
        if self.box is not None:
            m |= self._box(s.shape)
        return m if self else ~m

    def _mask(self, size: tuple[int, int]) -> np.ndarray:
        with opened(self.mask, size, "mask") as image:
            return np.asarray(image.convert("L")) > 127

    def _sides(self) -> tuple[int, int, int, int]:
        try:
            x, y, width, height = (int(part) for part in self.box.split(","))
        except ValueError:
            raise UserError(f"--box {self.box}: write it as X,Y,W,H in pixels") from None
        return x, y, width, height

    def _box(self, size: tuple[int, int]) -> np.ndarray:
        x, y, width, height = self._sides()
        if x < 0 or y < 0 or width < 1 or height < 1 or x + width > size[1] or y + height > size[0]:
            raise UserError(f"--box {self.box}: not within the image of {size[1]}x{size[0]} px")
        m = np.zeros(size, bool)
        m[y : y + height, x : x + width] = True
        return m
