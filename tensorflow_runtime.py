"""Runs the networks of a checkpoint on TensorFlow, for the codec."""

from typing import Self

import numpy as np

from config import config_train
from gcodec.checkpoint import Checkpoint, restore
from gcodec.memory import whole_image
from gcodec.runtime import check_finite
from utils import Utils

with Utils.importing_tensorflow():
    import tensorflow as tf

    from model import Model, with_todays_names


class TensorFlowRuntime:
    """A gcodec.runtime.Runtime."""

    def __init__(self, model: Model):
        self.model = model
        self.bytes_per_pixel = whole_image(model.config)
        self.address_space_per_pixel = 7 * 7 * 4 * model.config.width / 16  # windows of the 7x7 convolution, most of it unused
        # As a graph of unknown size, so that each image goes through the same one.
        self._encoder = tf.function(model.encoder, input_signature=[tf.TensorSpec((None, None, None, 3))])

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Build the networks of a checkpoint, with its weights."""
        model = Model(checkpoint.knobs(config_train))
        restore(model.weights, with_todays_names(checkpoint.weights, model.networks), checkpoint.folder)
        return cls(model)

    def encode(self, x: np.ndarray) -> np.ndarray:
        return self._symbols(self._encoder(x))

    def encode_labels(self, s: np.ndarray) -> np.ndarray:
        return self._symbols(self.model.semantic_encoder(s))

    def generate(self, w_hat: np.ndarray, v: np.ndarray | None, side: np.ndarray | None) -> np.ndarray:
        return self.model.generate(w_hat, v, () if side is None else (side,)).numpy()

    def _symbols(self, w: tf.Tensor) -> np.ndarray:
        check_finite(w.numpy())
        return self.model.quantizer(w)[1]["symbols"].numpy().astype(np.uint8)
