"""Pictures: reading and writing files, bringing an image to the networks' grid, and pixels as numbers."""

import functools
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from gcodec import avif, colour, jpeg, png
from gcodec.container import is_compressed
from gcodec.errors import UserError
from gcodec.files import atomic, files_in, open_binary, warn
from gcodec.streams import STANDARD_INPUT, read_standard_input

MAX_PIXELS = 25_000_000  # of an image that is read or decoded, unless the caller allows more

# What is read: Pillow's name of each format, and the suffixes by which its files are found in folders. Of an animation or a
# file with several pages, the first picture is read. Left out are JPEG 2000, because Pillow ignores its colour profiles, and
# formats that need another program, such as EPS.
READ_FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "ICO": (".ico",),
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
        file.seek(0)
        if is_compressed(file.read(2)):
            raise UserError(f"{name}: is a .gc file, not an image; decompress.py makes a picture of it") from None
        raise UserError(f"{name}: cannot be decoded: it is none of {', '.join(READ_FORMATS)}, or damaged") from None
    except Exception as error:  # Pillow's decoders raise many kinds of errors for a damaged file
        raise UserError(f"{name}: cannot be decoded ({str(error).strip() or type(error).__name__})") from None
    for message in warnings_of_it:  # not before: one that cannot be read has its error alone
        _warn_once(f"{name}: {message}")
    return image


def picture_format(data: bytes) -> str | None:
    """Return the name of the format of a picture's bytes, by their beginning; None if they are no picture."""
    try:
        return Image.open(io.BytesIO(data), formats=tuple(READ_FORMATS)).format
    except Exception:  # a damaged one; see `decode_image`
        return None


def _decode(file: BinaryIO, max_pixels: int, tell: Callable[[str], None]) -> Image.Image:
    """Return the upright picture of a file, in its own colours."""
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
            f"{image.width}x{image.height} is over max_pixels ({max_pixels}); make it smaller, or raise the cap with "
            f"-k max_pixels=N"
        )
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
    """Return the path if it ends in one of the suffixes; otherwise raise UserError, before any work is done."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{path}: the output must end in one of {', '.join(suffixes)}")
    return path


def save_picture(picture: np.ndarray | Image.Image, path: str | Path, overwrite: bool = True) -> None:
    """Write an image (H, W, 3) uint8 or a Pillow picture. The file appears whole or not at all; see `atomic`."""
    with atomic(path, overwrite) as partial:
        write_picture(picture, partial, path)


def write_picture(picture: np.ndarray | Image.Image, partial: Path, path: str | Path) -> None:
    """Write a picture to the temporary file of `path`."""
    try:
        image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        image.save(partial, **PNG_OPTIONS)  # which other formats do not know, and ignore
    except ValueError as error:  # such as a picture too large for the format
        raise UserError(f"{path}: cannot be written ({error})") from None


# ----------------------------------------------------------------------------------------------------------------------
# Pixels
# ----------------------------------------------------------------------------------------------------------------------


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
