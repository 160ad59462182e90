"""JPEG files that lack their end, and those that are made to take long.

Cameras, downloads and memory cards leave files without an end behind, and every viewer shows them. Pillow fills what is missing
with gray (LOAD_TRUNCATED_IMAGES), however much it is.
"""

import io
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

END = b"\xff\xd9"
MAX_SHARE = 0.05  # of the pixels that may depend on what is missing
SOF = (0xC0, 0xC1, 0xC2)  # markers of a frame: baseline, extended, progressive
SOS = 0xDA
MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")  # that has a body, or is the end
MAX_SCANS = 50  # programs write up to 12; each makes the decoder go over the whole picture


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
    for marker, body in segments(data):
        if marker in SOF:
            missing = {(component, k) for component in body[6::3] for k in range(64)}
        elif marker == SOS:
            components, (first, last, bits) = body[1:-3:2], body[-3:]
            if bits & 15 == 0:
                missing -= {(component, k) for component in components for k in range(first, last + 1)}
    return not missing


def scans(data: bytes) -> int:
    """Return how many scans the first picture of a JPEG file has."""
    return sum(marker == SOS for marker, _ in segments(data))


def segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the body of each segment of a JPEG file up to its end, without the pixels between them."""
    position = 2
    while (found := MARKER.search(data, position)) and found[0] != END:
        position = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
        yield found[0][1], data[found.end() + 2 : position]
