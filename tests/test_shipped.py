"""What ships: the checkpoint, the photos and the sample tables."""

import math

import numpy as np
import pytest
from conftest import PROJECT

import compress
import decompress
from config import config_test, directories
from data import Data
from model import Model
from utils import Utils

CHECKPOINT = PROJECT / directories().default_checkpoint


@pytest.fixture(scope="module")
def model():
    return Model.load(CHECKPOINT)


@pytest.mark.parametrize("name", ["kodim21.png", "kodim23.png"])
def test_the_shipped_model_compresses_a_photo_to_a_small_file_that_resembles_it(name, model):
    image = Data.read_image(PROJECT / "images" / name, 10**7)
    data = compress.encode(model, image)
    back = decompress.decode(model, data, config_test())
    assert 8 * len(data) / math.prod(image.shape[:2]) < 0.06
    assert Utils.psnr(image, back) > 21 and Utils.ms_ssim(image, back) > 0.75


def test_the_demo_command_works_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert compress.main(["-i", str(PROJECT / "images/kodim21.png"), "-o", "demo/kodim21.png"]) == 0
    report = capsys.readouterr().out
    assert all(word in report for word in ("bytes", "bits per pixel", "PSNR", "MS-SSIM", "demo/kodim21.png"))


def test_reconstructions_have_no_colour_cast_and_no_checkerboard(model):
    image = Data.read_image(PROJECT / "images/kodim21.png", 10**7)
    back = decompress.decode(model, compress.encode(model, image), config_test())
    assert np.abs(image.mean((0, 1)) - back.mean((0, 1))).max() < 6  # of 255
    sky = back[30:130, 500:740].mean(-1)  # a checkerboard is energy at the highest frequency in both directions
    spectrum = np.abs(np.fft.fft2(sky - sky.mean())) ** 2
    assert spectrum[50, 120] < 1e-4 * spectrum.sum()


def test_what_ships_is_small():
    files = [p for p in CHECKPOINT.rglob("*") if p.is_file()]
    assert {p.name for p in files} == {"config.json", "model.npz"}
    assert sum(p.stat().st_size for p in files) < 15e6
