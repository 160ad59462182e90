"""Pictures: reading and writing files, bringing an image to the networks' grid, and pixels as numbers."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from codec.files import atomic
from config import UserError, config_test

Image.MAX_IMAGE_PIXELS = None  # the knob max_pixels is checked before anything is decoded

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")  # that are read and written
LOSSLESS_SUFFIXES = (".png", ".bmp")
STRIDE = 16  # pixels a side of one position of the feature map
MIN_SIDE = 32  # pixels; the reflection padding of a feature map needs 2 x 2 positions

# ----------------------------------------------------------------------------------------------------------------------
# Files
# ----------------------------------------------------------------------------------------------------------------------


def read_image(path: str | Path, max_pixels: int = config_test.max_pixels) -> np.ndarray:
    """Read a PNG, JPEG, WebP or BMP file as (H, W, 3) uint8. Raises UserError naming the file.

    Gray becomes RGB, palettes are looked up, 16 bits are cut to 8, transparency is laid over white, and the
    camera's orientation tag is applied.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder, but the input is an image file")
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP", "BMP")) as image:
            if image.width * image.height > max_pixels:
                raise UserError(
                    f"{path}: {image.width}x{image.height} is over max_pixels ({max_pixels}); "
                    f"make it smaller, or raise the cap with -k max_pixels=N"
                )
            return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise UserError(f"{path}: no such image file") from None
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds of errors for a damaged file
        raise UserError(f"{path}: cannot be decoded as PNG, JPEG, WebP or BMP ({error})") from None


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit gray; Pillow's own conversion would clip it
        gray = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(np.clip(np.rint(gray), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def images_in(folder: str | Path) -> list[str]:
    """Return all image files below a folder, sorted. Raises UserError if there are none."""
    found = sorted(str(p) for p in Path(folder).rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file())
    if not found:
        raise UserError(f"{folder}: no images in this folder (looked for {' '.join(PICTURE_SUFFIXES)})")
    return found


def picture_path(path: str | Path, suffixes: tuple[str, ...] = PICTURE_SUFFIXES) -> Path:
    """Return the path if it ends in one of the suffixes; otherwise raise UserError, before any work is done."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{path}: the output must end in one of {', '.join(suffixes)}")
    return path


def save_picture(picture: np.ndarray | Image.Image, path: str | Path) -> None:
    """Write an image (H, W, 3) uint8 or a Pillow picture. The file appears whole or not at all."""
    with atomic(path) as partial:
        try:
            (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(partial)
        except ValueError as error:  # such as a picture too large for the format
            raise UserError(f"{path}: cannot be written ({error})") from None


# ----------------------------------------------------------------------------------------------------------------------
# Pixels
# ----------------------------------------------------------------------------------------------------------------------


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
