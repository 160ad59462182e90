"""The bits that symbols cost during training: by their running histogram, or by a context model that learns along."""

from typing import Any

import numpy as np
import tensorflow as tf

import losses
from codec.entropy import integer_frequencies
from config import config_train
from network import seeded
from training.context_network import ContextNetwork
from training.replicas import n_replicas, total
from training.schedule import average_decay

HISTOGRAM_DECAY = 0.999  # a step
FIRST_WEIGHT = 0.3  # of the rate, where it is steered: low, since a model must send something before it can send less
STEERING = 0.003  # relative change of the rate's weight, a step, while the bits are twice their target or more


class Rate:
    """The running histogram of the symbols and, with the knob rate_model=context, a context model.

    The histogram becomes the tables of the entropy coder. Of the two, the knob decides which one the rate loss is measured by.
    With the knob target_bpp, the weight of that loss is steered.
    """

    def __init__(self, config: config_train):
        self.config = config
        uniform = tf.fill((config.channel_bottleneck, config.L), 1 / config.L)
        self.histogram = tf.Variable(uniform, trainable=False, aggregation=tf.VariableAggregation.MEAN)
        self.steered = tf.Variable(config.lambda_rate or FIRST_WEIGHT, trainable=False, aggregation=tf.VariableAggregation.MEAN)
        self.context_network = None
        if config.rate_model == "context":
            with seeded(config.seed + 2):
                self.context_network = ContextNetwork(config.channel_bottleneck, config.L)

    def bpp(self, soft, one_hot, coded) -> Any:
        """Return the bits per pixel of symbols (B, h, w, C, L), as a file would have them. Gradients go to the soft assignment.

        coded: (B, h, w, 1), 1 where symbols are coded.
        """
        assignment = soft + tf.stop_gradient(one_hot - soft)
        if not self.context_network:
            return losses.rate(assignment, self.histogram, coded)
        symbols = tf.reduce_sum(assignment * tf.range(one_hot.shape[-1], dtype=tf.float32), axis=-1)
        return losses.rate(assignment, self.context_network.probabilities(symbols, coded), coded)

    def count(self, one_hot, coded, step) -> None:
        """Move the histogram towards the symbols (B, h, w, C, L) that are coded."""
        counts = total(tf.reduce_sum(coded[..., None] * one_hot, axis=(0, 1, 2)))  # (C, L)
        frequencies = counts / tf.maximum(total(tf.reduce_sum(coded)), 1.0)
        frequencies += (1.0 - tf.reduce_sum(frequencies, axis=-1, keepdims=True)) * self.histogram  # where nothing is coded
        self.histogram.assign_sub((1 - average_decay(HISTOGRAM_DECAY, step)) * (self.histogram - frequencies))

    @property
    def weight(self) -> Any:
        """The weight of the bits per pixel in the loss."""
        return self.steered if self.config.target_bpp else self.config.lambda_rate

    def steer(self, bpp) -> None:
        """Raise the weight while symbols cost more than the knob target_bpp, and lower it while they cost less.

        This integrates the relative error, cut to +-1, into the logarithm of the weight. The bits follow their weight within
        some hundred steps, so a gain of 0.003 neither swings nor takes more than a few thousand.
        """
        error = total(bpp) / n_replicas() / self.config.target_bpp - 1
        self.steered.assign(self.steered * tf.exp(STEERING * tf.clip_by_value(error, -1, 1)))

    def frequencies(self) -> np.ndarray:
        """Return the histogram as the integer frequencies of the entropy coder's tables."""
        return integer_frequencies(self.histogram.numpy())
