"""What an AVIF file says about its colours without an ICC profile, which Pillow does not tell."""

from collections.abc import Iterator
from typing import BinaryIO

MAX_BYTES = 2**20  # of the boxes before the pixels, which are looked through
PARENTS = {b"meta": 4, b"iprp": 0, b"ipco": 0}  # boxes on the way to `colr`, and what is before the boxes in them


def colour_coding(file: BinaryIO) -> tuple[int, int] | None:
    """Return the primaries and the curve of an AVIF file, as numbers of ITU-T H.273; None if it has none, or is damaged.

    They are in the first box `colr` of the kind `nclx` (ISO/IEC 14496-12, section 12.1.5). The file's position stays.
    """
    position = file.tell()
    file.seek(0)
    data = file.read(MAX_BYTES)
    file.seek(position)
    for body in _boxes(data, b"colr"):
        if body[:4] == b"nclx" and len(body) >= 8:
            return int.from_bytes(body[4:6], "big"), int.from_bytes(body[6:8], "big")
    return None


def _boxes(data: bytes, wanted: bytes) -> Iterator[bytes]:
    """Yield what is in the boxes of a name, at the top and within PARENTS."""
    while len(data) >= 8:
        size, name = int.from_bytes(data[:4], "big"), data[4:8]
        if size < 8:  # a box up to the end, one of over 4 GB, or damage: nothing after it is of interest
            return
        if name == wanted:
            yield data[8:size]
        elif name in PARENTS:
            yield from _boxes(data[8 + PARENTS[name] : size], wanted)
        data = data[size:]
