"""Fits a picture into so many bytes, by the choice of the model and of the size at which the image is coded."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gcodec.codec import Codec
from gcodec.container import MAX_SCALE
from gcodec.errors import UserError
from gcodec.pictures import check_image

OVERHEAD = 14  # bytes of a photo's file beside the payload
SHRINKAGE = 0.2  # log2 of how much the payload shrinks from one scale to the next; measured, and only a first guess
DENSITY = 0.0025  # bytes of payload a pixel, by which the search guesses the size that it tries first


class BestFile(NamedTuple):
    """A file within the budget, and the picture that it decodes to."""

    codec: Codec
    data: bytes
    picture: np.ndarray  # (H, W, 3) uint8


def best_file(
    image: np.ndarray,
    codecs: Sequence[Codec],
    max_bytes: int,
    quality: Callable[[np.ndarray, np.ndarray], float] | None = None,
) -> BestFile:
    """Return the best file of an image (H, W, 3) uint8 with at most max_bytes bytes.

    Of each model, the largest coded size that fits is tried: a picture coded larger is better by nearly any measure. Of these
    files, the one with the highest quality(image, picture) is taken; for one model, quality is not needed. Raises UserError
    that names a sufficient budget if none fits.
    """
    check_image(image)
    encoders = [_remembering(codec, image) for codec in codecs]
    scales = [_smallest_scale(encode, max_bytes, _first_guess(image, max_bytes)) for encode in encoders]
    files = [(codec, encode(scale)) for codec, scale, encode in zip(codecs, scales, encoders, strict=True) if scale is not None]
    if not files:
        enough = min(len(encode(MAX_SCALE)) for encode in encoders)
        raise UserError(f"does not fit into {max_bytes} bytes; {enough} are enough")
    tried = [BestFile(codec, data, codec.decode(data)) for codec, data in files]
    return max(tried, key=lambda file: quality(image, file.picture)) if quality and len(tried) > 1 else tried[0]


def _remembering(codec: Codec, image: np.ndarray) -> Callable[[int], bytes]:
    """Return a function from a scale to the file of the image, which makes each file once."""
    files: dict[int, bytes] = {}

    def encode(scale: int) -> bytes:
        if scale not in files:
            files[scale] = codec.encode(image, scale=scale)
        return files[scale]

    return encode


def _first_guess(image: np.ndarray, max_bytes: int) -> int:
    """Return the scale at which an image of average detail has about max_bytes bytes."""
    away = math.log2(image.shape[0] * image.shape[1] * DENSITY / max(1, max_bytes - OVERHEAD)) / SHRINKAGE
    return min(MAX_SCALE, max(0, round(away)))


def _smallest_scale(encode: Callable[[int], bytes], max_bytes: int, guess: int) -> int | None:
    """Return a scale whose file fits and whose next smaller one does not; None if the file at MAX_SCALE is too large.

    It narrows the scales between one that does not fit and one that does, by where a constant SHRINKAGE would meet the budget.
    Files shrink from scale to scale until few symbols are left; from there on, they vary by some bytes.
    """
    if max_bytes <= OVERHEAD:
        return None
    too_large, fits = -1, MAX_SCALE + 1
    while fits - too_large > 1:
        size = len(encode(guess))
        if size <= max_bytes:
            fits = guess
        else:
            too_large = guess
        away = math.log2(max(1, size - OVERHEAD) / (max_bytes - OVERHEAD)) / SHRINKAGE
        guess = min(fits - 1, max(too_large + 1, guess + math.ceil(away)))
    return fits if fits <= MAX_SCALE else None
