"""Opening, finding and writing files."""

import csv
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import PROJECT

from commands import folder_run
from config import UserError
from gcodec import files, memory
from gcodec.files import ExistsError, atomic, atomic_together, files_in, new_folder, open_binary, output_names
from gcodec.pictures import images_in

NAMES = ["new\nline.png", os.fsdecode(b"\xff\xfe.png"), "später.png", '50% #1 "a"?.png']


# ----------------------------------------------------------------------------------------------------------------------
# Opening
# ----------------------------------------------------------------------------------------------------------------------


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "empty").touch()
    (tmp_path / "pointer").write_bytes(files.LFS_POINTER + b"\n")
    (tmp_path / "loop").symlink_to("loop")
    complaints = {
        "pipe": "pipe",
        "socket": "socket",
        "empty": "empty",
        "pointer": "LFS",
        "loop": "cannot be read",
        "none": "no such",
    }
    for name, complaint in complaints.items():
        with pytest.raises(UserError, match=f"{name}.*{complaint}"):
            open_binary(tmp_path / name)
    with pytest.raises(UserError, match="device"):
        open_binary("/dev/zero")
    with pytest.raises(UserError, match="folder"):
        open_binary(tmp_path)


def test_names_are_printed_in_one_line():
    assert files.printable("a\nb\udcffä b") == "a\\nb\\udcffä b"


# ----------------------------------------------------------------------------------------------------------------------
# Finding
# ----------------------------------------------------------------------------------------------------------------------


def test_a_folder_gives_its_images_and_says_what_it_leaves_out(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ["b.PNG", "sub/a.png", "._a.png", ".hidden.png", "note.txt", "photo.heic", "bare", *NAMES]:
        (tmp_path / name).write_text("x")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden/c.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to("nowhere")
    found, left_out = files_in(tmp_path, (".png",))
    assert {str(Path(path).relative_to(tmp_path)) for path in found} == {"b.PNG", "sub/a.png", *NAMES}
    assert left_out == {".txt": 1, ".heic": 1, "file without a suffix": 1, "pipe, socket or device": 1, "broken link": 1}


def test_a_folder_of_many_kinds_of_files_is_a_short_message(tmp_path):
    for i in range(30):
        (tmp_path / f"a.{i:02}").touch()
    for name in ("a.png", "b.02", "b.01"):
        (tmp_path / name).touch()
    said = []
    images_in(tmp_path, said.append)
    assert said[0].endswith("are read: 2 .01, 2 .02, 1 .00, 1 .03, 1 .04, 1 .05, 1 .06, 1 .07 and 22 others")


def test_links_are_followed_and_no_folder_is_entered_twice(tmp_path):
    (tmp_path / "in/real").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("in/real/a.png", "elsewhere/b.png"):
        (tmp_path / name).touch()
    (tmp_path / "in/a_link").symlink_to("real")
    (tmp_path / "in/out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/real/loop").symlink_to(tmp_path / "in")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "in")
    (tmp_path / "in/file.png").symlink_to(tmp_path / "elsewhere/b.png")
    found, _ = files_in(tmp_path / "in", (".png",))
    assert [str(Path(path).relative_to(tmp_path / "in")) for path in found] == ["file.png", "out/b.png", "real/a.png"]


@pytest.mark.parametrize("names", [
    ["IMG.jpg", "IMG.png", "IMG.jpg.png"], ["a.jpg", "a.jpeg", "a.jpg.jpg"], ["a.png", "a.png.png", "a.png.jpg", "a.jpg"],
    NAMES, ["sub/a.png", "a.png"], ["a.b.png", "a.b.jpg", "a.png"],
])  # fmt: skip
def test_two_inputs_never_write_one_output(names):
    forward, backward = output_names(names, Path(), ".gc"), output_names(names[::-1], Path(), ".gc")
    assert len(set(forward.values())) == len(names) and forward == backward


def test_two_files_of_one_name_in_two_folders_are_refused(tmp_path):
    inputs = [folder_run.Input(tmp_path / folder / "a.png", tmp_path / folder) for folder in "xy"]
    with pytest.raises(UserError, match=r"both would write a\.gc"):
        folder_run.outputs_of(inputs, ".gc")


# ----------------------------------------------------------------------------------------------------------------------
# Writing
# ----------------------------------------------------------------------------------------------------------------------


def test_an_existing_file_is_replaced_only_if_asked_and_the_same_contents_stay(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(ExistsError, match="--overwrite"), atomic(tmp_path / "a", overwrite=False) as partial:
        partial.write_text("new")
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with atomic(tmp_path / "a", overwrite=False) as partial:
        partial.write_text("old")
    with atomic(tmp_path / "a") as partial:
        partial.write_text("new")
    assert (tmp_path / "a").read_text() == "new"


def test_a_link_stays_a_link_and_a_file_keeps_its_mode(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.png").write_text("old")
    (tmp_path / "real/a.png").chmod(0o600)
    (tmp_path / "a.png").symlink_to("real/a.png")
    (tmp_path / "new.png").symlink_to("real/b.png")  # which is not there yet
    for name in ("a.png", "new.png"):
        with atomic(tmp_path / name) as partial:
            partial.write_text("new")
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_text() == "new"
    assert (tmp_path / "real/a.png").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (tmp_path / "real").iterdir()) == ["a.png", "b.png"]


def test_of_files_that_belong_together_all_are_written_or_none(tmp_path):
    (tmp_path / "b").write_text("other")
    with pytest.raises(ExistsError), atomic_together([tmp_path / "a", tmp_path / "b"], overwrite=False) as partials:
        for partial in partials:
            partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["b"] and (tmp_path / "b").read_text() == "other"


def test_a_name_of_the_greatest_length_can_be_written(tmp_path):
    with atomic(tmp_path / ("x" * 251 + ".png")) as partial:
        partial.write_text("x")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


def test_what_a_killed_process_left_is_removed_after_a_day_and_what_another_one_writes_is_not(tmp_path):
    stale, live = (tmp_path / f"{files.PARTIAL}{name}.png" for name in ("00", "01"))
    for path in (stale, live):
        path.touch()
    os.utime(stale, (0, time.time() - 2 * files.STALE_SECONDS))
    with atomic(tmp_path / "a.png") as partial:
        partial.write_text("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([live.name, "a.png"])
    assert files_in(tmp_path, (".png",))[0] == [str(tmp_path / "a.png")]


def test_a_folder_is_replaced_only_if_asked_and_only_if_it_is_of_its_kind(tmp_path):
    for content, overwrite in (("first", False), ("second", True)):
        with new_folder(tmp_path / "ckpt", overwrite) as partial:
            (partial / "config.json").write_text(content)
    assert (tmp_path / "ckpt/config.json").read_text() == "second" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ExistsError), new_folder(tmp_path / "ckpt"):
        pass
    (tmp_path / "ckpt/holiday.jpg").touch()
    with pytest.raises(UserError, match="holiday"), new_folder(tmp_path / "ckpt", overwrite=True):
        pass
    assert (tmp_path / "ckpt/config.json").exists()


# ----------------------------------------------------------------------------------------------------------------------
# Folder runs and memory
# ----------------------------------------------------------------------------------------------------------------------


def test_a_run_keeps_what_is_finished_by_the_same_settings_whatever_it_is_called(tmp_path):
    run = folder_run.FolderRun(tmp_path, "image", "s1", overwrite=False)
    for name in NAMES:
        (tmp_path / name).write_text("output")
        run.add(name, "digest", {"bytes": 7, "psnr": np.inf, "ms_ssim": None})
    run.write()
    again = folder_run.FolderRun(tmp_path, "image", "s1", overwrite=False)
    for name in NAMES:
        row = again.finished(name, "digest", [tmp_path / name])
        assert (row["bytes"], row["psnr"], row["ms_ssim"]) == (7, np.inf, None)
        assert again.finished(name, "digest", [tmp_path / "missing"]) is None
        with pytest.raises(ExistsError):
            again.finished(name, "of a changed file", [tmp_path / name])
    other = folder_run.FolderRun(tmp_path, "image", "s2", overwrite=False)
    with pytest.raises(ExistsError, match="other settings"):
        other.check({NAMES[2]: [tmp_path / NAMES[2]]})


def test_a_table_that_was_changed_by_hand_or_is_a_pipe_is_one_line(tmp_path):
    run = folder_run.FolderRun(tmp_path, "image", "s1", overwrite=False)
    run.add("a.png", "digest", {"bytes": 7, "model": "photo_c8", "psnr": None})
    assert folder_run.FolderRun(tmp_path, "image", "s1", overwrite=False).rows["a.png"]["model"] == "photo_c8"
    text = run.path.read_text()
    run.path.write_text(text.replace(",7,", ",seven,"))
    with pytest.raises(UserError, match=r"results\.csv: was changed by hand .*'seven'"):
        _ = folder_run.FolderRun(tmp_path, "image", "s1", overwrite=False).rows
    run.path.unlink()
    os.mkfifo(run.path)
    with pytest.raises(UserError, match=r"results\.csv: is a device, a pipe"):
        _ = folder_run.FolderRun(tmp_path, "image", "s1", overwrite=False).rows


def test_a_table_that_is_not_of_a_run_is_not_replaced(tmp_path):
    (tmp_path / "results.csv").write_text("my,own\n1,2\n")
    with pytest.raises(ExistsError, match=r"results\.csv"):
        _ = folder_run.FolderRun(tmp_path, "image", "s", overwrite=False).rows


def test_writing_a_long_table_takes_a_twentieth_of_a_run_and_the_end_is_in_it(tmp_path, monkeypatch):
    now, run = [0.0], folder_run.FolderRun(tmp_path, "image", "s", overwrite=False)
    monkeypatch.setattr(folder_run.time, "monotonic", lambda: now[0])
    write = csv.DictWriter.writerows
    monkeypatch.setattr(csv.DictWriter, "writerows", lambda *rows: now.append(now.pop() + 1.0) or write(*rows))
    for i in range(100):
        now[0] += 1.0
        run.add(f"{i}.png", "digest", {"bytes": i})
    assert 104 <= now[0] <= 106
    assert len(folder_run.FolderRun(tmp_path, "image", "s", overwrite=False).rows) < 100
    run.write()
    assert len(folder_run.FolderRun(tmp_path, "image", "s", overwrite=False).rows) == 100


class Taking(NamedTuple):
    """As much of a runtime as `check_memory` looks at."""

    bytes_per_pixel: float
    address_space_per_pixel: float = 0


def test_an_image_that_takes_more_memory_than_there_is_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 10**9)
    monkeypatch.setattr(memory, "available_address_space", lambda: 10**12)
    memory.check_memory(1000, 1000, Taking(570, 2352))
    with pytest.raises(UserError, match=r"12\.0 megapixels take .* GB of memory, but only 1\.0 GB can be had"):
        memory.check_memory(3000, 4000, Taking(570, 2352))
    monkeypatch.setattr(memory, "available_memory", lambda: 10**12)
    monkeypatch.setattr(memory, "available_address_space", lambda: 10**10)
    memory.check_memory(3000, 4000, Taking(570))
    with pytest.raises(UserError, match=r"take 28\.3 GB of memory, but only 10\.0 GB can be had"):
        memory.check_memory(3000, 4000, Taking(570, 2352))


def test_a_limit_of_the_process_counts(tmp_path):
    code = "from gcodec import memory; print(memory.available_memory())"
    shell = f"ulimit -v 3000000; exec {sys.executable} -c '{code}'"
    done = subprocess.run(["bash", "-c", shell], cwd=PROJECT, capture_output=True, text=True)
    assert 0 < int(done.stdout) < 3_000_000 * 1024
