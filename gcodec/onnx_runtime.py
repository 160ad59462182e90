"""Runs the networks of a checkpoint on ONNX Runtime, for the codec. It needs no TensorFlow.

The checkpoint's folder has a graph for each network (encoder.onnx, generator.onnx, ...) and graphs.json, which says of which
weights the graphs are. The weights are those of model.npz; see tools/onnx_export.py, which writes the graphs. A graph may come
from a stranger: graphs.py checks what is in it, and all graphs of a process together get no more memory than was free at first.
"""

import contextlib
import functools
import hashlib
import json
import threading
from typing import Any

import numpy as np

from gcodec.checkpoint import Checkpoint, read_json
from gcodec.errors import UserError
from gcodec.files import open_binary
from gcodec.graphs import MAX_BYTES, check_graph
from gcodec.knobs import ModelKnobs
from gcodec.memory import TILED, available_memory, whole_image
from gcodec.pictures import STRIDE
from gcodec.runtime import check_finite
from gcodec.tiles import in_tiles, is_cut

GRAPHS_FILE = "graphs.json"
MAX_MARGIN = 1000  # positions that a network may see beyond its own
FATAL = 4  # what ONNX Runtime logs: errors are raised, and nothing else is said
FORMAT = 1  # of the graphs and their index; another one is of another version of this project


class OnnxRuntime:
    """A gcodec.runtime.Runtime. A network is loaded when it first runs. Several threads may use one."""

    address_space_per_pixel = 0.0
    threads = 0  # that run a network; 0: as many as there are cores

    def __init__(self, checkpoint: Checkpoint):
        """Raises UserError unless the checkpoint has whole graphs that belong to its weights."""
        self.checkpoint, self.config = checkpoint, checkpoint.config
        self._graphs, self._margins = read_graphs(checkpoint)
        self.bytes_per_pixel = TILED if self._margins.keys() >= {"encoder", "generator"} else whole_image(self.config)
        self._sessions: dict[str, Any] = {}  # each keeps its layers' memory for the next image
        self._loading = threading.Lock()

    def __reduce__(self) -> tuple:
        return OnnxRuntime, (self.checkpoint,)  # sessions are not pickled; the graphs are read and checked again

    def encode(self, x: np.ndarray) -> np.ndarray:
        channels = self.config.channel_bottleneck
        return self._symbols(self._run_in_tiles("encoder", x, STRIDE, 1, channels))

    def encode_labels(self, s: np.ndarray) -> np.ndarray:
        channels = self.config.channel_bottleneck
        return self._symbols(self._run_in_tiles("semantic_encoder", s, STRIDE, 1, channels))

    def generate(self, w_hat: np.ndarray, v: np.ndarray | None, side: np.ndarray | None) -> np.ndarray:
        if v is not None and self.config.noise_mode == "dcgan":
            v = self._run("noise_generator", (*w_hat.shape[:3], self.config.noise_channels), v, w_hat)
        z = np.concatenate([part for part in (w_hat, v, side) if part is not None], axis=-1)
        return self._run_in_tiles("generator", z, 1, STRIDE, 3)

    def _symbols(self, w: np.ndarray) -> np.ndarray:
        """Return the index of the nearest center for each value; a tie goes to the lower one."""
        return np.abs(w[..., None] - self.checkpoint.centers).argmin(axis=-1).astype(np.uint8)

    def _run_in_tiles(self, name: str, x: np.ndarray, in_scale: int, out_scale: int, channels: int) -> np.ndarray:
        def run(tile: np.ndarray, **options: Any) -> np.ndarray:
            height, width = (side // in_scale * out_scale for side in tile.shape[1:3])
            return self._run(name, (len(tile), height, width, channels), tile, **options)

        margin = self._margins.get(name)
        if margin is None:
            return run(x)
        result = in_tiles(run, x, in_scale, out_scale, margin)
        if is_cut(x, in_scale, margin):  # a run on few positions gives back what the tiles took, beside a large picture
            few = 2 * in_scale
            run(np.ascontiguousarray(x[:, :few, :few]), shrink=True)
        return result

    def _run(self, name: str, shape: tuple[int, ...], *inputs: np.ndarray, shrink: bool = False) -> np.ndarray:
        """Return a network's output, which must have this shape. Raises UserError if not."""
        session = self._session(name)
        names = [own.name for own in session.get_inputs()]
        try:
            result = session.run(None, dict(zip(names, inputs, strict=True)), _shrinking() if shrink else None)[0]
        except Exception as error:  # onnxruntime raises many kinds
            raise UserError(f"{self._file(name)}: cannot be run ({_line(error)})") from None
        if result.dtype != np.float32 or result.shape != shape:
            raise UserError(f"{self._file(name)}: gives {result.dtype} {result.shape} instead of float32 {shape}")
        check_finite(result)
        return result

    def _file(self, name: str) -> str:
        return f"checkpoint file {self.checkpoint.folder / name}.onnx"

    def _session(self, name: str) -> Any:
        with self._loading:
            if name not in self._sessions:
                self._sessions[name] = self._load(name)
            return self._sessions[name]

    def _load(self, name: str) -> Any:
        """Return the session that runs a network, with the checkpoint's weights."""
        import onnxruntime

        _set_up()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = FATAL
        options.enable_mem_pattern = False  # one block for all layers, planned ahead, would be twice as large
        weights = arrays_of(self.checkpoint, name)
        largest = max((8 * array.size for array in weights.values()), default=0)  # bytes; no constant need be larger
        for key, value in {
            "session.use_env_allocators": "1",  # those of _set_up
            "session.load_model_format": "ONNX",  # the one that check_graph reads
            "optimization.constant_folding_max_output_size_in_bytes": str(max(largest, 2**16)),
        }.items():
            options.add_session_config_entry(key, value)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
        try:
            return onnxruntime.InferenceSession(  # which would print what is wrong, and try again
                self._graphs[name], options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # onnxruntime raises many kinds
            version = onnxruntime.__version__
            raise UserError(f"{self._file(name)}: onnxruntime {version} cannot load it ({_line(error)})") from None


@functools.cache
def _set_up() -> None:
    """Give all networks of this process one allocator, which refuses more memory than there is now and says nothing."""
    import onnxruntime as ort

    ort.set_default_logger_severity(FATAL)
    kind = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    with contextlib.suppress(Exception):  # the program that uses this package has registered one
        ort.create_and_register_allocator(kind, ort.OrtArenaCfg(available_memory() or 0, -1, -1, -1))  # 0: no limit


def _shrinking() -> Any:
    """Return the options of a run that gives memory back."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


# ----------------------------------------------------------------------------------------------------------------------
# The graphs of a checkpoint
# ----------------------------------------------------------------------------------------------------------------------


def has_graphs(checkpoint: Checkpoint) -> bool:
    """Say whether a checkpoint has graphs for ONNX Runtime, good or bad ones."""
    return (checkpoint.folder / GRAPHS_FILE).is_file()


def networks_of(config: ModelKnobs) -> dict[str, list[tuple[int | None, ...]]]:
    """Return the shapes of the inputs of each network that the codec runs, by its name; None where the image decides."""
    C, images = config.channel_bottleneck, (None, None, None)
    z = C + config.code_channels + config.selective + config.noise_channels
    networks: dict[str, list[tuple[int | None, ...]]] = {"encoder": [(*images, 3)], "generator": [(*images, z)]}
    if config.sample_noise and config.noise_mode == "dcgan":
        networks["noise_generator"] = [(None, config.noise_dim), (*images, C)]
    if config.code_channels and config.semantic_code == "learned":
        networks["semantic_encoder"] = [(*images, config.label_channels)]
    return networks


def arrays_of(checkpoint: Checkpoint, network: str) -> dict[str, np.ndarray]:
    """Return the weights of a network, by name."""
    return {name: array for name, array in checkpoint.weights.items() if name.startswith(f"{network}/")}


def read_graphs(checkpoint: Checkpoint) -> tuple[dict[str, bytes], dict[str, int]]:
    """Return the graphs by the network's name, and how many positions of the feature map each network sees beyond its own.

    A network without such a number may see the whole image, and is not run in tiles. No file is opened but graphs.json and
    those of the networks, in the checkpoint's folder.

    Raises UserError for damage, for graphs of other weights or another version, and for what `check_graph` refuses.
    """
    index_file = checkpoint.folder / GRAPHS_FILE
    repair = f"write the graphs again: python3 tools/checkpoint.py --onnx -r {checkpoint.folder}"
    if not index_file.exists():
        raise UserError(f"checkpoint {checkpoint.folder}: has no graphs for ONNX Runtime; {repair}")
    try:
        index = read_json(index_file)
        version, weights, digests = (index[key] for key in ("format", "weights", "graphs"))
        digests = {name: digests.get(f"{name}.onnx") for name in networks_of(checkpoint.config)}
        margins = index.get("margins", {})
        if not all(type(margin) is int and 0 <= margin <= MAX_MARGIN for margin in margins.values()):
            raise UserError("margins")
    except (UserError, KeyError, TypeError, AttributeError):
        raise UserError(f"checkpoint file {index_file}: damaged; {repair}") from None
    if version != FORMAT:
        raise UserError(f"checkpoint file {index_file}: of another version of this project; {repair}")
    if weights != signature(checkpoint):
        raise UserError(f"checkpoint file {index_file}: the graphs do not belong to these weights and knobs; {repair}")
    graphs = {}
    for name, inputs in networks_of(checkpoint.config).items():
        file = checkpoint.folder / f"{name}.onnx"
        if not file.exists():
            raise UserError(f"checkpoint file {file}: missing; {repair}")
        with open_binary(file) as stream:
            graphs[name] = stream.read(MAX_BYTES + 1)
        if len(graphs[name]) > MAX_BYTES or hashlib.sha256(graphs[name]).hexdigest() != digests[name]:
            raise UserError(f"checkpoint file {file}: damaged, or of another checkpoint; {repair}")
        try:
            check_graph(graphs[name], inputs, arrays_of(checkpoint, name))
        except UserError as error:
            raise UserError(f"checkpoint file {file}: {error}") from None
    return graphs, margins


def signature(checkpoint: Checkpoint) -> str:
    """Return a hash of what graphs depend on: the knobs as written, and the names, types and shapes of the weights."""
    weights = [[name, str(array.dtype), array.shape] for name, array in sorted(checkpoint.weights.items())]
    return hashlib.sha256(json.dumps([checkpoint.written, weights], sort_keys=True).encode()).hexdigest()
