"""What runs the networks of a checkpoint, and which runtime that is."""

from typing import Protocol

import numpy as np

from codec.checkpoint import Checkpoint


class Runtime(Protocol):
    """The networks of a checkpoint. Arrays are float32 and NHWC with B = 1, unless they are symbols, which are uint8.

    Heights and widths are those of the padded image: multiples of 16, h = H / 16, w = W / 16.
    """

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return the symbols (B, h, w, C) of images (B, H, W, 3) in [-1, 1]."""

    def encode_labels(self, s: np.ndarray) -> np.ndarray:
        """Return the symbols (B, h, w, C) of label maps (B, H, W, label_channels), for a model with a learned code."""

    def generate(self, w_hat: np.ndarray, v: np.ndarray | None, side: np.ndarray | None) -> np.ndarray:
        """Return images (B, H, W, 3) in [-1, 1] of feature maps w_hat (B, h, w, C).

        v: noise of the shape config.noise_shape(B, h, w), None for a model without noise. side: what else G sees, the code
        of the label map and then the heat map, (B, h, w, k); None for a model that has neither.
        """


def load_runtime(checkpoint: Checkpoint) -> Runtime:
    """Return what runs this checkpoint's networks. This is the one place that chooses among the runtimes."""
    from tensorflow_runtime import TensorFlowRuntime  # late: it takes seconds

    return TensorFlowRuntime.of(checkpoint)
