"""Frozen networks by tiny numbers worked out by hand, by random weights, and, where the cache has them, by the real ones."""

import numpy as np
import pytest
from conftest import PROJECT, photo, random_arrays, to_x
from PIL import Image

import pretrained.weights
from config import UserError
from pretrained import networks

CACHE = pretrained.weights.cache_folder()  # as it is outside of tests: conftest.py hides it from them


def real(network: str) -> str:
    """The path of real weights; skips the test where they are not."""
    path = CACHE / f"{network}.npz"
    if not path.is_file():
        pytest.skip(f"{path} is missing: {pretrained.weights.HOW_TO_GET}")
    return str(path)


# ----------------------------------------------------------------------------------------------------------------------
# Formulas, by hand
# ----------------------------------------------------------------------------------------------------------------------


def test_lpips_is_the_weighted_distance_of_unit_vectors():
    # two positions: (3, 4) against (4, 3) are (0.6, 0.8) and (0.8, 0.6); (0, 2) against (5, 0) are (0, 1) and (1, 0)
    x = np.array([[[[3, 4], [0, 2]]]], np.float32)
    y = np.array([[[[4, 3], [5, 0]]]], np.float32)
    lin = np.array([1, 10], np.float32)
    # 1 * 0.04 + 10 * 0.04 = 0.44, and 1 + 10 = 11; the second tap has one channel: all of its vectors are (1)
    taps = [np.full((1, 1, 1, 1), value, np.float32) for value in (2, 7)]
    value = networks.lpips([x, taps[0]], [y, taps[1]], [lin, np.ones(1, np.float32)])
    np.testing.assert_allclose(value, [(0.44 + 11) / 2], rtol=1e-6)
    batch = networks.lpips([np.concatenate([x, x])], [np.concatenate([y, x])], [lin])
    np.testing.assert_allclose(batch, [(0.44 + 11) / 2, 0], rtol=1e-6)  # an image each


def test_the_gradient_of_lpips_is_finite_where_all_channels_are_0():
    import tensorflow as tf

    x = tf.zeros((1, 2, 2, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = networks.lpips([np.ones((1, 2, 2, 3), "f")], [x], [np.ones(3, "f")])
    assert np.isfinite(tape.gradient(value, x)).all()


def test_dists_compares_means_and_deviations_channel_by_channel():
    # one channel: x = (0, 2), mean 1, variance 1; y = (1, 5), mean 3, variance 4; covariance 2
    x = np.array([0, 2], np.float32).reshape(1, 1, 2, 1)
    y = np.array([1, 5], np.float32).reshape(1, 1, 2, 1)
    texture, structure = 2 * 1 * 3 / (1 + 9), 2 * 2 / (1 + 4)
    for alpha, beta in ((1, 0), (0, 1), (3, 1)):
        expected = 1 - (alpha * texture + beta * structure) / (alpha + beta)
        np.testing.assert_allclose(networks.dists([x], [y], np.array([alpha]), np.array([beta])), [expected], rtol=1e-5)
    weights = np.array([1, 2], np.float32)
    np.testing.assert_allclose(networks.dists([x, y], [x, y], weights, weights), [0], atol=1e-6)


def test_l2_pooling_is_the_root_of_a_weighted_mean_of_squares():
    network = networks.DISTSNetwork(random_arrays(networks.DISTSNetwork))
    h = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    pooled = np.asarray(network._pool(h))
    assert pooled.shape == (1, 2, 2, 1)
    window = np.outer([1, 2, 1], [1, 2, 1]) / 16  # around (2, 2), the second pixel of every two
    assert pooled[0, 1, 1, 0] == pytest.approx(np.sqrt((window * h[0, 1:4, 1:4, 0] ** 2).sum()))
    corner = window[1:, 1:] * h[0, :2, :2, 0] ** 2  # zeros beyond the border
    assert pooled[0, 0, 0, 0] == pytest.approx(np.sqrt(corner.sum()))


# ----------------------------------------------------------------------------------------------------------------------
# Networks, by random weights
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "maps", "convolutions"), [
    (networks.AlexNet, [(15, 64), (7, 192), (3, 384), (3, 256), (3, 256)], 5),
    (networks.VGG16, [(64, 64), (32, 128), (16, 256), (8, 512), (4, 512)], 13),
    (networks.DISTSNetwork, [(64, 3), (64, 64), (32, 128), (16, 256), (8, 512), (4, 512)], 13),
    (networks.EfficientNetLite0, [(16, 24), (8, 40), (4, 112), (2, 320)], 49),
])  # fmt: skip
def test_the_shapes_of_the_maps(network, maps, convolutions):
    arrays = random_arrays(network)
    built = network(arrays)
    assert [tuple(m.shape) for m in built(to_x(photo(64, 64)))] == [(1, side, side, n) for side, n in maps]
    assert sum(name.startswith("kernel") for name in arrays) == convolutions
    assert not built.network.trainable_variables
    small = np.zeros((1, built.min_side, built.min_side, 3), np.float32)
    assert all(np.isfinite(m).all() and np.size(m) for m in built(small))
    with pytest.raises(UserError, match=rf"{network.__name__} needs images of at least {built.min_side} px"):
        built(small[:, 1:])


def test_the_first_map_of_alexnet_pixel_by_pixel():
    arrays = random_arrays(networks.AlexNet)
    image = photo(40, 44)
    unit = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]  # torchvision's normalization
    padded = np.pad(unit, ((2, 2), (2, 2), (0, 0)))
    expected = np.maximum(0, np.tensordot(padded[8 : 8 + 11, 4 : 4 + 11], arrays["kernel_0"], 3) + arrays["bias_0"])
    taps = networks.AlexNet(arrays)(to_x(image))
    np.testing.assert_allclose(taps[0][0, 2, 1], expected, rtol=1e-3, atol=1e-4)
    # the second convolution sees the maxima of 3x3 windows at every second position, with two zeros around
    pooled = np.max([np.asarray(taps[0])[0, i : i + 7 : 2, j : j + 7 : 2] for i in range(3) for j in range(3)], axis=0)
    window = np.pad(pooled, ((2, 2), (2, 2), (0, 0)))[1:6, 1:6]
    expected = np.maximum(0, np.tensordot(window, arrays["kernel_1"], 3) + arrays["bias_1"])
    np.testing.assert_allclose(taps[1][0, 1, 1], expected, rtol=1e-3, atol=1e-4)


def test_efficientnet_folds_batch_norm_and_normalizes_as_in_its_training():
    rng = np.random.default_rng(0)
    state = {"_conv_stem.weight": rng.normal(size=(2, 3, 3, 3)), "_bn0.weight": np.array([1.0, 2.0])}
    state |= {"_bn0.bias": np.array([0.5, -1.0]), "_bn0.running_mean": np.array([3.0, 4.0])}
    state |= {"_bn0.running_var": np.array([1.0, 9.0]), "_bn0.num_batches_tracked": np.array(7)}
    state |= {"_fc.weight": rng.normal(size=(1000, 2)), "_fc.bias": np.zeros(1000)}
    folded = pretrained.weights._from_efficientnet(state)
    patch = rng.normal(size=(3, 3, 3))  # (k, k, in)
    plain = np.einsum("oikl,kli->o", state["_conv_stem.weight"], patch)
    expected = (plain - [3, 4]) / np.sqrt(np.array([1, 9]) + 1e-3) * [1, 2] + [0.5, -1]
    np.testing.assert_allclose(np.tensordot(patch, folded["kernel_0"], 3) + folded["bias_0"], expected)

    arrays = random_arrays(networks.EfficientNetLite0)
    network = networks.EfficientNetLite0(arrays)
    black, level_127 = (to_x(np.full((32, 32, 3), value, np.uint8)) for value in (0, 127))
    stem = networks.keras.Model(network.network.input, network._layers[0].output)
    np.testing.assert_allclose(stem(level_127)[0, 5, 5], np.clip(arrays["bias_0"], 0, 6), atol=1e-5)
    expected = arrays["bias_0"] - 127 / 128 * arrays["kernel_0"].sum(axis=(0, 1, 2))
    np.testing.assert_allclose(stem(black)[0, 5, 5], np.clip(expected, 0, 6), atol=1e-4)
    assert network.pooled(black).shape == (1, 1280)


def test_a_gradient_reaches_the_image_through_a_network_in_half_precision():
    import tensorflow as tf

    network = networks.AlexNet(random_arrays(networks.AlexNet), dtype="mixed_bfloat16")
    x, x_hat = tf.constant(to_x(photo(64, 64))), tf.constant(to_x(photo(64, 64, seed=1)))
    with tf.GradientTape() as tape:
        tape.watch(x_hat)
        value = networks.lpips(network(x), network(x_hat), network.lin)
    assert network(x)[0].dtype == "bfloat16" and value.dtype == "float32" and value[0] > 0
    assert np.abs(tape.gradient(value, x_hat)).max() > 0


def test_other_arrays_are_no_weights(tmp_path):
    arrays = random_arrays(networks.AlexNet)
    np.savez(tmp_path / "w.npz", **arrays)
    loaded = networks.AlexNet.load(tmp_path / "w.npz")
    np.testing.assert_array_equal(loaded.network.weights[0], arrays["kernel_0"])
    np.savez(tmp_path / "w.npz", **(arrays | {"kernel_1": np.zeros(3)}))
    with pytest.raises(UserError, match=r"w\.npz: not the weights of AlexNet"):
        networks.AlexNet.load(tmp_path / "w.npz")
    with pytest.raises(UserError, match=r"get_weights\.py"):
        networks.VGG16.load()


# ----------------------------------------------------------------------------------------------------------------------
# VGG19
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vgg19_weights(tmp_path_factory) -> str:
    """A file of random weights, of the shapes of the real ones."""
    import keras

    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg19.weights.h5"
    keras.applications.VGG19(include_top=False, weights=None).save_weights(path)
    return str(path)


def test_the_features_of_vgg19_are_of_images_as_its_weights_want_them(vgg19_weights):
    vgg = networks.VGG19(vgg19_weights)
    image = photo(32, 48)
    maps = vgg(to_x(image))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (32 // k, 48 // k, n) for k, n in [(1, 64), (2, 128), (4, 256), (8, 512), (16, 512)]
    ]
    kernel, bias = (var.numpy() for var in vgg.network.get_layer("block1_conv1").weights)
    patch = image[4:7, 6:9, ::-1] - np.array([103.939, 116.779, 123.68])  # around (5, 7)
    np.testing.assert_allclose(maps[0][0, 5, 7], np.maximum(0, np.tensordot(patch, kernel, 3) + bias), rtol=1e-3, atol=1e-3)
    assert not vgg.network.trainable_variables


def test_the_perceptual_loss_teaches_the_generator_and_is_not_saved(vgg19_weights, tiny_config, eager_steps, tmp_path):
    import tensorflow as tf

    import losses
    from training.trainer import Trainer

    changes = {"use_vgg_loss": True, "vgg_weights": vgg19_weights, "width": 16, "distortion_steps": 1, "lambda_X": 0}
    trainer = Trainer(tiny_config(**changes, lambda_range=0))
    model = trainer.model
    x = tf.constant(to_x(photo(64, 64)))
    x_hat = model.generator(model.quantizer(model.encoder(x))[0])
    before = model.generator.trainable_variables[0].numpy()
    terms = trainer.train_step(x)
    expected = losses.perceptual(trainer.model.vgg19(x), trainer.model.vgg19(x_hat))
    assert float(terms["vgg"]) == pytest.approx(float(expected), rel=1e-3)
    assert np.abs(model.generator.trainable_variables[0].numpy() - before).max() > 0  # of this loss alone
    trainer.save(tmp_path / "ckpt-1")
    assert sum(file.stat().st_size for file in (tmp_path / "ckpt-1").iterdir()) < 5e6


def test_missing_weights_of_vgg19_stop_before_training(tmp_path, monkeypatch, capsys):
    from conftest import knobs

    import train

    monkeypatch.chdir(tmp_path)
    assert train.main(["--steps", "1", *knobs(use_vgg_loss=True, vgg_weights="nowhere.h5")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "nowhere.h5" in error and "notop.h5" in error and not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------------------------------
# Values of the real weights: those that the original implementations, in PyTorch, gave for the same pictures
# ----------------------------------------------------------------------------------------------------------------------


def kodim21() -> tuple[np.ndarray, np.ndarray]:
    """A crop of the photo that ships with the project, and the same without its fine detail."""
    image = np.array(Image.open(PROJECT / "images/kodim21.png").convert("RGB"))[:256, :384]
    coarse = image.reshape(32, 8, 48, 8, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    return image, coarse.repeat(8, axis=0).repeat(8, axis=1)


@pytest.mark.parametrize(("network", "value"), [(networks.AlexNet, 0.304470), (networks.VGG16, 0.543616)])
def test_lpips_of_a_picture_as_the_package_lpips_measures_it(network, value):
    built = network.load(real(network.weights))
    a, b = (built(to_x(image)) for image in kodim21())
    assert float(networks.lpips(a, b, built.lin)[0]) == pytest.approx(value, abs=1e-5)


def test_dists_of_a_picture_as_the_package_dists_measures_it():
    network, weights = networks.DISTSNetwork.load(real("vgg16")), pretrained.weights.load("dists", real("dists"))
    a, b = (network(to_x(image)) for image in kodim21())
    assert float(networks.dists(a, b, weights["alpha"], weights["beta"])[0]) == pytest.approx(0.436388, abs=1e-5)


def test_efficientnet_sees_a_lighthouse():
    image = Image.open(PROJECT / "images/kodim21.png").convert("RGB").crop((128, 0, 640, 512)).resize((224, 224))
    network = networks.EfficientNetLite0.load(real("efficientnet_lite0"))
    logits = np.asarray(network.pooled(to_x(np.array(image))))[0] @ network.arrays["classifier"]
    logits += network.arrays["classifier_bias"]
    assert logits.argmax() == 437  # beacon, lighthouse
