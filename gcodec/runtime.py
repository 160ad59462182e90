"""What runs the networks of a checkpoint. onnx_runtime.py has one; whoever has another hands it in."""

from typing import Protocol

import numpy as np

from gcodec.errors import UserError


class Runtime(Protocol):
    """The networks of a checkpoint. Arrays are float32 and NHWC with B = 1, unless they are symbols, which are uint8.

    Heights and widths are those of the padded image: multiples of 16, h = H / 16, w = W / 16. What an encoder computes is
    checked by `check_finite` before it becomes symbols.
    """

    bytes_per_pixel: float  # of memory, that encoding or decoding an image takes at most; see memory.py
    address_space_per_pixel: float  # bytes of address space beside that, if it ends the process not to have them; else 0

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return the symbols (B, h, w, C) of images (B, H, W, 3) in [-1, 1]."""

    def encode_labels(self, s: np.ndarray) -> np.ndarray:
        """Return the symbols (B, h, w, C) of label maps (B, H, W, label_channels), for a model with a learned code."""

    def generate(self, w_hat: np.ndarray, v: np.ndarray | None, side: np.ndarray | None) -> np.ndarray:
        """Return images (B, H, W, 3) in [-1, 1] of feature maps w_hat (B, h, w, C).

        v: noise of the shape config.noise_shape(B, h, w), None for a model without noise. side: what else G sees, the code
        of the label map and then the heat map, (B, h, w, k); None for a model that has neither.
        """


def check_finite(values: np.ndarray) -> None:
    """Raise UserError for NaN or infinity in what a network computed."""
    if not np.isfinite(values).all():
        raise UserError("the model's networks give values that are not finite: it is damaged, or its training went wrong")
