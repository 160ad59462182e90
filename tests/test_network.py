"""The networks: shapes at each layer, parameter counts, the quantizer, and the original system's arithmetic."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import PROJECT
from reference import Reference

from config import config_train
from model import Model, numbered_names
from network import Network, Norm, Quantizer, split_noise, subpixel_block, upsample_block

SIZES = [(64, 64), (48, 80), (32, 96)]  # square, odd feature maps 3 x 5, and the least height


def layer_shapes(output, kinds: tuple) -> list[tuple]:
    """Output shapes (H, W, channels) of all layers of some kinds that lead to a symbolic tensor, in their order."""
    model = keras.Model(keras.utils.get_source_inputs(output), output)
    return [tuple(layer.output.shape[1:]) for layer in model.layers if type(layer).__name__ in kinds]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_encoder_shapes_layer_by_layer(height, width, tiny_config):
    w = Network.encoder(keras.Input((height, width, 3)), tiny_config(channel_bottleneck=6))
    expected = [(height // s, width // s, f) for s, f in ((1, 2), (2, 4), (4, 8), (8, 16), (16, 32))]
    assert layer_shapes(w, ("Conv2D",)) == [*expected, (height // 16, width // 16, 6)]


@pytest.mark.parametrize("upsampling", ["transpose", "transpose4", "nearest", "bilinear"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_generator_shapes_layer_by_layer(height, width, upsampling, tiny_config):
    h, w = height // 16, width // 16
    x_hat = Network.generator(keras.Input((h, w, 8)), tiny_config(upsampling=upsampling, n_residual_blocks=2))
    expected = [(h, w, 32)] * (1 + 2 * 2) + [(h * s, w * s, 32 // s) for s in (2, 4, 8, 16)] + [(height, width, 3)]
    assert layer_shapes(x_hat, ("Conv2D", "Conv2DTranspose")) == expected


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_subpixel_networks_shapes_layer_by_layer(height, width, tiny_config):
    config = tiny_config(n_residual_blocks=2, n_encoder_blocks=1, channel_bottleneck=6, upsampling="bilinear")
    w = Network.subpixel_encoder(keras.Input((height, width, 3)), config)
    down = [(height // s, width // s, f) for s, f in ((4, 16), (8, 16), (16, 32), (16, 32), (16, 32))]
    assert layer_shapes(w, ("Conv2D",)) == [*down, (height // 16, width // 16, 6)]
    h, v = height // 16, width // 16
    x_hat = Network.subpixel_generator(keras.Input((h, v, 6)), config)
    residual = [(h, v, 32)] * (1 + 2 * 2)
    eighth = [(h, v, 64), *[(2 * h, 2 * v, 16)] * 4]  # four times the filters before depth-to-space, then two blocks
    quarter = [(2 * h, 2 * v, 32), *[(4 * h, 4 * v, 8)] * 6]
    assert layer_shapes(x_hat, ("Conv2D",)) == [
        *residual, *eighth, *quarter, (8 * h, 8 * v, 4), (height, width, 2), (height, width, 3)
    ]  # fmt: skip
    assert layer_shapes(x_hat, ("Norm",)) == residual  # none at larger sizes


def test_a_subpixel_block_draws_no_grid_whatever_its_weights_are():
    x = keras.Input((4, 5, 6))
    block = keras.Model(x, subpixel_block(x, 7, "up"))
    rng = np.random.default_rng(0)
    block.set_weights([rng.normal(size=w.shape) for w in block.get_weights()])  # the four pixels' kernels differ
    h = block(np.broadcast_to(rng.normal(size=6), (1, 4, 5, 6)).astype("f")).numpy()
    assert h.shape == (1, 8, 10, 7) and h.std() > 0.1
    np.testing.assert_allclose(h, np.broadcast_to(h[:, :1, :1], h.shape), atol=1e-5)


def test_a_subpixel_block_starts_as_bilinear_upsampling():
    x = keras.Input((6, 6, 3))
    block = keras.Model(x, subpixel_block(x, 4, "up"))
    kernel = block.get_weights()[0]
    image = np.random.default_rng(0).normal(size=(1, 6, 6, 3)).astype("f")
    small = tf.nn.conv2d(tf.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="REFLECT"), kernel[..., :4], 1, "VALID")
    expected = tf.nn.relu(tf.image.resize(small, (12, 12), "bilinear"))
    np.testing.assert_allclose(block(image).numpy()[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-5)


def test_projected_discriminator_judges_patches_and_each_depth(tiny_config):
    config = tiny_config(discriminator="projected_discriminator")
    features = [keras.Input((15, 11, 64)), keras.Input((7, 5, 192))]
    logits, maps = Network.multiscale_discriminator(keras.Input((64, 48, 3)), config, features)
    assert [one.shape[1:] for one in logits] == [(4, 3, 1), (15, 11, 1), (7, 5, 1)]
    assert {name: h.shape[1:] for name, h in maps.items() if name.startswith("head")} == {
        "head 1/map1": (15, 11, 8), "head 2/map1": (7, 5, 8)
    }  # fmt: skip


@pytest.mark.parametrize(("h", "w"), [(32, 64), (2, 2), (3, 5), (40, 70)])
def test_noise_generator_shapes_layer_by_layer(h, w, tiny_config):
    noise = Network.noise_generator(keras.Input((128,)), keras.Input((h, w, 8)), tiny_config())
    assert noise.shape[1:] == (h, w, 8)
    assert layer_shapes(noise, ("Conv2DTranspose", "Conv2D")) == [(8, 16, 128), (16, 32, 64), (32, 64, 32), (32, 64, 8)]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80), (100, 36)])
def test_multiscale_discriminator_shapes(height, width):
    logits, maps = Network.multiscale_discriminator(keras.Input((height, width, 3)), config_train())
    for scale in range(3):
        h, w = height, width
        for _ in range(scale):
            h, w = -(-h // 2), -(-w // 2)
        for k in range(1, 5):
            h, w = -(-h // 2), -(-w // 2)
            assert maps[f"{scale}/map{k}"].shape[1:] == (h, w, 64 * 2 ** (k - 1))
        assert logits[scale].shape[1:] == (h, w, 1)


@pytest.mark.parametrize("name", ["patch_discriminator", "dcgan_discriminator", "wgan_critic"])
def test_single_discriminators_give_logits_and_four_maps(name, tiny_config):
    logits, maps = getattr(Network, name)(keras.Input((64, 48, 3)), tiny_config())
    assert [maps[f"map{k}"].shape[1:] for k in range(1, 5)] == [(32, 24, 8), (16, 12, 16), (8, 6, 32), (4, 3, 64)]
    assert logits.shape[1:] == ((4, 3, 1) if name == "patch_discriminator" else (1,))


def test_parameter_counts_at_full_width():
    config = config_train()  # W = 960, 9 residual blocks, C = 8
    x, z = keras.Input((None, None, 3)), keras.Input((None, None, 8))
    encoder = keras.Model(x, Network.encoder(x, config)).count_params()
    generator = keras.Model(z, Network.generator(z, config)).count_params()
    channels = [60, 120, 240, 480, 960]
    down = sum(9 * a * b for a, b in itertools.pairwise(channels))
    norms = 2 * sum(channels)
    assert encoder == 7 * 7 * 3 * 60 + down + norms + 9 * 960 * 8 + 8 == 5_589_668
    residual = 9 * 2 * (9 * 960 * 960 + 2 * 960)
    assert generator == 9 * 8 * 960 + residual + down + norms + 7 * 7 * 60 * 3 + 3 == 154_923_423


# ----------------------------------------------------------------------------------------------------------------------
# Quantizer
# ----------------------------------------------------------------------------------------------------------------------


def quantize(config, w):
    layer = Quantizer(config)
    w = tf.Variable(np.array(w, "f").reshape(1, 1, -1, 1))
    with tf.GradientTape() as tape:
        w_hat, symbols, assignment = layer(w)
        total = tf.reduce_sum(w_hat)
    gradient = tape.gradient(total, w)
    return w_hat.numpy().ravel(), symbols.numpy().ravel(), gradient.numpy().ravel(), assignment.numpy()[0, 0, :, 0]


def test_quantizer_takes_the_nearest_center_and_the_lower_of_two():
    w_hat, symbols, _, _ = quantize(config_train(), [-7, -1.6, -1.5, -0.5, 0.4, 0.5, 0.6, 1.5, 2.2])
    assert w_hat.tolist() == [-2, -2, -2, -1, 0, 0, 1, 1, 2]
    assert symbols.tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize(("kind", "power"), [("absolute", 1), ("squared", 2)])
def test_quantizer_gradient_is_that_of_the_soft_assignment(kind, power):
    w = np.array([-2.4, -1.2, 0.1, 0.7, 1.9])
    config = config_train(quantizer_distance=kind, quantizer_temperature=0.5)

    def soft(w):
        logits = -(np.abs(w[:, None] - np.array(config.centers)) ** power) / 0.5
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return shares @ np.array(config.centers), shares

    _, _, gradient, assignment = quantize(config, w)
    np.testing.assert_allclose(gradient, (soft(w + 1e-5)[0] - soft(w - 1e-5)[0]) / 2e-5, atol=1e-4)
    np.testing.assert_allclose(assignment, soft(w)[1], atol=1e-5)


def test_squared_distances_keep_a_gradient_where_absolute_ones_have_none():
    _, _, squared, _ = quantize(config_train(), [3.0, -3.5])
    _, _, absolute, _ = quantize(config_train(quantizer_distance="absolute"), [3.0, -3.5])
    assert (squared > 1e-3).all()
    assert np.abs(absolute).max() < 1e-6


def test_networks_and_losses_do_not_name_tensorflow():
    for name in ("network.py", "losses.py"):
        assert "tensorflow" not in (PROJECT / name).read_text()


# ----------------------------------------------------------------------------------------------------------------------
# Norms and reference
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [(1, 2), (-1,)])
def test_norm_gives_zero_mean_and_unit_variance_over_its_axes(axes):
    x = np.random.default_rng(0).normal(3, 5, (2, 8, 9, 16)).astype("f")
    y = Norm(axes)(x).numpy()
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axes), 1, atol=1e-3)


@pytest.mark.parametrize("bottleneck_norm", [False, True])
def test_networks_compute_what_the_original_system_does(bottleneck_norm):
    config = config_train(width=16, n_residual_blocks=2, bottleneck_norm=bottleneck_norm, quantizer_distance="absolute")
    model = Model(config)
    rng = np.random.default_rng(1)
    weights = {}
    numbered = numbered_names(model.networks)
    for name, var in model.weights.items():
        if "gamma" in name or "beta" in name or "bias" in name:
            var.assign(rng.normal(1, 0.5, var.shape))
        weights[numbered[name]] = var.numpy()
    x = rng.uniform(-1, 1, (1, 48, 80, 3)).astype("f")

    w = model.encoder(x).numpy()
    np.testing.assert_allclose(w, Reference(weights, "encoder").encoder(x, bottleneck_norm), atol=1e-4)
    w_hat = model.quantizer(w)[0].numpy()
    np.testing.assert_array_equal(w_hat, np.clip(np.rint(w), -2, 2))
    x_hat = model.generate(w_hat, None).numpy()
    np.testing.assert_allclose(x_hat, Reference(weights, "generator").generator(w_hat, 2), atol=1e-4)
    assert w_hat.std() > 0.1 and x_hat.std() > 0.1


def test_each_block_gets_its_own_noise_in_its_place(tiny_config):
    config = tiny_config(sample_noise=True, noise_mode="layers", n_residual_blocks=0, channel_bottleneck=2)
    assert config.noise_scales == (1, 2, 4, 8, 16) and config.noise_channels == 1 + 4 + 16 + 64 + 256
    v = np.arange(2 * 3 * config.noise_channels, dtype="f").reshape(1, 2, 3, -1)
    w_hat, side = np.full((1, 2, 3, 2), -1, "f"), np.full((1, 2, 3, 5), -2, "f")
    z, noise = split_noise(keras.ops.convert_to_tensor(np.concatenate([w_hat, v, side], axis=-1)), config)
    assert np.array_equal(z, np.concatenate([w_hat, side], axis=-1))
    maps = [np.asarray(own) for own in noise]
    assert [own.shape for own in maps] == [(1, 2 * k, 3 * k, 1) for k in (1, 2, 4, 8, 16)]
    assert maps[1][0, 2:, 4:, 0].tolist() == v[0, 1, 2, 1:5].reshape(2, 2).tolist()  # of the last position
    assert len(np.unique(np.concatenate([own.ravel() for own in maps]))) == v.size  # none twice


def test_bilinear_upsampling_is_nearest_and_then_one_two_one(tiny_config, monkeypatch):
    monkeypatch.setattr("network.reflect_conv", lambda x, *_, **__: x)
    x = np.random.default_rng(0).random((1, 5, 6, 3), "f")
    upsampled = upsample_block(x, 3, "up", tiny_config(upsampling="bilinear"), normalized=False)
    h = x.repeat(2, axis=1).repeat(2, axis=2)
    h = np.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    h = (h[:, :-2] + 2 * h[:, 1:-1] + h[:, 2:]) / 4
    np.testing.assert_allclose(upsampled, (h[:, :, :-2] + 2 * h[:, :, 1:-1] + h[:, :, 2:]) / 4, atol=1e-6)
