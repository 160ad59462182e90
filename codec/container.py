"""The compressed file, `.gc`: its container. What the payload holds is entropy.py's business.

Format version 2, little-endian. 16 bytes beside the payload:

    offset  bytes  what
         0      2  magic, "gc"
         2      1  format version, 2
         3      1  K, how many channels of the feature map were sent, 1..255
         4      2  image width in pixels, 1..65535
         6      2  image height in pixels, 1..65535
         8      4  fingerprint of the model: SHA-256, cut, of its knobs, weights and entropy model
        12      n  payload: the symbols, range coded in whole 32-bit words
      12+n      4  CRC-32 of everything before it

The payload's length is what is left of the file, and the shape of the symbols follows from the image's: ceil(side/16), at
least 2, by K channels. Version 1, which knew neither context models nor K, is refused by name.
"""

import struct
import zlib
from typing import NamedTuple

from config import UserError

MAGIC, VERSION = b"gc", 2
HEADER = struct.Struct("<2sBBHH4s")
CRC = struct.Struct("<I")
MAX_SIDE = 2**16 - 1


def join(sections: list[bytes]) -> bytes:
    """Payloads of whole words -> one: before each but the last, three bytes that say how many words it has."""
    return b"".join((len(part) // 4).to_bytes(3, "little") + part for part in sections[:-1]) + sections[-1]


def split(payload: bytes, n: int) -> list[bytes]:
    """Inverse of join, for n sections. Raises UserError for a payload that ends before they do."""
    sections = []
    for _ in range(n - 1):
        end = 3 + 4 * int.from_bytes(payload[:3], "little")
        if len(payload) < end:
            raise UserError("damaged (the payload ends within a section)")
        sections.append(payload[3:end])
        payload = payload[end:]
    return [*sections, payload]


class File(NamedTuple):
    """What a .gc file says. `crc` also seeds the decoder's noise."""

    width: int
    height: int
    channels: int
    fingerprint: bytes
    payload: bytes
    crc: int


def check_size(width: int, height: int) -> None:
    """Raise UserError for an image too large for the format."""
    if max(width, height) > MAX_SIDE:
        raise UserError(f"{width}x{height} px: the file format takes sides up to {MAX_SIDE} px")


def pack(width: int, height: int, channels: int, fingerprint: bytes, payload: bytes) -> bytes:
    """The bytes of a .gc file. Raises UserError for an image too large for the format."""
    check_size(width, height)
    body = HEADER.pack(MAGIC, VERSION, channels, width, height, fingerprint) + payload
    return body + CRC.pack(zlib.crc32(body))


def unpack(data: bytes) -> File:
    """Inverse of pack. Raises UserError for anything that pack did not make, damaged files among it."""
    if len(data) < HEADER.size + CRC.size:
        raise UserError(f"not a .gc file, or cut short ({len(data)} bytes)")
    magic, version, channels, width, height, fingerprint = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise UserError("not a .gc file (it does not start with 'gc')")
    if version != VERSION:
        raise UserError(f"format version {version}; this program reads version {VERSION}")
    body, (crc,) = data[: -CRC.size], CRC.unpack(data[-CRC.size :])
    if zlib.crc32(body) != crc:
        raise UserError("damaged (the checksum does not match)")
    if not (channels and width and height):
        raise UserError(f"not a valid .gc file ({width}x{height} px, {channels} channels)")
    return File(width, height, channels, fingerprint, body[HEADER.size :], crc)
