"""Integers that every machine computes alike: powers of two with fractions in the exponent, and variable-length integers."""

import math

import numpy as np

from gcodec.errors import UserError

STEPS = 32  # of the exponent, for each factor of two


def _powers_of_two() -> np.ndarray:
    """floor(2^(16 - d/32)) for d = 0..511, then 0, by integer square roots: the 32nd root is five of them."""
    powers = [1 << (16 * STEPS - d) for d in range(16 * STEPS)]
    for _ in range(STEPS.bit_length() - 1):
        powers = [math.isqrt(power) for power in powers]
    return np.array([*powers, 0])


POWERS = _powers_of_two()


def varint(number: int) -> bytes:
    """Return a number from 0 up as bytes of 7 bits, the lowest first; all but the last have their highest bit set (LEB128)."""
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def read_varint(data: bytes, start: int) -> tuple[int, int]:
    """Return the number that `varint` wrote at an offset of data, and the offset behind it.

    Raises UserError where data ends, and for a number that is longer than need be or has more than 28 bits.
    """
    number = 0
    for i in range(4):
        if start + i >= len(data):
            raise UserError("damaged (it ends within a number)")
        byte = data[start + i]
        number |= (byte & 127) << 7 * i
        if byte < 128:
            if i and not byte:
                break
            return number, start + i + 1
    raise UserError("damaged (a number in it is too long)")
