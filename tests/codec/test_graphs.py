"""A graph from a stranger computes a picture, or is refused in one line: it reads no file, runs no loop, takes no memory."""

import hashlib
import json
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import PROJECT, photo
from onnx import TensorProto, helper, numpy_helper

from config import UserError, config_train
from gcodec import Codec
from gcodec.checkpoint import CENTERS, read_checkpoint, write_checkpoint
from gcodec.entropy import integer_frequencies
from gcodec.graphs import MAX_BYTES, check_graph
from gcodec.onnx_runtime import FORMAT, GRAPHS_FILE, arrays_of, networks_of, read_graphs, signature

CONFIG = config_train(channel_bottleneck=2, width=32)
GAIN = "generator/gain"
SHAPES = {name: shapes[0] for name, shapes in networks_of(CONFIG).items()}
ANY = [None, None, None, None]


def constant(name: str, values) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def external(name: str, location: str = "weights.bin", dims=(1,), kind: int = TensorProto.FLOAT) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=kind, dims=dims, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def encoder() -> onnx.ModelProto:
    """Each symbol is twice the upper left value of a block, in the first two colours."""
    ints = [constant(name, np.array(values, np.int64)) for name, values in
            {"from": [0, 0, 0], "to": [2**31, 2**31, 2], "axes": [1, 2, 3], "steps": [16, 16, 1]}.items()]  # fmt: skip
    nodes = [helper.make_node("Slice", ["x", "from", "to", "axes", "steps"], ["w"]), helper.make_node("Add", ["w", "w"], ["y"])]
    return model(nodes, ints, "x", 3)


def generator(*nodes: onnx.NodeProto, tensors=(), **changes) -> onnx.ModelProto:
    """The first channel in gray, times a weight. The nodes may change it on its way from "gray" to "y"."""
    ints = [constant("half", np.float32([1, 16, 16, 1])), constant("three", np.array([1, 1, 1, 3], np.int64))]
    first = [constant(name, np.array([value], np.int64)) for name, value in {"zero": 0, "one": 1, "last": 3}.items()]
    start = [helper.make_node("Slice", ["z", "zero", "one", "last"], ["first"]),
             helper.make_node("Resize", ["first", "", "half"], ["large"], coordinate_transformation_mode="asymmetric",
                              nearest_mode="floor"),
             helper.make_node("Tile", ["large", "three"], ["colours"]),
             helper.make_node("Mul", ["colours", GAIN], ["gray"])]  # fmt: skip
    rest = list(nodes) or [helper.make_node("Tanh", ["gray"], ["y"])]
    return model([*start, *rest], [*ints, *first, external(GAIN), *tensors], "z", 2, **changes)


def model(nodes, tensors, name: str, channels: int, outputs=("y",), inputs=()) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", "h", "w", channels]), *inputs]
    results = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ANY) for output in outputs]
    graph = helper.make_graph(nodes, "g", values, results, list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(folder: Path, **graphs: onnx.ModelProto | bytes) -> Path:
    """Write a checkpoint of a tiny model with these graphs, and with an index that vouches for them."""
    weights = {CENTERS: np.array(CONFIG.centers, np.float32), GAIN: np.ones(1, np.float32)}
    write_checkpoint(folder, CONFIG, weights, integer_frequencies(np.ones((2, 5))), overwrite=True)
    digests = {}
    for name, graph in ({"encoder": encoder(), "generator": generator()} | graphs).items():
        data = graph if isinstance(graph, bytes) else graph.SerializeToString()
        (folder / f"{name}.onnx").write_bytes(data)
        digests[f"{name}.onnx"] = hashlib.sha256(data).hexdigest()
    index = {"format": FORMAT, "weights": signature(read_checkpoint(folder)), "graphs": digests}
    (folder / GRAPHS_FILE).write_text(json.dumps(index))
    return folder


def node(kind: str, *inputs: str, output: str = "y", **attributes) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [output], **attributes)


def body() -> onnx.GraphProto:
    values = [helper.make_tensor_value_info(n, k, []) for n, k in (("i", 7), ("c", 9))]
    out = [helper.make_tensor_value_info("o", 9, [])]
    return helper.make_graph([helper.make_node("Identity", ["c"], ["o"])], "body", values, out)


def with_function() -> onnx.ModelProto:
    made = generator()
    made.functions.append(helper.make_function("ours", "F", ["a"], ["b"], [node("Relu", "a", output="b")], []))
    return made


def with_sparse() -> onnx.ModelProto:
    made = generator()
    made.graph.sparse_initializer.add().values.name = "s"
    return made


SECOND_INPUT = helper.make_tensor_value_info("more", TensorProto.FLOAT, ANY)
REFUSED = {
    "a file beside it": (lambda: generator(node("Add", "gray", "s"), tensors=[external("s", "secret")]), "'s' from a file"),
    "a file elsewhere": (lambda: generator(node("Add", "gray", "s"), tensors=[external("s", "../secret")]), "from a file"),
    "a weight of another shape": (lambda: generator(node("Add", "gray", CENTERS), tensors=[external(CENTERS)]), "from a file"),
    "a weight twice": (lambda: generator(tensors=[external(GAIN, "secret")]), "two initializers of one name"),
    "a constant in a file": (lambda: generator(node("Constant", output="s", value=external("s", "secret")),
                                               node("Add", "gray", "s")), "a graph or a file"),
    "a loop": (lambda: generator(node("Loop", "n", "", "", body=body()), tensors=[constant("n", 2**62)]), "operator 'Loop'"),
    "an operator of nobody": (lambda: generator(node("Evil", "gray", domain="com.example")), "operator 'Evil'"),
    "an operator of another domain": (lambda: generator(node("Tanh", "gray", domain="com.microsoft")), "operator 'Tanh'"),
    "two inputs": (lambda: generator(inputs=[SECOND_INPUT]), "its inputs are not"),
    "other channels": (lambda: model([node("Tanh", "z")], [], "z", 7), "its inputs are not"),
    "two outputs": (lambda: generator(outputs=["y", "gray"]), "several outputs"),
    "functions": (with_function, "functions"),
    "sparse initializers": (with_sparse, "sparse"),
    "cut short": (lambda: generator().SerializeToString()[:-7], "is no ONNX graph"),
    "text": (lambda: b"text" * 10, "is no ONNX graph"),
    "two graphs": (lambda: generator().SerializeToString() * 2, "is no ONNX graph"),
    "too large": (lambda: generator().SerializeToString() + bytes([0x12, 0x80, 0x80, 0x20]) + bytes(2**19), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_graph_of_ours_is_refused_before_it_is_loaded(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("secret").write_bytes(bytes(100))
    make, message = REFUSED[kind]
    with pytest.raises(UserError, match=message) as error:
        Codec.load(write(tmp_path / "m", generator=make()))
    assert f"{tmp_path}/m/generator.onnx" in str(error.value) and "\n" not in str(error.value)


def test_a_graph_of_plain_operators_runs(tmp_path):
    codec = Codec.load(write(tmp_path / "m"))
    image = np.repeat(np.array([[0, 255]], np.uint8), 16, axis=1).repeat(32, axis=0)[..., None].repeat(3, axis=2)
    back = codec.decode(codec.encode(image))
    assert back.shape == (32, 32, 3) and (back[:, :16] < 10).all() and (back[:, 16:] > 245).all()


HUGE = [constant("n", np.array([1, 10**5, 10**5, 100], np.int64)), constant("v", np.ones((1, 1, 1, 1), np.float32))]
WRONG_WHEN_RUN = {
    "another shape": ([node("Concat", "gray", "gray", axis=1)], [], r"gives float32 \(1, 96, 32, 3\) instead of"),
    "not a number": ([node("Sub", "gray", "gray", output="0"), node("Div", "0", "0")], [], "not finite"),
    "infinity": ([node("Div", "gray", "0")], [constant("0", np.float32([0]))], "not finite"),
    "a huge constant": ([node("Tile", "v", "n", output="t"), node("ReduceMax", "t", output="m", keepdims=0),
                         node("Add", "gray", "m")], HUGE, "cannot be run"),
    "a huge picture": ([node("Tile", "gray", "n", output="t"), node("ReduceMax", "t")], HUGE, "cannot be run"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_WHEN_RUN)
def test_what_shows_only_when_it_runs_is_one_line(kind, tmp_path):
    nodes, tensors, message = WRONG_WHEN_RUN[kind]
    codec = Codec.load(write(tmp_path / "m", generator=generator(*nodes, tensors=tensors)))
    with pytest.raises(UserError, match=message) as error:
        codec.decode(codec.encode(photo(40, 32)))
    assert "\n" not in str(error.value)


def test_an_encoder_that_gives_no_number_is_an_error_and_no_symbols(tmp_path):
    made = encoder()
    made.graph.node[-1].CopyFrom(node("Sqrt", "w"))  # of negative values, too
    with pytest.raises(UserError, match="not finite"):
        Codec.load(write(tmp_path / "m", encoder=made)).encode(np.zeros((32, 32, 3), np.uint8))


INDEXES = {
    "another file's name": lambda index: index | {"graphs": {"../../secret": "0"}},
    "a device": lambda index: index | {"graphs": {"/dev/zero": "0"}},
    "a number": lambda index: index | {"graphs": {"encoder.onnx": 7, "generator.onnx": [1]}},
    "pairs": lambda index: index | {"graphs": [[1, 2]]},
    "no object": lambda index: [index],
    "another kind of weights": lambda index: index | {"weights": {"a": [[]]}},
}


@pytest.mark.parametrize("kind", INDEXES)
def test_an_index_names_the_graphs_of_the_networks_and_no_other_file(kind, tmp_path):
    folder = write(tmp_path / "m")
    index = json.loads((folder / GRAPHS_FILE).read_text())
    (folder / GRAPHS_FILE).write_text(json.dumps(INDEXES[kind](index)))
    with pytest.raises(UserError, match=r"damaged|do not belong") as error:
        Codec.load(folder)
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"format": 1, "graphs": {"\\u0000": "0"}}', '{"format": 1e400}', "\udcff", "7"])
def test_an_index_that_is_none_is_one_line(text, tmp_path):
    folder = write(tmp_path / "m")
    (folder / GRAPHS_FILE).write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=r"graphs\.json: damaged") as error:
        Codec.load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["photo_c4", "photo_c8", "photo_c16", "camvid_sc_c8"])
def test_the_graphs_that_ship_are_plain(name):
    checkpoint = read_checkpoint(PROJECT / "checkpoints" / name)
    graphs, _ = read_graphs(checkpoint)
    for network, inputs in networks_of(checkpoint.config).items():
        weights = arrays_of(checkpoint, network)
        check_graph(graphs[network], inputs, weights)
        assert len(graphs[network]) < MAX_BYTES / 4
        first = next(iter(weights))
        with pytest.raises(UserError, match="from a file"):
            check_graph(graphs[network], inputs, {name: array for name, array in weights.items() if name != first})


def test_eight_threads_share_a_codec_and_an_image_that_is_cut_into_tiles(monkeypatch):
    monkeypatch.setattr("gcodec.tiles.TILE", 4)
    codec = Codec.load("photo_c8")
    image = photo(32, 480)
    alone = Codec.load("photo_c8").encode(image)
    expected = Codec.load("photo_c8").decode(alone)
    results: list = []

    def work() -> None:
        data = codec.encode(image)
        results.append((data, codec.decode(data)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for data, picture in results:
        assert data == alone
        np.testing.assert_array_equal(picture, expected)
