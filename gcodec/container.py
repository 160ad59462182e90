"""The compressed file, `.gc`: its container. What the payload holds is entropy.py's business.

Format version 3. A photo with sides up to 16383 px takes 14 bytes beside the payload:

    bytes  what
        1  magic, "g"
        1  version and flags: bit 7 is 1 from version 3 on; bit 6 says that K follows; bits 0..5 are the scale
     1..3  image width in pixels, 1..65535, a variable-length integer
     1..3  image height in pixels, likewise
      0,1  K, how many channels of the feature map were sent, 1..255; without it, all of them
        4  fingerprint of the model: SHA-256, cut, of its knobs, weights and entropy model
        n  payload: the symbols, range coded
        4  CRC-32 of everything before it, little-endian

The image was scaled by 2^(-scale/8) before it was coded; see `coded_size`. The payload's length is what is left of the file,
and the shape of the symbols follows from the coded size: ceil(side/16), at least 2. Versions 1 and 2, whose second byte is "c",
are refused by name. The whole format: docs/file-format.md.
"""

import zlib
from collections.abc import Iterable
from typing import NamedTuple

from gcodec.errors import UserError
from gcodec.integers import POWERS, STEPS, read_varint, varint

MAGIC, OLD_MAGIC, VERSION = b"g", b"gc", 3
VERSION_BIT, CHANNELS_BIT, MAX_SCALE = 0x80, 0x40, 0x3F
SCALES = 8  # for each factor of two
FACTORS = POWERS[:: STEPS // SCALES][: MAX_SCALE + 1]  # floor(2^(16 - scale/8))
FINGERPRINT_SIZE = CRC_SIZE = 4
MAX_SIDE = 2**16 - 1
SMALLEST = 4 + FINGERPRINT_SIZE + CRC_SIZE  # bytes, of a file
HEADER_MOST = 2 + 3 + 3 + 1 + FINGERPRINT_SIZE  # bytes, of a header


def join(sections: list[bytes]) -> bytes:
    """Payloads -> one: each but the last has its length before it, a variable-length integer."""
    return b"".join(varint(len(part)) + part for part in sections[:-1]) + sections[-1]


def split(payload: bytes, names: Iterable[str]) -> dict[str, bytes]:
    """Inverse of join, for sections of these names. Raises UserError for a payload that ends before they do."""
    *others, last = names
    sections = {}
    for name in others:
        length, start = read_varint(payload, 0)
        if len(payload) < start + length:
            raise UserError("damaged (the payload ends within a section)")
        sections[name] = payload[start : start + length]
        payload = payload[start + length :]
    return sections | {last: payload}


class Header(NamedTuple):
    """What a file says before its payload. channels: 0 for all that the model has. scale: 0..63."""

    width: int
    height: int
    scale: int
    channels: int
    fingerprint: bytes

    @property
    def coded_size(self) -> tuple[int, int]:
        """The height and width in pixels at which the image was coded."""
        return coded_size(self.height, self.width, self.scale)


class File(NamedTuple):
    """What a .gc file says. `crc` also seeds the decoder's noise."""

    header: Header
    payload: bytes
    crc: int


def coded_size(height: int, width: int, scale: int) -> tuple[int, int]:
    """Return the height and width at which an image is coded: its own times 2^(-scale/8), rounded, and at least 1."""
    factor = int(FACTORS[scale])
    coded_height, coded_width = (max(1, (side * factor + 2**15) >> 16) for side in (height, width))
    return coded_height, coded_width


def check_size(width: int, height: int) -> None:
    """Raise UserError for an image too large for the format."""
    if max(width, height) > MAX_SIDE:
        raise UserError(f"{width}x{height} px: the file format takes sides up to {MAX_SIDE} px")


def pack(header: Header, payload: bytes) -> bytes:
    """Return the bytes of a .gc file. Raises UserError for an image too large for the format."""
    body = pack_header(header) + payload
    return body + zlib.crc32(body).to_bytes(CRC_SIZE, "little")


def pack_header(header: Header) -> bytes:
    """Return the bytes of a header. Raises UserError for an image too large for the format."""
    check_size(header.width, header.height)
    flags = VERSION_BIT | (CHANNELS_BIT if header.channels else 0) | header.scale
    sizes = varint(header.width) + varint(header.height)
    return MAGIC + bytes([flags]) + sizes + bytes([header.channels] if header.channels else []) + header.fingerprint


def unpack(data: bytes) -> File:
    """Inverse of pack. Raises UserError for anything that pack did not make, damaged files among it."""
    check_magic(data)
    if not checksum_holds(data):
        raise UserError("damaged (the checksum does not match)")
    body = data[:-CRC_SIZE]
    header, start = read_header(body)
    return File(header, body[start:], int.from_bytes(data[-CRC_SIZE:], "little"))


def checksum_holds(data: bytes) -> bool:
    """Whether the last four bytes of a file are the CRC-32 of all bytes before them."""
    return zlib.crc32(data[:-CRC_SIZE]) == int.from_bytes(data[-CRC_SIZE:], "little")


def is_compressed(data: bytes) -> bool:
    """Whether data begins as .gc files do, of any version."""
    return data[:2] == OLD_MAGIC or (len(data) > 1 and data[:1] == MAGIC and data[1] & VERSION_BIT != 0)


def check_magic(data: bytes) -> None:
    """Raise UserError for data that is no .gc file of this version, or too short to be one."""
    if data[:2] == OLD_MAGIC:
        version = data[2] if len(data) > 2 else "1 or 2"
        raise UserError(f"format version {version}; this program reads version {VERSION}")
    if len(data) < 2 or data[:1] != MAGIC or not data[1] & VERSION_BIT:
        raise UserError("not a .gc file" + (" (it is empty)" if not data else ""))
    if len(data) < SMALLEST:
        raise UserError(f"cut short ({len(data)} bytes)")


def read_header(body: bytes) -> tuple[Header, int]:
    """Return the header of a file, and the offset of its payload. Raises UserError for one that pack_header did not make."""
    if len(body) < 2:
        raise UserError("damaged (it ends within its header)")
    flags = body[1]
    width, start = read_varint(body, 2)
    height, start = read_varint(body, start)
    channels = 0
    if flags & CHANNELS_BIT:
        channels, start = int.from_bytes(body[start : start + 1]), start + 1
    fingerprint = body[start : start + FINGERPRINT_SIZE]
    if len(fingerprint) < FINGERPRINT_SIZE:
        raise UserError("damaged (it ends within its header)")
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE) or (flags & CHANNELS_BIT and not channels):
        raise UserError(f"not a valid .gc file ({width}x{height} px, {channels} channels)")
    return Header(width, height, flags & MAX_SCALE, channels, fingerprint), start + FINGERPRINT_SIZE
