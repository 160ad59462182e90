"""Colours: whatever an image says about its colours, the codec sees sRGB.

An ICC profile decides. Without one, a PNG's sRGB chunk does, and without that, its gAMA and cHRM chunks. A PNG's cICP chunk
goes before all of these; png.py translates it. AVIF has the same numbers in a box, which avif.py finds. Cameras mark Adobe RGB
in the Exif data. An image that says nothing is sRGB.
"""

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
# The kinds of profile that we know, by their ICC signature: the mode that they are for, and the modes that can become it.
PROFILES = {
    "RGB": ("RGB", ("RGB", "RGBX", "L", "1", "P", "YCbCr")),
    "GRAY": ("L", ("L", "1")),
    "CMYK": ("CMYK", ("CMYK",)),
    "Lab": ("LAB", ("LAB",)),
}
SAME = 2  # levels; a transform that changes no colour by more is left out, so that sRGB stays what it is to the bit
SRGB_CHROMATICITIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # x, y of white, red, green, blue
SRGB_GAMMA = 1 / 2.2
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
ADOBE_RGB_CHROMATICITIES = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
ADOBE_RGB_GAMMA = 563 / 256

# What the numbers of ITU-T H.273 stand for, in a PNG's cICP chunk and in AVIF, as a PNG's cHRM and gAMA chunks have it: x and y
# of white, red, green and blue, and 1 / gamma. sRGB's curve, and those of television that come close to it, are 0.45455.
PRIMARIES = {
    1: (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060),  # sRGB
    5: (0.3127, 0.3290, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060),
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.3140, 0.3510, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
}
CURVES = {1: 0.45455, 4: 0.45455, 5: 0.35714, 6: 0.45455, 8: 1.0, 13: 0.45455, 14: 0.45455, 15: 0.45455}
HDR = {16: "PQ", 18: "HLG"}

STRIP = 256  # rows that are converted at once, to save memory

Warn = Callable[[str], None]


def to_srgb(image: Image.Image, warn: Warn) -> Image.Image:
    """Return a loaded image in sRGB, of mode RGB, or RGBA if parts of it are transparent.

    A profile that is broken, or that is for another kind of image, is ignored and reported. Raises ValueError for an image
    whose values have no known range.
    """
    alpha = _alpha(image)
    profile, info = image.info.get("icc_profile"), image.info
    is_adobe_rgb = _is_adobe_rgb(image)
    image = _eight_bits(image)
    converted = _by_profile(image, profile, warn) if profile else None
    if converted is not None:
        image = converted
    else:
        image = image.convert("RGB")
        if not profile and is_adobe_rgb and not info.keys() & {"srgb", "gamma", "chromaticity"}:
            image = _from_linear(image, np.linspace(0, 1, 256) ** ADOBE_RGB_GAMMA, _to_linear_srgb(ADOBE_RGB_CHROMATICITIES))
        elif not profile and "srgb" not in info:
            image = _by_primaries(image, info.get("gamma"), info.get("chromaticity"), warn)
    if alpha is not None:
        image.putalpha(alpha)
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return the image without transparency, and gray of 16 bits as gray of 8. Pillow's own conversion would clip it."""
    if image.mode == "F":
        raise ValueError("its values are floating-point numbers; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        gray, most = np.asarray(image), _white(image)
        if _tiff_tag(image, 258, (16,))[0] <= 16 and 2 in _tiff_tag(image, 339, (1,)):
            raise ValueError("its values are signed; save it with 8 or 16 bits from 0 up")
        if gray.min() < 0 or gray.max() > most or _tiff_tag(image, 258, (16,))[0] > 16:
            raise ValueError("its values have more than 16 bits; save it with 8 or 16 bits")
        gray = (gray.astype(np.uint32) * 255 + most // 2) // most
        return Image.fromarray((255 - gray if _white_is_zero(image) else gray).astype(np.uint8))
    if image.mode in ("RGBA", "RGBa", "PA") or (image.mode == "P" and image.has_transparency_data):
        return image.convert("RGBA").convert("RGB")
    if image.mode in ("LA", "La"):
        return image.convert("LA").getchannel("L")
    return image


def _white(image: Image.Image) -> int:
    """Return the level of white of gray with more than 8 bits. TIFF has it with 12, too."""
    bits = _tiff_tag(image, 258, (16,))[0] if image.mode == "I;16" else 16
    return 2**bits - 1


def _white_is_zero(image: Image.Image) -> bool:
    """Whether 0 is white, in a TIFF file. Pillow sees to that up to 8 bits."""
    return image.mode == "I;16" and _tiff_tag(image, 262, 1) == 0


def code(image: Image.Image, primaries: int, curve: int, warn: Warn) -> None:
    """Tell an image what its colours are, by numbers of ITU-T H.273; 2 is for unknown ones."""
    if curve in HDR:
        warn(f"its colours are not converted to sRGB (they are for HDR displays, {HDR[curve]})")
        return
    image.info |= {"gamma": CURVES[curve]} if curve in CURVES else {}
    image.info |= {"chromaticity": PRIMARIES[primaries]} if primaries in PRIMARIES else {}


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether the Exif data mark an image as Adobe RGB, as DCF 2.0 has it. Metadata that cannot be read says nothing."""
    try:
        return image.getexif().get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex) == "R03"
    except Exception:
        return False


def _tiff_tag(image: Image.Image, tag: int, default: Any) -> Any:
    return getattr(image, "tag_v2", {}).get(tag, default)


def _alpha(image: Image.Image) -> Image.Image | None:
    """Return the opacity of each pixel, or None for an image that is opaque."""
    if not image.has_transparency_data:
        return None
    if image.mode.startswith("I"):
        level = image.info["transparency"]
        return Image.fromarray(np.where(np.asarray(image) == level, 0, 255).astype(np.uint8))
    alpha = image.convert("RGBA").getchannel("A")
    if image.format in ("BMP", "DIB") and alpha.getextrema() == (0, 0):
        return None  # many programs leave the fourth byte 0, and nobody saves a picture that cannot be seen
    return alpha


# ----------------------------------------------------------------------------------------------------------------------
# ICC profiles
# ----------------------------------------------------------------------------------------------------------------------


def _by_profile(image: Image.Image, profile: bytes, warn: Warn) -> Image.Image | None:
    """Convert an image by its profile; None if that is impossible."""
    try:
        mode, transform = _transform(profile, image.mode)
        image = image.convert(mode)
        return image if transform is None else transform.apply(image)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        warn(f"its colour profile is ignored ({str(error).strip() or 'it is damaged'})")
        return None


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Return the mode that a profile converts from, and the transform to sRGB; None in its place if nothing would change."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    kind = source.profile.xcolor_space.strip()
    if kind not in PROFILES or mode not in PROFILES[kind][1]:
        raise ValueError(f"it is for {kind} and the image is {mode}")
    into = PROFILES[kind][0]
    transform = ImageCms.buildTransform(source, _srgb(), into, "RGB", INTENT, FLAGS)
    if into == "RGB":
        levels = np.linspace(0, 255, 9).astype(np.uint8)
        lattice = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
        changed = np.asarray(transform.apply(Image.fromarray(lattice))).astype(int) - lattice
        if np.abs(changed).max() <= SAME:
            return into, None
    return into, transform


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


# ----------------------------------------------------------------------------------------------------------------------
# Gamma and primaries
# ----------------------------------------------------------------------------------------------------------------------


def _by_primaries(image: Image.Image, gamma: float | None, chromaticities: tuple | None, warn: Warn) -> Image.Image:
    """Convert RGB by a PNG's gAMA and cHRM chunks."""
    values = np.linspace(0, 1, 256)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    same_curve = gamma is None or abs(gamma / SRGB_GAMMA - 1) < 0.05  # libpng's threshold; 0.45455 stands for sRGB's curve
    if gamma is not None and not same_curve:
        if not 0.1 <= gamma <= 10:
            warn(f"its gamma of {gamma:g} is ignored")
            return image
        linear = values ** (1 / gamma)
    matrix = np.eye(3)
    if chromaticities is not None:
        try:
            matrix = _to_linear_srgb(chromaticities)
        except (ValueError, np.linalg.LinAlgError):
            warn("its primaries are ignored: they are no colours")
    if np.abs(matrix - np.eye(3)).max() < 0.01:
        if same_curve:
            return image
        return image.point(np.rint(255 * _encode(linear)).astype(int).tolist() * 3)
    return _from_linear(image, linear, matrix)


def _from_linear(image: Image.Image, linear: np.ndarray, matrix: np.ndarray) -> Image.Image:
    """Convert RGB, of whose 256 levels the linear light is given, by a matrix to the linear light of sRGB."""
    pixels = np.array(image)
    linear = linear.astype(np.float32)
    for top in range(0, len(pixels), STRIP):
        strip = linear[pixels[top : top + STRIP]] @ matrix.T.astype(np.float32)
        pixels[top : top + STRIP] = np.rint(255 * _encode(np.clip(strip, 0, 1)))
    return Image.fromarray(pixels)


def _to_linear_srgb(chromaticities: tuple) -> np.ndarray:
    """Return the matrix from linear RGB to that of sRGB."""
    return np.linalg.inv(_to_xyz(SRGB_CHROMATICITIES)) @ _to_xyz(chromaticities)


def _encode(linear: np.ndarray) -> np.ndarray:
    """Apply sRGB's curve to linear light in [0, 1]."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _to_xyz(chromaticities: tuple) -> np.ndarray:
    """Return the matrix from linear RGB to XYZ, adapted to sRGB's white. Raises ValueError for impossible primaries."""
    x, y = np.array(chromaticities, np.float64).reshape(4, 2).T
    if not (y > 1e-3).all():
        raise ValueError("a chromaticity has no luminance")
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    white, primaries = xyz[:, 0], xyz[:, 1:]
    matrix = primaries * np.linalg.solve(primaries, white)
    white_x, white_y = SRGB_CHROMATICITIES[:2]
    ratio = (BRADFORD @ [white_x / white_y, 1, (1 - white_x - white_y) / white_y]) / (BRADFORD @ white)
    return np.linalg.inv(BRADFORD) @ np.diag(ratio) @ BRADFORD @ matrix
