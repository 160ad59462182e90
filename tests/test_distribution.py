"""Several workers on this machine train as one does; and what happens when one dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import PROJECT, knobs

import distribution
from config import UserError, config_train
from training import Trainer

TRAIN = """
import sys
import numpy as np
import train
from training import Trainer
from training_run import Run

inner_train, inner_step, terms = Run.train, Trainer.train_step, []

def spy_train(run, trainer, *rest):
    status = inner_train(run, trainer, *rest)
    variables = [*trainer.G_variables, *trainer.D_variables, *trainer.averages, trainer.histogram]
    np.savez(sys.argv[1], weights=np.concatenate([v.numpy().ravel() for v in variables]), terms=terms)
    return status

def spy_step(*args):
    step_terms = inner_step(*args)
    terms.append({name: float(term) for name, term in step_terms.items()})
    return step_terms

Run.train, Trainer.train_step = spy_train, spy_step
sys.exit(train.main(sys.argv[2:]))
"""


def start(folder, worker: int | None, ports: list[int], *arguments: str, **changes) -> subprocess.Popen:
    """A process that trains in a new folder; its weights and loss terms go to out.npz there, what it says to log."""
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    if worker is not None:
        hosts = {"worker": [f"localhost:{port}" for port in ports]}
        environment["TF_CONFIG"] = json.dumps({"cluster": hosts, "task": {"type": "worker", "index": worker}})
    command = [sys.executable, "-c", TRAIN, str(folder / "out.npz"), "-ds", "sample", *knobs(**changes), *arguments]
    environment["PYTHONPATH"] = str(PROJECT)
    with open(folder / "log", "w") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


@pytest.fixture
def ports() -> list[int]:
    with socket.socket() as a, socket.socket() as b:
        for s in (a, b):
            s.bind(("localhost", 0))
        return [s.getsockname()[1] for s in (a, b)]


def test_two_workers_train_as_one_does_with_the_whole_batch(ports, tmp_path):
    changes = {"batch_size": 4, "sample_noise": True, "channel_dropout": 0.5, "distortion_steps": 1, "optimizer": "momentum"}
    arguments = ["--steps", "3"]
    workers = [start(tmp_path / f"w{i}", i, ports, *arguments, **changes) for i in range(2)]
    assert [process.wait(timeout=300) for process in workers] == [0, 0]
    assert start(tmp_path / "alone", None, [], *arguments, **changes).wait(timeout=300) == 0
    first, second, alone = (np.load(tmp_path / name / "out.npz", allow_pickle=True) for name in ("w0", "w1", "alone"))
    np.testing.assert_array_equal(first["weights"], second["weights"])
    np.testing.assert_allclose(first["weights"], alone["weights"], atol=1e-5)
    for ours, theirs in zip(first["terms"], alone["terms"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert (tmp_path / "w0/checkpoints/run/ckpt-00000003/model.npz").exists()
    assert not (tmp_path / "w1/checkpoints").exists() and not (tmp_path / "w1/tensorboard").exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_when_a_worker_dies_the_other_says_so_and_a_checkpoint_is_left(how, ports, tmp_path):
    changes = {"distortion_steps": 10**6, "checkpoint_epochs": 2}
    workers = [start(tmp_path / f"w{i}", i, ports, "--steps", "100000", **changes) for i in range(2)]
    run = tmp_path / "w0/checkpoints/run"
    try:
        deadline = time.time() + 240
        while not list(run.glob("ckpt-*")) and time.time() < deadline and workers[0].poll() is None:
            time.sleep(0.2)
        workers[1].send_signal(how)
        statuses = [process.wait(timeout=120) for process in workers]
    finally:
        for process in workers:
            process.kill()
    log = (tmp_path / "w0/log").read_text()
    if how == signal.SIGKILL:
        assert statuses == [2, -how]
        assert "error: another worker is gone" in log.splitlines()[-1] and "ckpt-" in log.splitlines()[-1]
    else:  # all stop at the same step, and the chief writes a checkpoint of it
        assert statuses == [0, 128 + how] and "checkpoint: checkpoints/run/ckpt-" in log
    assert Trainer.start_from(run, {}).step >= 2


@pytest.mark.parametrize(("setting", "named"), [
    ("{", "TF_CONFIG"),
    ('{"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 1}}', "TF_CONFIG"),
    ('{"cluster": {"chief": ["localhost:1"], "worker": ["localhost:2"]}, "task": {"type": "chief", "index": 0}}', "workers"),
])  # fmt: skip
def test_a_wrong_tf_config_is_a_clear_error(setting, named, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", setting)
    with pytest.raises(UserError, match=named):
        distribution.cluster()


@pytest.mark.parametrize(("changes", "named"), [
    ({"batch_size": 3, "crop_size": 64}, "batch_size"),
    ({"batch_size": 2, "crop_size": 64, "jit_compile": True}, "jit_compile"),
    ({"batch_size": 2, "crop_size": 64, "mixed_precision": "float16"}, "mixed_precision"),
    ({"batch_size": 2, "crop_size": 64, "spectral_norm": True}, "spectral_norm"),
    ({"batch_size": 2, "crop_size": 64, "weight_clipping": True}, "weight_clipping"),
])  # fmt: skip
def test_knobs_that_do_not_go_with_two_devices_are_refused(changes, named):
    class Strategy:
        num_replicas_in_sync = 2

    with pytest.raises(UserError, match=named):
        distribution.Cluster(Strategy()).check(config_train(**changes))
