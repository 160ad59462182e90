"""JPEG files that lack their end: cameras, downloads and memory cards leave them behind, and every viewer shows them."""

import io
import struct

import numpy as np
from PIL import Image

END = b"\xff\xd9"
MAX_SHARE = 0.05  # of the pixels that may depend on what is missing
SOF = (0xC0, 0xC1, 0xC2)  # markers of a frame: baseline, extended, progressive
SOS = 0xDA


def without_end(data: bytes, error: Exception) -> Image.Image:
    """Decode a JPEG file whose end is missing if nearly nothing of the picture is; else raise `error`.

    Pixels that are not there show in that they change with whatever stands in for the missing bytes.
    """
    if not _precise(data):
        raise error
    data = data.rstrip(b"\xff")
    noise = np.random.default_rng(0).integers(0, 255, len(data) + 2**16, dtype=np.uint8)  # never 255, which begins a marker
    guesses = b"", noise.tobytes()
    first, second = (Image.open(io.BytesIO(data + guess + END), formats=("JPEG",)) for guess in guesses)
    first.load()
    second.load()
    differs = np.asarray(first) != np.asarray(second)
    if differs.reshape(*differs.shape[:2], -1).any(axis=-1).mean() > MAX_SHARE:
        raise error
    return first


def _precise(data: bytes) -> bool:
    """Whether scans of all coefficients of all components, to their last bit, have at least begun.

    A progressive file, cut between two scans, is a whole picture that is blurred.
    """
    missing: set[tuple[int, int]] = set()  # component, coefficient
    position = 2
    while (position := data.find(b"\xff", position)) >= 0 and position + 4 <= len(data):
        marker = data[position + 1]
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD8:  # within a scan, padding, or a marker without a body
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack(">H", data[position + 2 : position + 4])
        body = data[position + 4 : position + 2 + length]
        if marker in SOF:
            missing = {(component, k) for component in body[6::3] for k in range(64)}
        elif marker == SOS:
            components, (first, last, bits) = body[1:-3:2], body[-3:]
            if bits & 15 == 0:
                missing -= {(component, k) for component in components for k in range(first, last + 1)}
        position += 2 + length
    return not missing
