"""The small installation, requirements-codec.txt alone in a new environment, runs both commands."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import PROJECT, label_map
from PIL import Image

from gcodec.pictures import read_image

ABSENT = ("tensorflow", "keras", "pandas", "scipy", "tqdm", "matplotlib", "h5py", "tables")


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> str:
    """The interpreter of an environment that has what requirements-codec.txt names. Skips where pip reaches no index."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / "bin/python")
    install = [python, "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check"]
    install += ["-r", PROJECT / "requirements-codec.txt"]
    done = subprocess.run(install, capture_output=True, text=True)
    unreachable = ("No matching distribution", "connection", "Temporary failure in name resolution")
    if done.returncode and any(sign.lower() in done.stderr.lower() for sign in unreachable):
        reach = subprocess.run([python, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "numpy"], capture_output=True)
        if reach.returncode:
            pytest.skip(f"pip cannot reach a package index: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return python


def run(python: str, *arguments) -> str:
    done = subprocess.run([python, *map(str, arguments)], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_nothing_heavy_is_installed(python):
    run(python, "-c", f"import importlib.util as i; assert not [n for n in {ABSENT} if i.find_spec(n)]")


def test_help(python):
    for command in (["compress.py"], ["decompress.py"], ["-m", "gcodec"]):
        assert "usage:" in run(python, *command, "--help")


def test_a_photo(python, tmp_path):
    run(python, "compress.py", "-i", "images/kodim21.png", "-o", tmp_path / "a.png")
    run(python, "decompress.py", "-i", tmp_path / "a.gc", "-o", tmp_path / "b.png")
    shown, written = (read_image(tmp_path / name, 10**6) for name in ("a.png", "b.png"))
    np.testing.assert_array_equal(shown[: len(written), -written.shape[1] :], written)


def test_a_folder(python, tmp_path):
    (tmp_path / "photos").mkdir()
    for k, size in enumerate([(64, 48), (50, 70)]):
        Image.open(PROJECT / "images/kodim21.png").resize(size).save(tmp_path / f"photos/{k}.png")
    assert "over 2 images" in run(python, "compress.py", "-i", tmp_path / "photos", "-o", tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"0.gc", "0.png", "1.gc", "1.png", "results.csv"}


def test_a_label_map(python, tmp_path):
    Image.open(PROJECT / "images/kodim21.png").resize((96, 64)).save(tmp_path / "street.png")
    Image.fromarray(label_map(64, 96)).save(tmp_path / "labels.png")
    ours = ("-r", "checkpoints/camvid_sc_c8")
    run(python, "compress.py", *ours, "-i", tmp_path / "street.png", "-sm", tmp_path / "labels.png", "-o", tmp_path / "a.gc")
    run(python, "decompress.py", "-i", tmp_path / "a.gc", "-o", tmp_path / "b.png")
    assert "camvid_sc_c8" in run(python, "-m", "gcodec", tmp_path / "a.gc")
    assert read_image(tmp_path / "b.png", 10**6).shape == (64, 96, 3)
