"""Writes the networks of a checkpoint as ONNX graphs, which run without TensorFlow.

The graphs have no weights in them: each weight is an initializer whose data is "external", in a file `weights.bin` that does
not exist. It stands for the arrays of model.npz, one after the other, sorted by name, each as it is stored there. A runtime
makes it in memory, or hands in the arrays by name, as gcodec/onnx_runtime.py does.

This module needs TensorFlow and tf2onnx; running the graphs needs neither.
"""

import hashlib
import json
from itertools import accumulate
from pathlib import Path

import numpy as np

from config import UserError, config_train
from gcodec.checkpoint import Arrays, read_arrays, read_checkpoint
from gcodec.files import atomic
from gcodec.onnx_runtime import FORMAT, GRAPHS_FILE, signature
from utils import Utils

with Utils.importing_tensorflow():
    import keras
    import tensorflow as tf

    from model import Model, named_weights, numbered_names
    from network import Norm, margin

try:
    import onnx
    import tf2onnx
except ImportError as error:
    raise UserError(f"writing ONNX graphs needs tf2onnx and onnx ({error}): pip install -r requirements.txt") from None

WEIGHTS_FILE = "weights.bin"  # where the graphs say that their weights are
OPSET = 17  # old enough for the runtimes in use, browsers' among them
INPUTS = {"encoder": ["x"], "semantic_encoder": ["s"], "generator": ["z"], "noise_generator": ["v", "w_hat"]}


def write_graphs(folder: Path) -> list[Path]:
    """Write the graphs of a checkpoint's networks into its folder; return their files.

    The checkpoint stays the same one: its fingerprint is that of its knobs and arrays.
    """
    checkpoint = read_checkpoint(folder)
    config = checkpoint.knobs(config_train)
    networks = Model(config).networks
    stored = read_arrays(checkpoint.folder / "model.npz")
    graphs = {f"{name}.onnx": graph_of(name, networks[name], stored) for name in INPUTS if name in networks}
    for name, data in graphs.items():
        with atomic(checkpoint.folder / name) as path:
            path.write_bytes(data)
    index = {
        "format": FORMAT,
        "weights": signature(checkpoint),
        "graphs": {name: hashlib.sha256(data).hexdigest() for name, data in graphs.items()},
        "margins": margins_of(config),
    }
    with atomic(checkpoint.folder / GRAPHS_FILE) as path:
        path.write_text(json.dumps(index, indent=1) + "\n")
    return [checkpoint.folder / name for name in graphs]


def margins_of(config: config_train) -> dict[str, int]:
    """Return how far the networks look, by name; see network.margin. Those of which it is not known are left out."""
    roles = {"encoder": "encoder", "semantic_encoder": "encoder", "generator": "generator"}
    margins = {name: margin(config, role) for name, role in roles.items()}
    return {name: positions for name, positions in margins.items() if positions is not None}


def graph_of(name: str, network: keras.Model, stored: Arrays) -> bytes:
    """Return the ONNX graph of a network, for weights of the types that `stored` has."""
    numbered = numbered_names({name: network})
    names = {id(var): own if own in stored else numbered[own] for own, var in named_weights({name: network}).items()}
    trainable, other = network.trainable_variables, network.non_trainable_variables
    weights = [names[id(var)] for var in (*trainable, *other)]
    inputs = [tf.TensorSpec(x.shape, tf.float32, name=own) for own, x in zip(INPUTS[name], network.inputs, strict=True)]
    specs = [tf.TensorSpec(stored[weight].shape, tf.float32, name=f"weight{i}") for i, weight in enumerate(weights)]

    # The weights are inputs at first, so that no optimizer folds them into something else.
    @tf.function(input_signature=[*inputs, *specs])
    def apply(*arguments):
        own, values = list(arguments[: len(inputs)]), list(arguments[len(inputs) :])
        x = own[0] if len(own) == 1 else own
        return network.stateless_call(values[: len(trainable)], values[len(trainable) :], x, training=False)[0]

    model, _ = tf2onnx.convert.from_function(apply, input_signature=[*inputs, *specs], opset=OPSET)
    numbers = {id(var): f"weight{i}" for i, var in enumerate((*trainable, *other))}
    for layer in network.layers:
        if isinstance(layer, Norm) and layer.axes == (-1,):
            _fuse_norm(model.graph, numbers[id(layer.gamma)], numbers[id(layer.beta)], layer.epsilon)
    _drop_unused(model.graph)
    _make_external(model.graph, {f"weight{i}": weight for i, weight in enumerate(weights)}, stored)
    return model.SerializeToString()


def _fuse_norm(graph: "onnx.GraphProto", gamma: str, beta: str, epsilon: float) -> None:
    """Put ONNX's own operation in the place of a channel norm's sum: it is several times as fast as the parts.

    network.Norm computes x * scale + shift, where scale = gamma / sqrt(variance + epsilon) and shift = beta - mean * scale.
    """

    def user(name: str) -> "onnx.NodeProto":
        return next(node for node in graph.node if name in node.input)

    scale, shift = user(gamma).output[0], user(beta).output[0]
    result = user(shift)
    scaled = next(node for node in graph.node if set(node.output) & set(result.input) - {shift})
    x = next(name for name in scaled.input if name != scale)
    norm = onnx.helper.make_node("LayerNormalization", [x, gamma, beta], result.output, axis=-1, epsilon=epsilon)
    result.CopyFrom(norm)


def _drop_unused(graph: "onnx.GraphProto") -> None:
    """Drop the nodes and the constants on which no output depends."""
    needed, kept = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)


def _make_external(graph: "onnx.GraphProto", weights: dict[str, str], stored: Arrays) -> None:
    """Turn the inputs of a graph that are weights (names by the input's name) into external initializers.

    A weight that is stored as float16 is cast to float32, in which the networks compute.
    """
    ordered = sorted(stored)
    offsets = dict(zip(ordered, accumulate((stored[name].nbytes for name in ordered), initial=0), strict=False))
    inputs = [value for value in graph.input if value.name not in weights]
    casts, renamed = [], {}
    for own, weight in weights.items():
        array = stored[weight]
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = graph.initializer.add(name=weight, data_type=kind, dims=array.shape, data_location=onnx.TensorProto.EXTERNAL)
        for key, value in {"location": WEIGHTS_FILE, "offset": offsets[weight], "length": array.nbytes}.items():
            tensor.external_data.add(key=key, value=str(value))
        renamed[own] = weight
        if array.dtype != np.float32:
            renamed[own] = f"{weight}/float32"
            casts.append(onnx.helper.make_node("Cast", [weight], [renamed[own]], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    del graph.input[:], graph.node[:]
    graph.input.extend(inputs)
    graph.node.extend(nodes)
