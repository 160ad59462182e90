"""Entropy coding: what an entropy model is, the range coder below it, and the model with fixed tables.

Integers only: no floating-point number decides a frequency, nor is one rounded on its way into the range coder (see
`weights_of`), so that encoder and decoder agree on every machine.
"""

from typing import Protocol

import constriction
import numpy as np

from gcodec.errors import UserError

FREQUENCY_SUM = 2**16  # the total of each table of integer frequencies
WEIGHT = 2.0**8  # what a frequency of 1 counts in the range coder, whose total is 2^24


class EntropyModel(Protocol):
    """What turns the symbols (h, w, K), uint8 in 0..L-1, of the first K channels into a payload and back.

    With a mask (h, w), only those at positions where it is not 0; the others decode as 0.
    """

    def encode(self, symbols: np.ndarray, mask: np.ndarray | None = None) -> bytes:
        """Symbols -> payload."""

    def decode(self, payload: bytes, shape: tuple[int, int, int], mask: np.ndarray | None = None) -> np.ndarray:
        """Inverse of encode, for symbols of this shape. Raises UserError for a payload that encode did not make."""

    def information(self, symbols: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """The information content of the symbols under this model, by channel: (K,), in bits."""


# ----------------------------------------------------------------------------------------------------------------------
# The range coder
# ----------------------------------------------------------------------------------------------------------------------


def weights_of(frequencies: np.ndarray) -> np.ndarray:
    """Frequencies (..., L) of the sum 2^16 -> floats that constriction's `perfect=False` turns into exactly those.

    It scales what it is given to the sum 2^24 - L, cuts off fractions, and gives each symbol one more. Of that very sum, our
    whole numbers are scaled by 1 and have no fractions; 256 times the frequency, of 2^24, is what becomes of them.
    """
    return frequencies * WEIGHT - 1


def frequencies_of(weights: np.ndarray) -> np.ndarray:
    """Inverse of weights_of."""
    return (weights + 1) / WEIGHT


def information(weights: np.ndarray) -> np.ndarray:
    """Return the information content in bits of symbols with these `weights_of` their frequencies."""
    return np.log2(FREQUENCY_SUM / frequencies_of(weights))


WORD = 4  # bytes, of the range coder's output
STATE_BITS = 64  # of the range coder
MOST_BITS_BEYOND = 32  # of information that symbols have beyond their payload: the range stays at least 2^32 wide, of 2^64


class RangeEncoder:
    """constriction's range encoder, whose payload is cut to whole bytes."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def encode(self, *arguments) -> None:
        self._coder.encode(*arguments)

    def payload(self) -> bytes:
        """Return the words that are complete, and so many bytes of the state as tell the symbols from all others.

        Any number from `lower` up, and below `lower + range`, stands for the symbols. The one that is taken has as few bytes
        as possible, when zeros follow them, and is the smallest of these.
        """
        n, (lower, size) = self._coder.pos()  # n words are before the state
        written = self._coder.get_compressed()[:n].astype(">u4").tobytes()
        carried = lower + 2**32 - 1 >= 2**STATE_BITS  # constriction has rounded up, and carried into those words
        before = int.from_bytes(written) - carried << STATE_BITS
        for k in range(STATE_BITS // 8 + 1):
            unit = 1 << STATE_BITS - 8 * k
            number = -(-lower // unit) * unit
            if number < lower + size:
                break
        return ((before + number) // unit).to_bytes(WORD * n + k)


class RangeDecoder:
    """constriction's range decoder, which ends at a payload that no encoder wrote."""

    def __init__(self, payload: bytes):
        padded = payload + bytes(-len(payload) % WORD + STATE_BITS // 8)
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))
        self._bits_left = 8.0 * len(payload) + MOST_BITS_BEYOND

    def decode(self, *arguments) -> np.ndarray:
        try:
            return self._coder.decode(*arguments)
        except (AssertionError, ValueError) as error:  # constriction found bits that no encoder writes
            raise UserError(f"damaged (the payload cannot be decoded: {error})") from None

    def account(self, weights: np.ndarray) -> None:
        """Count the information in what was decoded, by its `weights_of`: a payload holds little more than it has bits.

        Without this, a forged size would be decoded to its end, out of nothing, before the payload is found to be too short.
        (A payload forged of the most probable symbols can hold a large picture, and takes as long as one; see max_pixels.)
        """
        self._bits_left -= information(weights).sum()
        if self._bits_left < 0:
            raise UserError("damaged (the payload is too short for this image size)")


def check_payload(payload: bytes, again: bytes) -> None:
    """Raise UserError unless what was decoded is coded as the payload again; a file was not made of it otherwise."""
    if again != payload:
        raise UserError("damaged (the payload is not of this image size)")


# ----------------------------------------------------------------------------------------------------------------------
# A table for each channel
# ----------------------------------------------------------------------------------------------------------------------


class StaticTables:
    """The entropy model with a fixed table of symbol frequencies for each channel."""

    def __init__(self, frequencies: np.ndarray):
        """frequencies: (C, L) integers from 1 up, each row with the sum FREQUENCY_SUM."""
        whole = np.issubdtype(frequencies.dtype, np.integer)
        most = FREQUENCY_SUM  # of one frequency, too: a sum of larger ones could wrap around
        if not whole or frequencies.min() < 1 or frequencies.max() > most or (frequencies.sum(axis=1) != FREQUENCY_SUM).any():
            raise UserError(f"symbol frequencies: not all whole, at least 1, with the sum {FREQUENCY_SUM}")
        self.frequencies = frequencies
        self._models = [constriction.stream.model.Categorical(row, perfect=False) for row in weights_of(frequencies)]

    def encode(self, symbols: np.ndarray, mask: np.ndarray | None = None) -> bytes:
        coder = RangeEncoder()
        for channel in range(symbols.shape[2]):
            coder.encode(symbols[_everywhere(mask, symbols.shape)][:, channel].astype(np.int32), self._models[channel])
        return coder.payload()

    def decode(self, payload: bytes, shape: tuple[int, int, int], mask: np.ndarray | None = None) -> np.ndarray:
        decoder = RangeDecoder(payload)
        where = _everywhere(mask, shape)
        symbols = np.zeros(shape, np.uint8)
        symbols[where] = np.stack([decoder.decode(model, int(where.sum())) for model in self._models[: shape[2]]], axis=-1)
        check_payload(payload, self.encode(symbols, mask))
        return symbols

    def information(self, symbols: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        return self.bits(symbols)[_everywhere(mask, symbols.shape)].sum(axis=0)

    def bits(self, symbols: np.ndarray) -> np.ndarray:
        """Return the information content of each symbol under this model: (h, w, K)."""
        bits = np.log2(FREQUENCY_SUM / self.frequencies)
        return bits[np.arange(symbols.shape[2]), symbols]


def _everywhere(mask: np.ndarray | None, shape: tuple) -> np.ndarray:
    return np.ones(shape[:2], bool) if mask is None else mask != 0


def integer_frequencies(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities (C, L) -> integer frequencies (C, L) uint32, each at least 1, each row with the sum FREQUENCY_SUM."""
    shares = probabilities / probabilities.sum(axis=1, keepdims=True)
    frequencies = np.maximum(1, np.rint(shares * FREQUENCY_SUM)).astype(np.int64)
    rows = np.arange(len(frequencies))
    frequencies[rows, frequencies.argmax(axis=1)] += FREQUENCY_SUM - frequencies.sum(axis=1)  # rounding's rest
    return frequencies.astype(np.uint32)
