"""Several workers on this machine train as one does; and what happens when one dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from conftest import PROJECT, knobs, label_map, photo
from PIL import Image

from config import UserError, config_train
from gcodec.checkpoint import read_checkpoint
from training import distribution
from training.trainer import Trainer

TRAIN = """
import sys
import numpy as np
import tensorflow as tf
import train
from training.trainer import Trainer

tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # which takes longer than it saves here
step, terms = Trainer.train_step, []

def train_step(trainer, *batch):
    terms.append({name: float(term) for name, term in step(trainer, *batch).items()})
    if trainer.step == STEPS:
        variables = [*trainer.G_variables, *trainer.D_variables, *trainer.averages, trainer.rate.histogram]
        np.savez(sys.argv[1], weights=np.concatenate([v.numpy().ravel() for v in variables]), terms=terms)
    return terms[-1]

Trainer.train_step = train_step
sys.exit(train.main(sys.argv[2:]))
"""
STEPS = 3  # after these, the process writes what it has
SMALL = {"width": 16, "discriminator_width": 4, "n_scales": 1, "n_residual_blocks": 0, "diagnostic_steps": 10**6}


def start(folder, worker: int | None, ports: list[int], *arguments: str, **changes) -> subprocess.Popen:
    """A process that trains in a new folder; its weights and loss terms go to out.npz there, what it says to log."""
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    if worker is not None:
        hosts = {"worker": [f"localhost:{port}" for port in ports]}
        environment["TF_CONFIG"] = json.dumps({"cluster": hosts, "task": {"type": "worker", "index": worker}})
    code = TRAIN.replace("STEPS", str(STEPS))
    command = [sys.executable, "-c", code, str(folder / "out.npz"), *knobs(**(SMALL | changes)), *arguments]
    command += [] if "-ds" in arguments else ["-ds", "sample"]
    environment["PYTHONPATH"] = str(PROJECT)
    with open(folder / "log", "w") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def wait_for(done, processes: list[subprocess.Popen], seconds: float = 240) -> None:
    """Wait until `done()`, until a process ends, or until the time is over."""
    deadline = time.time() + seconds
    while not done() and time.time() < deadline and all(process.poll() is None for process in processes):
        time.sleep(0.2)


@pytest.fixture
def ports() -> list[int]:
    with socket.socket() as a, socket.socket() as b:
        for s in (a, b):
            s.bind(("localhost", 0))
        return [s.getsockname()[1] for s in (a, b)]


def test_two_workers_train_as_one_does_with_the_whole_batch_and_stop_at_the_same_step(ports, tmp_path):
    changes = {
        "batch_size": 4,
        "sample_noise": True,
        "noise_mode": "map",
        "channel_dropout": 0.5,
        "distortion_steps": 1,
        "optimizer": "momentum",
        "rate_model": "context",
        "target_bpp": 0.01,
        "seed": 1,
        "checkpoint_epochs": 10**6,
    }  # fmt: skip  (with the seed 0, one value of w is at a tie)
    workers = [start(tmp_path / f"w{i}", i, ports, "--steps", "100000", **changes) for i in range(2)]
    try:
        wait_for((tmp_path / "w1/out.npz").exists, workers)
        workers[1].send_signal(signal.SIGTERM)
        assert [process.wait(timeout=240) for process in workers] == [0, 128 + signal.SIGTERM]
    finally:
        for process in workers:
            process.kill()
    assert start(tmp_path / "alone", None, [], "--steps", str(STEPS), **changes).wait(timeout=300) == 0
    first, second, alone = (np.load(tmp_path / name / "out.npz", allow_pickle=True) for name in ("w0", "w1", "alone"))
    np.testing.assert_array_equal(first["weights"], second["weights"])
    np.testing.assert_allclose(first["weights"], alone["weights"], atol=1e-5)
    for ours, theirs in zip(first["terms"], alone["terms"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert "checkpoint: checkpoints/run/ckpt-" in (tmp_path / "w0/log").read_text()
    assert Trainer.start_from(read_checkpoint(tmp_path / "w0/checkpoints/run"), {}).step >= STEPS
    assert not (tmp_path / "w1/checkpoints").exists() and not (tmp_path / "w1/tensorboard").exists()


@pytest.mark.slow
def test_two_workers_train_as_one_does_where_parts_of_the_images_are_synthesized(ports, tmp_path):
    """Each image preserves a different share of its pixels, and so does each worker."""
    for i in range(4):
        Image.fromarray(photo(80, 96, seed=i)).save(tmp_path / f"{i}.png")
        Image.fromarray(label_map(80, 96)).save(tmp_path / f"s{i}.png")
    table = tmp_path / "t.csv"
    table.write_text("path,semantic_map_paths\n" + "".join(f"{i}.png,s{i}.png\n" for i in range(4)))
    changes = {"batch_size": 4, "use_conditional_GAN": True, "n_classes": 4, "selective": True, "lambda_rate": 1.0,
               "selective_regions": "boxes", "distortion_steps": 2, "optimizer": "sgd", "width": 16}  # fmt: skip
    arguments = ["-ds", str(table), "--val", str(table), "--steps", "3"]
    workers = [start(tmp_path / f"w{i}", i, ports, *arguments, **changes) for i in range(2)]
    assert [process.wait(timeout=300) for process in workers] == [0, 0]
    assert start(tmp_path / "alone", None, [], *arguments, **changes).wait(timeout=300) == 0
    both, alone = (np.load(tmp_path / name / "out.npz", allow_pickle=True) for name in ("w0", "alone"))
    for ours, theirs in zip(both["terms"], alone["terms"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    np.testing.assert_allclose(both["weights"], alone["weights"], atol=1e-5)


def test_a_worker_that_waits_for_others_says_so_and_ctrl_c_ends_it(ports, tmp_path):
    process = start(tmp_path / "w0", 0, ports, "--steps", "1")
    try:
        log = tmp_path / "w0/log"
        wait_for(lambda: "waits for" in log.read_text(), [process])
        assert f"worker 0 of 2: waits for localhost:{ports[1]}" in log.read_text()
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == -signal.SIGINT
    finally:
        process.kill()


@pytest.mark.slow
def test_a_worker_whose_partner_hangs_is_ended_by_a_second_signal(ports, tmp_path):
    changes = {"distortion_steps": 10**6, "diagnostic_steps": 4}
    workers = [start(tmp_path / f"w{i}", i, ports, "--steps", "100000", **changes) for i in range(2)]
    try:
        wait_for(lambda: list(tmp_path.glob("w0/samples/run/*.png")), workers)
        workers[1].send_signal(signal.SIGSTOP)
        time.sleep(1)
        workers[0].send_signal(signal.SIGTERM)
        time.sleep(1)
        assert workers[0].poll() is None and "again to stop" in (tmp_path / "w0/log").read_text()
        workers[0].send_signal(signal.SIGTERM)
        assert workers[0].wait(timeout=10) == 128 + signal.SIGTERM
    finally:
        for process in workers:
            process.kill()
            process.wait()


@pytest.mark.parametrize(("gpus", "changes", "used", "why"), [
    (2, {"batch_size": 1}, 1, "batch_size is 1"),
    (2, {"batch_size": 2, "crop_size": 64}, 2, ""),
    (4, {"batch_size": 6, "crop_size": 64}, 3, "batch_size is 6"),
    (8, {"batch_size": 4, "crop_size": 64}, 4, "batch_size is 4"),
    (2, {"batch_size": 2, "crop_size": 64, "jit_compile": True}, 1, "jit_compile"),
    (1, {"batch_size": 3, "crop_size": 64}, 1, ""),
    (0, {}, 1, ""),
])  # fmt: skip
def test_as_many_gpus_train_as_the_batch_can_be_divided_among(gpus, changes, used, why):
    n, reason = distribution.usable_devices(gpus, config_train(**changes))
    assert n == used and why in reason


def test_a_batch_norm_of_a_users_own_is_refused_on_two_devices():
    class Strategy:
        num_replicas_in_sync = 2

    inner = keras.Sequential([keras.layers.Dense(2), keras.layers.BatchNormalization(name="hidden_norm")])
    x = keras.Input((3,))
    network = keras.Model(x, inner(x))
    with pytest.raises(UserError, match="hidden_norm"):
        distribution.Cluster(Strategy()).check_networks([network])
    Strategy.num_replicas_in_sync = 1
    distribution.Cluster(Strategy()).check_networks([network])


@pytest.mark.slow
def test_when_a_worker_dies_the_other_says_so_and_a_checkpoint_is_left(ports, tmp_path):
    changes = {"distortion_steps": 10**6, "checkpoint_epochs": 2}
    workers = [start(tmp_path / f"w{i}", i, ports, "--steps", "100000", **changes) for i in range(2)]
    run = tmp_path / "w0/checkpoints/run"
    try:
        wait_for(lambda: list(run.glob("ckpt-*")), workers)
        workers[1].kill()
        assert [process.wait(timeout=120) for process in workers] == [2, -signal.SIGKILL]
    finally:
        for process in workers:
            process.kill()
    last = (tmp_path / "w0/log").read_text().splitlines()[-1]
    assert "error: another worker is gone" in last and "ckpt-" in last
    assert Trainer.start_from(read_checkpoint(run), {}).step >= 2


@pytest.mark.parametrize(("setting", "named"), [
    ("{", "TF_CONFIG"),
    ('{"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 1}}', "TF_CONFIG"),
    ('{"cluster": {"chief": ["localhost:1"], "worker": ["localhost:2"]}, "task": {"type": "chief", "index": 0}}', "workers"),
])  # fmt: skip
def test_a_wrong_tf_config_is_a_clear_error(setting, named, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", setting)
    with pytest.raises(UserError, match=named):
        distribution.cluster(config_train())


@pytest.mark.parametrize(("changes", "named"), [
    ({"batch_size": 3, "crop_size": 64}, "batch_size"),
    ({"batch_size": 2, "crop_size": 64, "jit_compile": True}, "jit_compile"),
    ({"batch_size": 2, "crop_size": 64, "mixed_precision": "float16"}, "mixed_precision"),
    ({"batch_size": 2, "crop_size": 64, "spectral_norm": True}, "spectral_norm"),
    ({"batch_size": 2, "crop_size": 64, "weight_clipping": True}, "weight_clipping"),
    ({"batch_size": 2, "crop_size": 64, "discriminator": "dcgan_discriminator"}, "discriminator"),
    ({"batch_size": 2, "crop_size": 64, "sample_noise": True, "noise_norm": "batch"}, "noise_norm"),
])  # fmt: skip
def test_knobs_that_do_not_go_with_two_devices_are_refused(changes, named):
    class Strategy:
        num_replicas_in_sync = 2

    with pytest.raises(UserError, match=named):
        distribution.Cluster(Strategy()).check(config_train(**changes))
