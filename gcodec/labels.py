"""Label maps: the classes, one map by its planes, and how maps are read and checked.

A plane is an array (H, W) of the image's size. What a plane means is said by its name in `LabelMap`.
"""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from gcodec.errors import UserError
from gcodec.files import open_binary, read_text
from gcodec.pictures import MAX_PIXELS, open_picture

MAP_SUFFIXES = (".png", ".bmp")  # of the maps that are looked for in a folder
LOSSY_FORMATS = ("JPEG", "MPO", "AVIF")  # their noise makes classes that nobody drew; so does that of most WebP
LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")  # how a TIFF may be compressed
MAX_VOID_SHARE = 0.95  # a map with more void than this was probably made for other classes


@dataclass(frozen=True)
class LabelMap:
    """The label map of one image. Every plane is an array (H, W); a plane that nobody needs is None."""

    classes: np.ndarray  # uint8, 0..n-1; the last class is void and stands for everything unknown
    boundaries: np.ndarray | None = None  # bool, True where a 4-neighbour belongs to another instance
    instances: np.ndarray | None = None  # int32, a different number for each instance
    preserved: np.ndarray | None = None  # bool, False where the picture is synthesized from the label map

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> "LabelMap":
        """Apply a function to every plane that is there."""
        planes = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(plane) for name, plane in planes.items() if plane is not None})


class LabelBatch(NamedTuple):
    """The label maps of a training batch, as uint8 tensors (B, H, W); the planes mean what they mean in `LabelMap`."""

    classes: Any
    boundaries: Any
    preserved: Any


@dataclass(frozen=True)
class Classes:
    """Names and RGB colours of the classes, by index. The last class is void."""

    names: tuple[str, ...]
    colours: np.ndarray  # (n, 3) uint8

    def __len__(self) -> int:
        return len(self.names)

    @property
    def void(self) -> int:
        return len(self.names) - 1

    @classmethod
    def read(cls, path: str | Path) -> "Classes":
        """Read a CSV file with the columns index, name, R, G, B. A last class "Void" is added if there is none."""
        try:
            table = csv.DictReader(io.StringIO(read_text(path).removeprefix("\ufeff"), newline=""))  # Excel begins files so
            rows = sorted((int(row["index"]), row["name"], [int(row[c]) for c in "RGB"]) for row in table)
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise UserError(f"{path}: not a CSV file with the columns index, name, R, G, B ({error})") from None
        if [row[0] for row in rows] != list(range(len(rows))):
            raise UserError(f"{path}: the indices are not 0, 1, 2, ...")
        return cls.of([row[1] for row in rows], [row[2] for row in rows], path)

    @classmethod
    def parse(cls, text: str, n: int) -> "Classes":
        """Parse the knobs `classes` ("Sky 128 128 128, Road 128 64 128, ...") and `n_classes`.

        An empty text gives n classes that have numbers for names.
        """
        if not text:
            hues = np.arange(n) * 0.61803 % 1  # neighbours get very different colours
            colours = [[round(127.5 + 127.5 * np.cos(2 * np.pi * (hue - shift / 3))) for shift in range(3)] for hue in hues]
            return cls.of([str(i) for i in range(n - 1)] + ["Void"], colours, "knob n_classes")
        parts = [part.strip().rsplit(" ", 3) for part in text.split(",")]
        try:
            classes = cls.of([part[0] for part in parts], [[int(v) for v in part[1:]] for part in parts], "knob classes")
        except ValueError:
            raise UserError("knob classes: write it as NAME R G B, NAME R G B, ...") from None
        if len(classes) != n:
            raise UserError(f"knob n_classes: {n}, but the knob classes lists {len(classes)} classes, void included")
        return classes

    @classmethod
    def of(cls, names: Sequence[str], colours: Sequence, source: str | Path) -> "Classes":
        """Check names and colours that come from `source`, and add a class "Void" if the last is another."""
        if not names or names[-1].lower() != "void":
            names, colours = [*names, "Void"], [*colours, [0, 0, 0]]
        lower = [name.lower() for name in names]
        if len(set(lower)) < len(names) or any("," in name or not name.strip() for name in names):
            raise UserError(f"{source}: class names must be unique, not empty and free of commas; Void must come last")
        array = np.array(colours)
        if array.shape != (len(names), 3) or array.min() < 0 or array.max() > 255:
            raise UserError(f"{source}: the colour of each class must be three numbers from 0 to 255")
        if not 2 <= len(names) <= 255:
            raise UserError(f"{source}: {len(names)} classes, void included; 2 to 255 are possible")
        return cls(tuple(names), array.astype(np.uint8))

    def __str__(self) -> str:
        pairs = zip(self.names, self.colours.tolist(), strict=True)
        return ", ".join(" ".join([name, *map(str, colour)]) for name, colour in pairs)

    def indices(self, text: str) -> list[int]:
        """Return the indices of "Car,Road". Raises UserError for a name that is not among the classes."""
        known = {name.lower(): i for i, name in enumerate(self.names)} | {str(i): i for i in range(len(self.names))}
        wanted = [name.strip() for name in text.split(",")]
        if unknown := [name for name in wanted if name.lower() not in known]:
            raise UserError(f"class {unknown[0]!r}: not among {', '.join(self.names)}")
        return [known[name.lower()] for name in wanted]


# ----------------------------------------------------------------------------------------------------------------------
# Reading maps
# ----------------------------------------------------------------------------------------------------------------------


@contextmanager
def opened(path: str | Path, size: tuple[int, int] | None, what: str) -> Iterator[Image.Image]:
    """Open a map and check it before it is decoded: its size (H, W), if given, and whether its format is lossless.

    Raises UserError for everything that is wrong with the file. `what` names its kind in the message.
    """
    try:
        with open_binary(path) as file:
            image = open_picture(file, max(MAX_PIXELS, math.prod(size or ())), lambda _: None)
            if what != "mask" and _is_lossy(image, file):
                raise UserError(f"is a lossy {image.format}, whose noise changes the values of any {what}; save maps as PNG")
            if size and image.size[::-1] != tuple(size):
                raise UserError(f"{image.width}x{image.height} px, but its image is {size[1]}x{size[0]} px")
            yield image
    except UserError as error:
        raise UserError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: cannot be decoded as a {what}; save it as PNG") from None
    except Exception as error:  # Pillow's decoders raise many kinds of errors for a damaged file
        raise UserError(f"{path}: cannot be decoded as a {what} ({error})") from None


def _is_lossy(image: Image.Image, file: BinaryIO) -> bool:
    """Whether a picture, or one of several in a WebP file, is not lossless."""
    if image.format != "WEBP":
        return image.format in LOSSY_FORMATS or image.info.get("compression") in LOSSY_TIFF
    file.seek(12)
    while len(start := file.read(8)) == 8 and start[:4] not in (b"VP8 ", b"ANMF"):
        file.seek((int.from_bytes(start[4:], "little") + 1) // 2 * 2, 1)
    return len(start) == 8


def map_of(image: str | Path, root: str | Path, folder: str | Path) -> Path:
    """Return where the map of an image below `root` is expected: at the same place below `folder`, with the same name."""
    stem = Path(folder) / Path(image).relative_to(root).with_suffix("")
    named = [stem.with_name(stem.name + suffix) for suffix in MAP_SUFFIXES]
    return next((file for file in named if file.exists()), named[0])


def read_indices(path: str | Path, classes: Classes, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a picture of class indices, or of the classes' RGB colours, as (H, W) int16; unknown values become -1.

    Of a picture with a palette, the colours decide where each that occurs is a class's, or the gray of a class's index:
    programs number palettes as they like.
    """
    grays = np.arange(len(classes), dtype=np.uint8)[:, None].repeat(3, axis=1)
    with opened(path, size, "label map") as image:
        if image.mode == "P":
            shown = next((mode for mode, of in (("RGB", classes.colours), ("L", grays)) if _shows(image, of)), "P")
            image = image.convert(shown)
        mode = image.mode
        pixels = np.asarray(image.convert("RGB") if mode in ("RGB", "RGBA") else image)
    if mode in ("RGB", "RGBA"):
        indices = np.full(pixels.shape[:2], -1, np.int16)
        codes = pixels.astype(np.int32) @ (65536, 256, 1)
        for index, colour in reversed(list(enumerate(classes.colours.astype(np.int32) @ (65536, 256, 1)))):
            indices[codes == colour] = index
        return indices
    if mode in ("L", "P", "1") or mode.startswith("I"):
        pixels = pixels.astype(np.int64)  # the mode decides whether they are bool, uint8, uint16 or int32
        return np.where((pixels >= 0) & (pixels < len(classes)), pixels, -1).astype(np.int16)
    raise UserError(f"{path}: a picture of mode {mode}; a label map has class indices, or the classes' RGB colours")


def _shows(image: Image.Image, colours: np.ndarray) -> bool:
    """Whether the colours of a picture with a palette are some of (n, 3) colours, and say more than the indices do.

    Where a single colour occurs, the whole palette has to be of them: 0 is black in any palette of grays.
    """
    palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    used = np.unique(np.asarray(image))
    if used[-1] >= len(palette) or (used[-1] < len(colours) and (palette[used] == colours[used]).all()):
        return False
    shown = [tuple(colour) for colour in palette[used if len(used) > 1 else slice(None)].tolist()]
    return (len(shown) == 1 or len(set(shown)) > 1) and set(shown) <= {tuple(colour) for colour in colours.tolist()}


def read_classes(path: str | Path, classes: Classes, size: tuple[int, int]) -> np.ndarray:
    """Read the class of each pixel, (H, W) uint8. Unknown values become void.

    Raises UserError for a file that cannot be read, that is not of `size`, or that is almost entirely void.
    """
    indices = read_indices(path, classes, size)
    s = np.where(indices < 0, classes.void, indices).astype(np.uint8)
    if (s == classes.void).mean() > MAX_VOID_SHARE:
        raise UserError(
            f"{path}: over {MAX_VOID_SHARE:.0%} of its pixels are none of the {len(classes) - 1} classes: either it is no "
            f"label map, or its classes are not those of the knobs n_classes and classes"
        )
    return s


def read_instances(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """Read an instance map of `size`, such as Cityscapes' instanceIds: (H, W) int32, a different number for each instance."""
    with opened(path, size, "instance map") as image:
        pixels = np.asarray(image)
    if pixels.ndim != 2:
        raise UserError(f"{path}: has {pixels.shape[2]} channels, but an instance map has one")
    return pixels.astype(np.int32)


def with_boundaries(labels: LabelMap) -> LabelMap:
    """Return the label map with the boundaries of its instances."""
    if labels.instances is None:
        raise ValueError("a label map without instances has no boundaries")
    return LabelMap(labels.classes, boundaries(labels.instances), labels.instances, labels.preserved)


def boundaries(instances: np.ndarray) -> np.ndarray:
    """Return (H, W) bool: the pixels with a 4-neighbour of another instance (Wang et al. 2018, section 3.3)."""
    edge = np.zeros(instances.shape, bool)
    down, right = instances[1:] != instances[:-1], instances[:, 1:] != instances[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge
