"""python3 -m gcodec, which prints what files say about themselves."""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, photo
from PIL import Image

from gcodec import Codec, packets
from gcodec.__main__ import main
from gcodec.container import Header, pack, unpack
from gcodec.labels import LabelMap


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data() -> bytes:
    return Codec.load(PROJECT / "checkpoints/photo_c8").encode(photo(64, 96), scale=8)


@pytest.fixture
def sent() -> list[bytes]:
    return packets.encode(Codec.load(PROJECT / "checkpoints/photo_c8"), photo(150, 200), 48)


def write_packets(sent: list[bytes], *numbers: int, start: str = "a") -> None:
    for number in numbers:
        (Path.cwd() / f"{start}-{number + 1:03d}.gcp").write_bytes(sent[number])


def test_a_file_says_its_size_its_model_and_its_bytes_by_part(data, tmp_path, capsys):
    mark = unpack(data).header.fingerprint.hex()
    (tmp_path / "a.gc").write_bytes(data)
    assert main(["a.gc"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a.gc:",
        "  size:      96x64",
        "  coded at:  48x32, 2^(-8/8) of its size",
        "  channels:  all of 8",
        f"  model:     photo_c8, fingerprint {mark}",
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
    assert capsys.readouterr().out == "a.jpg: is a picture (JPEG), not a .gc file; compress it first\n"


def test_a_packet_says_which_one_it_is_and_its_bytes_by_part(sent, capsys):
    write_packets(sent, 1)
    packet = packets.unpack(sent[1])
    mark = packet.header.fingerprint.hex()
    slice_of = packets.slices(10, 13, len(sent))
    assert main(["a-002.gcp"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a-002.gcp:",
        f"  packet:    2 of {len(sent)} of the image with the id {packet.image_id:04x}",
        "  size:      200x150",
        "  coded at:  200x150, its own size",
        "  channels:  all of 8",
        f"  model:     photo_c8, fingerprint {mark}",
        f"  slice:     {(slice_of == 1).sum()} of the 130 positions of the feature map",
        f"  bytes:     {len(sent[1])}: packet's header 6, image's header 10, symbols {len(packet.payload)}, checksum 4",
        "  checksum:  holds",
    ]


def test_several_packets_are_summed_up_by_their_images(sent, capsys):
    other = packets.encode(Codec.load(PROJECT / "checkpoints/photo_c8"), photo(20, 30), 200)
    assert len(sent) > 3 and len(other) == 1
    write_packets(sent, *range(len(sent)))
    write_packets(sent, 0, start="copy")
    (Path.cwd() / "a-003.gcp").write_bytes(sent[2][:20] + bytes([sent[2][20] ^ 1]) + sent[2][21:])
    write_packets(other, 0, start="b")
    assert main(["."]) == 1
    out = capsys.readouterr().out
    first, second = (f"{packets.unpack(data[0]).image_id:04x}" for data in (sent, other))
    assert out.splitlines()[-2:] == [
        f"image {first}, 200x150: {len(sent) - 1} of {len(sent)} packets (1 missing: 3); more than once: 1",
        f"image {second}, 30x20: its only packet",
    ]
    damaged = out.partition("a-003.gcp:\n")[2].partition(".gcp:")[0]
    assert f"packet:    3 of {len(sent)}" in damaged and "checksum:  does not match" in damaged


def test_a_packet_is_read_from_standard_input_and_one_that_is_no_packet_is_one_line(sent, monkeypatch, capsys):
    for data, status, said in (
        (sent[0], 0, "standard input:\n  packet:    1 of"),
        (b"p", 1, "standard input: cut short (1 bytes)"),
        (b"p\2" + sent[0][2:], 1, "standard input: not a packet of version 1"),
        (sent[0][:12], 1, "standard input: cut short (12 bytes)"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert main(["-"]) == status
        out = capsys.readouterr().out
        assert out.startswith(said) and (out.count("\n") == 1) == (status == 1)


def test_a_folder_without_such_files_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [str(PROJECT / "gcodec/__main__.py")])
    (tmp_path / "in").mkdir()
    assert main(["in"]) == 2
    assert capsys.readouterr().err == "python3 -m gcodec: error: in: no .gc or .gcp files in this folder\n"


def test_an_image_becomes_a_file_and_a_picture_by_models_that_ship_or_are_in_a_folder(tmp_path, capsys):
    Image.fromarray(photo(150, 200)).save("a.png")
    assert main(["compress", "a.png", "a.gc"]) == 0
    data = (tmp_path / "a.gc").read_bytes()
    codec = Codec.load(PROJECT / "checkpoints/photo_c8")
    assert data == codec.encode(photo(150, 200))
    assert main(["decompress", "a.gc", "b.png"]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open("b.png")), codec.decode(data))
    shutil.copytree(PROJECT / "checkpoints/photo_c4", tmp_path / "models/mine")
    assert main(["compress", "a.png", "c.gc", "--models", "models", "-r", "mine", "--max-bytes", "120"]) == 0
    assert (tmp_path / "c.gc").stat().st_size <= 120
    assert main(["inspect", "c.gc", "--models", "models"]) == 0 and "model:     mine" in capsys.readouterr().out
    assert main(["decompress", "c.gc", "c.png", "--models", "models"]) == 0


def test_an_output_without_a_suffix_gets_one_and_a_stream_of_packets_is_described(sent, tmp_path, capsys):
    Image.fromarray(photo(40, 50)).save("a.png")
    assert main(["compress", "a.png", "out"]) == main(["decompress", "out.gc", "back"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "back.png", "out.gc"]
    (tmp_path / "all.gcp").write_bytes(b"".join(data.ljust(99, b"\0") for data in sent))
    assert main(["all.gcp"]) == 0
    out = capsys.readouterr().out
    assert out.count("checksum:  holds") == len(sent) and f"all {len(sent)} packets" in out


def test_a_folder_of_models_in_the_working_directory_cannot_take_the_place_of_what_ships(data, tmp_path, capsys):
    (tmp_path / "checkpoints/evil").mkdir(parents=True)
    (tmp_path / "checkpoints/evil/config.json").write_text("{}")
    (tmp_path / "checkpoints/evil/fingerprint.txt").write_text(unpack(data).header.fingerprint.hex())
    shutil.copytree(tmp_path / "checkpoints/evil", tmp_path / "photo_c8")
    (tmp_path / "a.gc").write_bytes(data)
    Image.fromarray(photo(64, 96)).save("a.png")
    assert main(["decompress", "a.gc", "b.png"]) == main(["compress", "a.png", "c.gc"]) == 0
    assert main(["a.gc"]) == 0 and "model:     photo_c8," in capsys.readouterr().out


def test_names_of_files_do_not_command_the_terminal(data, tmp_path, capsys):
    name = "a\x1b[31m\x9b\u202e.gc"
    (tmp_path / name).write_bytes(data)
    assert main([name]) == 0
    with pytest.raises(SystemExit):
        main(["inspect", name, "--bad\x1b[31m"])
    printed = "".join(capsys.readouterr())
    assert "a\\x1b[31m\\x9b\\u202e.gc" in printed and not {"\x1b", "\x9b", "\u202e"} & set(printed)


@pytest.mark.parametrize(("arguments", "line"), [
    (["compress", "a.png", "a.png"], "a.png: the output must end in .gc"),
    (["compress", "a.png", "b.gc", "-r", "nowhere"], "checkpoint nowhere: is not a folder; "),
    (["compress", "a.png", "b.gc", "--max-bytes", "9"], "a.png: does not fit into 9 bytes; "),
    (["decompress", "a.png", "b.png"], "a.png: is a picture (PNG), not a .gc file; "),
    (["decompress", "b.gc", "b.png"], "b.gc: no such file"),
    (["inspect", "b.gc", "--models", "nowhere"], "nowhere: no such folder of models"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_status_2_and_leaves_nothing_behind(arguments, line, tmp_path, capsys):
    Image.fromarray(photo(20, 30)).save("a.png")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out and f"error: {line}" in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
