"""train.py as its users run it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, knobs

import train
from commands.loading import load_codec
from config import UserError, config_train
from gcodec import read_image
from gcodec.checkpoint import newest_checkpoint, read_checkpoint
from model import named_weights
from training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("eager_steps")


@pytest.fixture
def run(photos, tmp_path, monkeypatch):
    """Runs train.py in an empty folder; returns its exit status."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, **changes) -> int:
        data = [] if "-ds" in arguments else ["-ds", str(photos)]
        return train.main([*data, *knobs(**changes), *arguments])

    return call


@pytest.fixture
def finished(checkpoint, tmp_path) -> Path:
    """The folder of a finished run, "a" of 5 steps, where `run` would have written it."""
    return shutil.copytree(checkpoint, tmp_path / "checkpoints/a")


def test_a_run_writes_checkpoints_summaries_and_sample_pictures(run, tmp_path, capsys):
    changes = {"distortion_steps": 1, "checkpoint_epochs": 1, "keep_checkpoints": 1, "diagnostic_steps": 4}
    assert run("--name", "a", "--epochs", "2", **changes) == 0
    # 1 of 5 photos is held out: 4 photos in batches of 2 are 2 steps an epoch; step 1 ends the distortion stage
    assert sorted(p.name for p in (tmp_path / "checkpoints/a").iterdir()) == ["ckpt-00000001", "ckpt-00000004"]
    assert [p.name for p in (tmp_path / "samples/a").iterdir()] == ["00000004.png"]
    assert read_image(tmp_path / "samples/a/00000004.png", 10**6).shape[1] > 2 * 96
    scalars, images = summaries(tmp_path / "tensorboard/a")
    assert {"distortion", "adversarial", "feature_matching", "discriminator", "D_real", "D_fake", "PSNR", "bpp",
            "held_out_PSNR", "G_learning_rate", "D_learning_rate", "steps_per_second"} <= set(scalars)  # fmt: skip
    assert scalars["distortion"] == [4] and images == {"original/0", "reconstruction/0"}
    said = capsys.readouterr().out
    assert "device: " in said and "precision: float32" in said and "encoder 0." in said
    assert "data: 4 training images, 0.0 MB of files; 1 held out" in said
    assert "a step: 2 x 64x64 px, 0.01 megapixels; 2 steps are an epoch; up to step 4" in said


def summaries(folder) -> tuple[dict, set]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags = {tag: [event.step for event in events.Tensors(tag)] for tag in events.Tags()["tensors"]}
    images = {tag for tag in tags if "/" in tag}
    return {tag: steps for tag, steps in tags.items() if tag not in images}, images


def test_a_run_is_not_overwritten(run, finished, capsys):
    assert run("--name", "a", "--steps", "9") == 2
    assert "-rl" in capsys.readouterr().err


def test_resuming_keeps_the_checkpoints_knobs_and_takes_overrides(finished, run, photos):
    assert train.main(["-ds", str(photos), "-rl", "--name", "a", "--steps", "6", "-k", "G_learning_rate=0.001"]) == 0
    config = read_checkpoint(finished).knobs(config_train)
    assert (config.distortion_steps, config.G_learning_rate, config.width) == (2, 0.001, 32)


def test_an_override_must_suit_the_checkpoints_knobs_and_not_the_defaults(run, photos, capsys):
    assert run("--name", "a", "--steps", "1", rate_model="context", target_bpp=0.01) == 0
    go_on = ["-ds", str(photos), "-rl", "--name", "a", "--steps", "2"]
    assert train.main([*go_on, "-k", "target_bpp=0.02"]) == 0
    assert train.main([*go_on, "-k", "rate_model=static"]) == 2
    assert "knob rate_model" in capsys.readouterr().err


def test_knobs_come_from_files_then_from_k(run, tmp_path, capsys):
    (tmp_path / "a.json").write_text('{"lambda_X": 5, "seed": 3}')
    (tmp_path / "b.json").write_text('{"lambda_X": 6}')
    files = ["-c", "a.json", "-c", "b.json"]
    assert run("--name", "a", "--steps", "1", *files, "-k", "seed=4") == 0
    config = read_checkpoint(tmp_path / "checkpoints/a").knobs(config_train)
    assert (config.lambda_X, config.seed, config.width) == (6, 4, 32)
    (tmp_path / "b.json").write_text('{"lambda_Y": 6}')
    assert run("--name", "b", "--steps", "1", *files) == 2
    error = capsys.readouterr().err
    assert "b.json: knob lambda_Y" in error


def test_resuming_from_another_runs_checkpoint_leaves_it_alone(finished, run, photos, tmp_path):
    shutil.copytree(finished, tmp_path / "checkpoints/c")
    before = sorted(p.name for p in finished.iterdir())
    assert train.main(["-ds", str(photos), "-r", "checkpoints/a", "--name", "c", "--steps", "6"]) == 2  # c has its own
    assert train.main(["-ds", str(photos), "-r", "checkpoints/a", "--name", "b", "--steps", "6"]) == 0
    assert sorted(p.name for p in finished.iterdir()) == before
    assert [p.name for p in (tmp_path / "checkpoints/b").iterdir()] == ["ckpt-00000006"]


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint(finished, run, photos, capsys):
    before = sorted(p.name for p in finished.iterdir())
    bad = ["-rl", "--name", "a", "--steps", "9", "-k", "G_learning_rate=1e30", "-k", "optimizer=adam"]
    assert train.main(["-ds", str(photos), *bad]) == 2
    error = capsys.readouterr().err
    assert "not finite" in error and "distortion" in error and "step " in error
    assert sorted(p.name for p in finished.iterdir()) == before


def test_a_state_that_the_checkpoint_does_not_have_is_an_error(finished, run, photos, capsys):
    """tests/training/test_knob_roles.py has the other knobs for which this holds."""
    for change in ("optimizer=momentum", "width=48"):
        assert train.main(["-ds", str(photos), "-rl", "--name", "a", "-k", change]) == 2
        error = capsys.readouterr().err
        assert f"knob {change.partition('=')[0]}" in error and "--transfer" in error


def test_the_first_command_of_the_readme_runs_on_the_photos_that_ship(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.main(["-opt", "momentum", "--name", "run", *knobs(diagnostic_steps=1), "--steps", "1"]) == 0
    assert (tmp_path / "samples/run/00000001.png").exists()


def test_summaries_that_cannot_be_written_are_an_error_that_names_them(run, tmp_path, capsys):
    (tmp_path / "logs").write_text("a file")
    assert run("--name", "a", "--steps", "4", "-k", "tensorboard=logs") == 2
    assert "logs" in capsys.readouterr().err


def test_after_the_first_steps_a_run_says_how_long_it_takes_and_how_large_a_checkpoint_is(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("training.run.ESTIMATE_SECONDS", 0)
    assert run("--name", "quick", "--steps", "4") == 0
    said = re.search(
        r"a step takes .* s: \d:\d\d:\d\d for the 2 that are left; a checkpoint takes (\d+) MB", capsys.readouterr().out
    )
    assert said
    files = (tmp_path / "checkpoints/quick/ckpt-00000004").iterdir()
    assert int(said[1]) == pytest.approx(sum(file.stat().st_size for file in files) / 1e6, abs=1)
    monkeypatch.setattr("training.run.SLOW_STEP", 0)
    assert run("--name", "slow", "--steps", "3") == 0
    assert "presets/first_try.toml" in capsys.readouterr().out


def test_where_there_is_nothing_to_do_nothing_is_changed(finished, run, photos, tmp_path, capsys):
    def files() -> dict:
        return {p: p.is_file() and p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("*")}

    before = files()
    again = ["-ds", str(photos), "--steps", "5", "-k", "entropy_steps=3"]
    assert train.main([*again, "-rl", "--name", "a"]) == 0  # a context model now would make its files undecodable
    assert train.main([*again, "-r", "checkpoints/a", "--name", "b"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert files() == before


def test_training_ends_with_a_context_model_of_the_averaged_weights(run, photos, tmp_path, capsys):
    assert run("--name", "a", "--steps", "2", entropy_steps=5) == 0
    at_the_end = tmp_path / "checkpoints/a/ckpt-00000002"
    alone = shutil.copytree(at_the_end, tmp_path / "alone")
    for name in ("context.npz", "fingerprint.txt"):
        (alone / name).unlink()
    capsys.readouterr()
    assert train.main(["--fit-entropy", "-r", str(alone), "-ds", str(photos), "-k", "entropy_steps=5"]) == 0
    assert "bits per symbol" in capsys.readouterr().out
    ours, theirs = (np.load(folder / "context.npz") for folder in (at_the_end, alone))
    assert [name for name in ours if not np.array_equal(ours[name], theirs[name])] == []
    codec = load_codec(at_the_end)
    assert codec.decode(codec.encode(np.zeros((64, 96, 3), np.uint8))).shape == (64, 96, 3)


def test_held_out_images_that_cannot_be_read_are_told_and_cost_nothing(run, photos, tmp_path, capsys):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "a.png").write_text("junk")

    def train_one_step() -> int:
        val = str(tmp_path / "val")
        return run("--name", "a", "--steps", "1", "--val", val, diagnostic_steps=1, entropy_steps=3)

    assert train_one_step() == 2
    assert "none of the 1 held-out images can be read" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()
    (tmp_path / "val" / "b.png").write_bytes((photos / "0.png").read_bytes())
    assert train_one_step() == 0
    said = capsys.readouterr()
    assert "a.png" in said.err and "of 1 held-out images" in said.out  # of the fit
    assert (tmp_path / "samples/a/00000001.png").exists()
    assert (tmp_path / "checkpoints/a/ckpt-00000001/context.npz").exists()


def test_runs_in_folders_of_runs_share_nothing(run, photos, tmp_path):
    for name in ("exp1/lr1", "exp2/lr1"):
        assert run("--name", name, "--steps", "1", distortion_steps=9, diagnostic_steps=1) == 0
        for base in ("checkpoints", "samples", "tensorboard"):
            assert any((tmp_path / base / name).iterdir())
    assert train.main(["-ds", str(photos), "-rl", "--name", "exp1/lr1", "--steps", "2"]) == 0
    assert newest_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints/exp1/lr1/ckpt-00000002"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_with_a_checkpoint(signum, run, photos, tmp_path, monkeypatch, capsys):
    step = Trainer.train_step

    def interrupted(trainer: Trainer, *batch):
        if trainer.step == 1:
            os.kill(os.getpid(), signum)
        return step(trainer, *batch)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    assert run("--steps", "100000", distortion_steps=9) == 128 + signum
    saved = read_checkpoint(tmp_path / "checkpoints/run")
    assert Trainer.start_from(saved, {}).step == 2  # the step that was begun is finished
    output = capsys.readouterr().out
    assert "stopped by a signal at step 2" in output
    assert f"go on with: train.py -rl --name run -ds {photos} --steps 100000" in output


def test_a_checkpoint_that_cannot_be_written_is_told_once(run, monkeypatch, capsys):
    def full(*_, **__):
        raise UserError("ckpt-00000001: cannot be written (No space left on device)")

    monkeypatch.setattr("training.trainer.write_checkpoint", full)
    assert run("--steps", "1", distortion_steps=9) == 2
    error = capsys.readouterr().err
    assert error.count("No space left on device") == 1 and "nothing was saved" in error


def test_a_process_that_trains_and_gets_a_signal_leaves_a_checkpoint(photos, tmp_path):
    small = {"width": 16, "n_residual_blocks": 0}
    changes = small | {"diagnostic_steps": 1, "distortion_steps": 10**6, "checkpoint_epochs": 10**6}
    command = [sys.executable, str(PROJECT / "train.py"), "-ds", str(photos), *knobs(**changes), "--steps", "100000"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None and not list(tmp_path.glob("samples/run/*.png")):  # a sample picture: it trains
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert list((tmp_path / "checkpoints/run").glob("ckpt-*/training.npz"))
    assert f"go on with: train.py -rl --name run -ds {photos}" in output


@pytest.mark.parametrize("start", [["-rl", "--name", "a"], ["-r", "checkpoints/a"], ["--fit-entropy", "-rl", "--name", "a"]])
def test_going_on_asks_for_the_data_set_again(start, run, finished, capsys):
    assert train.main(start) == 2
    assert "-ds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-k", "wdith=3"], "wdith"),
        (["-k", "width=3"], "width"),
        (["-ds", "nowhere.h5"], "nowhere.h5"),
        (["-ds", "cityscapes"], "cityscapes_paths_train.h5"),
        (["-rl"], "checkpoints/run"),
        (["-r", "nowhere"], "nowhere"),
        (["--steps", "0"], "--steps"),
        (["-k", "generator=none"], "generator"),
        (["--name", ""], "--name ''"),
        (["--name", "../../x"], "--name"),
        (["-k", "checkpoints=/dev/null"], "/dev/null/run: cannot be written"),
        (["-k", "samples=/dev/null"], "/dev/null/run: cannot be written"),
        (["--fit-entropy"], "-r"),
        (["--fit-entropy", "-r", "nowhere", "--steps", "5"], "--steps"),
        (["--fit-entropy", "-r", "nowhere"], "knob batch_size"),  # one of the knobs that `run` gives
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, named, run, capfd):
    assert run(*arguments) == 2
    error = capfd.readouterr().err
    assert named in error and error.count("\n") == 1 and "error:" in error


def test_help_does_not_wait_for_tensorflow():
    for script in ("train", "compress", "decompress", "tools/checkpoint", "data/make_paths", "data/resample"):
        code = f"import runpy, sys; sys.argv = ['x', '-h']; sys.path.insert(0, '.')\ntry: runpy.run_path('{script}.py', run_name='__main__')\nexcept SystemExit: pass\nassert not {{'tensorflow', 'keras', 'pandas'}} & set(sys.modules)"  # noqa: E501
        result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, env=os.environ)
        assert result.returncode == 0 and "usage:" in result.stdout, result.stderr


def test_a_transfer_takes_the_weights_that_fit(checkpoint, run, tmp_path, capsys):
    trainer, became = Trainer.transfer(read_checkpoint(checkpoint), {"channel_bottleneck": 4})
    fresh = became.afresh + became.in_part
    assert trainer.step == 0 and trainer.config.channel_bottleneck == 4 and trainer.config.sample_noise
    with np.load(checkpoint / "ckpt-00000005/model.npz") as saved:
        weights = trainer.model.weights
        taken = [name for name in weights if name not in fresh]
        assert all(np.array_equal(weights[name].numpy(), saved[name]) for name in taken)
        assert all(saved[name].shape != tuple(weights[name].shape) for name in fresh)
        name = "encoder/last/kernel"  # (3, 3, W, C)
        np.testing.assert_array_equal(weights[name].numpy(), saved[name][..., :4])
    assert len(taken) > 20 and {name.partition("/")[0] for name in fresh} == {"encoder", "generator", "noise_generator"}
    assert all(np.array_equal(a.numpy(), v.numpy()) for a, v in zip(trainer.averages, trainer.G_variables, strict=True))
    with np.load(checkpoint / "ckpt-00000005/training.npz") as saved:
        for name, var in named_weights({"discriminator": trainer.discriminator}).items():
            np.testing.assert_array_equal(var.numpy(), saved[name])
    trainer, (fresh, in_part, _) = Trainer.transfer(read_checkpoint(checkpoint), {"generator": "subpixel_generator"})
    assert in_part == []
    start = {name: var.numpy() for name, var in Trainer(trainer.config).model.weights.items()}
    assert fresh and all(np.array_equal(trainer.model.weights[name], start[name]) for name in fresh)  # whole, not in part
    arguments = ["--transfer", str(checkpoint), "--name", "b", "--steps", "1"]
    assert run(*arguments, "-k", "channel_bottleneck=4", distortion_steps=1) == 0
    assert "taken in part, of another shape: encoder/last/kernel, " in capsys.readouterr().out
    assert read_checkpoint(tmp_path / "checkpoints/b").knobs(config_train).channel_bottleneck == 4
    assert run(*arguments) == 2  # a run is not overwritten
