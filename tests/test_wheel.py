"""What `pip install .` installs works from any folder, without TensorFlow and without the rest of the project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, photo
from PIL import Image

from gcodec import Codec, read_image

BLOCK = "import sys; sys.modules.update(dict.fromkeys(('tensorflow', 'keras', 'pandas', 'scipy', 'tqdm', 'onnx')))"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder into which the wheel is installed, beside the dependencies that are here already."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    (wheel,) = folder.glob("gcodec-*.whl")
    install = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    subprocess.run([*install, "--target", folder / "site", wheel], check=True)
    (folder / "site/sitecustomize.py").write_text(BLOCK)
    return folder / "site"


@pytest.fixture
def run(site, tmp_path, monkeypatch):
    """Run Python with what the wheel installed, in a folder of its own; return what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, status: int = 0) -> str:
        environment = os.environ | {"PYTHONPATH": str(site)}
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
        assert done.returncode == status, done.stderr
        return done.stderr if status else done.stdout

    return run


PROGRAM = """
import sys
from PIL import Image
import gcodec
from gcodec import Codec, read_image
assert gcodec.__file__.startswith(sys.argv[1]) and not set(sys.modules) & {"config", "utils", "onnxruntime"}
data = Codec.load("photo_c4").encode(read_image("a.png"))
open("a.gc", "wb").write(data)
assert Codec.load("photo_c4").decode(data).shape == (40, 60, 3)
assert Image.open("a.gc").convert("L").size == (60, 40)
"""


def test_the_package_works_from_any_folder_and_makes_the_same_files(run, site):
    Image.fromarray(photo(40, 60)).save("a.png")
    run("-c", PROGRAM, str(site))
    assert Path("a.gc").read_bytes() == Codec.load(PROJECT / "checkpoints/photo_c4").encode(photo(40, 60))
    assert (site / "gcodec/py.typed").exists()


def test_its_command_compresses_inspects_and_decompresses_and_tells_a_mistake_in_a_line(run, site):
    gcodec = str(site / "bin/gcodec")
    Image.fromarray(photo(40, 60)).save("a.png")
    run(gcodec, "compress", "a.png", "a.gc")
    assert "photo_c8" in run(gcodec, "inspect", "a.gc") == run("-m", "gcodec", "a.gc")
    run(gcodec, "decompress", "a.gc", "b.png")
    assert read_image("b.png").shape == (40, 60, 3)
    assert "is there already" in run(gcodec, "decompress", "a.gc", "b.png", status=2)
    assert run(gcodec, "compress", "no.png", "b.gc", status=2) == "gcodec: error: no.png: no such file\n"
