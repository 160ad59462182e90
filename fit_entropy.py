"""Fitting of the context model: a network in floating point is trained on symbols of training images, then rounded.

`train.py` does this at the end of training, and alone with --fit-entropy.
"""

import keras
import numpy as np
from keras import ops
from tqdm import trange

from entropy import (
    HIDDEN_BITS,
    HIDDEN_MAX,
    LOGIT_BITS,
    LOGIT_WEIGHT_BITS,
    NEIGHBOURS,
    SHAPES,
    WEIGHT_BITS,
    ContextModel,
    Field,
)

HIDDEN_UNITS = 48
BATCH_SIZE = 1024  # positions
LEARNING_RATE = 4e-3  # at first; it falls to 0 as a cosine
PARTIAL_SHARE = 0.25  # of the positions see the first K channels only, as in files of fewer channels; costs 1% at all C


def fit(symbols: list[np.ndarray], levels: int, steps: int, seed: int = 0) -> tuple["ContextNetwork", ContextModel]:
    """Train on symbols (h, w, C), uint8, of many images. Returns the network in floating point, and the integer model."""
    channels = symbols[0].shape[2]
    inputs = np.concatenate([network_inputs(image, levels) for image in symbols])
    targets = np.concatenate([image.reshape(-1, channels) for image in symbols]).astype(np.int32)
    keras.utils.set_random_seed(seed)
    network = ContextNetwork(channels, levels)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    rng = np.random.default_rng(seed)
    for _ in trange(steps, desc="context model", unit="step"):
        rows = rng.integers(len(inputs), size=BATCH_SIZE)
        network.train_on_batch((_hide_channels(inputs[rows], channels, rng), targets[rows]), targets[rows])
    return network, network.to_integers()


def network_inputs(symbols: np.ndarray, levels: int) -> np.ndarray:
    """Symbols (h, w, C) -> what the network sees of each position's neighbours: (h*w, N) int16, row by row."""
    height, width, channels = symbols.shape
    field = Field.of(symbols, channels, levels)
    rows = np.arange(len(field.flat)).reshape(-1, field.stride)
    positions = rows[-height:, (field.stride - width) // 2 :][:, :width]
    return field.neighbours(positions.ravel()).astype(np.int16)


def _hide_channels(inputs: np.ndarray, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Set the last channels, a random number of them, to 0 in a share of the rows."""
    seen = np.where(rng.random(len(inputs)) < PARTIAL_SHARE, rng.integers(1, channels + 1, len(inputs)), channels)
    mask = np.ones((len(inputs), 1, channels + 1), np.float32)
    mask[:, 0, :channels] = np.arange(channels) < seen[:, None]
    return (inputs.reshape(len(inputs), -1, channels + 1) * mask).reshape(inputs.shape)


class ContextNetwork(keras.Model):
    """The context model in floating point; its layers and names are those of entropy.ContextModel."""

    def __init__(self, channels: int, levels: int):
        super().__init__()
        self.levels = levels
        sizes = {"N": len(NEIGHBOURS) * (channels + 1), "C": channels, "H": HIDDEN_UNITS, "L": levels}
        spread = {"hidden": HIDDEN_UNITS**-0.5}
        self.layer = {}
        for name, letters in SHAPES.items():
            kind = "zeros" if name.startswith("bias") else keras.initializers.RandomNormal(stddev=spread.get(name, 0.05))
            self.layer[name] = self.add_weight(shape=tuple(sizes[i] for i in letters), initializer=kind, name=name)
        self.earlier = np.tri(channels, k=-1, dtype=np.float32)[:, :, None]

    def call(self, inputs):
        """(neighbours (B, N), symbols (B, C)) -> logits (B, C, L), to base e, of each channel's symbol."""
        neighbours, symbols = inputs
        layer = self.layer
        values = 2 * ops.cast(symbols, "float32") - (self.levels - 1)
        h = ops.tensordot(ops.cast(neighbours, "float32"), layer["neighbours"], 1) + layer["bias1"]
        h = h + ops.einsum("nk,ckh->nch", values, layer["before"] * self.earlier)
        h = ops.clip(h, 0, HIDDEN_MAX)
        h = ops.clip(ops.einsum("nci,cih->nch", h, layer["hidden"]) + layer["bias2"], 0, HIDDEN_MAX)
        return ops.einsum("nci,cil->ncl", h, layer["logits"]) + layer["bias3"]

    def to_integers(self) -> ContextModel:
        """The same in fixed point. Half a unit goes into each bias, so that cutting off bits rounds to nearest."""
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

    def information(self, symbols: np.ndarray) -> np.ndarray:
        """As ContextModel.information, in floating point: the bits that symbols (h, w, C) need, by channel."""
        targets = symbols.reshape(-1, symbols.shape[2]).astype(np.int32)
        logits = self((network_inputs(symbols, self.levels), targets))
        nats = ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        return ops.convert_to_numpy(ops.sum(nats, axis=0)) / np.log(2)


def bits_per_symbol(model, symbols: list[np.ndarray]) -> float:
    """What an entropy model, or the network, needs for the symbols of some images."""
    return sum(model.information(image).sum() for image in symbols) / sum(image.size for image in symbols)
