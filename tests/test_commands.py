"""What all commands have in common: how they begin, how they end, and what they print."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import PROJECT, photo
from PIL import Image

from config import VERSION, UserError
from gcodec import Codec
from utils import Utils

COMMANDS = ("compress", "decompress", "train", "evaluate", "data/make_paths", "data/resample", "cGAN/train", "tools/checkpoint",
            "tools/get_weights", "tools/import_tf1", "tools/plot_losses", "tools/train_segmenter")  # fmt: skip


def run(command: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    line = [sys.executable, str(PROJECT / f"{command}.py"), *arguments]
    return subprocess.run(line, capture_output=True, text=True, errors="replace", timeout=120, **options)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_its_version(command):
    done = run(command, "--version")
    assert (done.returncode, done.stdout) == (0, f"generative-compression {VERSION}\n")


def test_an_option_that_is_given_twice_is_an_error(tmp_path):
    done = run("evaluate", "-r", "a", "-i", "a", "-i", "b", "-o", "c")
    assert done.returncode == 2 and "-i: is given twice" in done.stderr
    done = run("train", "-ds", "a", "-ds", "b")
    assert done.returncode == 2 and "-ds: is given twice" in done.stderr


def test_a_reader_that_is_gone_and_a_full_disk_are_no_traceback(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(photo(32, 32)).save(tmp_path / "in/a.png")
    command = f"exec {sys.executable} {PROJECT}/data/make_paths.py {tmp_path}/in -o {tmp_path}/t"
    for i, (target, status) in enumerate([("| true; exit ${PIPESTATUS[0]}", 128 + signal.SIGPIPE), ("> /dev/full", 2)]):
        shell = f"({command}{i}.csv) {target}" if "|" in target else f"{command}{i}.csv {target}"
        shell = shell.replace("(exec", "(sleep 0.2; exec")
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr
        assert done.returncode == status
        assert done.stderr.count("\n") <= 1 and (tmp_path / f"t{i}.csv").exists()


@pytest.mark.parametrize(("target", "status"), [("| true; exit ${PIPESTATUS[0]}", 128 + signal.SIGPIPE), ("> /dev/full", 2)])
def test_a_picture_or_a_file_on_standard_output_that_nobody_takes_is_no_traceback(target, status, tmp_path):
    Image.fromarray(photo(32, 32)).save(tmp_path / "a.png")
    data = Codec.load(PROJECT / "checkpoints/photo_c4").encode(photo(32, 32))
    (tmp_path / "a.gc").write_bytes(data)
    for command, source in [("compress", "a.png"), ("decompress", "a.gc")]:
        shell = f"{sys.executable} {PROJECT}/{command}.py -i - -o - < {tmp_path}/{source} {target}"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
        assert done.returncode == status and "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.parametrize("language", ["C", "C.UTF-8"])
def test_names_that_the_terminal_cannot_show_cost_nothing(language, tmp_path):
    names = ["new\nline.png", os.fsdecode(b"\xff\xfe.png"), "später.png"]
    (tmp_path / "in").mkdir()
    for name in names:
        Image.fromarray(photo(32, 32)).save(tmp_path / "in" / name)
    (tmp_path / f"{names[1]}.old.csv").touch()
    environment = os.environ | {"LC_ALL": language, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for name, suffix in zip(names, (".csv", ".h5", ".csv"), strict=True):
        table = str(tmp_path / f"{name}{suffix}")
        done = run("data/make_paths", str(tmp_path / "in"), "-o", table, env=environment)
        assert done.returncode == 0 and not done.stderr and os.path.exists(table)
    done = run("data/make_paths", str(tmp_path / "in"), "-o", str(tmp_path / f"{names[1]}.old.csv"), env=environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--overwrite" in done.stderr


def test_devices_and_pipes_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.gc")
    for path in ("/dev/zero", str(tmp_path / "pipe.gc")):
        done = run("decompress", "-i", path, "-o", str(tmp_path / "a.png"))
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "instead of a file" in done.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_without_a_traceback_and_removes_what_is_half_written(signum, tmp_path):
    code = f"""
import sys, time
sys.path.insert(0, {str(PROJECT)!r})
from gcodec.files import atomic
from utils import Utils

@Utils.command
def main(argv=None):
    with atomic({str(tmp_path / "a.png")!r}) as partial:
        print("writing", flush=True)
        time.sleep(60)

sys.exit(main())
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n" and len(list(tmp_path.iterdir())) == 1
    process.send_signal(signum)
    began = time.time()
    _, error = process.communicate(timeout=30)
    assert process.returncode == 128 + signum and not error and time.time() - began < 20
    assert not list(tmp_path.iterdir())


def test_an_error_is_one_line_whatever_it_names(capsys):
    @Utils.command
    def main(argv=None):
        raise UserError("a\nb\udcff: is odd")

    assert main() == 2
    assert capsys.readouterr().err.endswith("error: a\\nb\\udcff: is odd\n")
