"""Training with losses that look at the features of AlexNet or VGG16: LPIPS, and the projected discriminator."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from conftest import photo

from config import UserError, config_train
from gcodec.pictures import to_float
from model import Model
from pretrained.networks import lpips
from terms import window
from training.trainer import Trainer

ALEXNET = [(11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256)]
VGG16 = list(itertools.pairwise([3, *[64] * 2, *[128] * 2, *[256] * 3, *[512] * 6]))


@pytest.fixture(autouse=True)
def weights(monkeypatch, tmp_path):
    """Random weights where the cache is looked for: mechanics need no trained ones."""
    rng = np.random.default_rng(0)
    kernels = {"alexnet": ALEXNET, "vgg16": [(3, 3, *channels) for channels in VGG16]}
    for name, taps in {"alexnet": (64, 192, 384, 256, 256), "vgg16": (64, 128, 256, 512, 512)}.items():
        arrays = {f"lin_{i}": rng.random(n).astype("f") for i, n in enumerate(taps)}
        for i, shape in enumerate(kernels[name]):
            arrays[f"kernel_{i}"] = rng.normal(0, np.prod(shape[:3]) ** -0.5, shape).astype("f")
            arrays[f"bias_{i}"] = np.zeros(shape[3], "f")
        np.savez(tmp_path / f"{name}.npz", **arrays)
    monkeypatch.setenv("GENERATIVE_COMPRESSION_CACHE", str(tmp_path))


@pytest.fixture
def eager():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def batch(n: int = 2, side: int = 64) -> tf.Tensor:
    return tf.constant(np.stack([to_float(photo(side, side, seed)) for seed in range(n)]))


@pytest.mark.usefixtures("eager")
def test_the_lpips_term_is_that_of_the_shifted_images_and_moves_only_e_and_g(tiny_config, monkeypatch):
    config = tiny_config(lambda_lpips=3.0, lambda_X=0, lambda_range=0, distortion_steps=10, optimizer="sgd")
    trainer = Trainer(config)
    seen, network = [], trainer.model.alexnet.network
    monkeypatch.setattr(trainer.model.alexnet, "network", lambda image: seen.append(image) or network(image))
    frozen = [var.numpy() for var in network.weights]
    before = [var.numpy() for var in trainer.G_variables]
    terms = trainer.train_step(batch())
    x, x_hat = seen  # once each
    assert x.shape == x_hat.shape == (2, 57, 57, 3)
    assert any(np.array_equal(x, batch()[:, i : i + 57, j : j + 57]) for i in range(8) for j in range(8))
    expected = tf.reduce_mean(lpips(network(x), network(x_hat), trainer.model.alexnet.lin))
    np.testing.assert_allclose(float(terms["lpips"]), expected, rtol=1e-4)
    moved = [np.abs(var.numpy() - old).max() for var, old in zip(trainer.G_variables, before, strict=True)]
    assert sum(m > 0 for m in moved) > 0.9 * len(moved)
    for var, old in zip(network.weights, frozen, strict=True):
        np.testing.assert_array_equal(var, old)


@pytest.mark.parametrize("knobs", [
    {"lambda_lpips": 1.0},
    {"lambda_lpips": 1.0, "perceptual_zoom": 2.0},
    {"lambda_lpips_vgg": 1.0},
    {"discriminator": "projected_discriminator"},
])  # fmt: skip
def test_a_compiled_step_computes_them(knobs, tiny_config):
    terms = Trainer(tiny_config(**knobs)).train_step(batch(1))
    assert all(np.isfinite(term) for term in terms.values()), terms


@pytest.mark.usefixtures("eager")
def test_vgg16_sees_another_quarter_of_both_images_at_each_step(tiny_config, monkeypatch):
    config = tiny_config(lambda_lpips_vgg=3.0, lambda_X=0, lambda_range=0, distortion_steps=10, optimizer="sgd")
    trainer = Trainer(config)
    seen, network = [], trainer.model.vgg16.network
    monkeypatch.setattr(trainer.model.vgg16, "network", lambda image: seen.append(image.numpy()) or network(image))
    before = [var.numpy() for var in trainer.G_variables]
    terms = trainer.train_step(batch())
    x, x_hat = seen
    places = [(i, j) for i in range(33) for j in range(33) if np.array_equal(x, batch()[:, i : i + 32, j : j + 32])]
    assert len(places) == 1 and x_hat.shape == x.shape
    expected = tf.reduce_mean(lpips(network(x), network(x_hat), trainer.model.vgg16.lin))
    np.testing.assert_allclose(float(terms["lpips_vgg"]), expected, rtol=1e-4)
    assert all(np.abs(var - old).max() > 0 for var, old in zip(trainer.model.encoder.trainable_variables, before, strict=False))
    trainer.train_step(batch())
    assert not np.array_equal(seen[2], x)


@pytest.mark.parametrize("zoom", [1.0, 2.0])
def test_alexnet_sees_another_window_at_each_step(zoom, tiny_config):
    config = tiny_config(lambda_lpips=1.0, perceptual_zoom=zoom)
    seen = [window(batch(1), step, config).numpy() for step in range(8)]
    assert len({image.tobytes() for image in seen}) > 5
    np.testing.assert_array_equal(window(batch(1), 3, config), seen[3])  # of both images the same


def test_with_a_zoom_alexnet_sees_a_part_of_the_image_at_the_image_s_size(tiny_config):
    config = tiny_config(lambda_lpips=1.0, perceptual_zoom=2.0)
    ramp = np.broadcast_to(np.linspace(-1, 1, 64, dtype="f")[:, None, None], (2, 64, 48, 3))
    seen = [window(ramp, step, config).numpy() for step in range(20)]
    spans = [np.ptp(image[0, :, 0, 0]) / 2 for image in seen]  # of the image's height
    assert {image.shape for image in seen} == {(2, 64, 48, 3)}
    assert min(spans) >= 0.49 and max(spans) <= 1.0 and max(spans) - min(spans) > 0.3


@pytest.mark.usefixtures("eager")
def test_the_projected_discriminator_trains_its_heads_and_shares_the_features(tiny_config, monkeypatch):
    config = tiny_config(
        discriminator="projected_discriminator", lambda_lpips=1.0, optimizer="sgd", G_learning_rate=1, D_learning_rate=1
    )
    trainer = Trainer(config)
    calls, network = [], trainer.model.alexnet.network
    monkeypatch.setattr(trainer.model.alexnet, "network", lambda image: calls.append(1) or network(image))
    before = [var.numpy() for var in trainer.D_variables]
    terms = trainer.train_step(batch())
    assert len(calls) == 2  # x and x_hat, for LPIPS and D together
    assert {"lpips", "adversarial", "feature_matching"} <= set(terms)
    for var, old in zip(trainer.D_variables, before, strict=True):
        assert np.abs(var.numpy() - old).max() > 1e-8, f"{var.path} has no gradient"
    assert not set(map(id, network.weights)) & set(map(id, trainer.D_variables + trainer.G_variables))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(("knobs", "calls"), [
    ({"discriminator": "projected_discriminator", "distortion_steps": 1}, 0),
    ({"discriminator": "projected_discriminator", "discriminator_warmup_steps": 1}, 2),
    ({"lambda_lpips": 1.0, "discriminator_warmup_steps": 1}, 0),
    ({"lambda_lpips": 1.0, "distortion_steps": 1}, 2),
])  # fmt: skip
def test_a_stage_computes_features_only_if_it_needs_them(knobs, calls, tiny_config, monkeypatch):
    trainer = Trainer(tiny_config(**knobs))
    seen, network = [], trainer.model.alexnet.network
    monkeypatch.setattr(trainer.model.alexnet, "network", lambda image: seen.append(1) or network(image))
    trainer.train_step(batch())
    assert len(seen) == calls


def test_without_the_weights_training_says_how_to_get_them(tiny_config, monkeypatch, tmp_path):
    monkeypatch.setenv("GENERATIVE_COMPRESSION_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"alexnet.*get_weights\.py"):
        Trainer(tiny_config(lambda_lpips=1.0))


@pytest.mark.parametrize("knob", ["lambda_lpips=1", "lambda_lpips_vgg=1", "discriminator=projected_discriminator"])
def test_crops_that_are_too_small_for_the_features_are_refused(knob):
    with pytest.raises(UserError, match="48 px"):
        config_train().override([knob, "crop_size=32"])


def test_a_loaded_model_needs_no_alexnet(tiny_config, monkeypatch, tmp_path):
    monkeypatch.setenv("GENERATIVE_COMPRESSION_CACHE", str(tmp_path / "empty"))
    Model(tiny_config(lambda_lpips=1.0))
