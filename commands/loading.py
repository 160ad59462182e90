"""Loading a codec with the runtime that the knob `runtime` names: ONNX Runtime or TensorFlow."""

import functools
import importlib.util
from pathlib import Path

from config import UserError, config_test
from gcodec import Codec
from gcodec.checkpoint import Checkpoint
from gcodec.onnx_runtime import OnnxRuntime, has_graphs
from gcodec.runtime import Runtime
from utils import Utils

REQUIREMENTS = {"onnx": "requirements-codec.txt", "tensorflow": "requirements.txt"}  # by runtime, what to install


def load_codec(path: str | Path, knobs: config_test | None = None) -> Codec:
    """Read a checkpoint, or the newest one of a run's folder, and load the networks as the knobs want it."""
    knobs = knobs or config_test()
    runtime = functools.partial(load_runtime, choice=knobs.runtime)
    return Codec.load(path, runtime, channels=knobs.channels, max_pixels=knobs.max_pixels, noise_seed=knobs.noise_seed)


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
    with Utils.importing_tensorflow():
        from model import TensorFlowRuntime

    return TensorFlowRuntime.of(checkpoint)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _advice(checkpoint: Checkpoint) -> str:
    """Say what to install where nothing can run a checkpoint."""
    if has_graphs(checkpoint):
        return f"nothing here runs networks: pip install -r {REQUIREMENTS['onnx']}"
    return (f"checkpoint {checkpoint.folder}: has no graphs for ONNX Runtime, and TensorFlow is not installed: "
            f"pip install -r {REQUIREMENTS['tensorflow']}, then tools/checkpoint.py --onnx writes them")  # fmt: skip
