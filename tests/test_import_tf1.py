"""Checkpoints of the seed, of random weights: our networks then compute what the seed's arithmetic gives."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import PROJECT, photo
from PIL import Image
from reference import Reference

import compress
import decompress
from gcodec import read_image
from gcodec.checkpoint import read_checkpoint
from gcodec.labels import Classes
from gcodec.pictures import to_float
from model import Model, TensorFlowRuntime
from tools import import_tf1

WIDTH, C = 32, 4
CLASSES = "index,name,R,G,B\n0,Sky,70,130,180\n1,Road,128,64,128\n2,Car,0,0,142\n"


def load(folder) -> Model:
    return TensorFlowRuntime.of(read_checkpoint(folder)).model


def layer(kind: str, number: int) -> str:
    return f"{kind}_{number}" if number else kind


def seed_variables(noise: bool = False, semantic: bool = False, n_residual_blocks: int = 2) -> dict[str, np.ndarray]:
    """Random variables by the seed's names. Every convolution has a bias, also those that a norm cancels."""
    rng = np.random.default_rng(0)
    variables = {}

    def add(scope: str, kind: str, number: int, kernel: tuple | None = None, filters: int = 0):
        name = f"{scope}/{layer(kind, number)}"
        if kernel:
            variables[f"{name}/kernel"] = rng.normal(0, np.sqrt(1 / np.prod(kernel[:-1])), kernel)
            variables[f"{name}/bias"] = rng.normal(0, 0.3, filters)
            return
        leaves = ["gamma", "beta"] + ["moving_mean", "moving_variance"] * (kind == "batch_normalization")
        for leaf in leaves:
            centre = 1 if leaf in ("gamma", "moving_variance") else 0
            variables[f"{name}/{leaf}"] = rng.uniform(centre - 0.4, centre + 0.4, filters)

    for scope in ["generator/encoder_image"] + ["generator/encoder_semantic_map"] * semantic:
        channels = [3, WIDTH // 16, WIDTH // 8, WIDTH // 4, WIDTH // 2, WIDTH, C]
        for i in range(6):
            k = 7 if i == 0 else 3
            add(scope, "conv2d", i, (k, k, channels[i], channels[i + 1]), channels[i + 1])
            add(scope, "InstanceNorm", i, filters=channels[i + 1])
    scope, inputs = "generator/decoder", C * (1 + noise + semantic)
    n = 1 + 2 * n_residual_blocks
    for i in range(n):
        add(scope, "conv2d", i, (3, 3, WIDTH if i else inputs, WIDTH), WIDTH)
        add(scope, "InstanceNorm", i, filters=WIDTH)
    for i in range(4):
        add(scope, "conv2d_transpose", i, (3, 3, WIDTH >> (i + 1), WIDTH >> i), WIDTH >> (i + 1))
        add(scope, "InstanceNorm", n + i, filters=WIDTH >> (i + 1))
    add(scope, "conv2d", n, (7, 7, WIDTH // 16, 3), 3)
    if noise:
        scope = "generator/noise_generator"
        add(f"{scope}/fc1", "dense", 0, (16, 8192), 8192)
        channels = [256, 128, 64, 32]
        add(scope, "batch_normalization", 0, filters=8192)
        for i in range(3):
            add(scope, "conv2d_transpose", i, (5, 5, channels[i + 1], channels[i]), channels[i + 1])
            add(scope, "batch_normalization", i + 1, filters=channels[i + 1])
        add(scope, "conv2d", 0, (7, 7, 32, C), C)
    return {name: array.astype(np.float32) for name, array in variables.items()}


def write(variables: dict[str, np.ndarray], prefix) -> str:
    """As tf.train.Saver does, in its V2 format."""
    names = sorted(variables)
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=[variables[n] for n in names]
    )
    return str(prefix)


def reference(variables: dict, scope: str) -> Reference:
    kinds = {"conv2d": "Conv2D", "conv2d_transpose": "Conv2DTranspose", "InstanceNorm": "Norm"}
    weights = {}
    for name, array in variables.items():
        *above, own, leaf = name.split("/")
        if "/".join(above) == scope:
            kind, _, number = own.rpartition("_")
            kind, number = (kind, number) if number.isdigit() else (own, "0")
            weights[f"net/{kinds[kind]}_{number}/{leaf}"] = array
    return Reference(weights, "net")


def w_hat_of(w: np.ndarray) -> np.ndarray:
    return np.clip(np.ceil(np.asarray(w) - 0.5), 0, 2)  # after a ReLU; ties to the lower center


@pytest.mark.parametrize("wanted", ["bare", "plain", "ema"])
def test_an_imported_checkpoint_computes_what_the_seed_does(wanted, tmp_path, capsys):
    variables = seed_variables()
    other = {name: array + 1 for name, array in variables.items()}
    stored = dict(other if wanted == "ema" else variables)
    if wanted != "bare":  # averages, and the optimizer's and the discriminator's variables
        averages = variables if wanted == "ema" else other
        stored |= {f"{name}/ExponentialMovingAverage": array for name, array in averages.items()}
        stored |= {f"{name}/{slot}": array for name, array in other.items() for slot in ("Adam", "Adam_1")}
        stored |= {"discriminator/conv2d/kernel": np.zeros((4, 4, 3, 64), np.float32), "beta1_power": np.float32(0.5)}
    source = write(stored, tmp_path / "model.ckpt-2")
    assert import_tf1.main([source, "-o", str(tmp_path / "ours"), *["--ema"] * (wanted == "ema")]) == 0
    assert "W=32, 2 residual blocks, C=4" in capsys.readouterr().out
    model = load(tmp_path / "ours")
    x = to_float(photo(64, 96))[None]
    w = reference(variables, "generator/encoder_image").encoder(tf.constant(x), bottleneck_norm=True)
    np.testing.assert_allclose(model.encoder(x), w, atol=1e-4)
    w_hat = w_hat_of(w)
    np.testing.assert_array_equal(model.quantizer(w)[0], w_hat)
    x_hat = reference(variables, "generator/decoder").generator(tf.constant(w_hat, tf.float32), 2)
    np.testing.assert_allclose(model.generator(w_hat), x_hat, atol=1e-4)


def test_it_compresses_and_decompresses_with_tables_of_the_symbols_in_reach(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write(seed_variables(), tmp_path / "model.ckpt-2")
    Image.fromarray(photo(80, 96)).save("photo.png")
    assert import_tf1.main([source + ".index", "-o", "ours"]) == 0
    assert compress.main(["-r", "ours", "-i", "photo.png", "-o", "photo.gc"]) == 0
    assert decompress.main(["-r", "ours", "-i", "photo.gc", "-o", "back.png"]) == 0
    assert read_image("back.png", 10**6).shape == (80, 96, 3)
    assert (tmp_path / "photo.gc").stat().st_size <= 16 + 4 + np.ceil(5 * 6 * C * np.log2(3) / 8)  # log2(3) bits, not log2(5)


def test_the_noise_branch_is_the_seeds_with_its_batch_norm(tmp_path):
    variables = seed_variables(noise=True)
    assert import_tf1.main([write(variables, tmp_path / "a"), "-o", str(tmp_path / "ours")]) == 0
    model = load(tmp_path / "ours")
    assert model.config.noise_dim == 16 and model.config.noise_norm == "batch"
    v = np.random.default_rng(1).normal(size=(1, 16)).astype("f")
    get = {name.removeprefix("generator/noise_generator/"): array for name, array in variables.items()}

    def batch_norm(h, i):
        own = layer("batch_normalization", i)
        scale = get[f"{own}/gamma"] / np.sqrt(get[f"{own}/moving_variance"] + 1e-3)
        return (h - get[f"{own}/moving_mean"]) * scale + get[f"{own}/beta"]

    h = batch_norm(np.maximum(0, v @ get["fc1/dense/kernel"] + get["fc1/dense/bias"]), 0).reshape(1, 4, 8, 256)
    for i in range(3):
        own = layer("conv2d_transpose", i)
        shape = (1, 2 * h.shape[1], 2 * h.shape[2], get[f"{own}/bias"].size)
        h = tf.nn.conv2d_transpose(tf.constant(h, tf.float32), get[f"{own}/kernel"], shape, 2, "SAME") + get[f"{own}/bias"]
        h = batch_norm(np.maximum(0, h), i + 1)
    h = np.pad(h, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
    expected = tf.nn.conv2d(tf.constant(h, tf.float32), get["conv2d/kernel"], 1, "VALID") + get["conv2d/bias"]
    np.testing.assert_allclose(model.noise_generator([v, np.zeros((1, 32, 64, C), "f")]), expected, atol=1e-4)


@pytest.mark.parametrize("noise", [False, True])
def test_a_semantic_encoder_of_colours_becomes_one_of_classes(noise, tmp_path, capsys):
    (tmp_path / "classes.csv").write_text(CLASSES)
    variables = seed_variables(noise, semantic=True)
    source = write(variables, tmp_path / "a")
    assert import_tf1.main([source, "-o", str(tmp_path / "ours")]) == 2
    assert "--classes" in capsys.readouterr().err and not (tmp_path / "ours").exists()
    assert import_tf1.main([source, "-o", str(tmp_path / "ours"), "--classes", str(tmp_path / "classes.csv")]) == 0
    model = load(tmp_path / "ours")
    s = np.random.default_rng(0).integers(0, 4, (4, 6)).repeat(16, axis=0).repeat(16, axis=1)
    colours = to_float(Classes.read(tmp_path / "classes.csv").colours[s])[None]
    expected = reference(variables, "generator/encoder_semantic_map").encoder(tf.constant(colours), bottleneck_norm=True)
    w = model.semantic_encoder(np.eye(4, dtype="f")[s][None])
    np.testing.assert_allclose(w, expected, atol=1e-4)
    parts = dict(zip("wsv", (np.random.default_rng(i).normal(size=(1, 4, 6, C)).astype("f") for i in range(3)), strict=True))
    seeds = np.concatenate([parts[name] for name in ("wsv" if noise else "ws")], axis=-1)
    ours = np.concatenate([parts[name] for name in ("wvs" if noise else "ws")], axis=-1)
    x_hat = reference(variables, "generator/decoder").generator(tf.constant(seeds), 2)
    np.testing.assert_allclose(model.generator(ours), x_hat, atol=1e-4)


def test_what_is_missing_or_left_over_is_listed_by_name(tmp_path, capsys):
    variables = seed_variables()
    del variables["generator/encoder_image/InstanceNorm_5/gamma"], variables["generator/decoder/conv2d_2/kernel"]
    assert import_tf1.main([write(variables, tmp_path / "a"), "-o", str(tmp_path / "ours")]) == 2
    error = capsys.readouterr().err
    assert "encoder_image/..., Norm 5: no gamma" in error and "decoder/..., Conv2D 2: no kernel" in error
    assert not (tmp_path / "ours").exists()
    more = seed_variables() | {
        "generator/encoder_image/conv2d_5/scale": np.zeros(4, np.float32),
        "generator/decoder/dense/kernel": np.zeros((4, 4), np.float32),
        "generator/attention/conv2d/kernel": np.zeros((4, 4), np.float32),
    }
    assert import_tf1.main([write(more, tmp_path / "b"), "-o", str(tmp_path / "ours")]) == 0
    warnings = capsys.readouterr().err
    assert "left over: generator/decoder/dense/kernel" in warnings and "left out" in warnings
    assert "generator/attention/conv2d/kernel" in warnings


@pytest.mark.parametrize("content", [None, b"no checkpoint", {"decoder/conv2d/kernel": np.zeros(3, np.float32)},
                                     {"generator/decoder/conv2d/kernel": np.zeros(3, np.float32)}])  # fmt: skip
def test_what_is_no_checkpoint_of_the_seed_is_one_clear_line(content, tmp_path, capsys):
    if isinstance(content, bytes):
        (tmp_path / "a.index").write_bytes(content)
    elif content:
        write(content, tmp_path / "a")
    assert import_tf1.main([str(tmp_path / "a"), "-o", str(tmp_path / "ours")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path / "a") in error and not (tmp_path / "ours").exists()


def test_averages_that_are_not_there_are_not_taken(tmp_path, capsys):
    source = write(seed_variables(), tmp_path / "a")
    assert import_tf1.main([source, "-o", str(tmp_path / "ours"), "--ema"]) == 2
    assert "no averages" in capsys.readouterr().err and not (tmp_path / "ours").exists()


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "ours").mkdir()
    assert import_tf1.main([str(tmp_path / "a"), "-o", str(tmp_path / "ours")]) == 2
    assert "there already" in capsys.readouterr().err


def test_the_class_list_of_cityscapes_is_one_that_it_takes():
    assert len(Classes.read(PROJECT / "data/cityscapes_classes.csv")) == 35
