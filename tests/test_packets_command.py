"""compress.py --packets and decompress.py with the packets that arrived."""

import pytest
from conftest import PROJECT, photo
from PIL import Image

import compress
import decompress
from codec import read_image

MODEL = ["-r", str(PROJECT / "checkpoints/photo_c4")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    Image.fromarray(photo(120, 200)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def send(*arguments: str) -> int:
    return compress.main([*MODEL, "-i", "photo.png", *arguments])


def packets_of(folder):
    return sorted(path.name for path in folder.glob("*.gcp"))


def test_packets_fit_and_those_that_arrive_give_a_picture_that_says_what_is_missing(folder, capsys):
    assert send("-o", "out/", "--packets", "48") == 0
    names = packets_of(folder / "out")
    assert len(names) > 2 and names[0] == "photo-001.gcp"
    assert all((folder / "out" / name).stat().st_size <= 48 for name in names)
    assert f"{len(names)} of at most 48 bytes" in capsys.readouterr().out
    (folder / "out/photo-001.gcp").unlink()
    (folder / "out/photo-003.gcp").write_bytes(b"")
    assert decompress.main([*MODEL, "-i", "out", "-o", "back.png"]) == 0
    printed = capsys.readouterr()
    assert f"{len(names) - 2} of {len(names)} packets (2 missing: 1, 3)" in printed.out
    assert "photo-003.gcp: not a packet (it is empty); left out" in printed.err
    assert read_image("back.png").shape == (120, 200, 3)


def test_a_side_by_side_picture_comes_with_the_packets(folder):
    assert send("-o", "out.png", "--packets", "64") == 0
    assert packets_of(folder)[0] == "out-001.gcp" and (folder / "out.png").exists()


def test_packets_are_replaced_only_with_overwrite_and_none_is_left_over(folder, capsys):
    assert send("-o", "a.gcp", "--packets", "48") == 0
    before = packets_of(folder)
    assert send("-o", "a.gcp", "--packets", "100") == 2
    assert "a-001.gcp: is there already" in capsys.readouterr().err and packets_of(folder) == before
    assert send("-o", "a.gcp", "--packets", "100", "--overwrite") == 0
    after = packets_of(folder)
    assert len(after) < len(before)
    assert decompress.main([*MODEL, "-i", *after, "-o", "back.png"]) == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-o", "out/", "--packets", "0"], "too small"),
        (["-o", "out/", "--packets", "-5"], "too small"),
        (["-o", "out/", "--packets", "64", "--channels", "2"], "--channels"),
        (["-o", "out/", "--packets", "64", "-sm", "map.png"], "label maps"),
        (["-o", "out.gc", "--packets", "64"], "must end in"),
        (["-o", "photo.png", "--packets", "64", "--overwrite"], "the input itself"),
        (["-o", "-", "--packets", "64"], "standard output"),
        (["-i", "other.png", "-o", "out/", "--packets", "64"], "one image"),
    ],
)
def test_what_does_not_go_together_is_one_line_and_writes_nothing(folder, capsys, arguments, named):
    assert send(*arguments) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
    assert not packets_of(folder) and not (folder / "out").exists()


def test_packets_among_other_files_or_of_two_images_are_one_line(folder, capsys):
    assert send("-o", "out/a.gcp", "--packets", "100") == 0
    Image.fromarray(photo(120, 200, seed=1)).save("photo.png")
    assert send("-o", "out/b.gcp", "--packets", "100") == 0
    assert decompress.main([*MODEL, "-i", "out", "-o", "back.png"]) == 2
    assert "b-001.gcp: is a packet of another image than out/a-001.gcp" in capsys.readouterr().err
    assert send("-o", "out/c.gc") == 0
    assert decompress.main([*MODEL, "-i", "out", "-o", "back.png"]) == 2
    assert "c.gc: is no packet" in capsys.readouterr().err
    assert not (folder / "back.png").exists()
