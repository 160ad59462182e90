"""The decoder's noise, defined by integers: alike on every machine, in every language, with every version of a library.

Where the bits come from: Philox4x64-10 (Salmon et al. 2011), with the key (crc, noise_seed) as two 64-bit words and a
256-bit counter that starts at 0. It is incremented before each block, the first one too, as numpy.random.Philox does, so
that the first block is that of counter 1. A block has four 64-bit words.

How they become numbers: each 64-bit word makes two values, of its low 32 bits first, then of its high 32 bits. A value is
(b0 + b1 + b2 + b3 - 510) / 148, in float32, where b0..b3 are the four bytes of the 32 bits. This sum of four uniform
variables (Irwin-Hall) is nearly normal, with mean 0 and variance 0.997, within [-3.45, 3.45]. The sum is exact, and the
division is correctly rounded wherever float32 follows IEEE 754. The values fill the array in C order.
"""

import math

import numpy as np


def noise(shape: tuple[int, ...], crc: int, noise_seed: int) -> np.ndarray:
    """Return an array of nearly normal float32 values that depend on the file's checksum and the knob noise_seed alone."""
    n = math.prod(shape)
    words = np.random.Philox(key=np.array([crc, noise_seed], np.uint64)).random_raw((n + 1) // 2)
    octets = words.astype("<u8").view(np.uint8).reshape(-1, 4)  # little-endian: the low 32 bits come first
    sums = octets.sum(axis=1, dtype=np.int32)[:n] - 510
    return (sums.astype(np.float32) / np.float32(148)).reshape(shape)
