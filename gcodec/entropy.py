"""Entropy coding: the protocol of an entropy model, the range coder that all models use, and the model with fixed tables.

Encoder and decoder agree on every machine because all frequencies are integers. The range coder takes floats, but `weights_of`
chooses them so that nothing is rounded.
"""

from typing import Protocol

import constriction
import numpy as np

from gcodec.errors import UserError

FREQUENCY_SUM = 2**16  # sum of each table of integer frequencies
WEIGHT = 2.0**8  # a frequency of 1 in units of the range coder, whose tables have the sum 2^24


class EntropyModel(Protocol):
    """Turns symbols (h, w, K), uint8 in 0..L-1, into a payload and back. K is the number of channels that are sent.

    With a mask (h, w), only positions where the mask is not 0 are coded; the others decode as 0.
    """

    def encode(self, symbols: np.ndarray, mask: np.ndarray | None = None) -> bytes:
        """Return the payload of symbols."""

    def decode(self, payload: bytes, shape: tuple[int, int, int], mask: np.ndarray | None = None) -> np.ndarray:
        """Return the symbols of a payload. Raises UserError if `encode` cannot have made it of symbols of this shape."""

    def information(self, symbols: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Return the information content of the symbols under this model in bits, for each channel: (K,)."""


# ----------------------------------------------------------------------------------------------------------------------
# The range coder
# ----------------------------------------------------------------------------------------------------------------------


def weights_of(frequencies: np.ndarray) -> np.ndarray:
    """Return floats (..., L) that constriction, with `perfect=False`, takes as exactly these frequencies, of the sum 2^16.

    constriction scales its input to the sum 2^24 - L, cuts off fractions, and adds one to each symbol. 256 f - 1 already has
    that sum and no fraction, so constriction ends up with 256 f of 2^24 and rounds nothing on the way.
    """
    return frequencies * WEIGHT - 1


def frequencies_of(weights: np.ndarray) -> np.ndarray:
    """Return the frequencies from which `weights_of` made these weights."""
    return (weights + 1) / WEIGHT


def information(weights: np.ndarray) -> np.ndarray:
    """Return the information content of symbols in bits. weights: what `weights_of` makes of their frequencies."""
    return np.log2(FREQUENCY_SUM / frequencies_of(weights))


WORD = 4  # bytes of a word of the range coder's output
STATE_BITS = 64  # of the range coder
MOST_BITS_BEYOND = 32  # a payload can stand for this many bits more than it has: the range, of 2^64, stays at least 2^32 wide


class RangeEncoder:
    """constriction's range encoder, whose payload is cut to whole bytes."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def encode(self, *arguments) -> None:
        self._coder.encode(*arguments)

    def payload(self) -> bytes:
        """Return the complete words, and as many bytes of the state as are needed to tell these symbols from all others.

        Every number in [lower, lower + range) stands for the symbols. Trailing zeros need not be written, so the number with
        the most of them is taken, and the smallest one among several.
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
    """constriction's range decoder, which stops at a payload that no encoder wrote."""

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
        """Subtract the information of decoded symbols from what the payload can hold. Raises UserError if nothing is left.

        weights: what `weights_of` makes of the symbols' frequencies.

        A payload cannot hold much more information than it has bits. Without this check, a file with a forged size would be
        decoded to the end before its payload turns out to be too short. (A forged payload of the most probable symbols can
        still stand for a large picture, and takes as long to decode as one; `max_pixels` bounds that.)
        """
        self._bits_left -= information(weights).sum()
        if self._bits_left < 0:
            raise UserError("damaged (the payload is too short for this image size)")


def check_payload(payload: bytes, again: bytes) -> None:
    """Raise UserError unless the decoded symbols give this payload when they are encoded again, as those of a file do."""
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
        most = FREQUENCY_SUM  # checked for each frequency, too, because the sum of larger ones could wrap around
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
    """Round probabilities (C, L) to frequencies (C, L) uint32, at least 1, each row of which has the sum FREQUENCY_SUM."""
    shares = probabilities / probabilities.sum(axis=1, keepdims=True)
    frequencies = np.maximum(1, np.rint(shares * FREQUENCY_SUM)).astype(np.int64)
    rows = np.arange(len(frequencies))
    frequencies[rows, frequencies.argmax(axis=1)] += FREQUENCY_SUM - frequencies.sum(axis=1)  # what rounding left over
    return frequencies.astype(np.uint32)
