"""The benchmarks run, each at a tiny size, so that they cannot rot."""

import importlib.util
import json
import re
import subprocess
import sys

import page
import pytest
from conftest import PROJECT, TINY, photo
from PIL import Image

from commands.loading import load_codec


def benchmark(name: str):
    """Import a benchmark, which is a command and not a module of the project."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", PROJECT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def tiny(*names: str) -> list[str]:
    """Return the command-line arguments that set these knobs to a tiny size."""
    return [part for name in names for part in ("-k", f"{name}={TINY[name]}")]


def test_compress(checkpoint, photos, capsys):
    arguments = ["-r", str(checkpoint), "-i", str(photos / "0.png"), "--copies", "2", "--repeat", "1"]
    assert benchmark("throughput")(arguments) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"\d\.\d{4} s$", out, re.MULTILINE)) == 8
    assert 0 < float(out.split("peak memory:")[1].split()[0]) < 20
    runs = re.findall(r"^folder, .{22} +(\S+) images/s \((\S+) times\), (\S+) CPU seconds an image", out, re.MULTILINE)
    assert len(runs) == 3 and runs[0][1] == "1.00" and all(float(figure) > 0 for run in runs for figure in run)


def test_workers(checkpoint, photos):
    arguments = [str(photos), "-r", str(checkpoint), "--workers", "1", "--repeat", "1", "--empty", "3"]
    out = subprocess.run(
        [sys.executable, PROJECT / "benchmarks/scaling.py", *arguments], capture_output=True, text=True, check=True
    ).stdout
    assert len(re.findall(r"^(?:this process|--workers 1) +\d+\.\d\d images/s \(\d+\.\d\d times\)$", out, re.MULTILINE)) == 2
    assert 0.05 < float(out.split("--workers 1: peak memory ")[1].split()[0]) < 20
    assert len(re.findall(r"^engine, \d+ bytes a result: \d+\.\d\d ms an image$", out, re.MULTILINE)) == 2


def test_entropy(checkpoint, photos, capsys):
    assert benchmark("entropy_coder")(["-r", str(checkpoint), "-i", str(photos), "--sizes", "100x60", "64x64"]) == 0
    out = capsys.readouterr().out
    assert 0 < float(out.split(" bits per symbol")[0].split()[-1]) < 2.4  # log2(5) is 2.32
    sizes = [line.split()[:2] for line in out.splitlines()[-2:]]
    assert sizes == [["100x60", str(7 * 4 * 8)], ["64x64", str(4 * 4 * 8)]]


def test_entropy_of_a_folder_without_images_is_one_line(checkpoint, tmp_path, capsys):
    (tmp_path / "below").mkdir()
    Image.fromarray(photo(40, 40)).save(tmp_path / "below/0.png")
    assert benchmark("entropy_coder")(["-r", str(checkpoint), "-i", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_knobs(photos, tmp_path, capsys):
    arguments = ["-ds", str(photos), "--val", str(photos), "--images", "1", "--work", str(tmp_path), "--steps", "1"]
    arguments += tiny("width", "n_residual_blocks", "discriminator_width", "crop_size", "batch_size")
    case = "sample_noise, noise_mode=map"
    assert benchmark("knob_effects")([*arguments, "--case", case]) == 0
    first = capsys.readouterr().out.splitlines()[1]
    bytes_, bpp, psnr, ms_ssim, noise = first.removeprefix(case).split()
    assert float(bpp) == pytest.approx(8 * float(bytes_) / (80 * 96), abs=1e-4)
    assert 0 < float(psnr) < 30 and ms_ssim == "n/a" and float(noise) >= 0
    assert benchmark("knob_effects")([*arguments, "--case", case]) == 0
    assert capsys.readouterr().out.splitlines()[1] == first  # not trained again
    assert benchmark("knob_effects")([*arguments, "--case", "no GAN (distortion alone)", "-k", "width=7"]) == 1
    assert "knob width" in capsys.readouterr().out


def test_train_step(capfd):
    knobs = [
        part for name in ("n_residual_blocks", "discriminator_width", "n_scales") for part in ("-k", f"{name}={TINY[name]}")
    ]
    assert benchmark("train_step")(["--case", "32", "64", "64", "--steps", "1", *knobs]) == 0
    line = capfd.readouterr().out.splitlines()[-1]
    assert re.match(r"W=32 +64x64 +\d+\.\d+ s/step +\d+\.\d+ GB +1\.00 +1\.00", line)


@pytest.mark.slow
def test_train_step_compares_recipes(tmp_path, capfd):
    recipe = tmp_path / "tiny.json"
    recipe.write_text(json.dumps(TINY))
    assert benchmark("train_step")(["--recipes", str(recipe), "--steps", "1"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["distortion", "gan"]
    assert all(re.search(r" megapixels/s +\d+\.\d+ GB +1\.00 +1\.00  .*tiny.json$", line) for line in lines)
    recipe.write_text(json.dumps(TINY | {"crop_size": 0}))
    assert benchmark("train_step")(["--recipes", str(recipe)]) == 2
    assert "crop_size" in capfd.readouterr().err


def test_runtime(photos, capsys):
    shipped = str(PROJECT / "checkpoints/photo_c4")  # it has graphs
    assert benchmark("runtimes")(["-r", shipped, "-i", str(photos / "0.png"), "--repeat", "1"]) == 0
    rows = [line.rsplit(maxsplit=3) for line in capsys.readouterr().out.splitlines()[1:]]
    assert [name for name, *_ in rows] == [
        "compress.py, s", "compress.py, MB", "decompress.py, s", "decompress.py, MB", "decoding again, s",
    ]  # fmt: skip
    assert all(float(onnx) >= 0 and float(tensorflow) > 0 for _, onnx, tensorflow, _ in rows)


@page.needs_node
def test_page(tmp_path):
    folder, file = PROJECT / "checkpoints/photo_c8", tmp_path / "small.gc"
    data = load_codec(folder).encode(photo(40, 60))
    file.write_bytes(data)
    command = [page.NODE, PROJECT / "benchmarks/page_speed.mjs", folder, file, "1"]
    first, *rows = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout.splitlines()
    assert first == f"small.gc: 60x40, {len(data)} bytes"
    found = {
        name.strip(): float(seconds)
        for name, seconds in (re.match(r"(.{16})(.*) s of CPU time$", row).groups() for row in rows)
    }
    assert list(found) == ["loading", "decoding", "decoding again"]
    assert all(0 < seconds < 300 for seconds in found.values())
