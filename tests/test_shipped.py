"""What ships: the checkpoint, the photos and the sample tables."""

import dataclasses
import math
import os
import subprocess
import sys
from collections import Counter

import fuzz
import numpy as np
import pytest
from conftest import PROJECT

import compress
from config import directories
from evaluation.metrics import ms_ssim, psnr
from evaluation.segmentation import Segmenter
from gcodec import Codec, read_image
from gcodec.labels import Classes, LabelMap, with_boundaries
from gcodec.selection import heat_map

CHECKPOINT = PROJECT / directories().default_checkpoint


@pytest.fixture(scope="module")
def codec():
    return Codec.load(CHECKPOINT)


@pytest.mark.parametrize(
    ("checkpoint", "most_bpp", "least_psnr", "least_ms_ssim"),
    [
        ("photo_c4", 0.014, 20.8, 0.75),
        ("photo_c8", 0.028, 22.2, 0.83),
        ("photo_c16", 0.07, 22.5, 0.86),
    ],
)
def test_the_shipped_models_compress_photos_to_small_files_that_resemble_them(checkpoint, most_bpp, least_psnr, least_ms_ssim):
    codec = Codec.load(PROJECT / "checkpoints" / checkpoint)
    for name in ("kodim21.png", "kodim23.png"):
        image = read_image(PROJECT / "images" / name, 10**7)
        data = codec.encode(image)
        back = codec.decode(data)
        assert 8 * len(data) / math.prod(image.shape[:2]) < most_bpp
        assert psnr(image, back) > least_psnr and ms_ssim(image, back) > least_ms_ssim


def test_the_demo_command_works_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert compress.main(["-i", str(PROJECT / "images/kodim21.png"), "-o", "demo/kodim21.png"]) == 0
    report = capsys.readouterr().out
    assert all(word in report for word in ("bytes", "bits per pixel", "PSNR", "MS-SSIM", "demo/kodim21.png"))


def test_reconstructions_have_no_colour_cast_and_no_checkerboard(codec):
    image = read_image(PROJECT / "images/kodim21.png", 10**7)
    back = codec.decode(codec.encode(image))
    assert np.abs(image.mean((0, 1)) - back.mean((0, 1))).max() < 6  # of 255
    sky = back[30:130, 500:740].mean(-1)  # a checkerboard is energy at the highest frequency in both directions
    spectrum = np.abs(np.fft.fft2(sky - sky.mean())) ** 2
    assert spectrum[50, 120] < 1e-4 * spectrum.sum()


CODE_AND_DECODE = """
import sys, hashlib
from pathlib import Path
from gcodec import Codec, read_image
from gcodec.container import unpack
codec = Codec.load("{checkpoint}")
own = Path(sys.argv[1])
own.write_bytes(codec.encode(read_image("{image}")[:160, :240]))
for path in sys.argv[1:]:
    file = unpack(Path(path).read_bytes())
    h, w = (-(-side // 16) for side in file.header.coded_size)
    shape = (h, w, file.header.channels or codec.config.channel_bottleneck)
    symbols = codec.checkpoint.entropy_models["symbols"].decode(file.payload, shape)
    print(Path(path).name, hashlib.sha256(symbols.tobytes()).hexdigest())
"""


def test_other_threads_and_other_kernels_give_the_same_symbols_from_the_same_file(tmp_path):
    """Each process makes a file and decodes its own, and those of the processes before."""
    code = CODE_AND_DECODE.format(checkpoint=CHECKPOINT, image=PROJECT / "images/kodim21.png")
    threads = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    seen: dict[str, set] = {}
    files: list[str] = []
    for k, settings in enumerate([{}, dict.fromkeys(threads, "1"), {"TF_ENABLE_ONEDNN_OPTS": "0"}]):
        files.insert(0, str(tmp_path / f"{k}.gc"))
        command = [sys.executable, "-c", code, *files]
        result = subprocess.run(command, cwd=PROJECT, env=os.environ | settings, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        for name, digest in map(str.split, result.stdout.splitlines()):
            seen.setdefault(name, set()).add(digest)
    assert len(seen) == 3 and all(len(digests) == 1 for digests in seen.values())


def test_damaged_and_forged_files_are_clean_errors(codec):
    """More of these: python3 tests/fuzz.py"""
    photo = read_image(PROJECT / "images/kodim21.png", 10**7)
    watch = fuzz.fuzz(codec, [photo[:96, :160], photo[100:101, :1]], 600)
    assert watch.counts.total() == 600 and watch.grown < fuzz.MAX_BYTES
    assert sum(n for (_, outcome), n in watch.counts.items() if outcome == "clean error") > 480


def test_packets_that_are_damaged_forged_or_mixed_give_the_picture_of_the_others_or_a_clean_error():
    """More of these: python3 tests/fuzz.py --files 0 --packets 10000"""
    photo = read_image(PROJECT / "images/kodim21.png", 10**7)
    codec = Codec.load(PROJECT / "checkpoints/photo_c4")
    watch = fuzz.fuzz_packets(codec, [photo[:64, :96], photo[64:128, :96], photo[100:101, :1]], 150)
    outcomes = Counter(outcome for (_, outcome), n in watch.counts.items() for _ in range(n))
    assert outcomes["clean error"] > 30 and outcomes["the picture of what arrived whole"] > 30 and watch.grown < fuzz.MAX_BYTES


def test_the_context_model_halves_the_bytes_of_the_tables(codec):
    symbols = codec.contents(read_image(PROJECT / "images/kodim21.png")).symbols
    context_model = codec.checkpoint.entropy_models["symbols"]
    tables, context = codec.checkpoint.static_tables.encode(symbols), context_model.encode(symbols)
    assert len(context) < 0.55 * len(tables)
    assert len(context) <= 1.01 * context_model.information(symbols).sum() / 8 + 8


@pytest.mark.parametrize("name", ["photo_c4", "photo_c8", "photo_c16", "camvid_sc_c8"])
def test_what_ships_is_small(name):
    files = [p for p in (PROJECT / "checkpoints" / name).rglob("*") if p.is_file()]
    contexts = {"context.npz"} | ({"context_code.npz", "context_mask.npz"} if name == "camvid_sc_c8" else set())
    graphs = {"encoder.onnx", "generator.onnx", "graphs.json"}
    assert {p.name for p in files} == {"config.json", "model.npz", "fingerprint.txt"} | contexts | graphs
    assert sum(p.stat().st_size for p in files) < 17e6


def test_the_shipped_segmenter_finds_the_sky():
    labels = Segmenter.load(PROJECT / "checkpoints/camvid_unet").segment(read_image(PROJECT / "images/kodim21.png", 10**7))
    sky = labels == 0
    assert sky[:200, 450:].mean() > 0.7 and sky[350:].mean() < 0.05  # above the sea, and on the rocks
    assert sum(p.stat().st_size for p in (PROJECT / "checkpoints/camvid_unet").iterdir()) < 5e6


def test_the_shipped_selective_model_keeps_what_it_is_told_and_paints_the_rest():
    codec = Codec.load(PROJECT / "checkpoints/camvid_sc_c8")
    image = read_image(PROJECT / "images/kodim23.png", 10**7)[:360, :480]
    s = np.full((360, 480), 3, np.uint8)  # road below the sky, with a car
    s[:150], s[200:300, 100:260] = 0, 8
    whole = with_boundaries(LabelMap(s, instances=s.astype(np.int32)))
    labels = dataclasses.replace(whole, preserved=s == 8)
    assert Classes.parse(codec.config.classes, codec.config.n_classes).names[8] == "Car"
    data = codec.encode(image, labels)
    m = np.kron(heat_map(s == 8), np.ones((16, 16), bool))[:360, :480, None]  # to the 16 px of a position
    assert data == codec.encode(np.where(m, image, 255 - image), labels)
    assert len(data) < 0.5 * len(codec.encode(image, whole))
    back = codec.decode(data)
    assert (back == codec.decode(data)).all()
    sky, road = (back[rows].mean(axis=(0, 1)) for rows in (slice(0, 100), slice(310, 360)))
    assert sky.mean() > road.mean() + 40  # bright above, dark below: of the labels alone
    assert psnr(image[s == 8], back[s == 8]) > psnr(image[s != 8], back[s != 8])
