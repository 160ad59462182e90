"""Runs the networks of a checkpoint on ONNX Runtime, for the codec. It needs no TensorFlow.

The checkpoint's folder has a graph for each network (encoder.onnx, generator.onnx, ...) and graphs.json, which says of which
weights the graphs are. The weights are those of model.npz; see tools/onnx_export.py, which writes the graphs.
"""

import hashlib
import json
from typing import Any

import numpy as np

from gcodec.checkpoint import Checkpoint
from gcodec.errors import UserError
from gcodec.knobs import ModelKnobs
from gcodec.memory import TILED, whole_image
from gcodec.pictures import STRIDE
from gcodec.tiles import in_tiles, is_cut

GRAPHS_FILE = "graphs.json"
FORMAT = 1  # of the graphs and their index; another one is of another version of this project


class OnnxRuntime:
    """A gcodec.runtime.Runtime. A network is loaded when it first runs."""

    address_space_per_pixel = 0.0

    def __init__(self, checkpoint: Checkpoint):
        """Raises UserError unless the checkpoint has whole graphs that belong to its weights."""
        self.checkpoint, self.config = checkpoint, checkpoint.config
        self._graphs = read_graphs(checkpoint)
        self._margins = {"encoder": encoder_margin(self.config), "generator": generator_margin(self.config)}
        self.bytes_per_pixel = whole_image(self.config) if None in self._margins.values() else TILED
        self._sessions: dict[str, Any] = {}  # each keeps its layers' memory for the next image

    def encode(self, x: np.ndarray) -> np.ndarray:
        return self._symbols(self._run_in_tiles("encoder", x, STRIDE, 1, self._margins["encoder"]))

    def encode_labels(self, s: np.ndarray) -> np.ndarray:
        return self._symbols(self._run_in_tiles("semantic_encoder", s, STRIDE, 1, self._margins["encoder"]))

    def generate(self, w_hat: np.ndarray, v: np.ndarray | None, side: np.ndarray | None) -> np.ndarray:
        if v is not None and self.config.noise_mode == "dcgan":
            v = self._run("noise_generator", v, w_hat)
        z = np.concatenate([part for part in (w_hat, v, side) if part is not None], axis=-1)
        return self._run_in_tiles("generator", z, 1, STRIDE, self._margins["generator"])

    def _symbols(self, w: np.ndarray) -> np.ndarray:
        """Return the index of the nearest center for each value; a tie goes to the lower one."""
        return np.abs(w[..., None] - self.checkpoint.centers).argmin(axis=-1).astype(np.uint8)

    def _run_in_tiles(self, name: str, x: np.ndarray, in_scale: int, out_scale: int, margin: int | None) -> np.ndarray:
        if margin is None:
            return self._run(name, x)
        result = in_tiles(lambda tile: self._run(name, tile), x, in_scale, out_scale, margin)
        if is_cut(x, in_scale, margin):
            del self._sessions[name]  # it would keep the memory that its tiles took, beside a large picture
        return result

    def _run(self, name: str, *inputs: np.ndarray) -> np.ndarray:
        if name not in self._sessions:
            self._sessions[name] = self._load(name)
        session = self._sessions[name]
        names = [own.name for own in session.get_inputs()]
        return session.run(None, dict(zip(names, inputs, strict=True)))[0]

    def _load(self, name: str) -> Any:
        """Return the session that runs a network, with the checkpoint's weights."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised; nothing else is said
        options.enable_mem_pattern = False  # one block for all layers, planned ahead, would be twice as large
        weights = {key: array for key, array in self.checkpoint.weights.items() if key.startswith(f"{name}/")}
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
        file = self.checkpoint.folder / f"{name}.onnx"
        try:
            return onnxruntime.InferenceSession(self._graphs[file.name], options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises many kinds
            version = onnxruntime.__version__
            raise UserError(f"checkpoint file {file}: onnxruntime {version} cannot load it ({error})") from None


# ----------------------------------------------------------------------------------------------------------------------
# The graphs of a checkpoint
# ----------------------------------------------------------------------------------------------------------------------


def has_graphs(checkpoint: Checkpoint) -> bool:
    """Say whether a checkpoint has graphs for ONNX Runtime, good or bad ones."""
    return (checkpoint.folder / GRAPHS_FILE).is_file()


def read_graphs(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Return the graphs by file name. Raises UserError for damage, and for graphs of other weights or another version."""
    folder = checkpoint.folder
    repair = f"write the graphs again: python3 tools/checkpoint.py --onnx -r {folder}"
    try:
        index = json.loads((folder / GRAPHS_FILE).read_text())
        version, weights, digests = index["format"], index["weights"], dict(index["graphs"])
    except FileNotFoundError:
        raise UserError(f"checkpoint {folder}: has no graphs for ONNX Runtime; {repair}") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"checkpoint file {folder / GRAPHS_FILE}: damaged; {repair}") from None
    if version != FORMAT:
        raise UserError(f"checkpoint file {folder / GRAPHS_FILE}: of another version of this project; {repair}")
    if weights != signature(checkpoint):
        raise UserError(
            f"checkpoint file {folder / GRAPHS_FILE}: the graphs do not belong to these weights and knobs; {repair}"
        )
    graphs = {}
    for name, digest in digests.items():
        try:
            graphs[name] = (folder / name).read_bytes()
        except OSError:
            raise UserError(f"checkpoint file {folder / name}: missing; {repair}") from None
        if hashlib.sha256(graphs[name]).hexdigest() != digest:
            raise UserError(f"checkpoint file {folder / name}: damaged, or of another checkpoint; {repair}")
    return graphs


def signature(checkpoint: Checkpoint) -> str:
    """Return a hash of what graphs depend on: the knobs as written, and the names, types and shapes of the weights."""
    knobs = json.loads((checkpoint.folder / "config.json").read_text())
    weights = [[name, str(array.dtype), array.shape] for name, array in sorted(checkpoint.weights.items())]
    return hashlib.sha256(json.dumps([knobs, weights], sort_keys=True).encode()).hexdigest()


# ----------------------------------------------------------------------------------------------------------------------
# How far the networks see
# ----------------------------------------------------------------------------------------------------------------------


def encoder_margin(config: ModelKnobs) -> int | None:
    """Return how many positions of the feature map E sees beyond its own; None where that is not known.

    The paper's E sees 34 px: 3 positions. The sub-pixel one sees 1 position by its last layer, 2 by each residual block, and
    20 px by what is before them. An instance norm sees everything, and so may a user's own network.
    """
    if config.normalization != "channel":
        return None
    return {"encoder": 3, "subpixel_encoder": 1 + 2 * config.n_encoder_blocks + 2}.get(config.encoder)


def generator_margin(config: ModelKnobs) -> int | None:
    """Return how many positions of the feature map G sees beyond its own; None where that is not known.

    It is 1 by the first layer and 2 by each residual block at 1/16 of the size, and what the larger layers see.
    """
    larger_layers = {"generator": 4, "subpixel_generator": 7}.get(config.generator)
    if config.normalization != "channel" or larger_layers is None:
        return None
    return 1 + 2 * config.n_residual_blocks + larger_layers
