"""The page's modules, run by Node, and the golden files that they are tested against."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from page import assert_decodes_alike, needs_node
from PIL import ExifTags, Image

from config import config_train
from gcodec import Codec, read_image
from gcodec.checkpoint import read_checkpoint
from gcodec.container import unpack
from gcodec.labels import Classes, LabelMap

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
WEB = PROJECT / "web"
sys.path[:0] = [str(HERE), str(WEB)]

import serve  # noqa: E402

NODE = shutil.which("node")


def test_golden_files_are_what_python_makes():
    import make_golden

    assert (HERE / "golden/golden.json").read_text() == make_golden.text()
    found = {name: make_golden.model_arrays(**getattr(make_golden, name.upper())) for name in ("context", "classes")}
    for name, arrays in (found | {"arrays": make_golden.arrays()}).items():
        with np.load(HERE / f"golden/{name}.npz") as stored:
            assert {key: value.tobytes() for key, value in stored.items()} == {k: v.tobytes() for k, v in arrays.items()}


@pytest.mark.skipif(NODE is None, reason="the page's modules are tested by Node, which is not installed")
def test_modules():
    done = subprocess.run([NODE, "--test", str(HERE / "modules.test.mjs")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "# fail 0" in done.stdout
    assert "# pass 0" not in done.stdout


@needs_node
def test_label_maps_and_heat_maps_decode_as_in_python(tmp_path):
    codec = Codec.load(PROJECT / "checkpoints/camvid_sc_c8")
    image = read_image(PROJECT / "images/kodim21.png")[100:400, :333]
    classes = np.kron(np.arange(120, dtype=np.uint8).reshape(10, 12) * 7 % 12, np.ones((30, 30), np.uint8))[:300, :333]
    assert_decodes_alike(codec, image, LabelMap(classes, preserved=classes < 7), tmp_path)


def test_models_that_the_page_offers(tmp_path):
    """Those that have ONNX graphs, photo models first, from few channels to many, with the fingerprints of their files."""
    for name in ("photo_c16", "photo_c4", "photo_c8", "camvid_sc_c8"):
        shutil.copytree(PROJECT / "checkpoints" / name, tmp_path / name, ignore=shutil.ignore_patterns("*.onnx"))
        if name != "photo_c8":
            (tmp_path / name / "generator.onnx").touch()
    found = serve.models(tmp_path)
    assert [model["name"] for model in found] == ["photo_c4", "photo_c16", "camvid_sc_c8"]
    assert [model["channels"] for model in found] == [4, 16, 8]
    assert [model["label_map"] for model in found] == [False, False, True]
    assert all(model["compresses"] for model in found)
    assert bytes.fromhex(found[0]["fingerprint"]) == read_checkpoint(PROJECT / "checkpoints/photo_c4").fingerprint


@pytest.mark.parametrize(("knobs", "expected"), [
    ({}, True),
    ({"semantic_code": "none"}, True),
    ({"semantic_code": "learned"}, False),
    ({"use_instances": True}, False),
    ({"classes": ""}, False),
])  # fmt: skip
def test_which_label_maps_the_page_takes(knobs, expected):
    labels = {"use_conditional_GAN": True, "n_classes": 2, "classes": "Sky 1 2 3, Void 0 0 0"}
    assert serve.compresses(config_train(**(labels | knobs))) == expected


def missing_for_the_page() -> str:
    """Return what the tests of the whole page lack on this machine, and where it comes from; "" if they lack nothing."""
    if NODE is None or not Path("/usr/bin/chromium").exists():
        return "Node 20 or newer and /usr/bin/chromium (Debian: `apt install nodejs npm chromium`)"
    if not all((WEB / "node_modules" / name).is_dir() for name in ("playwright-core", "fflate", "onnxruntime-web")):
        return "playwright-core and the page's libraries (`npm ci --ignore-scripts` in web/)"
    if not (PROJECT / "checkpoints/photo_c8/generator.onnx").exists():
        return "a model with ONNX graphs"
    return ""


needs_browser = pytest.mark.skipif(missing_for_the_page() != "", reason=f"the page's tests need {missing_for_the_page()}")


def drive(script: str, folder: Path, *options: str) -> None:
    """Run one of the scripts beside this file, which drive the page in Chromium, and check that it came to its end."""
    command = [NODE, str(HERE / script), "--out", str(folder), "--python", sys.executable, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0 and "all well" in done.stdout, done.stdout + done.stderr


def assert_same_file(theirs: Path, ours: Path) -> None:
    """Check that the page made the command's file. A tie of the quantizer may fall differently, which costs few bytes."""
    page, command = unpack(theirs.read_bytes()), unpack(ours.read_bytes())
    assert page.header == command.header
    assert abs(len(page.payload) - len(command.payload)) <= 4


def write_label_map(path: Path) -> None:
    """Write a label map for kodim21, in the colours of camvid_sc_c8's classes: bands, and a Car in front of a Building."""
    classes = Classes.parse(read_checkpoint(PROJECT / "checkpoints/camvid_sc_c8").config.classes, 12)
    indices = np.repeat(classes.indices("Sky,Tree,Building,Road"), 128)[:, None].repeat(768, axis=1)
    indices[300:400, 200:500] = classes.indices("Car")
    Image.fromarray(classes.colours[indices]).save(path)


@needs_browser
def test_page(tmp_path):
    """In Chromium, files go both ways: what the page writes is what Python writes, and it shows what Python decodes.

    The page is the folder that `make web-dist` writes, on a server that knows nothing of it.
    """
    import compress
    import decompress

    for photo, name in {"kodim21": "kodim21", "kodim23": "given"}.items():
        arguments = ["-i", str(PROJECT / f"images/{photo}.png"), "-o", str(tmp_path / f"python/{name}.gc")]
        assert compress.main(arguments) == 0
    shutil.copy(tmp_path / "python/given.gc", tmp_path)
    scaled = Codec.load(PROJECT / "checkpoints/photo_c4").encode(read_image(PROJECT / "images/kodim23.png"), scale=9)
    (tmp_path / "scaled.gc").write_bytes(scaled)
    write_label_map(tmp_path / "labels.png")
    street = ["-r", str(PROJECT / "checkpoints/camvid_sc_c8"), "-i", str(PROJECT / "images/kodim21.png")]
    street += ["-sm", str(tmp_path / "labels.png")]
    assert compress.main([*street, "-o", str(tmp_path / "python/labelled.gc")]) == 0
    assert compress.main([*street, "--preserve", "Building,Car", "-o", str(tmp_path / "selected.gc")]) == 0
    assert serve.main(["--dist", str(tmp_path / "dist")]) == 0
    drive("page.mjs", tmp_path, "--dist", str(tmp_path / "dist"))
    for name in ("kodim21", "labelled"):
        assert_same_file(tmp_path / f"{name}.gc", tmp_path / f"python/{name}.gc")
    models = {"kodim21": "photo_c8", "given": "photo_c8", "scaled": "photo_c4", "selected": "camvid_sc_c8"}
    for name, checkpoint in models.items():
        output = tmp_path / f"python/shown_{name}.png"
        command = ["-r", str(PROJECT / "checkpoints" / checkpoint), "-i", str(tmp_path / f"{name}.gc"), "-o", str(output)]
        assert decompress.main(command) == 0
        difference = np.abs(np.array(Image.open(tmp_path / f"{name}.png")).astype(int)[..., :3] - np.array(Image.open(output)))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3


@needs_browser
def test_states_of_the_page(tmp_path):
    """In each state, at two window sizes, the page says and offers what belongs to it, and nothing of another file or model."""
    import compress

    photo = Image.open(PROJECT / "images/kodim21.png").convert("RGB").crop((200, 150, 456, 342))
    photo.save(tmp_path / "photo.png")
    photo.crop((0, 100, 256, 108)).save(tmp_path / "panorama.png")
    Image.open(PROJECT / "images/kodim23.png").convert("RGB").crop((200, 150, 360, 246)).save(tmp_path / "second.png")
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    photo.crop((0, 0, 160, 96)).save(tmp_path / "turned.webp", lossless=True, exif=turned)
    commands = {"photo": ["photo.png"], "turned": ["turned.webp"], "fitted": ["photo.png", "--max-bytes", "340"]}
    for name, (source, *options) in commands.items():
        assert compress.main(["-i", str(tmp_path / source), "-o", str(tmp_path / f"python/{name}.gc"), *options]) == 0
    drive("states.mjs", tmp_path)
    for name in commands:
        assert_same_file(tmp_path / f"{name}.gc", tmp_path / f"python/{name}.gc")
    with zipfile.ZipFile(tmp_path / "all.zip") as file:
        assert file.namelist() == ["photo.gc", "second.gc", "photo.png"]
        assert file.read("photo.gc") == (tmp_path / "photo.gc").read_bytes()


@pytest.mark.slow
@needs_browser
def test_page_on_webgpu(tmp_path):
    """It writes the file that Python writes, and shows the picture that Python decodes, within one level."""
    codec = Codec.load(PROJECT / "checkpoints/photo_c8")
    image = read_image(PROJECT / "images/kodim21.png")[200:264, 100:164]
    Image.fromarray(image).save(tmp_path / "photo.png")
    data = codec.encode(image)
    (tmp_path / "given.gc").write_bytes(data)
    drive("webgpu.mjs", tmp_path)
    assert (tmp_path / "photo.gc").read_bytes() == data
    shown = np.array(Image.open(tmp_path / "given.png")).astype(int)[..., :3]
    assert np.abs(shown - codec.decode(data)).max() <= 1
