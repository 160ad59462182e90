"""The context model as a Keras network: it is trained on symbols of training images, then rounded to integers."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops
from tqdm import trange

from codec.context_model import (
    HIDDEN_BITS,
    HIDDEN_MAX,
    LOGIT_BITS,
    LOGIT_WEIGHT_BITS,
    MARGIN,
    NEIGHBOURS,
    SHAPES,
    WEIGHT_BITS,
    ContextModel,
    Field,
)
from network import seeded

HIDDEN_UNITS = 48
BATCH_SIZE = 1024  # positions
LEARNING_RATE = 4e-3  # at first; it falls to 0 as a cosine
MAX_INPUT_BYTES = 10**9  # of the positions to fit to; of more, a random part
PARTIAL_SHARE = 0.25  # of the positions see the first K channels only, as in files of fewer channels; costs 1% at all C


def fit(
    symbols: Sequence[np.ndarray],  #  (h, w, C) uint8, of many images
    levels: int,  #                    L
    steps: int,
    seed: int = 0,
    masks: Sequence | None = None,  #  (h, w), of each image: learn only positions where it is not 0
    one_hot: bool = False,  #          symbols are classes, C = 1
) -> tuple["ContextNetwork", ContextModel]:
    """Train a context model on symbols of training images. Return the network in floating point, and the integer model."""
    channels = symbols[0].shape[2]
    pairs = list(zip(symbols, masks or [None] * len(symbols), strict=True))
    rng = np.random.default_rng(seed)
    inputs, targets = _rows(pairs, levels, one_hot, rng)
    with seeded(seed):
        network = ContextNetwork(channels, levels, one_hot)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    for _ in trange(steps, desc="context model", unit="step"):
        rows = rng.integers(len(inputs), size=BATCH_SIZE)
        seen = _hide_channels(inputs[rows], channels, rng) if channels > 1 else inputs[rows]
        network.train_on_batch((seen, targets[rows]), targets[rows])
    return network, network.to_integers()


def _rows(pairs: list, levels: int, one_hot: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets of all coded positions, or of a random part of them that fits into MAX_INPUT_BYTES."""
    row_bytes = network_inputs(pairs[0][0], levels, pairs[0][1], one_hot)[:1].nbytes
    total = sum(image[..., 0].size if mask is None else np.count_nonzero(mask) for image, mask in pairs)
    inputs, targets = [], []
    for image, mask in pairs:
        rows = network_inputs(image, levels, mask, one_hot)
        chosen = rng.random(len(rows)) < MAX_INPUT_BYTES / (total * row_bytes)
        inputs.append(rows[chosen])
        targets.append(network_targets(image, mask)[chosen])
    return np.concatenate(inputs), np.concatenate(targets)


def network_inputs(symbols: np.ndarray, levels: int, mask=None, one_hot: bool = False) -> np.ndarray:
    """Return what the network sees of the neighbours of each coded position of symbols (h, w, C): (n, N) int16, by rows."""
    field = Field.of(symbols, symbols.shape[2], levels, mask, one_hot)
    positions = np.flatnonzero(field.flat[:, -1])
    return field.neighbours(positions).astype(np.int16)


def network_targets(symbols: np.ndarray, mask=None) -> np.ndarray:
    """Return the symbols (n, C) int32 of the coded positions, row by row."""
    coded = symbols.reshape(-1, symbols.shape[2]) if mask is None else symbols[mask != 0]
    return coded.astype(np.int32)


def _hide_channels(inputs: np.ndarray, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Set the last channels, a random number of them, to 0 in a share of the rows."""
    seen = np.where(rng.random(len(inputs)) < PARTIAL_SHARE, rng.integers(1, channels + 1, len(inputs)), channels)
    mask = np.ones((len(inputs), 1, channels + 1), np.float32)
    mask[:, 0, :channels] = np.arange(channels) < seen[:, None]
    return (inputs.reshape(len(inputs), -1, channels + 1) * mask).reshape(inputs.shape)


class ContextNetwork(keras.Model):
    """The context model in floating point; its layers and names are those of ContextModel."""

    def __init__(self, channels: int, levels: int, one_hot: bool = False):
        super().__init__()
        self.levels, self.one_hot = levels, one_hot
        sizes = {
            "N": len(NEIGHBOURS) * (channels * (levels if one_hot else 1) + 1),
            "C": channels,
            "H": HIDDEN_UNITS,
            "L": levels,
        }
        spread = {"hidden": HIDDEN_UNITS**-0.5}
        self.layer = {}
        for name, letters in SHAPES.items():
            kind = "zeros" if name.startswith("bias") else keras.initializers.RandomNormal(stddev=spread.get(name, 0.05))
            self.layer[name] = self.add_weight(shape=tuple(sizes[i] for i in letters), initializer=kind, name=name)
        self.earlier = np.tri(channels, k=-1, dtype=np.float32)[:, :, None]

    def call(self, inputs):
        """Return logits (B, C, L), to base e, of each channel's symbol, of (neighbours (B, N), symbols (B, C))."""
        neighbours, symbols = inputs
        layer = self.layer
        values = 2 * ops.cast(symbols, "float32") - (self.levels - 1)
        h = ops.tensordot(ops.cast(neighbours, "float32"), layer["neighbours"], 1) + layer["bias1"]
        h = h + ops.einsum("nk,ckh->nch", values, layer["before"] * self.earlier)
        h = ops.clip(h, 0, HIDDEN_MAX)
        h = ops.clip(ops.einsum("nci,cih->nch", h, layer["hidden"]) + layer["bias2"], 0, HIDDEN_MAX)
        return ops.einsum("nci,cil->ncl", h, layer["logits"]) + layer["bias3"]

    def probabilities(self, symbols, m):
        """Return the probabilities (B, h, w, C, L) of symbols (B, h, w, C), floats, each given what comes before it.

        For a rate loss (Mentzer et al. 2018): gradients go to the weights, and to the symbols as context of later ones.
        m: (B, h, w, 1), 1 where symbols are coded.
        """
        shape = ops.shape(symbols)
        field = ops.concatenate([m * (2 * symbols - (self.levels - 1)), m], axis=-1)  # as Field has them
        field = ops.pad(field, ((0, 0), (MARGIN, 0), (MARGIN, MARGIN), (0, 0)))
        neighbours = ops.concatenate(
            [field[:, MARGIN + y :, MARGIN + x :][:, : shape[1], : shape[2]] for y, x in NEIGHBOURS], axis=-1
        )
        rows = ops.reshape(neighbours, (-1, neighbours.shape[-1])), ops.reshape(symbols, (-1, shape[-1]))
        return ops.softmax(ops.reshape(self(rows), (*shape, self.levels)))

    def to_integers(self) -> ContextModel:
        """Return the same in fixed point. Half a unit goes into each bias, so that cutting off bits rounds to nearest."""
        logit = 2**LOGIT_BITS / np.log(2)
        scales = {  # of weights and bias; bits that are cut off after the layer
            ("neighbours", "before", "bias1"): (2**WEIGHT_BITS, 2**WEIGHT_BITS, WEIGHT_BITS - HIDDEN_BITS),
            ("hidden", "bias2"): (2**WEIGHT_BITS, 2 ** (WEIGHT_BITS + HIDDEN_BITS), WEIGHT_BITS),
            ("logits", "bias3"): (
                logit * 2**LOGIT_WEIGHT_BITS,
                logit * 2 ** (LOGIT_WEIGHT_BITS + HIDDEN_BITS),
                LOGIT_WEIGHT_BITS + HIDDEN_BITS,
            ),
        }
        arrays = {}
        for (*names, bias), (weight_scale, bias_scale, cut) in scales.items():
            for name in names:
                weights = np.rint(ops.convert_to_numpy(self.layer[name]) * weight_scale)
                weights *= self.earlier if name == "before" else 1
                arrays[name] = np.clip(weights, -(2**15) + 1, 2**15 - 1).astype(np.int16)
            half = 2 ** (cut - 1)
            arrays[bias] = (np.rint(ops.convert_to_numpy(self.layer[bias]) * bias_scale) + half).astype(np.int32)
        return ContextModel(arrays)

    def information(self, symbols: np.ndarray, mask=None) -> np.ndarray:
        """Return the bits that symbols (h, w, C) need, by channel, as ContextModel.information does."""
        targets = network_targets(symbols, mask)
        logits = self((network_inputs(symbols, self.levels, mask, self.one_hot), targets))
        nats = ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        return ops.convert_to_numpy(ops.sum(nats, axis=0)) / np.log(2)


def bits_per_symbol(model, images: list[tuple]) -> float:
    """Return what an entropy model, or the network, needs for some images' symbols; each comes with its mask, or None."""
    coded = sum(network_targets(symbols, mask).size for symbols, mask in images)
    return sum(model.information(symbols, mask).sum() for symbols, mask in images) / max(1, coded)
