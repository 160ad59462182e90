"""The bits that symbols cost, by their running histogram or by a context model in Keras that is trained along with E and G."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import losses
from config import config_train
from gcodec.context_model import (
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
from gcodec.entropy import integer_frequencies
from network import seeded
from terms import n_replicas, total

HIDDEN_UNITS = 48  # of the context model that is trained along
HISTOGRAM_DECAY = 0.999  # a step
FIRST_WEIGHT = 0.3  # of the rate, where it is steered: low, since a model must send something before it can send less
INTEGRAL, PROPORTIONAL = 0.003, 3.0  # gains of the controller that steers the weight; see Rate.steer
LEAST_WEIGHT, MOST_WEIGHT = 2.0**-10, 2.0**10  # that it steers to; a target that lies beyond is out of reach
ERROR_DECAY = 0.99  # a step, of the running average that the proportional part looks at


class Rate:
    """The running histogram of the symbols and, with the knob rate_model=context, a context model.

    The histogram becomes the entropy coder's tables. The knob decides which of the two measures the rate loss. With the knob
    target_bpp, the weight of that loss is steered.
    """

    def __init__(self, config: config_train):
        self.config = config
        uniform = tf.fill((config.channel_bottleneck, config.L), 1 / config.L)
        self.histogram = tf.Variable(uniform, trainable=False, aggregation=tf.VariableAggregation.MEAN)
        mean = tf.VariableAggregation.MEAN
        self.integral = tf.Variable(float(config.lambda_rate or FIRST_WEIGHT), trainable=False, aggregation=mean)
        self.error = tf.Variable(0.0, trainable=False, aggregation=mean)
        self.context_network = None
        if config.rate_model == "context":
            with seeded(config.seed + 2):
                self.context_network = ContextNetwork(config.channel_bottleneck, config.L)

    def bpp(self, soft, hard, m) -> Any:
        """Return the bits per pixel of symbols, as a file would have them. Gradients go to their soft assignment.

        soft, hard: their assignments to centers, (B, h, w, C, L). m: (B, h, w, 1), 1 where symbols are coded.
        """
        assignment = soft + tf.stop_gradient(hard - soft)
        if not self.context_network:
            return losses.rate(assignment, self.histogram, m)
        indices = tf.reduce_sum(assignment * tf.range(hard.shape[-1], dtype=tf.float32), axis=-1)
        return losses.rate(assignment, self.context_network.probabilities(indices, m), m)

    def count(self, hard, m, step) -> None:
        """Move the histogram towards the symbols that are coded. hard: (B, h, w, C, L). m: (B, h, w, 1)."""
        counts = total(tf.reduce_sum(m[..., None] * hard, axis=(0, 1, 2)))  # (C, L)
        frequencies = counts / tf.maximum(total(tf.reduce_sum(m)), 1.0)
        frequencies += (1.0 - tf.reduce_sum(frequencies, axis=-1, keepdims=True)) * self.histogram  # where nothing is coded
        self.histogram.assign_sub((1 - average_decay(HISTOGRAM_DECAY, step)) * (self.histogram - frequencies))

    @property
    def weight(self) -> Any:
        """The weight of the bits per pixel in the loss."""
        if not self.config.target_bpp:
            return self.config.lambda_rate
        return self.integral * tf.exp(PROPORTIONAL * self.error)

    def steer(self, bpp) -> None:
        """Raise the weight while symbols cost more than the knob target_bpp, and lower it while they cost less.

        A proportional-integral controller of the weight's logarithm, by the relative error of the bits, cut to +-1. The bits
        follow their weight within some hundred to a thousand steps: the integral alone would swing, or be slow.
        """
        error = tf.clip_by_value(total(bpp) / n_replicas() / self.config.target_bpp - 1, -1, 1)
        self.integral.assign(tf.clip_by_value(self.integral * tf.exp(INTEGRAL * error), LEAST_WEIGHT, MOST_WEIGHT))
        self.error.assign_sub((1 - ERROR_DECAY) * (self.error - error))

    @property
    def is_out_of_reach(self) -> bool:
        """Whether the knob target_bpp wants more or fewer bits than any weight makes the model use."""
        return self.config.target_bpp > 0 and not LEAST_WEIGHT < self.integral.numpy() < MOST_WEIGHT

    @property
    def controller(self) -> dict[str, tf.Variable]:
        """The state of the controller, by name; none where nothing is steered."""
        return {"rate_integral": self.integral, "rate_error": self.error} if self.config.target_bpp else {}

    def frequencies(self) -> np.ndarray:
        """Return the histogram as the integer frequencies of the entropy coder's tables."""
        return integer_frequencies(self.histogram.numpy())


class ContextNetwork(keras.Model):
    """The context model in floating point; its layers and names are those of ContextModel."""

    def __init__(self, channels: int, levels: int, one_hot: bool = False, hidden_units: int = HIDDEN_UNITS):
        super().__init__()
        self.levels, self.one_hot = levels, one_hot
        sizes = {
            "N": len(NEIGHBOURS) * (channels * (levels if one_hot else 1) + 1),
            "C": channels,
            "H": hidden_units,
            "L": levels,
        }
        spread = {"hidden": hidden_units**-0.5}
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


def network_inputs(symbols: np.ndarray, levels: int, mask=None, one_hot: bool = False) -> np.ndarray:
    """Return what the network sees of the neighbours of each coded position of symbols (h, w, C): (n, N) int16, by rows."""
    field = Field.of(symbols, symbols.shape[2], levels, mask, one_hot)
    positions = np.flatnonzero(field.flat[:, -1])
    return field.neighbours(positions).astype(np.int16)


def network_targets(symbols: np.ndarray, mask=None) -> np.ndarray:
    """Return the symbols (n, C) int32 of the coded positions, row by row."""
    coded = symbols.reshape(-1, symbols.shape[2]) if mask is None else symbols[mask != 0]
    return coded.astype(np.int32)


def average_decay(decay: float, step) -> Any:
    """Return the decay of a running average at a step. It is smaller in the first steps, so that the average follows faster."""
    return tf.minimum(decay, (1.0 + tf.cast(step, tf.float32)) / (10.0 + tf.cast(step, tf.float32)))
