"""train.py as its users run it."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import PROJECT, knobs

import checkpoint as export
import train
from codec import Codec, read_image
from codec.checkpoint import newest_checkpoint, read_arrays, read_knobs, resolve_checkpoint
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


def arrays(folder) -> dict[str, np.ndarray]:
    with np.load(folder / "training.npz") as training, np.load(folder / "model.npz") as model:
        return dict(training) | {f"model:{name}": array for name, array in model.items()}


@pytest.mark.parametrize("stages", [
    {"distortion_steps": 2, "discriminator_warmup_steps": 1, "sample_noise": True, "random_flip": True},
    pytest.param(  # DDD, GDG
        {"discriminator_warmup_steps": 2, "n_critic_iterations": 2, "gan_loss": "wgan_gp", "spectral_norm": True},
        marks=pytest.mark.slow,
    ),
], ids=["noise", "critic"])  # fmt: skip
def test_training_2n_steps_equals_n_then_resume_then_n(stages, run, photos, tmp_path):
    assert run("-name", "whole", "--steps", "6", **stages) == 0
    assert run("-name", "parts", "--steps", "3", **stages) == 0
    assert train.main(["-ds", str(photos), "-rl", "-name", "parts", "--steps", "6"]) == 0
    whole, parts = (arrays(tmp_path / "checkpoints" / name / "ckpt-00000006") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not np.array_equal(whole[name], parts[name])] == []


def test_a_run_writes_checkpoints_summaries_and_sample_pictures(run, tmp_path):
    assert run("--name", "a", "-k", "checkpoint_epochs=1", "-k", "keep_checkpoints=2", "--epochs", "4", distortion_steps=3) == 0
    # 1 of 5 photos is held out: 4 photos in batches of 2 are 2 steps an epoch; step 3 ends the distortion stage
    names = sorted(p.name for p in (tmp_path / "checkpoints/a").iterdir())
    assert names == ["ckpt-00000003", "ckpt-00000006", "ckpt-00000008"]
    assert [p.name for p in sorted((tmp_path / "samples/a").iterdir())] == ["00000004.png", "00000008.png"]
    assert read_image(tmp_path / "samples/a/00000004.png", 10**6).shape[1] > 2 * 96
    scalars, images = summaries(tmp_path / "tensorboard/a")
    assert {"distortion", "adversarial", "feature_matching", "discriminator", "D_real", "D_fake", "PSNR", "bpp",
            "held_out_PSNR", "G_learning_rate", "D_learning_rate", "steps_per_second"} <= set(scalars)  # fmt: skip
    assert scalars["distortion"] == [4, 8] and images == {"original/0", "reconstruction/0"}


def summaries(folder) -> tuple[dict, set]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags = {tag: [event.step for event in events.Tensors(tag)] for tag in events.Tags()["tensors"]}
    images = {tag for tag in tags if "/" in tag}
    return {tag: steps for tag, steps in tags.items() if tag not in images}, images


def test_a_run_is_not_overwritten(run, capsys):
    assert run("--name", "a", "--steps", "1") == 0
    assert run("--name", "a", "--steps", "1") == 2
    assert "-rl" in capsys.readouterr().err


def test_resuming_keeps_the_checkpoints_knobs_and_takes_overrides(run, photos, tmp_path):
    assert run("--name", "a", "--steps", "1", lambda_X=7) == 0
    assert train.main(["-ds", str(photos), "-rl", "--name", "a", "--steps", "2", "-k", "G_learning_rate=0.001"]) == 0
    config = read_knobs(resolve_checkpoint(tmp_path / "checkpoints/a"))
    assert (config.lambda_X, config.G_learning_rate, config.width) == (7.0, 0.001, 32)


def test_knobs_come_from_files_then_from_k(run, tmp_path, capsys):
    (tmp_path / "a.json").write_text('{"lambda_X": 5, "seed": 3}')
    (tmp_path / "b.json").write_text('{"lambda_X": 6}')
    files = ["-c", "a.json", "-c", "b.json"]
    assert run("--name", "a", "--steps", "1", *files, "-k", "seed=4") == 0
    config = read_knobs(resolve_checkpoint(tmp_path / "checkpoints/a"))
    assert (config.lambda_X, config.seed, config.width) == (6, 4, 32)
    (tmp_path / "b.json").write_text('{"lambda_Y": 6}')
    assert run("--name", "b", "--steps", "1", *files) == 2
    error = capsys.readouterr().err
    assert "b.json: knob lambda_Y" in error


def test_resuming_from_another_runs_checkpoint_leaves_it_alone(run, photos, tmp_path):
    assert run("--name", "a", "--steps", "1") == 0
    assert run("--name", "c", "--steps", "1") == 0
    assert train.main(["-ds", str(photos), "-r", "checkpoints/a", "--name", "c", "--steps", "2"]) == 2  # c has its own
    assert train.main(["-ds", str(photos), "-r", "checkpoints/a", "--name", "b", "--steps", "2"]) == 0
    assert [p.name for p in (tmp_path / "checkpoints/a").iterdir()] == ["ckpt-00000001"]
    assert [p.name for p in (tmp_path / "checkpoints/b").iterdir()] == ["ckpt-00000002"]


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint(run, photos, tmp_path, capsys):
    assert run("--name", "a", "--steps", "1") == 0
    bad = ["-rl", "--name", "a", "--steps", "9", "-k", "G_learning_rate=1e30", "-k", "optimizer=adam"]
    assert train.main(["-ds", str(photos), *bad]) == 2
    error = capsys.readouterr().err
    assert "not finite" in error and "distortion" in error and "step " in error
    assert [p.name for p in (tmp_path / "checkpoints/a").iterdir()] == ["ckpt-00000001"]


@pytest.mark.parametrize("change", ["optimizer=momentum", "rate_model=context", "learn_centers=true", "centers=-1,0,1",
                                    "mixed_precision=float16", "spectral_norm=true", "width=48"])  # fmt: skip
def test_a_state_that_the_checkpoint_does_not_have_is_an_error(change, run, photos, capsys):
    assert run("--name", "a", "--steps", "1") == 0
    assert train.main(["-ds", str(photos), "-rl", "--name", "a", "-k", change]) == 2
    error = capsys.readouterr().err
    assert f"knob {change.partition('=')[0]}" in error and "--transfer" in error


def test_the_first_command_of_the_readme_runs_on_the_photos_that_ship(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.main(["-opt", "momentum", "--name", "run", *knobs(), "--steps", "4"]) == 0
    assert (tmp_path / "samples/run/00000004.png").exists()


def test_summaries_that_cannot_be_written_are_an_error_that_names_them(run, tmp_path, capsys):
    (tmp_path / "logs").write_text("a file")
    assert run("--name", "a", "--steps", "4", "-k", "tensorboard=logs") == 2
    assert "logs" in capsys.readouterr().err


def test_going_on_with_nothing_left_to_do_leaves_the_checkpoint_as_it_is(run, photos, tmp_path):
    assert run("--name", "a", "--steps", "2") == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("*")}
    assert train.main(["-ds", str(photos), "-rl", "--name", "a", "--steps", "2"]) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("*")} == before


def test_training_ends_with_a_context_model_of_the_averaged_weights(run, photos, tmp_path, capsys):
    assert run("--name", "a", "--steps", "2", entropy_steps=0) == 0
    checkpoint = tmp_path / "checkpoints/a/ckpt-00000002"
    assert not (checkpoint / "context.npz").exists()
    fit = ["-ds", str(photos), "-k", "entropy_steps=5"]
    assert train.main(["--fit-entropy", "-r", str(checkpoint), *fit]) == 0  # alone ...
    assert "bits per symbol" in capsys.readouterr().out
    assert run("--name", "b", "--steps", "2", entropy_steps=5) == 0  # ... and at the end
    alone, at_the_end = (np.load(tmp_path / f"checkpoints/{name}/ckpt-00000002/context.npz") for name in "ab")
    assert [name for name in alone if not np.array_equal(alone[name], at_the_end[name])] == []
    codec = Codec.load(checkpoint)
    assert codec.decode(codec.encode(np.zeros((64, 96, 3), np.uint8))).shape == (64, 96, 3)


def test_fitting_skips_unreadable_held_out_images(run, photos, tmp_path, capsys):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "a.png").write_bytes((photos / "0.png").read_bytes())
    (tmp_path / "val" / "b.png").write_text("junk")
    assert run("--name", "a", "--steps", "1", "--val", str(tmp_path / "val"), entropy_steps=3) == 0
    said = capsys.readouterr()
    assert "b.png" in said.err and "of 1 held-out images" in said.out
    assert (tmp_path / "checkpoints/a/ckpt-00000001/context.npz").exists()


def test_held_out_images_that_cannot_be_read_are_told_and_cost_nothing(run, photos, tmp_path, capsys):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "a.png").write_text("junk")
    arguments = ["--name", "a", "--steps", "4", "--val", str(tmp_path / "val")]
    assert run(*arguments) == 2
    assert "none of the 1 held-out images can be read" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()
    (tmp_path / "val" / "b.png").write_bytes((photos / "0.png").read_bytes())
    assert run(*arguments) == 0
    assert "a.png" in capsys.readouterr().err
    assert (tmp_path / "samples/a/00000004.png").exists()


def test_the_start_of_a_run_says_what_it_computes_on_and_what_it_sees(run, capsys):
    assert run("--name", "a", "--steps", "1") == 0
    said = capsys.readouterr().out
    assert "device: " in said and "precision: float32" in said and "encoder 0." in said
    assert "data: 4 training images, 0.0 MB of files; 1 held out" in said
    assert "a step: 2 x 64x64 px, 0.01 megapixels; 2 steps are an epoch; up to step 1" in said


def test_runs_in_folders_of_runs_share_nothing(run, photos, tmp_path):
    for name in ("exp1/lr1", "exp2/lr1"):
        assert run("--name", name, "--steps", "4") == 0
        for base in ("checkpoints", "samples", "tensorboard"):
            assert any((tmp_path / base / name).iterdir())
    assert train.main(["-ds", str(photos), "-rl", "--name", "exp1/lr1", "--steps", "5"]) == 0
    assert newest_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints/exp1/lr1/ckpt-00000005"


def test_where_there_is_nothing_to_do_nothing_is_changed(run, photos, tmp_path, capsys):
    assert run("--name", "a", "--steps", "2") == 0
    again = ["-ds", str(photos), "--steps", "2", "-k", "entropy_steps=3"]
    assert train.main([*again, "-rl", "--name", "a"]) == 0  # a context model now would make its files undecodable
    assert train.main([*again, "-r", "checkpoints/a", "--name", "b"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "checkpoints").rglob("*.npz")) == ["model.npz", "training.npz"]


@pytest.mark.parametrize("signum", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_with_a_checkpoint(signum, photos, tmp_path):
    command = [sys.executable, str(PROJECT / "train.py"), "-ds", str(photos), *knobs(diagnostic_steps=1), "--steps", "100000"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None and not list(tmp_path.glob("samples/run/*.png")):  # a sample picture: it trains
        time.sleep(0.1)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signum, output
    assert Trainer.start_from(tmp_path / "checkpoints/run", {}).step > 0
    assert "go on with: train.py -rl --name run" in output


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
    for script in ("train", "compress", "decompress", "checkpoint", "data/make_paths", "data/resample"):
        code = f"import runpy, sys; sys.argv = ['x', '-h']; sys.path.insert(0, '.')\ntry: runpy.run_path('{script}.py', run_name='__main__')\nexcept SystemExit: pass\nassert not {{'tensorflow', 'keras', 'pandas'}} & set(sys.modules)"  # noqa: E501
        result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, env=os.environ)
        assert result.returncode == 0 and "usage:" in result.stdout, result.stderr


def test_what_ships_of_a_checkpoint_compresses_as_it_does(checkpoint, photos, tmp_path, capsys):
    shipped = tmp_path / "shipped"
    assert export.main(["-r", str(checkpoint), "-o", str(shipped)]) == 0
    assert sorted(file.name for file in shipped.iterdir()) == ["config.json", "fingerprint.txt", "model.npz"]
    source = max(checkpoint.glob("ckpt-*"))
    assert (shipped / "model.npz").stat().st_size < 0.55 * (source / "model.npz").stat().st_size
    whole, half = Codec.load(checkpoint), Codec.load(shipped)
    assert whole.checkpoint.fingerprint != half.checkpoint.fingerprint
    contents, rounded = (codec.contents(read_image(photos / "0.png")) for codec in (whole, half))
    assert (contents.symbols == rounded.symbols).mean() > 0.95
    pictures = [codec.picture(contents, 80, 96).astype(int) for codec in (whole, half)]
    assert np.abs(pictures[0] - pictures[1]).mean() < 1
    assert Trainer.start_from(shipped, {}).step == 0
    assert export.main(["-r", str(checkpoint), "-o", str(shipped)]) == 2
    assert "there already" in capsys.readouterr().err


def test_a_blend_is_between_two_generators_of_one_encoder(checkpoint, tmp_path, capsys):
    source, other = max(checkpoint.glob("ckpt-*")), tmp_path / "other"
    shutil.copytree(source, other)
    weights = read_arrays(source / "model.npz")
    moved = {name: array + 1 if name.startswith(("generator", "noise_generator")) else array for name, array in weights.items()}
    np.savez(other / "model.npz", **moved | {"frequencies": weights["frequencies"][::-1]})
    blend = ["-r", str(source), "--blend", str(other)]
    assert export.main([*blend, "0.25", "-o", str(tmp_path / "blended")]) == 0
    for name, array in read_arrays(tmp_path / "blended/model.npz").items():
        wanted = weights[name] + 0.25 * (moved[name] is not weights[name])
        np.testing.assert_allclose(array, wanted, atol=2e-3)  # half precision
    for share in ("1.5", "nan", "much"):
        assert export.main([*blend, share, "-o", str(tmp_path / "b")]) == 2
        assert f"--blend: '{share}'" in capsys.readouterr().err
    np.savez(other / "model.npz", **moved | {"encoder/Conv2D_5/bias": moved["encoder/Conv2D_5/bias"] + 1})
    assert export.main([*blend, "0.5", "-o", str(tmp_path / "b")]) == 2
    assert "encoder/Conv2D_5/bias differs" in capsys.readouterr().err
    np.savez(other / "model.npz", **{name: array for name, array in moved.items() if name != "generator/Conv2D_0/kernel"})
    assert export.main([*blend, "0.5", "-o", str(tmp_path / "b")]) == 2
    assert "generator/Conv2D_0/kernel is not as" in capsys.readouterr().err and not (tmp_path / "b").exists()


def test_weights_beyond_half_precision_are_not_shipped(checkpoint, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(max(checkpoint.glob("ckpt-*")), broken)
    with np.load(broken / "model.npz") as saved:
        arrays = dict(saved)
    arrays["encoder/Conv2D_0/kernel"][0, 0, 0, 0] = 1e6
    np.savez(broken / "model.npz", **arrays)
    assert export.main(["-r", str(broken), "-o", str(tmp_path / "shipped")]) == 2
    assert "encoder/Conv2D_0/kernel" in capsys.readouterr().err and not (tmp_path / "shipped").exists()


def test_a_transfer_takes_the_weights_that_fit(checkpoint, run, tmp_path, capsys):
    trainer, fresh = Trainer.transfer(checkpoint, {"channel_bottleneck": 4})
    assert trainer.step == 0 and trainer.config.channel_bottleneck == 4 and trainer.config.sample_noise
    with np.load(checkpoint / "ckpt-00000005/model.npz") as saved:
        weights = trainer.model.weights
        taken = [name for name in weights if name not in fresh]
        assert all(np.array_equal(weights[name].numpy(), saved[name]) for name in taken)
        assert all(saved[name].shape != tuple(weights[name].shape) for name in fresh)
        name = "encoder/Conv2D_5/kernel"  # (3, 3, W, C)
        np.testing.assert_array_equal(weights[name].numpy(), saved[name][..., :4])
    assert len(taken) > 20 and {name.partition("/")[0] for name in fresh} == {"encoder", "generator", "noise_generator"}
    assert all(np.array_equal(a.numpy(), v.numpy()) for a, v in zip(trainer.averages, trainer.G_variables, strict=True))
    with np.load(checkpoint / "ckpt-00000005/training.npz") as saved:
        for name, var in named_weights({"discriminator": trainer.discriminator}).items():
            np.testing.assert_array_equal(var.numpy(), saved[name])
    trainer, fresh = Trainer.transfer(checkpoint, {"generator": "subpixel_generator"})
    start = {name: var.numpy() for name, var in Trainer(trainer.config).model.weights.items()}
    assert fresh and all(np.array_equal(trainer.model.weights[name], start[name]) for name in fresh)  # whole, not in part
    arguments = ["--transfer", str(checkpoint), "--name", "b", "--steps", "1"]
    assert run(*arguments, "-k", "channel_bottleneck=4", distortion_steps=1) == 0
    assert "afresh: encoder/" in capsys.readouterr().out
    assert read_knobs(resolve_checkpoint(tmp_path / "checkpoints/b")).channel_bottleneck == 4
    assert run(*arguments) == 2  # a run is not overwritten
