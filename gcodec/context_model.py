"""The learned entropy model. It predicts each symbol from the symbols that are already decoded.

Each channel has a small dense network. It sees all channels of the neighbouring positions and the earlier channels of the same
position, and returns the frequencies of the next symbol.

    neighbours ─▶ dense ─┐
                         ├─ + ─▶ clip ─▶ dense ─▶ clip ─▶ dense ─▶ logits ─▶ 2^logits, to the sum 65536 ─▶ range coder
    channels before ─▶ dense ─┘

All of it is integer arithmetic: weights are int16, sums fit into 32 bits, and the exponential is a table of integers. The sums
are computed as float64 matrix products, because numpy is many times faster at these than at integer ones. They are exact on
every machine: float64 holds all integers below 2^53, so nothing is rounded, in whatever order a library adds. The only quotient
is below 2^16 and its divisor below 2^24, so it is much further from the next integer above it than its rounding error.

A position (y, x) sees only positions with a smaller x + 2y. The decoder therefore walks over the diagonals of equal x + 2y and
decodes all positions of a diagonal together, which takes about w + 2h steps of C channels instead of h * w.
"""

from collections.abc import Iterator

import constriction
import numpy as np

from gcodec.entropy import FREQUENCY_SUM, WEIGHT, RangeDecoder, RangeEncoder, check_payload, information
from gcodec.errors import UserError
from gcodec.integers import POWERS

FAMILY = constriction.stream.model.Categorical(perfect=False)  # takes its tables together with the symbols

NEIGHBOURS = ((0, -1), (-1, -1), (-1, 0), (-1, 1), (0, -2), (-2, 0))  # (dy, dx), each with dx + 2 dy < 0
MARGIN = 2  # positions that NEIGHBOURS reach beyond the feature map, above and on both sides
WEIGHT_BITS = 10  # a weight of 1.0 is 2^10 ...
HIDDEN_BITS = 8  # ... and a hidden value of 1.0 is 2^8
HIDDEN_MAX = 4  # hidden values are clipped to [0, 4)
LOGIT_BITS = 5  # logits are in 1/32 of a bit, to base 2 ...
LOGIT_WEIGHT_BITS = 6  # ... and with a weight of 2^6 in the last layer, a hidden value of 1.0 adds one of them
HIDDEN_TOP = HIDDEN_MAX * 2.0**HIDDEN_BITS - 1  # the largest hidden value
SHIFTS = {  # bits by which the sums of these weights are shifted down to become hidden values or logits
    "neighbours": WEIGHT_BITS - HIDDEN_BITS,
    "before": WEIGHT_BITS - HIDDEN_BITS,
    "bias1": WEIGHT_BITS - HIDDEN_BITS,
    "hidden": WEIGHT_BITS,
    "bias2": WEIGHT_BITS,
    "logits": HIDDEN_BITS + LOGIT_WEIGHT_BITS,
    "bias3": HIDDEN_BITS + LOGIT_WEIGHT_BITS,
}
FLOAT_POWERS = POWERS.astype(np.float64)
CHUNK = 2**14  # symbols that the encoder handles together

SHAPES = {  # of the arrays: weights are int16, biases int32. N: inputs from neighbours, H: hidden units
    "neighbours": "NCH",
    "before": "CCH",  # [c, k]: what channel c sees of channel k < c at the same position
    "bias1": "CH",
    "hidden": "CHH",
    "bias2": "CH",
    "logits": "CHL",
    "bias3": "CL",
}


class Field:
    """The feature map as the networks see it, while it is being decoded.

    A symbol s is seen as 2s - (L-1), which is symmetric around 0; classes have no order and are seen one-hot. What is outside
    the map or not decoded yet is 0. An additional channel is 1 inside the map and 0 outside. With a mask (h, w), only positions
    where the mask is not 0 count as inside, and only they are coded.
    """

    def __init__(self, shape: tuple[int, int, int], channels: int, levels: int, mask=None, one_hot: bool = False):
        """shape: (h, w, K) of the symbols. K of the model's `channels` channels are coded."""
        self.height, self.width, self.K = shape
        self.seen = np.eye(levels) if one_hot else 2.0 * np.arange(levels)[:, None] - (levels - 1)  # of each symbol
        self.stride = self.width + 2 * MARGIN
        depth = channels * (levels if one_hot else 1)
        plane = np.zeros((self.height + MARGIN, self.stride, depth + 1))
        self.inside = plane[MARGIN:, MARGIN:-MARGIN]
        self.inside[:, :, depth] = 1 if mask is None else mask != 0
        self.flat = plane.reshape(-1, depth + 1)
        self.symbols = np.zeros((len(self.flat), self.K), np.uint8)
        self.offsets = np.array([dy * self.stride + dx for dy, dx in NEIGHBOURS])

    @classmethod
    def of(cls, symbols: np.ndarray, channels: int, levels: int, mask=None, one_hot: bool = False) -> "Field":
        field = cls(symbols.shape, channels, levels, mask, one_hot)
        values = field.values(symbols.reshape(-1, field.K)).reshape(field.height, field.width, -1)
        field.inside[:, :, : values.shape[2]] = values * field.inside[:, :, -1:]
        field.map_of(field.symbols)[:] = symbols
        return field

    def values(self, symbols: np.ndarray) -> np.ndarray:
        """Return what the networks see of symbols (n, K): (n, K), or (n, K*L) one-hot."""
        return self.seen[symbols].reshape(len(symbols), -1)

    def map_of(self, flat: np.ndarray) -> np.ndarray:
        """Return the rows of an array like `flat` that lie within the map: (h, w, ...)."""
        return flat.reshape(-1, self.stride, flat.shape[1])[MARGIN:, MARGIN:-MARGIN]

    def diagonals(self) -> Iterator[np.ndarray]:
        """Yield the positions of each diagonal, as rows of `flat`. A position sees none of its own diagonal or a later one."""
        positions = np.flatnonzero(self.flat[:, -1])
        if not len(positions):
            return
        y, x = np.divmod(positions, self.stride)
        order = np.argsort(x + 2 * y, kind="stable")
        ends = np.flatnonzero(np.diff((x + 2 * y)[order])) + 1
        yield from np.split(positions[order], ends)

    def neighbours(self, positions: np.ndarray) -> np.ndarray:
        """Return what the networks see of the positions' neighbours: (n, N)."""
        return self.flat[positions[:, None] + self.offsets].reshape(len(positions), len(self.offsets) * self.flat.shape[1])


class ContextModel:
    """The learned entropy model. Training fits it, and a checkpoint stores its arrays.

    If only K of the C channels are sent, their networks see the others as 0. A model of classes has C = 1 and sees one-hot
    classes.
    """

    def __init__(self, arrays: dict[str, np.ndarray]):
        """arrays: see SHAPES. Raises UserError if they do not fit together, or if a sum could overflow 32 bits."""
        self.channels, self.levels, self.one_hot = _check(arrays)
        self.arrays = arrays
        wide = {name: array.astype(np.float64) for name, array in arrays.items()}
        for name, shift in SHIFTS.items():  # a division by a power of two is exact, and so is the floor that follows the sums
            wide[name] *= 2.0**-shift
        wide["neighbours"] = wide["neighbours"].reshape(len(wide["neighbours"]), -1)  # (N, C*H)
        self.weights = wide
        L = self.levels
        # Turns powers (n, L) into their cumulative sums times the frequency to be shared out, and their sum in a last column.
        self._cumulative = np.hstack([np.triu(np.ones((L, L))) * (FREQUENCY_SUM - L), np.ones((L, 1))])
        # Turns bounds (n, L) into the steps from one to the next, in the range coder's unit.
        self._differences = WEIGHT * (np.eye(L) - np.eye(L, k=1))

    def encode(self, symbols: np.ndarray, mask: np.ndarray | None = None) -> bytes:
        coder = RangeEncoder()
        for _, coded, tables in self._tables(symbols, mask):
            coder.encode(coded, FAMILY, tables)
        return coder.payload()

    def decode(self, payload: bytes, shape: tuple[int, int, int], mask: np.ndarray | None = None) -> np.ndarray:
        field = Field(shape, self.channels, self.levels, mask, self.one_hot)
        decoder, again = RangeDecoder(payload), RangeEncoder()
        for positions in field.diagonals():
            sums, values = self._sums(field, positions), field.flat[positions]
            symbols = np.empty((field.K, len(positions)), np.int32)
            tables = np.empty((*symbols.shape, self.levels))
            for c in range(field.K):
                tables[c] = self._tables_of_channel(c, sums[c], values)
                symbols[c] = decoder.decode(FAMILY, tables[c])
                values[:, c : c + field.seen.shape[1]] = field.seen[symbols[c]]
            field.symbols[positions], field.flat[positions] = symbols.T, values
            coded, rows = symbols.ravel(), tables.reshape(-1, self.levels)
            decoder.account(rows[np.arange(len(coded)), coded])
            again.encode(coded, FAMILY, rows)
        check_payload(payload, again.payload())
        return field.map_of(field.symbols)

    def information(self, symbols: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        bits = np.zeros(symbols.shape[2])
        for channel, coded, tables in self._tables(symbols, mask):
            np.add.at(bits, channel, information(tables[np.arange(len(coded)), coded]))
        return bits

    def _tables(self, symbols: np.ndarray, mask) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield all symbols in the order of decoding, in chunks: channels (n,), symbols (n,) and tables (n, L)."""
        field = Field.of(symbols, self.channels, self.levels, mask, self.one_hot)
        for diagonals in _chunks(field.diagonals(), CHUNK // field.K):
            positions = np.concatenate(diagonals)
            values = field.flat[positions]
            sums = self._sums(field, positions)
            tables = np.stack([self._tables_of_channel(c, sums[c], values) for c in range(field.K)], axis=1)
            coded = field.symbols[positions].astype(np.int32)
            diagonal = np.repeat(np.arange(len(diagonals)), [len(d) for d in diagonals])
            channel = np.broadcast_to(np.arange(field.K), coded.shape)
            order = np.lexsort((channel.ravel(), np.repeat(diagonal, field.K)))  # stable: positions stay in order
            yield channel.ravel()[order], coded.ravel()[order], tables.reshape(-1, self.levels)[order]

    def _sums(self, field: Field, positions: np.ndarray) -> np.ndarray:
        """Return the first layer's sums over the neighbours, for each channel that is coded: (K, n, H)."""
        weights, bias = self.weights["neighbours"], self.weights["bias1"][: field.K]
        sums = field.neighbours(positions) @ weights[:, : bias.size]
        return np.add(sums.reshape(-1, *bias.shape).swapaxes(0, 1), bias[:, None], order="C")

    def _tables_of_channel(self, c: int, sums: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return channel c's tables (n, L) for the range coder: `weights_of` positive integers with the sum FREQUENCY_SUM.

        sums: (n, H) from `_sums`; they are overwritten. values: (n, C+1), what is known at the same positions; the network sees
        the first c channels.
        """
        weights = self.weights
        if c > 0:
            sums += values[:, :c].dot(weights["before"][c, :c])
        h = _hidden(sums)
        h = h.dot(weights["hidden"][c])
        h += weights["bias2"][c]
        logits = _hidden(h).dot(weights["logits"][c])
        logits = np.floor(logits + weights["bias3"][c])
        below = (np.maximum.reduce(logits, axis=1, keepdims=True) - logits).astype(np.intp)
        cumulative = FLOAT_POWERS.take(below, mode="clip").dot(self._cumulative)
        bounds = np.floor(cumulative[:, :-1] / cumulative[:, -1:])
        return bounds.dot(self._differences) + (WEIGHT - 1)


def _hidden(sums: np.ndarray) -> np.ndarray:
    """Turn sums, which are already shifted, into hidden values in place: clip them and round down."""
    np.maximum(sums, 0.0, out=sums)  # np.clip is slower on few values
    np.minimum(sums, HIDDEN_TOP, out=sums)
    return np.floor(sums, out=sums)


def _chunks(diagonals: Iterator[np.ndarray], n: int) -> Iterator[list[np.ndarray]]:
    """Group successive diagonals into chunks of about n positions."""
    chunk: list[np.ndarray] = []
    size = 0
    for diagonal in diagonals:
        chunk.append(diagonal)
        size += len(diagonal)
        if size >= n:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _check(arrays: dict[str, np.ndarray]) -> tuple[int, int, bool]:
    """Return C, L, and whether inputs are one-hot. Raises UserError for arrays that make no context model."""
    sizes: dict[str, int] = {}
    for name, letters in SHAPES.items():
        array = arrays.get(name, np.empty(0))
        dtype = np.int32 if name.startswith("bias") else np.int16
        shape = tuple(sizes.setdefault(letter, size) for letter, size in zip(letters, array.shape, strict=False))
        if array.dtype != dtype or array.ndim != len(letters) or array.shape != shape:
            raise UserError(f"context model: {name} is {array.dtype} {array.shape}, not a fitting {dtype.__name__} array")
    one_hot = sizes["C"] == 1 and sizes["N"] == len(NEIGHBOURS) * (sizes["L"] + 1)
    if not one_hot and sizes["N"] != len(NEIGHBOURS) * (sizes["C"] + 1):
        raise UserError(f"context model: for {sizes['N']} inputs; this program makes {len(NEIGHBOURS) * (sizes['C'] + 1)}")
    size = {name: np.abs(array.astype(np.int64)) for name, array in arrays.items()}
    h = HIDDEN_MAX * 2**HIDDEN_BITS
    for bound in (
        (size["neighbours"].sum(axis=0) + size["before"].sum(axis=1)) * (sizes["L"] - 1) + size["bias1"],
        size["hidden"].sum(axis=1) * h + size["bias2"],
        size["logits"].sum(axis=1) * h + size["bias3"],
    ):
        if bound.max() >= 2**31:
            raise UserError("context model: weights so large that its sums overflow")
    return sizes["C"], sizes["L"], one_hot
