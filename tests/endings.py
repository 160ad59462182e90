#!/usr/bin/env python3
"""End training in every way at random moments, and check that nothing of it is lost; and start two runs of one name at once.

    python3 tests/endings.py --endings 100 --pairs 20 --seed 1

tests/training/test_endings.py tries each way once; here they come a hundred times. Whatever ends a run, its newest checkpoint
is that of the last whole step, or of the last diagnosis where the step itself broke. A run that goes on from there has, at its
end, the weights of a run that nothing disturbed, to the bit. Of two runs of one name, one trains and the other is refused.

Training starts in a fork of this process, which has imported TensorFlow, and without graphs.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from conftest import PROJECT, knobs, photo
from PIL import Image

STEPS, DIAGNOSED = 14, 4  # of a whole run; between two diagnoses
PATIENCE = 3600  # s, for a run to end on a machine that is busy
PHOTOS = 3  # of which one that breaks is noticed within a few steps


@dataclass
class Scene:
    """Where a run takes place, and what a way to end it acts on."""

    base: Path
    photos: Path
    reader: int = -1  # the file descriptor of what reads the run's output

    @property
    def newest(self) -> int:
        folders = (self.base / "checkpoints/run").glob("ckpt-????????")
        return max((int(folder.name.removeprefix("ckpt-")) for folder in folders), default=0)

    def weights(self) -> dict[str, np.ndarray]:
        with np.load(self.base / f"checkpoints/run/ckpt-{self.newest:08d}/training.npz") as arrays:
            return dict(arrays)

    def mend(self) -> None:
        take_photos(self.photos)
        blocked = self.base / "samples/run"
        if blocked.is_file():
            blocked.unlink()

    def photo(self, kept: bytes | None) -> None:
        """Replace a photo, or remove it."""
        path = self.photos / "1.png"
        path.unlink()
        if kept is not None:
            path.write_bytes(kept)

    def close_reader(self) -> None:
        os.close(self.reader)
        self.reader = -1

    def block_samples(self) -> None:
        """Put a file where the folder of sample pictures is."""
        folder = self.base / "samples/run"
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.write_text("")


@dataclass(frozen=True)
class Way:
    """What happens before a step, and what is expected: the exit status, None for an exception; whether that step breaks."""

    act: Callable[[Scene], Any]
    status: int | None
    breaks: bool = False
    output: str = "pipe"


class Broken(Exception):  # noqa: N818
    pass


def interrupt(scene: Scene, times: int = 1) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)


def raise_broken(scene: Scene) -> None:
    raise Broken


def interrupt_without_reader(scene: Scene) -> None:
    scene.close_reader()
    interrupt(scene)


def fail_summaries(scene: Scene) -> None:
    from training import diary

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    diary.write_summaries = full  # type: ignore[assignment]


WAYS = {
    "a photo vanishes": Way(lambda scene: scene.photo(None), 2),
    "a photo breaks": Way(lambda scene: scene.photo(b"junk"), 2),
    "Ctrl-C": Way(interrupt, 130),
    "Ctrl-C twice at once": Way(lambda scene: interrupt(scene, 2), 130),
    "Ctrl-C, and tee died first": Way(interrupt_without_reader, 130),
    "SIGTERM": Way(lambda scene: os.kill(os.getpid(), signal.SIGTERM), 143),
    "the terminal is closed": Way(lambda scene: os.kill(os.getpid(), signal.SIGHUP), 129),
    "an error within a step": Way(raise_broken, None, breaks=True),
    "a loss is not finite": Way(lambda scene: "nan", 2, breaks=True),
    "the reader of the output goes away": Way(Scene.close_reader, 0),
    "stdout and stderr are closed": Way(lambda scene: None, 0, output="closed"),
    "the log of the output is on a full disk": Way(lambda scene: None, 0, output="full"),
    "summaries are on a full disk": Way(fail_summaries, 0),
    "sample pictures cannot be written": Way(Scene.block_samples, 0),
}


def take_photos(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(PHOTOS):
        Image.fromarray(photo(40, 48, seed=i)).save(folder / f"{i}.png")
    return folder


def arguments(scene: Scene, *more: str, steps: int = STEPS) -> list[str]:
    where = [part for name in ("checkpoints", "samples", "tensorboard") for part in ("-k", f"{name}={scene.base / name}")]
    small = knobs(checkpoint_epochs=10**6, crop_size=32, width=16, n_residual_blocks=0, n_scales=1, discriminator_width=4,
                  optimizer="sgd", batch_size=1, diagnostic_steps=DIAGNOSED, distortion_steps=10**6)  # fmt: skip
    return ["-ds", str(scene.photos), "--val", str(scene.photos), "--steps", str(steps), *small, *where, *more]


def run(scene: Scene, way: Way | None = None, step: int = 0, *more: str) -> int | None:
    """Train in this process, and let something happen before a step. Return the exit status; None for an exception."""
    import train
    from training import diary
    from training.trainer import Trainer

    train_step, summaries, streams = Trainer.train_step, diary.write_summaries, (sys.stdout, sys.stderr)

    def disturbed(trainer: Trainer, *batch: Any) -> Any:
        happens = way is not None and trainer.step == step
        done = way.act(scene) if way and happens else None
        terms = train_step(trainer, *batch)
        return {name: term * float("nan") for name, term in terms.items()} if done == "nan" else terms

    scene.reader, writer = os.pipe()
    os.set_blocking(writer, False)
    if way and way.output == "full":
        writer = os.open("/dev/full", os.O_WRONLY)
    output = open(writer, "w")  # noqa: SIM115
    sys.stdout = sys.stderr = None if way and way.output == "closed" else output  # type: ignore[assignment]
    Trainer.train_step = disturbed  # type: ignore[method-assign]
    try:
        return train.main(arguments(scene, *more))
    except Broken:
        return None
    finally:
        sys.stdout, sys.stderr = streams
        Trainer.train_step, diary.write_summaries = train_step, summaries  # type: ignore[method-assign]
        with contextlib.suppress(OSError):
            output.close()
        if scene.reader >= 0:
            os.close(scene.reader)


def check_ending(name: str, scene: Scene, step: int, status: int | None) -> None:
    """Raise AssertionError unless the run ended as it should, with all that it had."""
    way = WAYS[name]
    read_ahead = status == 0 and "photo" in name  # all that was left to train on had been read when the photo went
    assert status == way.status or read_ahead, f"{name} at step {step}: exit status {status}"
    interrupted = step // DIAGNOSED * DIAGNOSED if way.breaks else step + 1 - (status == 2)
    least = STEPS if status == 0 else interrupted
    assert scene.newest >= least, f"{name} at step {step}: the newest checkpoint is that of step {scene.newest}"
    for key, array in scene.weights().items() if scene.newest else ():
        assert np.isfinite(array).all(), f"{name} at step {step}: {key} is not finite"


def check_same(name: str, ours: dict, whole: dict) -> None:
    different = [key for key, array in whole.items() if not np.array_equal(array, ours[key])]
    assert ours.keys() == whole.keys() and not different, f"{name}: {different[:3]} are not those of an undisturbed run"


# ----------------------------------------------------------------------------------------------------------------------
# By hand
# ----------------------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endings", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    rng = random.Random(args.seed)
    import train  # noqa: F401  (so that no fork need)
    import training.run  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        whole = Scene(base / "whole", take_photos(base / "whole/photos"))
        assert in_fork(whole) == 0
        names = list(WAYS)
        for i in range(args.endings):
            name, step = names[i % len(names)], rng.randrange(1, 7)
            scene = Scene(base / f"{i}", take_photos(base / f"{i}/photos"))
            status = in_fork(scene, name, step)
            check_ending(name, scene, step, status)
            if status != 0:
                scene.mend()
                assert in_fork(scene, None, 0, *(["-rl"] if scene.newest else [])) == 0
            check_same(f"{name} at step {step}", scene.weights(), whole.weights())
            print(f"{i + 1} of {args.endings}: {name}, at step {step}", flush=True)
        for i in range(args.pairs):
            pair(Scene(base / f"pair{i}", take_photos(base / f"pair{i}/photos")), rng.uniform(0, 4))
            print(f"{i + 1} of {args.pairs} pairs: one trained, and one was refused", flush=True)
    return 0


def in_fork(scene: Scene, name: str | None = None, step: int = 0, *more: str) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=_run, args=(scene, name, step, more))
    process.start()
    process.join()
    return None if process.exitcode == 77 else process.exitcode


def _run(scene: Scene, name: str | None, step: int, more: tuple[str, ...]) -> None:
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    status = run(scene, WAYS[name] if name else None, step, *more)
    os._exit(77 if status is None else status)


def pair(scene: Scene, delay: float) -> list[str]:
    """Start two runs of one name, one some seconds after the other. Return what the refused one said."""
    command = [sys.executable, str(PROJECT / "train.py"), *arguments(scene, steps=60)]
    processes = []
    for i in range(2):
        processes.append(
            subprocess.Popen([*command, "-k", f"seed={i}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            processes[0].wait(timeout=delay if i == 0 else 0.01)
    said = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    statuses = [process.returncode for process in processes]
    assert sorted(statuses) == [0, 2], (statuses, said)
    refused = [line for line in said[statuses.index(2)].splitlines() if not line.startswith("warning: ")]
    assert len(refused) == 1 and "run run: another process writes to" in refused[0], refused
    assert scene.newest == 60
    return refused


if __name__ == "__main__":
    sys.exit(main())
