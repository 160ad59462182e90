"""ONNX graphs of every kind of model compute what TensorFlow computes; bad ones are refused; tiles have no seams."""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import page
import pytest
from conftest import PROJECT, TINY, label_map, photo

from commands import loading
from commands.loading import load_codec, load_runtime
from config import UserError, config_test, config_train
from gcodec import Codec, tiles
from gcodec.checkpoint import CENTERS, FINGERPRINT_FILE, read_checkpoint, write_checkpoint
from gcodec.codec import Contents
from gcodec.entropy import integer_frequencies
from gcodec.labels import LabelMap
from gcodec.onnx_runtime import GRAPHS_FILE, OnnxRuntime
from gcodec.pictures import to_uint8
from tools import checkpoint

CHANNEL = {"normalization": "channel"}
LABELS = {"use_conditional_GAN": True, "n_classes": 4, "n_residual_blocks": 0}
KINDS = {
    "the paper's": {"n_residual_blocks": 2},
    "what ships": CHANNEL | {"upsampling": "bilinear", "sample_noise": True, "noise_mode": "layers"},
    "sub-pixel networks": CHANNEL
    | {"encoder": "subpixel_encoder", "generator": "subpixel_generator", "upsampling": "bilinear"}
    | {"width": 64}  # at 32, the last norm is over two channels and leaves only a sign: one colour
    | {"sample_noise": True, "noise_mode": "layers", "noise_finest": 4},
    "noise map": CHANNEL | {"upsampling": "nearest", "sample_noise": True, "noise_mode": "map", "learn_centers": True},
    "noise network": {"upsampling": "transpose4", "sample_noise": True, "noise_dim": 16},
    "the seed's": {"bottleneck_norm": True, "quantizer_distance": "absolute", "sample_noise": True, "noise_norm": "batch"},
    "lossless map": LABELS | {"selective": True, "use_instances": True},
    "learned map": LABELS | {"semantic_code": "learned", "selective": True},
    "map for D only": LABELS | {"semantic_code": "none"},
}


def config_of(kind: str) -> config_train:
    return config_train(**(TINY | {"channel_bottleneck": 3} | KINDS[kind]))


def write_tiny(folder, config: config_train, seed: int = 0):
    """Write a checkpoint whose weights are all random, also those that start as 0 or 1."""
    from model import Model

    rng = np.random.default_rng(seed)
    weights = {name: var.numpy() for name, var in Model(config).weights.items()}
    for name, array in weights.items():
        if "kernel" not in name and name != CENTERS:
            weights[name] = (array + rng.uniform(0, 0.3, array.shape)).astype(np.float32)
        elif not array.any():  # a block that starts as the identity
            weights[name] = rng.normal(0, array[..., 0].size ** -0.5, array.shape).astype(np.float32)
    if config.learn_centers:
        weights[CENTERS] += np.array([-0.3, 0.1, 0.2, -0.1, 0.4], np.float32)
    frequencies = integer_frequencies(np.ones((config.channel_bottleneck, config.L)))
    write_checkpoint(folder, config, weights, frequencies)
    return folder


QUICK = ("the paper's", "what ships", "sub-pixel networks", "noise network", "learned map")  # the other kinds are slow tests


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Return the folder of a checkpoint of a kind, in half precision, with graphs. It is written once."""

    @functools.cache
    def write(kind: str) -> Path:
        folder = tmp_path_factory.mktemp("exported")
        write_tiny(folder / "trained", config_of(kind))
        assert checkpoint.main(["-r", str(folder / "trained"), "-o", str(folder / "small"), "--onnx"]) == 0
        return folder / "small"

    return write


@pytest.fixture(params=[kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS])
def exported(request, export):
    return export(request.param)


@pytest.fixture(params=["what ships", "sub-pixel networks"])
def local(request, export):
    """A checkpoint with graphs whose networks see a bounded surrounding."""
    return export(request.param)


def test_both_runtimes_give_the_same_symbols_and_pictures(exported):
    read = read_checkpoint(exported)
    onnx, tensorflow = load_runtime(read, "onnx"), load_runtime(read, "tensorflow")
    assert isinstance(load_runtime(read), OnnxRuntime)
    image, classes = photo(90, 70), label_map(90, 70)
    labels = LabelMap(classes, classes == 2, (classes > 0).astype(np.uint8)) if read.config.code_channels else None
    codec, other = Codec(read, onnx), Codec(read, tensorflow)
    ours, theirs = codec.contents(image, labels), other.contents(image, labels)
    assert (ours.symbols != theirs.symbols).mean() <= 0.002  # ties
    if labels is not None:
        assert (ours.code != theirs.code).mean() <= 0.002
    assert len(np.unique(ours.symbols)) > 1
    a, b = codec.picture(theirs, 90, 70, crc=5).astype(int), other.picture(theirs, 90, 70, crc=5)
    assert np.ptp(a, axis=(0, 1)).min() > 20
    assert np.abs(a - b).max() <= 1 and (a != b).mean() < 0.01


def test_each_channel_norm_is_one_operation_and_nothing_of_its_parts_stays(local):
    weights = read_checkpoint(local).weights
    for network in ("encoder", "generator"):
        graph = onnx.load(local / f"{network}.onnx", load_external_data=False).graph
        nodes = graph.node
        norms = [name for name in weights if name.startswith(f"{network}/") and name.endswith("/beta")]
        assert norms and sum(node.op_type == "LayerNormalization" for node in nodes) == len(norms)
        assert not any(node.op_type == "ReduceMean" for node in nodes)
        assert {tensor.name for tensor in graph.initializer} <= {name for node in nodes for name in node.input}


@page.needs_node
def test_the_page_decodes_files_of_every_kind_of_model(exported, tmp_path):
    codec = load_codec(exported)
    image, classes = photo(90, 70), label_map(90, 70)
    labels = LabelMap(classes, classes == 2, preserved=classes > 0) if codec.config.code_channels else None
    page.assert_decodes_alike(codec, image, labels, tmp_path, most_different=0.01)


def with_ties(source, folder):
    """Copy a checkpoint to one with graphs whose encoder gives each channel the middle of two centers, whatever the image."""
    read = read_checkpoint(source)
    kernels = [name for name, array in read.weights.items() if name.startswith("encoder/") and array.ndim == 4]
    last = kernels[-1].removesuffix("/kernel")
    centers = np.round(256 * read.centers) / 256  # so that their middles are not rounded
    ties = ((centers[:-1] + centers[1:]) / 2)[: read.config.channel_bottleneck]
    kernel = np.zeros_like(read.weights[f"{last}/kernel"])
    weights = read.weights | {f"{last}/kernel": kernel, f"{last}/bias": ties, CENTERS: centers}
    write_checkpoint(folder, read.knobs(config_train), weights, read.static_tables.frequencies)
    assert checkpoint.main(["-r", str(folder), "--onnx"]) == 0


# Centers at whole numbers, and learned ones.
@pytest.mark.parametrize("kind", ["what ships", pytest.param("noise map", marks=pytest.mark.slow)])
def test_a_value_between_two_centers_goes_to_the_same_one_in_both_runtimes(export, tmp_path, kind):
    with_ties(export(kind), tmp_path / "ties")
    read = read_checkpoint(tmp_path / "ties")
    onnx, tensorflow = load_runtime(read, "onnx"), load_runtime(read, "tensorflow")
    x = np.random.default_rng(0).uniform(-1, 1, (1, 48, 64, 3)).astype(np.float32)
    symbols = onnx.encode(x)
    np.testing.assert_array_equal(symbols, np.broadcast_to([0, 1, 2], symbols.shape))  # the lower one
    np.testing.assert_array_equal(symbols, tensorflow.encode(x))


def test_a_file_decodes_to_the_picture_that_was_shown_whichever_way_its_ties_fell(local):
    """The symbols are in the file: both runtimes decode them, also where neither of them would have chosen them."""
    choices = [config_test(runtime=name) for name in ("onnx", "tensorflow")]
    codecs = [load_codec(local, choice) for choice in choices]
    image, rng = photo(90, 70), np.random.default_rng(0)
    own = codecs[0].contents(image).symbols
    other = np.clip(own + rng.integers(-1, 2, own.shape), 0, codecs[0].config.L - 1).astype(np.uint8)
    assert (other != own).any()
    data = codecs[0].pack(90, 70, Contents(other))
    assert data == codecs[1].pack(90, 70, Contents(other))
    shown = [codec.decode(data) for codec in codecs]
    for choice, codec, picture in zip(choices, codecs, shown, strict=True):
        np.testing.assert_array_equal(load_codec(local, choice).decode(data), picture)
        assert (picture != codec.decode(codec.encode(image))).any()
    difference = np.abs(shown[0].astype(int) - shown[1])
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_graphs_hold_no_weights_and_do_not_change_the_checkpoint(exported, tmp_path):
    exported = shutil.copytree(exported, tmp_path / "copy")
    before = read_checkpoint(exported).fingerprint
    graphs = list(exported.glob("*.onnx"))
    assert {file.name for file in graphs} == {f"{name}.onnx" for name in networks(read_checkpoint(exported).config)}
    assert sum(file.stat().st_size for file in graphs) < 200_000
    for file in graphs:
        file.unlink()
    assert read_checkpoint(exported).fingerprint == before


def networks(config: config_train) -> set[str]:
    noise = {"noise_generator"} if config.sample_noise and config.noise_mode == "dcgan" else set()
    labels = {"semantic_encoder"} if config.use_conditional_GAN and config.semantic_code == "learned" else set()
    return {"encoder", "generator"} | noise | labels


# ----------------------------------------------------------------------------------------------------------------------
# Bad input
# ----------------------------------------------------------------------------------------------------------------------


def edit_index(folder, **changes) -> None:
    file = folder / GRAPHS_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def widen(folder) -> None:
    """Give the checkpoint other weights than its graphs are for."""
    arrays = dict(np.load(folder / "model.npz"))
    np.savez(
        folder / "model.npz", **{name: array.astype(np.float64) for name, array in arrays.items() if name != "frequencies"}
    )
    (folder / FINGERPRINT_FILE).unlink()


BAD = {
    "one bit flipped": (lambda folder: flip(folder / "generator.onnx"), "generator.onnx: damaged"),
    "cut": (lambda folder: (folder / "generator.onnx").write_bytes(b"abc"), "generator.onnx: damaged"),
    "missing": (lambda folder: (folder / "encoder.onnx").unlink(), "encoder.onnx: missing"),
    "no index": (lambda folder: (folder / GRAPHS_FILE).unlink(), "no graphs"),
    "index cut": (lambda folder: (folder / GRAPHS_FILE).write_text('{"format": 1'), "graphs.json: damaged"),
    "index of something else": (lambda folder: (folder / GRAPHS_FILE).write_text("[1]"), "graphs.json: damaged"),
    "a margin that is no number": (lambda folder: edit_index(folder, margins={"encoder": "3"}), "graphs.json: damaged"),
    "a margin beyond all bounds": (lambda folder: edit_index(folder, margins={"encoder": 10**9}), "graphs.json: damaged"),
    "another version": (lambda folder: edit_index(folder, format=2), "another version"),
    "other weights": (widen, "do not belong to these weights"),
}


def flip(file) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("case", BAD)
def test_bad_graphs_are_one_line_that_says_what_to_do(local, tmp_path, case):
    spoil, message = BAD[case]
    folder = shutil.copytree(local, tmp_path / "bad")
    spoil(folder)
    with pytest.raises(UserError, match=message) as error:
        load_runtime(read_checkpoint(folder), "onnx")
    assert f"tools/checkpoint.py --onnx -r {folder}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("installed", "choice", "graphs", "message"), [
    ((), "auto", True, "pip install -r requirements-codec.txt"),
    (("onnxruntime",), "auto", False, "no graphs for ONNX Runtime, and TensorFlow is not installed: .* requirements.txt"),
    (("tensorflow",), "onnx", True, "runtime: onnx needs the package onnxruntime: pip install -r requirements-codec.txt"),
    (("onnxruntime",), "tensorflow", True, "runtime: tensorflow needs the package tensorflow: pip .* requirements.txt"),
])  # fmt: skip
def test_what_is_not_installed_is_one_line(local, tmp_path, monkeypatch, installed, choice, graphs, message):
    folder = shutil.copytree(local, tmp_path / "copy")
    if not graphs:
        (folder / GRAPHS_FILE).unlink()
    monkeypatch.setattr(loading, "_installed", lambda package: package in installed)
    with pytest.raises(UserError, match=message):
        load_codec(folder, config_test(runtime=choice))


def test_without_graphs_tensorflow_runs_the_networks(local, tmp_path):
    folder = shutil.copytree(local, tmp_path / "copy")
    (folder / GRAPHS_FILE).unlink()
    assert type(load_codec(folder).runtime).__name__ == "TensorFlowRuntime"


NO_TENSORFLOW = """
import sys
sys.modules.update(dict.fromkeys(("tensorflow", "keras", "pandas", "scipy", "tqdm", "matplotlib", "h5py", "onnx")))
import compress, decompress
assert compress.main(["-i", "images/kodim21.png", "-o", sys.argv[1] + "/a.png"]) == 0
assert decompress.main(["-i", sys.argv[1] + "/a.gc", "-o", sys.argv[1] + "/b.png"]) == 0
"""


def test_what_ships_runs_without_tensorflow_and_compress_shows_what_decompress_writes(tmp_path):
    from PIL import Image

    subprocess.run([sys.executable, "-c", NO_TENSORFLOW, tmp_path], cwd=PROJECT, check=True)
    shown, written = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    height, width = written.shape[:2]
    np.testing.assert_array_equal(shown[:height, -width:], written)


# ----------------------------------------------------------------------------------------------------------------------
# Tiles
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(15, 33), (40, 2), (2, 41), (31, 31)])
def test_tiles_of_a_network_are_the_whole(monkeypatch, local, height, width):
    loaded = load_runtime(read_checkpoint(local), "onnx")
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (1, 16 * height, 16 * width, 3)).astype(np.float32)
    w_hat = rng.integers(-2, 3, (1, height, width, 3)).astype(np.float32)
    v = rng.normal(size=loaded.config.noise_shape(1, height, width)).astype(np.float32)
    whole, symbols = loaded.generate(w_hat, v, None), loaded.encode(x)
    calls = []
    run = loaded._run
    monkeypatch.setattr(loaded, "_run", lambda *arguments, **how: calls.append(how) or run(*arguments, **how))
    monkeypatch.setattr(tiles, "TILE", 7)
    tiled = loaded.generate(w_hat, v, None)
    assert len(calls) > 2 and calls[-1] == {"shrink": True}  # what the tiles took is given back
    assert np.abs(to_uint8(tiled).astype(int) - to_uint8(whole)).max() <= 1
    assert np.abs(tiled - whole).max() < 1e-4
    assert (loaded.encode(x) != symbols).mean() <= 0.002  # ties


def test_a_margin_narrower_than_what_the_generator_sees_would_leave_seams(monkeypatch, local):
    loaded = load_runtime(read_checkpoint(local), "onnx")
    rng = np.random.default_rng(0)
    w_hat = rng.integers(-2, 3, (1, 24, 24, 3)).astype(np.float32)
    v = rng.normal(size=loaded.config.noise_shape(1, 24, 24)).astype(np.float32)
    whole = loaded.generate(w_hat, v, None)
    monkeypatch.setattr(tiles, "TILE", 8)
    monkeypatch.setitem(loaded._margins, "generator", loaded._margins["generator"] - 4)
    assert np.abs(loaded.generate(w_hat, v, None) - whole).max() > 1e-3


def test_networks_that_see_the_whole_image_are_not_cut(monkeypatch, export):
    loaded = load_runtime(read_checkpoint(export("the paper's")), "onnx")
    monkeypatch.setattr(tiles, "TILE", 4)
    calls = []
    run = loaded._run
    monkeypatch.setattr(loaded, "_run", lambda *arguments: calls.append(arguments[0]) or run(*arguments))
    loaded.generate(np.zeros((1, 60, 60, 3), np.float32), None, None)
    assert calls == ["generator"]
