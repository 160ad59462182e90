"""Folder runs on many workers: --workers and --scheduler of compress.py and decompress.py."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import distributed
import psutil
import pytest
from conftest import PROJECT, photo
from PIL import Image

import compress
import decompress
import evaluate
from commands import workers
from commands.loading import load_codec
from commands.workers import Workers
from evaluation import baselines, measure
from gcodec.files import locked
from gcodec.onnx_runtime import OnnxRuntime

MODEL = ["-r", str(PROJECT / "checkpoints/photo_c4")]
pytestmark = pytest.mark.filterwarnings("ignore")  # Dask's own


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory with three photos and a file that is none, in in/."""
    (tmp_path / "in").mkdir()
    for i in range(3):
        Image.fromarray(photo(64 + i, 96, seed=i)).save(tmp_path / "in" / f"{i}.png")
    (tmp_path / "in/bad.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scheduler(monkeypatch) -> Iterator[str]:
    """The address of a scheduler with one worker, which is a thread of this process."""
    monkeypatch.setattr(OnnxRuntime, "threads", 0)  # put back at the end
    workers._loaded.cache_clear()
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def empty_scheduler() -> Iterator[str]:
    with distributed.LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler_address


def rows(path: Path) -> dict[str, dict[str, str]]:
    """The rows of results.csv by their first column, without the times."""
    with path.open(newline="") as file:
        read = list(csv.DictReader(file))
    named = {next(iter(row.values())): {name: value for name, value in row.items() if name != "seconds"} for row in read}
    assert len(named) == len(read)
    return named


def contents(folder: Path, suffix: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(f"*{suffix}")}


def the_error(capsys) -> str:
    """The one line of error, without warnings."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    return lines[0]


def start_worker(scheduler: str, *path: Path) -> subprocess.Popen:
    """Start a worker in the folder / that finds modules in the folders `path`."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--no-nanny", "--no-dashboard"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.Popen(command, cwd="/", env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


# ----------------------------------------------------------------------------------------------------------------------
# The same as in one process
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--packets", "40"]])
def test_workers_make_the_same_files_and_rows_as_one_process_and_go_on(folder, scheduler, capsys, options):
    spread = ["--scheduler", scheduler]
    assert compress.main([*MODEL, "in", "here", *options]) == 2
    alone = capsys.readouterr()
    assert compress.main([*MODEL, "in", "there", *options, *spread]) == 2
    together = capsys.readouterr()
    assert contents(folder / "there", "") and contents(folder / "there", ".g*") == contents(folder / "here", ".g*")
    assert contents(folder / "there", ".png") == contents(folder / "here", ".png")
    assert rows(folder / "there/results.csv") == rows(folder / "here/results.csv")
    assert [line for line in alone.err.splitlines() if "skipped" in line] == [
        line for line in together.err.splitlines() if "skipped: in/bad.png: cannot be decoded" in line
    ]
    assert OnnxRuntime.threads == 1  # of the worker, which has one
    assert compress.main([*MODEL, "in", "there", *options, *spread]) == 2
    assert "kept: 3" in capsys.readouterr().out
    assert decompress.main([*MODEL, "here", "back"]) == 0
    assert decompress.main([*MODEL, "there", "again", *spread]) == 0
    assert len(contents(folder / "again", ".png")) == 3
    assert contents(folder / "again", ".png") == contents(folder / "back", ".png")


def test_workers_that_see_no_file_are_sent_its_contents(folder, scheduler, monkeypatch, capsys):
    monkeypatch.setattr(workers, "_stamp", lambda path: threading.get_ident())  # which is another one for the worker
    assert compress.main([*MODEL, "in", "out", "--files-only", "--scheduler", scheduler]) == 2
    assert "skipped: in/bad.png: cannot be decoded" in capsys.readouterr().err
    assert compress.main([*MODEL, "in", "here", "--files-only"]) == 2
    assert len(contents(folder / "out", ".gc")) == 3
    assert contents(folder / "out", ".gc") == contents(folder / "here", ".gc")


def test_a_worker_with_another_working_directory_finds_the_mask(folder, empty_scheduler):
    (folder / "in/bad.png").unlink()
    for name in ("1.png", "2.png"):  # which the mask is too small for
        (folder / "in" / name).unlink()
    (folder / "maps").mkdir()
    Image.new("L", (96, 64)).save(folder / "maps/0.png")
    Image.new("L", (96, 64), 255).save(folder / "mask.png")
    options = ["-r", str(PROJECT / "checkpoints/camvid_sc_c8"), "in/", "-sm", "maps", "--mask", "mask.png", "--files-only"]
    assert compress.main([*options, "-o", "here"]) == 0
    worker = start_worker(empty_scheduler, PROJECT)
    try:
        assert compress.main([*options, "-o", "there", "--scheduler", empty_scheduler]) == 0
    finally:
        worker.kill()
        worker.wait()
    assert contents(folder / "there", ".gc") == contents(folder / "here", ".gc") != {}


# ----------------------------------------------------------------------------------------------------------------------
# What goes wrong
# ----------------------------------------------------------------------------------------------------------------------


def start_many(folder: Path, n: int = 40) -> tuple[subprocess.Popen, Callable[[], int]]:
    """Start a run of two workers over n small images in a process group of its own. Return it, and what counts its rows."""
    (folder / "many").mkdir()
    for i in range(n):
        Image.fromarray(photo(48 + i, 64, seed=i)).save(folder / "many" / f"{i:02}.png")
    command = [sys.executable, PROJECT / "compress.py", *MODEL, "many", "out", "-j", "2"]
    process = subprocess.Popen(
        command, start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, encoding="utf-8"
    )
    results = folder / "out/results.csv"
    return process, lambda: len(rows(results)) if results.exists() else 0


def wait_for(count: Callable[[], int], process: subprocess.Popen, n: int) -> None:
    while count() < n:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def test_a_worker_that_is_killed_costs_nothing(folder):
    process, count = start_many(folder)
    wait_for(count, process, 3)
    children = psutil.Process(process.pid).children()
    worker = next(child for child in children if "spawn_main" in " ".join(child.cmdline()))
    worker.kill()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and errors == ""
    assert rows(folder / "out/results.csv").keys() == {f"{i:02}.png" for i in range(40)}
    assert len(contents(folder / "out", ".gc")) == len(contents(folder / "out", ".png")) == 40


def test_an_interrupted_run_keeps_what_is_finished_and_goes_on(folder):
    process, count = start_many(folder)
    wait_for(count, process, 3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does for Ctrl-C
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130 and errors == ""
    finished = rows(folder / "out/results.csv")
    assert 3 <= len(finished) < 40
    assert compress.main([*MODEL, "many", "out"]) == 0
    everything = rows(folder / "out/results.csv")
    assert len(everything) == 40 and finished.items() <= everything.items()


@pytest.mark.parametrize("when", ["start", "end"])
def test_ctrl_c_while_workers_start_or_end_waits_for_them(monkeypatch, when):
    clusters = []

    class Cluster(distributed.LocalCluster):
        def __init__(self, **options):
            clusters.append(self)
            if when == "start":
                signal.raise_signal(signal.SIGINT)
            super().__init__(**options)

        def __exit__(self, *error):
            if when == "end":
                signal.raise_signal(signal.SIGINT)
            super().__exit__(*error)

    monkeypatch.setattr(distributed, "LocalCluster", Cluster)
    inside = []
    with pytest.raises(KeyboardInterrupt), Workers(1).started():
        inside.append(True)
    assert bool(inside) == (when == "end")
    assert clusters[0].status == distributed.Status.closed


def test_numbers_that_make_no_sense_and_a_missing_package_are_one_line_before_anything_is_loaded(folder, monkeypatch, capsys):
    assert compress.main(["-r", "none", "in", "out", "--workers", "0"]) == 2
    assert "--workers 0: at least 1" in the_error(capsys)
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda name: None)
    assert decompress.main(["-r", "none", "in", "out", "-j", "2"]) == 2
    assert "pip install -r requirements-scale.txt" in the_error(capsys)
    assert not (folder / "out").exists()


def test_no_more_workers_are_started_than_memory_takes(folder, monkeypatch, capsys):
    codec, inputs = load_codec(MODEL[1]), list((folder / "in").iterdir())
    monkeypatch.setattr(workers, "available_memory", lambda: 10 * workers.WORKER_BYTES)
    assert Workers(9).within_memory(inputs, [codec]) == Workers(9)
    Image.new("L", (2000, 1000)).save(folder / "in/large.png")  # 0.34 GB by the codec's own figure
    few = Workers(9).within_memory([*inputs, folder / "in/large.png"], [codec])
    assert few == Workers(4)
    assert "--workers 9: each takes 0.6 GB" in capsys.readouterr().err
    monkeypatch.setattr(workers, "available_memory", lambda: 0)
    assert Workers(9).within_memory(inputs, [codec]) == Workers(1)  # the image itself is refused where it does not fit


def test_the_size_of_an_image_is_read_from_every_kind_of_file(folder):
    assert compress.main([*MODEL, "-i", "in/0.png", "-o", "0.gc"]) == 0
    assert compress.main([*MODEL, "-i", "in/0.png", "-o", "0.gcp", "--packets", "40"]) == 0
    assert workers.pixels(Path("in/0.png")) == 64 * 96
    assert workers.pixels(Path("0.gc")) == workers.pixels(Path("0-001.gcp")) == 64 * 96
    assert workers.pixels(Path("in/bad.png")) == workers.pixels(Path("none")) == 0


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "127.0.0.1", "no such host"])
def test_a_scheduler_that_is_not_there_is_one_line(folder, monkeypatch, capsys, address):
    assert workers.TIMEOUT < 10
    monkeypatch.setattr(workers, "TIMEOUT", 0.5)
    assert compress.main([*MODEL, "in", "out", "--scheduler", address]) == 2
    assert f"--scheduler {address}: no Dask scheduler answers there" in the_error(capsys)
    assert not (folder / "out").exists()


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9.2\r\n"])  # such as of Dask's own dashboard, which waits
def test_a_scheduler_that_is_something_else_is_one_line_in_time(folder, monkeypatch, capsys, greeting):
    monkeypatch.setattr(workers, "TIMEOUT", 0.5)
    taken = []

    def answer() -> None:
        taken.append(server.accept()[0])
        taken[0].sendall(greeting)

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        threading.Thread(target=answer).start()
        assert compress.main([*MODEL, "in", "out", "--scheduler", address]) == 2
    assert f"--scheduler {address}: no Dask scheduler answers there" in the_error(capsys)


def test_a_worker_with_another_model_ends_the_run_in_one_line(folder, scheduler, monkeypatch, capsys):
    other = PROJECT / "checkpoints/photo_c8"
    monkeypatch.setattr(workers, "load_codec", lambda folder, knobs: load_codec(other, knobs))
    assert compress.main([*MODEL, "in", "out", "--scheduler", scheduler]) == 2
    assert "worker tcp://" in (error := the_error(capsys)) and "another model there, of the fingerprint" in error


@pytest.mark.parametrize(
    ("config", "error"),
    [(None, "lacks this project or what it requires (No module named"), ("0.0.1", "has version 0.0.1 of this project instead")],
)
def test_a_worker_that_lacks_the_project_or_has_another_version_ends_the_run(
    folder, empty_scheduler, capsys, tmp_path, config, error
):
    path = []
    if config is not None:
        text = (PROJECT / "config.py").read_text()
        (tmp_path / "config.py").write_text(text + f'\nVERSION = "{config}"\n')
        path = [tmp_path, PROJECT]
    worker = start_worker(empty_scheduler, *path)
    try:
        assert compress.main([*MODEL, "in", "out", "--scheduler", empty_scheduler]) == 2
        assert error in the_error(capsys)
    finally:
        worker.kill()
        worker.wait()


def test_two_runs_do_not_write_to_one_folder_at_once(folder, capsys):
    with locked(folder / "out", "another run"):
        assert compress.main([*MODEL, "in", "out"]) == 2
        assert "another process writes to out; wait, or write somewhere else" in the_error(capsys)
    assert compress.main([*MODEL, "in", "out", "--files-only"]) == 2  # for the file that is no image
    assert len(rows(folder / "out/results.csv")) == 3


def test_a_mistake_of_ours_on_a_worker_is_not_hidden(folder, scheduler, monkeypatch):
    monkeypatch.setattr(workers, "attempt", lambda *arguments: 1 / 0)
    with Workers(scheduler=scheduler).started() as spread, pytest.raises(ZeroDivisionError):
        list(spread(print, [measure.Photo("a.png", "a")]))


def test_reports_are_the_same_by_workers(folder, scheduler, monkeypatch):
    (folder / "in/bad.png").unlink()
    codecs = [codec for codec in baselines.available() if codec.name in ("jpeg", "webp_2", "jxl")]
    monkeypatch.setattr(evaluate, "available", lambda report: codecs)
    options = [*MODEL, "-i", "in", "--baselines"]
    assert evaluate.main([*options, "-o", "here"]) == 0
    assert evaluate.main([*options, "-o", "there", "--scheduler", scheduler]) == 0
    assert contents(folder / "there/files", ".*") == contents(folder / "here/files", ".*")
    assert (
        len(contents(folder / "there/pictures", ".png")) == len(contents(folder / "there/files", ".*")) == 3 * (1 + len(codecs))
    )
    mine, theirs = (measured(folder / name / "results") for name in ("here", "there"))
    assert mine == theirs and len(mine) == 1 + len(codecs)


def measured(results: Path) -> dict[str, dict]:
    """What JSON files say of each image, without the times and the memory."""
    changing = ("encode_seconds", "decode_seconds", "peak_memory")
    return {
        path.stem: {
            name: {key: value for key, value in record.items() if key not in changing}
            for name, record in json.loads(path.read_text())["images"].items()
        }
        for path in results.glob("*.json")
    }
