"""Training with losses that look at AlexNet's features: LPIPS, and the projected discriminator."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import photo

from codec.pictures import to_float
from config import UserError, config_train
from model import Model
from pretrained.networks import lpips
from training.trainer import Trainer

KERNELS = [(11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256)]


@pytest.fixture(autouse=True)
def alexnet(monkeypatch, tmp_path):
    """Random weights where the cache is looked for: mechanics need no trained ones."""
    rng = np.random.default_rng(0)
    arrays = {}
    for i, shape in enumerate(KERNELS):
        arrays[f"kernel_{i}"] = rng.normal(0, np.prod(shape[:3]) ** -0.5, shape).astype("f")
        arrays[f"bias_{i}"] = np.zeros(shape[3], "f")
        arrays[f"lin_{i}"] = rng.random(shape[3]).astype("f")
    np.savez(tmp_path / "alexnet.npz", **arrays)
    monkeypatch.setenv("GENERATIVE_COMPRESSION_CACHE", str(tmp_path))
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def batch(n: int = 2, side: int = 64) -> tf.Tensor:
    return tf.constant(np.stack([to_float(photo(side, side, seed)) for seed in range(n)]))


def test_the_lpips_term_is_that_of_the_shifted_images_and_moves_only_e_and_g(tiny_config, monkeypatch):
    config = tiny_config(lambda_lpips=3.0, lambda_X=0, lambda_range=0, distortion_steps=10, optimizer="sgd")
    trainer = Trainer(config)
    seen, network = [], trainer.objective.alexnet.network
    monkeypatch.setattr(trainer.objective.alexnet, "network", lambda image: seen.append(image) or network(image))
    frozen = [var.numpy() for var in network.weights]
    before = [var.numpy() for var in trainer.G_variables]
    terms = trainer.train_step(batch())
    x, x_hat = seen  # once each
    assert x.shape == x_hat.shape == (2, 57, 57, 3)
    assert any(np.array_equal(x, batch()[:, i : i + 57, j : j + 57]) for i in range(8) for j in range(8))
    expected = tf.reduce_mean(lpips(network(x), network(x_hat), trainer.objective.alexnet.lin))
    np.testing.assert_allclose(float(terms["lpips"]), expected, rtol=1e-4)
    moved = [np.abs(var.numpy() - old).max() for var, old in zip(trainer.G_variables, before, strict=True)]
    assert sum(m > 0 for m in moved) > 0.9 * len(moved)
    for var, old in zip(network.weights, frozen, strict=True):
        np.testing.assert_array_equal(var, old)


@pytest.mark.parametrize("zoom", [1.0, 2.0])
def test_alexnet_sees_another_window_of_both_images_at_each_step(zoom, tiny_config):
    objective = Trainer(tiny_config(lambda_lpips=1.0, perceptual_zoom=zoom, distortion_steps=10)).objective
    seen = [objective.features(batch(1), batch(1), step, "distortion") for step in range(8)]
    assert len({x[0].numpy().tobytes() for x, _ in seen}) > 5
    for x, x_hat in seen:
        np.testing.assert_array_equal(x[0], x_hat[0])


def test_with_a_zoom_alexnet_sees_a_part_of_the_image_at_the_image_s_size(tiny_config, monkeypatch):
    objective = Trainer(tiny_config(lambda_lpips=1.0, perceptual_zoom=2.0, distortion_steps=10)).objective
    seen = []
    monkeypatch.setattr(objective, "alexnet", lambda image: seen.append(image.numpy()) or [])
    ramp = np.broadcast_to(np.linspace(-1, 1, 64, dtype="f")[:, None, None], (2, 64, 48, 3))
    for step in range(20):
        objective.features(ramp, ramp, step, "distortion")
    spans = [np.ptp(image[0, :, 0, 0]) / 2 for image in seen]  # of the image's height
    assert {image.shape for image in seen} == {(2, 64, 48, 3)}
    assert min(spans) >= 0.49 and max(spans) <= 1.0 and max(spans) - min(spans) > 0.3


def test_the_projected_discriminator_trains_its_heads_and_shares_the_features(tiny_config, monkeypatch):
    config = tiny_config(
        discriminator="projected_discriminator", lambda_lpips=1.0, optimizer="sgd", G_learning_rate=1, D_learning_rate=1
    )
    trainer = Trainer(config)
    calls, network = [], trainer.objective.alexnet.network
    monkeypatch.setattr(trainer.objective.alexnet, "network", lambda image: calls.append(1) or network(image))
    before = [var.numpy() for var in trainer.D_variables]
    terms = trainer.train_step(batch())
    assert len(calls) == 2  # x and x_hat, for LPIPS and D together
    assert {"lpips", "adversarial", "feature_matching"} <= set(terms)
    for var, old in zip(trainer.D_variables, before, strict=True):
        assert np.abs(var.numpy() - old).max() > 1e-8, f"{var.path} has no gradient"
    assert not set(map(id, network.weights)) & set(map(id, trainer.D_variables + trainer.G_variables))


def test_a_stage_computes_features_only_if_it_needs_them(tiny_config):
    projected = Trainer(tiny_config(discriminator="projected_discriminator"))
    assert projected.objective.features(batch(), batch(), 0, "distortion") == ([], [])
    assert len(projected.objective.features(batch(), batch(), 0, "discriminator")[0]) == 5
    measured = Trainer(tiny_config(lambda_lpips=1.0))
    assert measured.objective.features(batch(), batch(), 0, "discriminator") == ([], [])


def test_without_the_weights_training_says_how_to_get_them(tiny_config, monkeypatch, tmp_path):
    monkeypatch.setenv("GENERATIVE_COMPRESSION_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"alexnet.*perceptual\.py --get"):
        Trainer(tiny_config(lambda_lpips=1.0))


@pytest.mark.parametrize("assignments", [["lambda_lpips=1"], ["discriminator=projected_discriminator"]])
def test_crops_that_are_too_small_for_alexnet_are_refused(assignments):
    with pytest.raises(UserError, match="48 px"):
        config_train().override([*assignments, "crop_size=32"])


def test_a_loaded_model_needs_no_alexnet(tiny_config, monkeypatch, tmp_path):
    monkeypatch.setenv("GENERATIVE_COMPRESSION_CACHE", str(tmp_path / "empty"))
    Model(tiny_config(lambda_lpips=1.0))
