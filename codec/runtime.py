"""What runs the networks of a checkpoint, and which runtime that is."""

import importlib.util
from typing import Protocol

import numpy as np

from codec.checkpoint import Checkpoint
from codec.onnx_runtime import OnnxRuntime, has_graphs
from config import UserError

REQUIREMENTS = {"onnx": "requirements-codec.txt", "tensorflow": "requirements.txt"}  # by runtime, what to install


class Runtime(Protocol):
    """The networks of a checkpoint. Arrays are float32 and NHWC with B = 1, unless they are symbols, which are uint8.

    Heights and widths are those of the padded image: multiples of 16, h = H / 16, w = W / 16.
    """

    bytes_per_pixel: float  # of memory, that encoding or decoding an image takes at most; see codec/memory.py

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return the symbols (B, h, w, C) of images (B, H, W, 3) in [-1, 1]."""

    def encode_labels(self, s: np.ndarray) -> np.ndarray:
        """Return the symbols (B, h, w, C) of label maps (B, H, W, label_channels), for a model with a learned code."""

    def generate(self, w_hat: np.ndarray, v: np.ndarray | None, side: np.ndarray | None) -> np.ndarray:
        """Return images (B, H, W, 3) in [-1, 1] of feature maps w_hat (B, h, w, C).

        v: noise of the shape config.noise_shape(B, h, w), None for a model without noise. side: what else G sees, the code
        of the label map and then the heat map, (B, h, w, k); None for a model that has neither.
        """


def load_runtime(checkpoint: Checkpoint, choice: str = "auto") -> Runtime:
    """Return what runs this checkpoint's networks. This is the one place that chooses among the runtimes.

    choice: the knob `runtime`. Whatever runs a network is imported here, not before: TensorFlow takes seconds.
    """
    if choice == "auto":
        choice = "onnx" if has_graphs(checkpoint) and _installed("onnxruntime") else "tensorflow"
        if choice == "tensorflow" and not _installed("tensorflow"):
            raise UserError(_advice(checkpoint))
    package = {"onnx": "onnxruntime", "tensorflow": "tensorflow"}[choice]
    if not _installed(package):
        raise UserError(f"knob runtime: {choice} needs the package {package}: pip install -r {REQUIREMENTS[choice]}")
    if choice == "onnx":
        return OnnxRuntime(checkpoint)
    from tensorflow_runtime import TensorFlowRuntime

    return TensorFlowRuntime.of(checkpoint)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _advice(checkpoint: Checkpoint) -> str:
    """Say what to install where nothing can run a checkpoint."""
    if has_graphs(checkpoint):
        return f"nothing here runs networks: pip install -r {REQUIREMENTS['onnx']}"
    return (f"checkpoint {checkpoint.folder}: has no graphs for ONNX Runtime, and TensorFlow is not installed: "
            f"pip install -r {REQUIREMENTS['tensorflow']}, then checkpoint.py --onnx writes them")  # fmt: skip
