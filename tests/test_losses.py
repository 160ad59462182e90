"""Each loss against numbers worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

import losses

REAL = [np.array([1.0, 3.0], "f"), np.array([2.0], "f")]  # two scales
FAKE = [np.array([0.0, 2.0], "f"), np.array([-1.0], "f")]


def test_distortion_is_the_mean_squared_error():
    assert float(losses.distortion(np.array([1.0, -1.0], "f"), np.array([0.0, 1.0], "f"))) == pytest.approx((1 + 4) / 2)


def test_structure_is_the_distortion_of_what_is_left_at_a_quarter_of_the_size():
    x = np.zeros((1, 8, 8, 3), "f")
    texture = np.indices((8, 8)).sum(axis=0)[None, ..., None] % 2 * 2.0 - 1  # a checkerboard of -1 and 1
    half = np.arange(8) < 4  # the upper half is brighter by 1
    x_hat = np.float32(x + texture + half[None, :, None, None])
    assert float(losses.distortion(x, x_hat)) == pytest.approx(1.5)  # (0 + 4) / 2 above, 1 below
    assert float(losses.structure(x, x_hat)) == pytest.approx(0.5)
    assert float(losses.structure(x, x_hat, np.float32(half[None, :, None, None]))) == pytest.approx(1)


def test_lsgan_sums_over_scales():
    # real: ((1-1)^2 + (3-1)^2) / 2 = 2 and (2-1)^2 = 1; fake: (0 + 4) / 2 = 2 and 1
    assert float(losses.lsgan_discriminator(REAL, FAKE)) == pytest.approx(0.5 * (2 + 2 + 1 + 1))
    # (0-1)^2 and (2-1)^2, mean 1; (-1-1)^2 = 4
    assert float(losses.lsgan_generator(FAKE)) == pytest.approx(1 + 4)


def test_vanilla_gan_is_the_cross_entropy_of_logits():
    def s(logit):
        return 1 / (1 + np.exp(-logit))

    real = -(np.log(s(1)) + np.log(s(3))) / 2 - np.log(s(2))
    fake = -(np.log(1 - s(0)) + np.log(1 - s(2))) / 2 - np.log(1 - s(-1))
    assert float(losses.vanilla_discriminator(REAL, FAKE)) == pytest.approx(real + fake, rel=1e-5)
    assert float(losses.vanilla_generator(FAKE)) == pytest.approx(-(np.log(s(0)) + np.log(s(2))) / 2 - np.log(s(-1)), rel=1e-5)


def test_vanilla_gan_stays_finite_for_a_certain_discriminator():
    assert float(losses.vanilla_generator([np.array([-1000.0], "f")])) == pytest.approx(1000)


def test_hinge_stops_at_the_margin():
    # real: max(0, 1-1), max(0, 1-3) and max(0, 1-2): 0; fake: (1 + 3) / 2 and max(0, 1 - 1) = 0
    assert float(losses.hinge_discriminator(REAL, FAKE)) == pytest.approx(2)
    assert float(losses.hinge_discriminator(FAKE, REAL)) == pytest.approx((1 + 0) / 2 + 2 + (2 + 4) / 2 + 3)
    assert float(losses.hinge_generator(FAKE)) == pytest.approx(-(1 - 1))


def test_wasserstein_is_the_difference_of_means():
    assert float(losses.wgan_discriminator(REAL, FAKE)) == pytest.approx((1 - 2) + (-1 - 2))
    assert float(losses.wgan_generator([np.array([3.0, 5.0], "f"), np.array([1.0], "f")])) == pytest.approx(-5)


def test_the_gradient_penalty_is_of_each_images_norm():
    gradient = np.zeros((2, 2, 2, 3), "f")
    gradient[0, 0, 0, 0], gradient[0, 1, 1, 2] = 3, 4  # norm 5; the other image's is 0
    assert float(losses.gradient_penalty(gradient)) == pytest.approx((16 + 1) / 2, rel=1e-5)


def test_the_perceptual_loss_weighs_deeper_maps_more():
    maps = [np.full((1, 2, 2, 3), value, "f") for value in (32, 16, 8, 4, 1)]
    assert float(losses.perceptual(maps, [0 * m for m in maps])) == pytest.approx(5)
    x = tf.constant(maps[4])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = losses.perceptual([x] * 5, [0 * m for m in maps[:4]] + [maps[4]])
    assert tape.gradient(loss, x) is None  # the real side


def test_feature_matching_is_divided_by_the_number_of_scales():
    real = {"0/map1": np.array([1.0, 2.0], "f"), "1/map1": np.array([0.0], "f")}
    fake = {"0/map1": np.array([2.0, 4.0], "f"), "1/map1": np.array([5.0], "f")}
    assert float(losses.feature_matching(real, fake, 2)) == pytest.approx((1.5 + 5) / 2)


def test_feature_matching_sends_no_gradient_into_the_real_side():
    real, fake = tf.Variable([1.0]), tf.Variable([3.0])
    with tf.GradientTape() as tape:
        loss = losses.feature_matching({"a": real * 1}, {"a": fake * 1}, 1)
    gradients = tape.gradient(loss, [real, fake])
    assert gradients[0] is None
    assert float(gradients[1][0]) == 1


def test_the_range_penalty_is_the_mean_squared_distance_from_the_range():
    assert float(losses.range_penalty(np.array([-4.0, -2.0, 0.5, 3.0], "f"), -2, 2)) == pytest.approx((4 + 0 + 0 + 1) / 4)


def test_rate_is_the_cross_entropy_per_pixel():
    assignment = np.array([[[[[1, 0], [0, 1]]]]], "f")  # one position, two channels, L = 2
    frequencies = np.array([[0.5, 0.5], [0.75, 0.25]], "f")
    assert float(losses.rate(assignment, frequencies)) == pytest.approx((1 + 2) / 256)
    two = np.repeat(assignment, 2, axis=2)
    m = np.array([[[[1], [0]]]], "f")  # of two positions one is coded
    assert float(losses.rate(two, frequencies, m)) == pytest.approx((1 + 2) / 2 / 256)
