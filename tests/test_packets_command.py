"""compress.py --packets and decompress.py with the packets that arrived."""

import csv

import numpy as np
import pytest
from conftest import PROJECT, photo
from PIL import Image

import compress
import decompress
from gcodec import read_image

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


@pytest.fixture
def photos(folder):
    """A folder with images of which two would share a name, and one that is damaged."""
    (folder / "in/sub").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "a.bmp", "sub/b.png")):
        Image.fromarray(photo(120, 160, seed=seed)).save(folder / "in" / name)
    (folder / "in/c.png").write_bytes(b"no image")
    return folder


def send_folder(*arguments: str) -> int:
    return compress.main([*MODEL, "-i", "in", "-o", "out", *arguments])


def receive_folder(*arguments: str) -> int:
    return decompress.main([*MODEL, "-i", "out", "-o", "back", *arguments])


def rows(path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {next(iter(row.values())): row for row in csv.DictReader(file)}


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
        (["-o", "out/", "--packets", "18"], "must be more than 18"),
        (["-i", "none.png", "-o", "out/", "--packets", "-5"], "must be more than 18"),
        (["-o", "out/", "--packets", "64", "--channels", "2"], "--channels"),
        (["-o", "out/", "--packets", "64", "-sm", "map.png"], "label maps"),
        (["-o", "out.gc", "--packets", "64"], "must end in"),
        (["-o", "photo.png", "--packets", "64", "--overwrite"], "the input itself"),
        (["-o", "-", "--packets", "64"], "standard output"),
        (["-i", "other.png", "-o", "out.gcp", "--packets", "64"], "must be a folder"),
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


# ----------------------------------------------------------------------------------------------------------------------
# A folder
# ----------------------------------------------------------------------------------------------------------------------


def test_a_folder_of_images_becomes_packets_and_its_pictures_come_back(photos, capsys):
    assert send_folder("--packets", "34") == 2  # for c.png
    assert "skipped: in/c.png" in capsys.readouterr().err
    sent = rows(photos / "out/results.csv")
    assert sent.keys() == {"a.png", "a.bmp", "sub/b.png"}
    for name, row in sent.items():
        start = {"a.png": "a.png", "a.bmp": "a.bmp", "sub/b.png": "sub/b"}[name]
        files = sorted((photos / "out").glob(f"{start}-*.gcp"))
        assert len(files) == int(row["packets"]) > 2
        assert sum(path.stat().st_size for path in files) == int(row["bytes"]) <= 34 * len(files)
    (photos / "out/sub/b-002.gcp").unlink()
    (photos / "out/sub/b-001.gcp").write_bytes(b"")
    assert receive_folder() == 0
    error = capsys.readouterr().err
    total = int(sent["sub/b.png"]["packets"])
    assert f"out/sub/b.gcp: {total - 2} of {total} packets (2 missing: 1, 2)" in error
    assert "out/sub/b-001.gcp: not a packet (it is empty); left out" in error
    received = rows(photos / "back/results.csv")
    assert {name: row["missing"] for name, row in received.items()} == {"a.png.gcp": "0", "a.bmp.gcp": "0", "sub/b.gcp": "2"}
    assert read_image("back/sub/b.png").shape == (120, 160, 3)
    assert decompress.main([*MODEL, "-i", *map(str, (photos / "out").glob("a.bmp-*")), "-o", "one.png"]) == 0
    np.testing.assert_array_equal(read_image("one.png"), read_image("back/a.bmp.png"))


def test_a_folder_run_goes_on_where_it_stopped_and_replaces_only_with_overwrite(photos, capsys):
    (photos / "in/c.png").unlink()
    assert send_folder("--packets", "34") == 0
    before = {path: path.read_bytes() for path in (photos / "out").rglob("*.gcp")}
    lost = photos / "out/a.png-001.gcp"
    lost.unlink()
    times = {path: path.stat().st_mtime_ns for path in before if path != lost and "a.png" not in path.name}
    assert send_folder("--packets", "34") == 0
    assert "kept: 2 images" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (photos / "out").rglob("*.gcp")} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert send_folder("--packets", "200") == 2
    assert "a.bmp-001.gcp: is there already, by another model or other settings" in capsys.readouterr().err
    assert send_folder("--packets", "200", "--overwrite") == 0
    assert all(row["packets"] == "1" for row in rows(photos / "out/results.csv").values())
    assert len(list((photos / "out").rglob("*.gcp"))) == 3


def test_packets_that_are_not_of_the_run_are_neither_replaced_nor_removed(photos, capsys):
    (photos / "out").mkdir()
    (photos / "out/a.png-009.gcp").write_bytes(b"mine")
    assert send_folder("--packets", "34") == 2
    assert "a.png-009.gcp: is there already" in capsys.readouterr().err
    assert (photos / "out/a.png-009.gcp").read_bytes() == b"mine"


def test_a_folder_of_packets_is_decompressed_again_only_where_something_changed(photos, capsys):
    (photos / "in/c.png").unlink()
    assert send_folder("--packets", "34") == 0
    assert receive_folder() == 0
    (photos / "back/a.png.png").unlink()
    assert receive_folder() == 0
    assert "3 pictures, 2 of which were finished already" in capsys.readouterr().out
    (photos / "out/a.png-001.gcp").unlink()  # fewer have arrived than before
    assert receive_folder() == 2
    assert "a.png.png: is there already, made from another file" in capsys.readouterr().err
    assert receive_folder("--overwrite") == 0


def test_a_packet_of_another_image_is_left_out_where_most_are_of_one_image(photos, capsys):
    (photos / "in/c.png").unlink()
    assert send_folder("--packets", "34") == 0
    stray = (photos / "out/a.bmp-002.gcp").read_bytes()
    (photos / "out/a.png-002.gcp").write_bytes(stray)
    assert receive_folder() == 0
    assert "out/a.png-002.gcp: is a packet of another image than out/a.png-001.gcp; left out" in capsys.readouterr().err
    assert rows(photos / "back/results.csv")["a.png.gcp"]["missing"] == "1"
    for path in (photos / "out").glob("a.png-*.gcp"):  # as many of one image as of the other
        path.unlink()
    (photos / "out/a.png-001.gcp").write_bytes(next((photos / "out/sub").glob("b-*")).read_bytes())
    (photos / "out/a.png-002.gcp").write_bytes(stray)
    assert receive_folder("--overwrite") == 2
    assert "skipped: out/a.png-002.gcp: is a packet of another image than out/a.png-001.gcp" in capsys.readouterr().err


def test_a_packet_whose_name_does_not_tell_its_image_is_one_line(folder, capsys):
    assert send("-o", "out/", "--packets", "100") == 0
    (folder / "out/photo-001.gcp").rename(folder / "out/first.gcp")
    assert receive_folder() == 2
    error = capsys.readouterr().err
    assert "out/first.gcp: packets of several images are told apart by names such as photo-001.gcp" in error
    assert error.count("\n") == 1 and not (folder / "back").exists()
    assert decompress.main([*MODEL, "-i", "out", "-o", "back.png"]) == 0
