"""python3 -m codec, which prints what files say about themselves."""

import numpy as np
import pytest
from conftest import PROJECT, photo
from PIL import Image

from cGAN.labels import LabelMap
from codec import Codec
from codec.__main__ import main
from codec.container import Header, pack


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data() -> bytes:
    return Codec.load(PROJECT / "checkpoints/photo_c8").encode(photo(64, 96), scale=8)


def test_a_file_says_its_size_its_model_and_its_bytes_by_part(data, tmp_path, capsys):
    (tmp_path / "a.gc").write_bytes(data)
    assert main(["a.gc"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a.gc:",
        "  size:      96x64",
        "  coded at:  48x32, 2^(-8/8) of its size",
        "  channels:  all of 8",
        "  model:     photo_c8, fingerprint 5af6efcc",
        f"  bytes:     {len(data)}: header 8, symbols {len(data) - 12}, checksum 4",
        "  checksum:  holds",
    ]


def test_the_sections_of_a_model_with_label_maps_add_up(tmp_path, capsys):
    codec = Codec.load(PROJECT / "checkpoints/camvid_sc_c8")
    preserved = np.zeros((64, 96), bool)
    preserved[:32] = True
    data = codec.encode(photo(64, 96), LabelMap(np.zeros((64, 96), np.uint8), preserved=preserved))
    (tmp_path / "a.gc").write_bytes(data)
    assert main(["a.gc"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "bytes:" in line)
    total, _, parts = line.removeprefix("  bytes:").partition(":")
    sizes = {part.rpartition(" ")[0].strip(): int(part.rpartition(" ")[2]) for part in parts.split(",")}
    assert sizes.keys() == {"header", "code", "mask", "symbols", "lengths of the sections", "checksum"}
    assert sum(sizes.values()) == int(total) == len(data)
    assert {name: sizes[name] for name in codec.sections(data)} == {n: len(s) for n, s in codec.sections(data).items()}


def test_an_unknown_model_is_called_so_and_is_no_damage(tmp_path, capsys):
    (tmp_path / "a.gc").write_bytes(pack(Header(20, 30, 0, 3, b"else"), bytes(7)))
    assert main(["a.gc"]) == 0
    out = capsys.readouterr().out
    assert "channels:  3 of the model's" in out and f"unknown, fingerprint {b'else'.hex()}" in out
    assert "header 9, payload 7, checksum 4" in out


def test_a_damaged_file_among_others_gives_status_1(data, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.gc").write_bytes(data)
    (tmp_path / "in/b.gc").write_bytes(data[:15] + bytes([data[15] ^ 1]) + data[16:])
    assert main(["in"]) == 1
    a, b = capsys.readouterr().out.split("in/b.gc:\n")
    assert a.endswith("checksum:  holds\n") and "checksum:  does not match: the file is damaged" in b


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "is empty"),
        (b"gc\1" + bytes(40), "format version 1; this program reads version 3"),
        (b"gc\2" + bytes(40), "format version 2; this program reads version 3"),
        (b"g", "not a .gc file"),
        (b"g\x80\1\1", "cut short (4 bytes)"),
        (b"g\x80" + bytes(40), "not a valid .gc file (0x0 px, 0 channels)"),
        (b"text" * 10, "not a .gc file"),
        (None, "no such file"),
    ],
)
def test_what_is_no_file_of_this_version_is_one_line_and_status_1(content, line, tmp_path, capsys):
    if content is not None:
        (tmp_path / "a.gc").write_bytes(content)
    assert main(["a.gc"]) == 1
    assert capsys.readouterr() == (f"a.gc: {line}\n", "")


def test_a_photo_is_one_line_that_says_what_to_do(tmp_path, capsys):
    Image.fromarray(photo(20, 30)).save(tmp_path / "a.jpg")
    assert main(["a.jpg"]) == 1
    assert capsys.readouterr().out == "a.jpg: is a picture (JPEG), not a .gc file; compress.py makes a .gc file of it\n"
