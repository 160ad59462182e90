"""That networks learn, from scratch: E sends something, and G reads it. And that target_bpp is met."""

import math

import numpy as np
import pytest
import tensorflow as tf
from conftest import PROJECT

import compress
import decompress
import train
from config import config_train
from evaluation.metrics import ms_ssim, psnr
from gcodec import read_image
from gcodec.checkpoint import read_checkpoint
from gcodec.pictures import to_float
from training.rate import FIRST_WEIGHT, LEAST_WEIGHT, Rate
from training.trainer import Trainer

SUBPIXEL = {
    "encoder": "subpixel_encoder", "generator": "subpixel_generator", "normalization": "channel", "upsampling": "bilinear",
    "width": 32, "n_residual_blocks": 2, "n_encoder_blocks": 2, "recompute": False, "discriminator_width": 4, "n_scales": 1,
    "distortion_steps": 10**6, "beta_1": 0.9, "ema_decay": 0.9,
}  # fmt: skip


def batch() -> tf.Tensor:
    """Four crops of the photo that ships, (4, 64, 64, 3)."""
    photo = to_float(read_image(PROJECT / "images/kodim21.png"))
    return tf.constant(np.stack([photo[top : top + 64, 200:264] for top in (40, 140, 240, 340)]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_subpixel_networks_learn_from_scratch(seed):
    """A tiny model's error on one photo falls well below that of its crops' mean colours, which say nothing of structure."""
    x = batch()
    gray = float(tf.reduce_mean(tf.math.reduce_variance(x, axis=(1, 2))))
    trainer = Trainer(config_train(**SUBPIXEL, seed=seed, distortion_learning_rate=1e-3))
    errors = [float(trainer.train_step(x)["distortion"]) for _ in range(200)]
    assert errors[0] < 3 * gray  # an image near gray, and not one of black and white
    assert np.mean(errors[-10:]) < 0.7 * gray


def test_a_feature_map_begins_in_the_range_of_the_centers():
    trainer = Trainer(config_train(**SUBPIXEL | {"width": 192, "n_encoder_blocks": 8}))
    w = trainer.model.encoder(batch())
    assert 0.3 < float(tf.math.reduce_std(w)) < 2


@pytest.mark.parametrize("target", [0.01, 0.03, 0.06])
@pytest.mark.parametrize(("sensitivity", "lag"), [(0.4, 300), (0.7, 300), (0.7, 1000)])
def test_bits_per_pixel_settle_at_their_target_without_a_swing(target, sensitivity, lag):
    """Of a model whose bits fall with their weight's power, follow it within `lag` steps, and differ from batch to batch."""
    rate = Rate(config_train(rate_model="context", target_bpp=target))

    @tf.function
    def steered(bpp):
        rate.steer(bpp)
        return rate.weight

    rng, weight = np.random.default_rng(0), float(rate.weight)
    bits, seen = math.log(0.07), []
    for _ in range(7000):
        bits += (math.log(0.03) - sensitivity * math.log(weight) - bits) / lag
        seen.append(math.exp(bits))
        weight = float(steered(tf.constant(seen[-1] * math.exp(rng.normal(-0.02, 0.2)))))
    settled = np.array(seen[4000:]).reshape(-1, 500).mean(axis=1)
    np.testing.assert_allclose(settled, target, rtol=0.05)
    assert min(seen) > 0.8 * target  # it does not lose the symbols on the way


def test_a_target_out_of_reach_is_told_and_leaves_a_weight_that_can_rise_again():
    rate = Rate(config_train(rate_model="context", target_bpp=0.06))
    rate.integral.assign(1.1 * LEAST_WEIGHT)
    assert not rate.is_out_of_reach
    for _ in range(200):
        rate.steer(tf.constant(0.03))  # whatever the weight is
    assert rate.is_out_of_reach and float(rate.integral) == pytest.approx(LEAST_WEIGHT)
    for _ in range(200):
        rate.steer(tf.constant(0.12))
    assert not rate.is_out_of_reach and float(rate.integral) > 1.5 * LEAST_WEIGHT


def test_a_transfer_starts_with_the_weight_that_was_reached_unless_it_names_another(eager_steps, tmp_path):
    trainer = Trainer(config_train(**SUBPIXEL | {"width": 16, "rate_model": "context", "target_bpp": 0.001}))
    trainer.rate.integral.assign(3.5)
    trainer.save(tmp_path / "ckpt-00000000")
    for changes, weight in [({"target_bpp": 0.002}, 3.5), ({"lambda_rate": 2.0}, 2.0)]:
        assert float(Trainer.transfer(read_checkpoint(tmp_path), changes)[0].rate.weight) == weight


def test_resuming_goes_on_with_the_weight_that_was_reached(eager_steps, tmp_path):
    trainer = Trainer(config_train(**SUBPIXEL | {"width": 16, "rate_model": "context", "lambda_rate": 2, "target_bpp": 0.001}))
    terms = trainer.train_step(batch())
    trainer.save(tmp_path / "ckpt-00000001")
    resumed = Trainer.start_from(read_checkpoint(tmp_path), {})
    assert float(resumed.rate.weight) == float(terms["lambda_rate"]) > 2
    assert float(resumed.train_step(batch())["lambda_rate"]) == float(trainer.train_step(batch())["lambda_rate"])


def test_the_weight_stays_where_nothing_follows_it(eager_steps):
    knobs = SUBPIXEL | {"width": 16, "rate_model": "context", "target_bpp": 0.001, "distortion_steps": 0}
    trainer = Trainer(config_train(**knobs, freeze_encoder=True))
    trainer.train_step(batch())
    assert float(trainer.rate.weight) == pytest.approx(FIRST_WEIGHT)


@pytest.mark.slow
def test_the_first_try_makes_a_picture_to_recognize(tmp_path, monkeypatch):
    """By the README's two commands: five minutes of training, and a file of the photo that ships."""
    monkeypatch.chdir(tmp_path)
    assert train.main(["-c", str(PROJECT / "presets/first_try.toml"), "--name", "first"]) == 0
    photo = PROJECT / "data/sample/coffee.png"
    assert compress.main(["-r", "checkpoints/first", "-i", str(photo), "-o", "out.gc"]) == 0
    assert decompress.main(["-r", "checkpoints/first", "-i", "out.gc", "-o", "back.png"]) == 0
    image, back = read_image(photo), read_image(tmp_path / "back.png")
    assert psnr(image, back) > 20 and ms_ssim(image, back) > 0.7
    assert (tmp_path / "out.gc").stat().st_size < 1500
