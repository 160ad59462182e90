"""Finding the model of a file, without a network."""

import numpy as np
import pytest
from conftest import PROJECT

from config import config_train
from gcodec.checkpoint import CENTERS, FINGERPRINT_FILE, keep_fingerprint, read_checkpoint, write_checkpoint
from gcodec.entropy import integer_frequencies
from gcodec.finding import MOST_NAMES, Checkpoints

CONFIG = config_train(width=32)
WEIGHTS = {CENTERS: np.array(CONFIG.centers, np.float32)}


def write(folder, seed: int) -> bytes:
    """Write a checkpoint of no network; return its fingerprint."""
    write_checkpoint(folder, CONFIG, WEIGHTS, integer_frequencies(np.random.default_rng(seed).random((8, 5)) + 0.1))
    return read_checkpoint(folder).fingerprint


def test_checkpoints_are_found_however_deep_they_are_and_without_reading_them(tmp_path):
    marks = {
        name: write(tmp_path / name, seed) for seed, name in enumerate(["a", "run/ckpt-1", "run/ckpt-2", "old/runs/b/ckpt-3"])
    }
    for name in marks:
        (tmp_path / name / "model.npz").unlink()
    models = Checkpoints([tmp_path])
    for name, mark in marks.items():
        assert models.find(mark) == tmp_path / name and models.name(tmp_path / name) == name
    assert models.find(b"else") is None


def test_a_checkpoint_that_keeps_no_fingerprint_or_none_that_can_be_read_is_hashed(tmp_path):
    marks = [write(tmp_path / name, seed) for seed, name in enumerate("ab")]
    (tmp_path / "a" / FINGERPRINT_FILE).unlink()
    (tmp_path / "b" / FINGERPRINT_FILE).write_text("text")
    assert [Checkpoints([tmp_path]).find(mark) for mark in marks] == [tmp_path / "a", tmp_path / "b"]


@pytest.mark.parametrize("keeps", [True, False])
def test_a_checkpoint_that_claims_the_fingerprint_of_another_does_not_hide_it(tmp_path, keeps):
    mark = write(tmp_path / "mine", 0)
    write(tmp_path / "forged", 1)
    keep_fingerprint(tmp_path / "forged" / FINGERPRINT_FILE, mark)
    if not keeps:
        (tmp_path / "mine" / FINGERPRINT_FILE).unlink()
    assert Checkpoints([tmp_path]).find(mark) == tmp_path / "mine"


def test_the_known_models_are_named_each_once_and_damaged_ones_as_such(tmp_path):
    mark = write(tmp_path / "runs/a", 0)
    (tmp_path / "runs/b").mkdir()
    (tmp_path / "runs/b/config.json").write_text("{")
    default = write(tmp_path / "default", 1)
    models = Checkpoints([tmp_path / "runs", tmp_path / "nowhere", tmp_path / "runs/a", tmp_path / "default"])
    assert models.described() == f"a ({mark.hex()}), b (damaged), default ({default.hex()})"
    assert Checkpoints([tmp_path / "nowhere"]).described() == "none"


def test_of_many_models_some_are_named(tmp_path):
    for i in range(MOST_NAMES + 3):
        (tmp_path / f"{i:02d}").mkdir()
        (tmp_path / f"{i:02d}/config.json").touch()
        keep_fingerprint(tmp_path / f"{i:02d}" / FINGERPRINT_FILE, bytes([0, 0, 0, i]))
    assert Checkpoints([tmp_path]).described().endswith(f"{MOST_NAMES - 1:02d} ({MOST_NAMES - 1:08x}), and 3 more")


@pytest.mark.parametrize("name", ["photo_c4", "photo_c8", "photo_c16", "camvid_sc_c8"])
def test_what_ships_is_found(name):
    folder = PROJECT / "checkpoints" / name
    assert Checkpoints([PROJECT / "checkpoints"]).find(read_checkpoint(folder).fingerprint) == folder
