"""The compressed file, `.gc`: its container, and the entropy coding of the symbols in it.

Format version 1, little-endian. 16 bytes beside the payload:

    offset  bytes  what
         0      2  magic, "gc"
         2      1  format version, 1
         3      1  flags, 0 (reserved)
         4      2  image width in pixels, 1..65535
         6      2  image height in pixels, 1..65535
         8      4  fingerprint of the model: SHA-256, cut, of its knobs, weights and symbol frequencies
        12      n  payload: the symbols, range coded in whole 32-bit words
      12+n      4  CRC-32 of everything before it

The payload's length is what is left of the file, and the shape of the feature map follows from the image's: ceil(side/16),
at least 2, by C channels. Symbols are coded channel by channel, row by row, each channel with its own table of integers out
of the checkpoint, so encoder and decoder agree on every machine. The range coder is that of `constriction`, which scales
a table to 24 bits by one IEEE-754 multiplication for each entry; a golden file in the tests keeps that from drifting.
"""

import struct
import zlib
from typing import NamedTuple, Protocol

import constriction
import numpy as np

from config import UserError

MAGIC, VERSION = b"gc", 1
HEADER = struct.Struct("<2sBBHH4s")
CRC = struct.Struct("<I")
MAX_SIDE = 2**16 - 1
FREQUENCY_SUM = 2**16  # the total of each table of integer frequencies


class File(NamedTuple):
    """What a .gc file says. `crc` also seeds the decoder's noise."""

    width: int
    height: int
    fingerprint: bytes
    payload: bytes
    crc: int


def check_size(width: int, height: int) -> None:
    """Raise UserError for an image too large for the format."""
    if max(width, height) > MAX_SIDE:
        raise UserError(f"{width}x{height} px: the file format takes sides up to {MAX_SIDE} px")


def pack(width: int, height: int, fingerprint: bytes, payload: bytes) -> bytes:
    """The bytes of a .gc file. Raises UserError for an image too large for the format."""
    check_size(width, height)
    body = HEADER.pack(MAGIC, VERSION, 0, width, height, fingerprint) + payload
    return body + CRC.pack(zlib.crc32(body))


def unpack(data: bytes) -> File:
    """Inverse of pack. Raises UserError for anything that pack did not make, damaged files among it."""
    if len(data) < HEADER.size + CRC.size:
        raise UserError(f"not a .gc file, or cut short ({len(data)} bytes)")
    magic, version, flags, width, height, fingerprint = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise UserError("not a .gc file (it does not start with 'gc')")
    if version != VERSION:
        raise UserError(f"format version {version}; this program reads version {VERSION}")
    body, (crc,) = data[: -CRC.size], CRC.unpack(data[-CRC.size :])
    if zlib.crc32(body) != crc:
        raise UserError("damaged (the checksum does not match)")
    if flags or not width or not height:
        raise UserError(f"not a valid .gc file (flags {flags}, {width}x{height} px)")
    return File(width, height, fingerprint, body[HEADER.size :], crc)


class EntropyModel(Protocol):
    """What turns symbols (h, w, C), uint8 in 0..L-1, into a payload and back."""

    def encode(self, symbols: np.ndarray) -> bytes: ...

    def decode(self, payload: bytes, height: int, width: int) -> np.ndarray: ...


class StaticTables:
    """The entropy model with a fixed table of symbol frequencies for each channel."""

    def __init__(self, frequencies: np.ndarray):
        """frequencies: (C, L) integers from 1 up, each row with the sum FREQUENCY_SUM."""
        if frequencies.min() < 1 or (frequencies.sum(axis=1) != FREQUENCY_SUM).any():
            raise UserError(f"symbol frequencies: not all at least 1 with the sum {FREQUENCY_SUM}")
        self.frequencies = frequencies
        self._models = [
            constriction.stream.model.Categorical(row / FREQUENCY_SUM, perfect=False)  # exact: a power of two
            for row in frequencies.astype(np.float64)
        ]

    def encode(self, symbols: np.ndarray) -> bytes:
        """Symbols (h, w, C) in 0..L-1 -> payload."""
        coder = constriction.stream.queue.RangeEncoder()
        for channel, model in enumerate(self._models):
            coder.encode(symbols[:, :, channel].astype(np.int32).ravel(), model)
        return coder.get_compressed().astype("<u4").tobytes()

    def decode(self, payload: bytes, height: int, width: int) -> np.ndarray:
        """Inverse of encode, for a feature map of height x width. Raises UserError for a payload that encode did not make."""
        if len(payload) % 4:
            raise UserError("damaged (the payload is not a whole number of words)")
        coder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))
        try:
            planes = [coder.decode(model, height * width) for model in self._models]
        except (AssertionError, ValueError) as error:  # constriction found bits that no encoder writes
            raise UserError(f"damaged (the payload cannot be decoded: {error})") from None
        symbols = np.stack(planes, axis=-1).reshape(height, width, -1).astype(np.uint8)
        if self.encode(symbols) != payload:
            raise UserError("damaged (the payload is not of this image size)")
        return symbols


def integer_frequencies(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities (C, L) -> integer frequencies (C, L) uint32, each at least 1, each row with the sum FREQUENCY_SUM."""
    shares = probabilities / probabilities.sum(axis=1, keepdims=True)
    frequencies = np.maximum(1, np.rint(shares * FREQUENCY_SUM)).astype(np.int64)
    rows = np.arange(len(frequencies))
    frequencies[rows, frequencies.argmax(axis=1)] += FREQUENCY_SUM - frequencies.sum(axis=1)  # rounding's rest
    return frequencies.astype(np.uint32)
