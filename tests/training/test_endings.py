"""Whatever ends a run, what was trained is saved. tests/endings.py does this at random moments, a hundred times."""

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import make_steps_eager
from endings import WAYS, Scene, check_ending, check_same, pair, run, take_photos

import train
from config import UserError, config_train
from data import Dataset
from gcodec.files import LOCK, locked
from gcodec.labels import LabelBatch
from tools.plot_losses import read_scalars
from training.console import Progress, unbreakable
from training.fit_entropy import fit_context_models
from training.run import Watch
from training.trainer import Trainer


@pytest.fixture(scope="module", autouse=True)
def eager():
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_steps_eager(monkeypatch)
        yield


@pytest.fixture
def scene(tmp_path) -> Scene:
    return Scene(tmp_path, take_photos(tmp_path / "photos"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Scene:
    """A run that nothing disturbs."""
    base = tmp_path_factory.mktemp("whole")
    scene = Scene(base, take_photos(base / "photos"))
    assert run(scene) == 0
    return scene


@pytest.mark.parametrize(("step", "name"), enumerate(WAYS, start=1))
def test_whatever_ends_a_run_what_was_trained_is_saved(name, step, scene, whole):
    step = 1 + step % 5
    status = run(scene, WAYS[name], step)
    check_ending(name, scene, step, status)
    if status != 0:
        scene.mend()
        assert run(scene, None, 0, *(["-rl"] if scene.newest else [])) == 0
    check_same(name, scene.weights(), whole.weights())


def test_two_runs_of_one_name_are_one_run_and_a_refusal(scene):
    pair(scene, 1.0)
    assert not list(scene.base.rglob(LOCK))


def test_a_lock_is_for_one_holder_at_a_time_and_leaves_nothing(tmp_path):
    folder = tmp_path / "a/b"
    for _ in range(2):
        with locked(folder, "run b"):
            with (
                pytest.raises(UserError, match=rf"^run b: another process writes to {re.escape(str(folder))}"),
                locked(folder, "run b"),
            ):
                pass
            with locked(tmp_path / "a/c", "run c"):
                pass
        assert not list(tmp_path.iterdir())
    (folder).mkdir(parents=True)
    (folder / LOCK).touch()  # of a process that was killed
    with locked(folder, "run b"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


def test_output_that_cannot_be_written_costs_nothing(monkeypatch):
    class Full:
        written = 0

        def write(self, *_) -> int:
            self.written += 1
            raise OSError(28, "No space left on device")

        flush = isatty = fileno = write

    for stream in (full := Full(), None):
        monkeypatch.setattr("sys.stdout", stream)
        assert unbreakable(lambda argv: print("something", flush=True) or 7)() == 7
    assert full.written


def test_without_a_terminal_progress_is_a_line_for_each_hundredth_or_minute(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("training.console.time.monotonic", lambda: now[0])
    with Progress(1000, "training", "step", done=200) as bar:
        for _ in range(800):
            now[0] += 0.1
            bar.show({"bpp": 0.12345})
            bar.add()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 210 of 1000, bpp 0.123, 10 step/s, 0:01:19 left" and len(lines) == 80
    with Progress(10**6, "training", "step") as bar:
        for _ in range(10):
            now[0] += 30
            bar.add()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5 and lines[-1].startswith("training: 10 of 1000000, 0.0333 step/s, ")


def test_a_new_run_moves_the_log_of_a_former_one_aside_and_a_resumed_one_drops_what_is_beyond_its_step(scene, capsys):
    def steps() -> list[int]:
        return [step for step, _ in read_scalars(scene.base / "tensorboard/run")["distortion"]]

    def pictures() -> list[str]:
        return sorted(path.stem.lstrip("0") for path in (scene.base / "samples/run").glob("*.png"))

    assert run(scene, WAYS["SIGTERM"], 4) == 143  # a checkpoint of step 5
    kept = shutil.copytree(scene.base / "checkpoints/run", scene.base / "kept")
    assert run(scene, WAYS["SIGTERM"], 8, "-rl") == 143  # and a log up to step 8
    assert steps() == [4, 8] and pictures() == ["4", "8"]
    shutil.rmtree(scene.base / "checkpoints/run")
    shutil.copytree(kept, scene.base / "checkpoints/run")
    assert run(scene, WAYS["an error within a step"], 6, "-rl") is None
    assert steps() == [4] and pictures() == ["4"]
    shutil.rmtree(scene.base / "checkpoints/run")
    assert run(scene, WAYS["SIGTERM"], 4) == 143
    assert steps() == [4] and pictures() == ["4"]
    aside = [scene.base / folder / "run.old-1" for folder in ("tensorboard", "samples")]
    assert [len(list(folder.iterdir())) for folder in aside] == [3, 1]


def test_what_is_reported_is_a_mean_since_the_last_diagnosis_without_steps_that_preserve_nothing():
    watch = Watch()
    watch.add(1, {"PSNR": tf.constant(20.0), "bpp": tf.constant(0.2), "preserved": tf.constant(0.5)})
    watch.add(2, {"PSNR": tf.constant(106.0), "bpp": tf.constant(0.0), "preserved": tf.constant(0.0)})
    watch.look()
    watch.add(3, {"PSNR": tf.constant(30.0), "bpp": tf.constant(0.4), "preserved": tf.constant(1.0), "late": tf.constant(7.0)})
    watch.look()
    assert watch.means == pytest.approx({"PSNR": 25, "bpp": 0.3, "preserved": 0.5, "late": 7})
    watch.begin()
    watch.look()
    assert watch.means["PSNR"] == 25  # until there is something new
    watch.add(4, {"PSNR": tf.constant(40.0)})
    watch.look()
    assert watch.means == {"PSNR": 40}
    watch.add(5, {"PSNR": tf.constant(float("inf"))})
    with pytest.raises(UserError, match=r"^step 5: a loss is not finite \(PSNR inf\)"):
        watch.look()


def test_a_step_in_which_nothing_is_preserved_says_so(tiny_config):
    planes = [tf.zeros((2, 64, 64), tf.uint8)] * 3
    config = tiny_config(use_conditional_GAN=True, n_classes=3, selective=True, width=16, n_residual_blocks=0)
    terms = Trainer(config).train_step(tf.zeros((2, 64, 64, 3)), LabelBatch(*planes))
    assert float(terms["preserved"]) == 0 and float(terms["PSNR"]) > 100


@pytest.mark.parametrize("images", [3, 400])
def test_the_bar_of_the_fit_ends_at_its_total(images, monkeypatch, tmp_path, capsys):
    """With few images, all are coded, twice; with many, as many as there are positions wanted."""
    bars = []

    class Bar(Progress):
        def __exit__(self, *error):
            bars.append((self.what, self.done, self.total))

    class Codec:
        def contents(self, *_):
            return SimpleNamespace(symbols=np.zeros((4, 6, 2), np.uint8), mask=None)

    monkeypatch.setattr("training.fit_entropy.Progress", Bar)
    monkeypatch.setattr("training.fit_entropy.FIT_POSITIONS", 1000)
    monkeypatch.setattr("training.fit_entropy._fit_one", lambda *_: None)
    monkeypatch.setattr("training.fit_entropy.Data", lambda *_: SimpleNamespace(sample=lambda i: (i,), held_out=lambda p: (p,)))
    dataset = Dataset([str(i) for i in range(images)], ["a", "b"])
    fit_context_models(Codec(), config_train(), tmp_path, dataset)
    n = 2 * images if images == 3 else 1000 // 24 + 1
    assert bars == [("symbols", n + 2, n + 2)]


def test_where_the_data_shrank_it_is_said_what_so_many_epochs_are_now(scene, capsys):
    assert run(scene, WAYS["SIGTERM"], 6) == 143
    (scene.photos / "2.png").unlink()
    where = [part for name in ("checkpoints", "samples") for part in ("-k", f"{name}={scene.base / name}")]
    assert train.main(["-ds", str(scene.photos), "-rl", "--name", "run", "--epochs", "3", *where]) == 0
    assert "at step 7, and was to go up to step 6, which is where 3 epochs of 2 images" in capsys.readouterr().out
