"""PSNR and MS-SSIM."""

import time

import numpy as np
import pytest
from conftest import photo

from evaluation.metrics import ms_ssim, psnr, psnr_quarter


def test_psnr_by_hand():
    a = np.zeros((2, 2, 3), np.uint8)
    b = a.copy()
    b[0, 0, 0] = 255  # MSE 255^2 / 12
    assert psnr(a, b) == pytest.approx(10 * np.log10(12))
    assert psnr(a, a) == float("inf")


def test_psnr_at_a_quarter_of_the_size_sees_structure_and_not_texture():
    flat = np.full((64, 96, 3), 100, np.uint8)
    board = flat + 50 * (np.indices((64, 96)).sum(axis=0) % 2)[..., None].astype(np.uint8) - 25  # of single pixels
    assert psnr(flat, board) < 21 and psnr_quarter(flat, board) > 48
    assert psnr_quarter(flat, flat + 10) == pytest.approx(psnr(flat, flat + 10))
    assert psnr_quarter(flat, flat) == float("inf")
    assert psnr_quarter(flat[:1, :2], board[:1, :1].repeat(2, axis=1)) == pytest.approx(psnr(flat[:1, :2], flat[:1, :2] - 25))


@pytest.mark.parametrize("size", [(161, 161), (180, 240), (163, 331), (257, 170), (512, 768)])
@pytest.mark.parametrize("damage", ["noise", "blocks", "gray", "inverted"])
def test_ms_ssim_is_that_of_tensorflow(size, damage):
    import tensorflow as tf

    a = photo(*size)
    if damage == "noise":
        noise = np.random.default_rng(0).normal(0, 25, a.shape)
        b = np.clip(a + noise, 0, 255).astype(np.uint8)
    elif damage == "blocks":
        b = np.kron(a[::8, ::8], np.ones((8, 8, 1), np.uint8))[: size[0], : size[1]]
    elif damage == "gray":
        b = np.full_like(a, 128)
    else:
        b = 255 - a  # negative structure counts as 0
    expected = float(tf.image.ssim_multiscale(a.astype(np.float32), b.astype(np.float32), max_val=255))
    assert ms_ssim(a, b) == pytest.approx(expected, abs=1e-4)


def test_ms_ssim_of_equal_images_is_1_and_of_small_ones_there_is_none():
    assert ms_ssim(photo(170, 200), photo(170, 200)) == pytest.approx(1, abs=1e-6)
    assert ms_ssim(photo(160, 500), photo(160, 500)) is None


def test_ms_ssim_takes_less_than_the_encoder():
    a, b = photo(512, 768), photo(512, 768, seed=1)
    start = time.perf_counter()
    ms_ssim(a, b)
    assert time.perf_counter() - start < 2  # 0.16 s on a quiet core
