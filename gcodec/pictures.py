"""Pictures: reading and writing files, bringing an image to the networks' grid, and pixels as numbers."""

import contextlib
import functools
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from gcodec import avif, colour, jpeg, png
from gcodec.container import is_compressed
from gcodec.errors import UserError, WrongTypeError, WrongValueError
from gcodec.files import atomic, files_in, open_binary, warn
from gcodec.streams import STANDARD_INPUT, read_standard_input

MAX_PIXELS = 25_000_000  # of an image that is read or decoded, unless the caller allows more

# What is read: Pillow's name of each format, and the suffixes by which its files are found in folders. Of an animation or a
# file with several pages, the first picture is read. Left out are JPEG 2000, because Pillow ignores its colour profiles, ICO,
# which Pillow decodes before it tells the size, and formats that need another program, such as EPS.
READ_FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
READ_SUFFIXES = tuple(suffix for suffixes in READ_FORMATS.values() for suffix in suffixes)
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")  # that are written
LOSSLESS_SUFFIXES = (".png", ".bmp")
# A photo as PNG takes 2% more bytes than with Pillow's own options, and a quarter of the time.
PNG_OPTIONS: dict[str, Any] = {"compress_level": 1, "compress_type": zlib.Z_RLE}
MOST_KINDS = 8  # of files that a folder has beside images, in a message
MAX_STREAM_BYTES = 2**30  # of standard input
STRIDE = 16  # pixels a side of one position of the feature map
ICON = b"\0\0\1\0"  # how ICO files begin
LARGE_TILE = 2**22  # pixels of a TIFF's tile that need no large image
MOST_PAGES = 100  # of a TIFF, that are counted
MIN_SIDE = 32  # pixels; the reflection padding of a feature map needs 2 x 2 positions
ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# ----------------------------------------------------------------------------------------------------------------------
# Files
# ----------------------------------------------------------------------------------------------------------------------


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a file of any of READ_FORMATS as (H, W, 3) uint8. Raises UserError naming the file.

    Colours are brought to sRGB, palettes are looked up, 16 bits are cut to 8, transparency is laid over white, and the
    camera's orientation tag is applied. Other metadata does not matter. What can be read with a loss is read with a warning.
    Over Image.MAX_IMAGE_PIXELS, Pillow's own limit, an image is refused whatever max_pixels is; commands lift that limit.
    """
    with open_binary(path) as file:
        return decode_image(file, Path(path), max_pixels)


def read_standard_image(max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read standard input as `read_image` reads a file."""
    return decode_image(io.BytesIO(read_standard_input(MAX_STREAM_BYTES)), STANDARD_INPUT, max_pixels)


def decode_image(file: BinaryIO, name: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return the image of an open file as `read_image` does. name: what messages call it."""
    warnings_of_it: list[str] = []
    try:
        image = _over_white(colour.to_srgb(_decode(file, max_pixels, warnings_of_it.append), warnings_of_it.append))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except MemoryError:
        raise UserError(f"{name}: there is not enough memory to decode it") from None
    except UnidentifiedImageError:
        raise UserError(f"{name}: {_unread(file)}") from None
    except Exception as error:  # Pillow's decoders raise many kinds of errors for a damaged file
        raise UserError(f"{name}: cannot be decoded ({str(error).strip() or type(error).__name__})") from None
    for message in warnings_of_it:  # not before: one that cannot be read has its error alone
        _warn_once(f"{name}: {message}")
    return image


def _unread(file: BinaryIO) -> str:
    """Say what a file is that Pillow does not read."""
    file.seek(0)
    head = file.read(8)
    if is_compressed(head):
        return "is a .gc file, not an image; decompress it first"
    if head[:4] == ICON:
        return "is an icon (ICO), which is not read; save it as PNG"
    if head[:4] in TiffImagePlugin.PREFIXES:
        with contextlib.suppress(Exception):  # a damaged one
            tags = TiffImagePlugin.ImageFileDirectory_v2(head)
            file.seek(tags.next)
            tags.load(file)
            bits, kinds = tags.get(258, (1,)), tags.get(339, (1,))
            kind = f"{len(bits)} samples of {max(bits)} bits" + (", floating-point" if 3 in kinds else "")
            return f"is a TIFF of a kind that is not read ({kind}); save it with 8 bits a sample"
    return f"cannot be decoded: it is none of {', '.join(READ_FORMATS)}, or damaged"


def picture_format(data: bytes) -> str | None:
    """Return the name of the format of a picture's bytes, by their beginning; None if they are no picture."""
    try:
        return Image.open(io.BytesIO(data), formats=tuple(READ_FORMATS)).format
    except Exception:  # a damaged one; see `decode_image`
        return None


def open_picture(file: BinaryIO, max_pixels: int, tell: Callable[[str], None]) -> Image.Image:
    """Return the picture of a file before it is decoded. What would take long or much memory to decode is refused.

    Raises UserError that does not name the file, and whatever Pillow raises.
    """
    head = file.read(12)
    file.seek(0)
    if head.startswith(png.SIGNATURE):
        file = png.without_metadata(file, 2**26 + 9 * max_pixels, tell)
    try:
        image: Image.Image = Image.open(file, formats=tuple(READ_FORMATS))
    except Image.DecompressionBombError as error:
        raise UserError(f"is over max_pixels ({max_pixels}), or over Pillow's limit ({error})") from None
    if image.width * image.height > max_pixels:
        raise UserError(
            f"{image.width}x{image.height} is over max_pixels ({max_pixels}); make it smaller, or raise max_pixels "
            f"(compress.py: -k max_pixels=N)"
        )
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        if (tile := tags.get(322, 1) * tags.get(323, 1)) > max(max_pixels, LARGE_TILE):
            raise UserError(f"its tiles of {tile} px are over max_pixels ({max_pixels})")
        if tags.get(284) == 2 and max(tags.get(258, (1,))) > 8:
            raise UserError("is a planar TIFF of 16 bits, which Pillow reads wrong; save it with its colours interleaved")
    if image.format in ("JPEG", "MPO"):
        file.seek(0)
        if (scans := jpeg.scans(file.read())) > jpeg.MAX_SCANS:
            raise UserError(f"has {scans} scans, and a JPEG needs 12 at most; it was made to take long")
    if image.format != "MPO" and (n := _pictures(image)) > 1:  # which phones add to a photo: the other eye's, a preview
        tell(png.several(n))
    return image


def _pictures(image: Image.Image) -> int:
    """Return how many pictures an open file has."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return getattr(image, "n_frames", 1)
    n = 1
    try:
        for n in range(1, MOST_PAGES):  # Pillow looks each page up among all before it, a million in 20 MB
            image.seek(n)
        return MOST_PAGES
    except EOFError:
        return n
    finally:
        image.seek(0)


def _decode(file: BinaryIO, max_pixels: int, tell: Callable[[str], None]) -> Image.Image:
    """Return the upright picture of a file, in its own colours."""
    image = open_picture(file, max_pixels, tell)
    if image.format == "AVIF" and "icc_profile" not in image.info and (coding := avif.colour_coding(file)):
        colour.code(image, *coding, tell)
    try:
        image.load()
    except OSError as error:
        if image.format not in ("JPEG", "MPO") or "truncated" not in str(error):
            raise
        file.seek(0)
        image = jpeg.without_end(file.read(), error)
        tell("is cut short: its end is missing, and a few pixels may be with it")
    return _upright(image)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the orientation tag. Metadata that cannot be read says nothing about it."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        operation = ORIENTATIONS.get(orientation) if isinstance(orientation, int) else None
    except Exception:
        operation = None
    if operation is None:
        return image
    upright = image.transpose(operation)
    upright.format = image.format
    return upright


def _over_white(image: Image.Image) -> np.ndarray:
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return np.asarray(image)


@functools.lru_cache(maxsize=10_000)
def _warn_once(message: str) -> None:
    """Training reads each image many times."""
    warn(message)


def images_in(folder: str | Path, report: Callable[[str], None] = warn) -> list[str]:
    """Return all image files below a folder, sorted. Raises UserError if there are none.

    Links are followed, names that begin with a dot are skipped. What else is left out is reported in one line.
    """
    found, left_out = files_in(folder, READ_SUFFIXES)
    counted = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    kinds = ", ".join(f"{n} {kind}" for kind, n in counted[:MOST_KINDS])
    if rest := sum(n for _, n in counted[MOST_KINDS:]):
        kinds += f" and {rest} others"
    if not found:
        there = f"; there are {kinds}" if kinds else ""
        raise UserError(f"{folder}: no images in this folder (looked for {' '.join(READ_SUFFIXES)}){there}")
    if left_out:
        report(f"{folder}: left out, because only files that end in {' '.join(READ_SUFFIXES)} are read: {kinds}")
    return found


def picture_path(path: str | Path, suffixes: tuple[str, ...] = PICTURE_SUFFIXES) -> Path:
    """Return the path if it ends in one of the suffixes, or with the first of them if it has none.

    Raises UserError for another suffix, before any work is done.
    """
    path = Path(path)
    if not path.suffix and path.name and not path.is_dir():
        return path.with_suffix(suffixes[0])
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{path}: the output must end in one of {', '.join(suffixes)}")
    return path


def save_picture(picture: np.ndarray | Image.Image, path: str | Path, overwrite: bool = True) -> None:
    """Write an image (H, W, 3) uint8 or a Pillow picture. The file appears whole or not at all; see `atomic`."""
    with atomic(path, overwrite) as partial:
        partial.write_bytes(picture_bytes(picture, path))


def picture_bytes(picture: np.ndarray | Image.Image, path: str | Path) -> bytes:
    """Return the contents of a picture's file. path: its name, which says its format."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    kind = Image.registered_extensions()[Path(path).suffix.lower()]
    file = io.BytesIO()
    try:
        image.save(file, kind, **PNG_OPTIONS)  # which other formats do not know, and ignore
    except (ValueError, OSError) as error:  # such as a picture too large for the format
        raise UserError(f"{path}: cannot be written ({error})") from None
    return file.getvalue()


# ----------------------------------------------------------------------------------------------------------------------
# Pixels
# ----------------------------------------------------------------------------------------------------------------------


def check_image(image: np.ndarray) -> None:
    """Raise WrongTypeError or WrongValueError for what is no image (H, W, 3) of uint8 in 0..255 with sides from 1 px up."""
    if not isinstance(image, np.ndarray):
        raise WrongTypeError(f"an image is an array (H, W, 3) of uint8, not {type(image).__name__}; read_image reads one")
    if image.dtype != np.uint8:
        raise WrongTypeError(f"an image is an array of uint8 in 0..255, not of {image.dtype}; scale and round its values first")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise WrongValueError(f"an image has the shape (H, W, 3), red, green and blue, not {image.shape}")


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return an image (H, W, 3) uint8 at another size, by Lanczos' filter with three lobes; the same image at its own size."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def to_float(image: np.ndarray) -> np.ndarray:
    """Convert uint8 in [0, 255] to float32 in [-1, 1]."""
    return image.astype(np.float32) / 127.5 - 1


def to_uint8(x: np.ndarray) -> np.ndarray:
    """Convert floats in [-1, 1] to uint8, rounded."""
    return np.clip(np.rint((x + 1) * 127.5), 0, 255).astype(np.uint8)


def padded_size(height: int, width: int) -> tuple[int, int]:
    """Round each side up to a multiple of 16 px, and to at least 32 px."""
    padded_height, padded_width = (max(MIN_SIDE, -(-side // STRIDE) * STRIDE) for side in (height, width))
    return padded_height, padded_width


def pad(image: np.ndarray) -> np.ndarray:
    """Repeat the last row and column of (H, W, ...) up to the padded size; the inverse is image[:height, :width]."""
    height, width = image.shape[:2]
    padded_height, padded_width = padded_size(height, width)
    margins = [(0, padded_height - height), (0, padded_width - width)] + [(0, 0)] * (image.ndim - 2)
    return np.pad(image, margins, mode="edge")
