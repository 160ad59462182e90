#!/usr/bin/env python3
"""Kill training and folder runs at random moments, fill their disk, and check that nothing is lost.

    python3 tests/crash.py --kills 100 --full-disks 20 --folder-kills 20 --seed 1

It is not part of the gate: a hundred kills take about ten minutes on two cores that have nothing else to do. What it checks:

kills         train.py dies by SIGKILL, over and over: one time in five while it starts, two in five while a checkpoint is being
              written, else at any moment. Each time the newest checkpoint loads and the next start goes on from it; at the end
              the weights are those of a run that nobody killed.
full disks    train.py writes to a small tmpfs with room for a random part of a checkpoint. It ends with one line that names the
              file, the newest checkpoint still loads, and with room again training goes on from it. Mounting takes root.
folder kills  compress.py dies at random moments while it works on a folder. The next start finishes the rest, and every file is
              the one that an undisturbed run writes.

Training starts in a fork of this process, which has imported TensorFlow, and without graphs: both take longer than its steps.
The last start of a killed run is an ordinary one.
"""

import argparse
import math
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from conftest import PROJECT, knobs, photo
from PIL import Image

from gcodec.files import LOCK, STALE_SECONDS

STARTING, WRITING = 0.2, 0.4  # shares of the kills that come while training starts, and while a checkpoint is being written
WRITE_SECONDS = 0.03  # that writing a checkpoint takes, about
PATIENCE = 600  # s, for anything to happen


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--full-disks", type=int, default=20)
    parser.add_argument("--folder-kills", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=math.inf, help="after so long, no more kills of training")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        photos = base / "photos"
        photos.mkdir()
        for i in range(12):
            Image.fromarray(photo(80 + i, 96, seed=i)).save(photos / f"{i}.png")
        few = base / "few"  # one step is an epoch
        few.mkdir()
        for i in range(5):
            Image.fromarray(photo(40, 48, seed=i)).save(few / f"{i}.png")
        if args.kills:
            kill_training(base / "killed", few, args.kills, args.minutes, rng)
        if args.full_disks:
            fill_disks(base / "full", few, args.full_disks, rng)
        if args.folder_kills:
            kill_folder_runs(base / "folder", photos, args.folder_kills, rng)
    return 0


# ----------------------------------------------------------------------------------------------------------------------
# Training
# ----------------------------------------------------------------------------------------------------------------------


def training(base: Path, photos: Path, steps: int, *more: str) -> list[str]:
    """Return train.py's arguments for a tiny model below `base`, with a checkpoint after every step."""
    where = [part for name in ("checkpoints", "samples", "tensorboard") for part in ("-k", f"{name}={base / name}")]
    small = knobs(
        checkpoint_epochs=1, crop_size=32, width=16, n_scales=1, discriminator_width=4, batch_size=4, diagnostic_steps=3
    )
    return ["-ds", str(photos), "--name", "run", "--steps", str(steps), *small, *where, *more]


def start_training(arguments: list[str], log: Path) -> multiprocessing.Process:
    """Start train.py in a fork of this process. What it prints goes to `log`."""
    import train  # noqa: F401  (so that the fork need not)
    import training.run  # noqa: F401

    process = multiprocessing.get_context("fork").Process(target=_train, args=(arguments, log))
    process.start()
    return process


def _train(arguments: list[str], log: Path) -> None:
    import tensorflow as tf

    import train

    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    tf.config.run_functions_eagerly(True)
    sys.exit(train.main(arguments))


def finish_training(arguments: list[str], log: Path) -> None:
    process = start_training(arguments, log)
    process.join(PATIENCE)
    check(process.exitcode == 0, f"training ended with {process.exitcode}\n{log.read_text()}")


def kill_training(base: Path, photos: Path, kills: int, minutes: float, rng: random.Random) -> None:
    """Kill one run `kills` times, or as often as can be done in so many minutes."""
    base.mkdir()
    log = base / "log.txt"
    began = time.time()
    finish_training(training(base, photos, 1), log)
    startup = time.time() - began
    newest, killed, early, writing = 1, 0, 0, 0
    while killed < kills and time.time() - began < 60 * minutes:
        before, killed = newest, killed + 1
        process = start_training(training(base, photos, 10**6, "-rl"), log)
        started = wait_for_a_moment(base, startup, process, log, rng)
        check(process.is_alive(), f"kill {killed}: training had ended by itself\n{log.read_text()}")
        process.kill()
        process.join()
        newest = newest_step(base)
        check(newest >= before, f"kill {killed}: the newest checkpoint went from step {before} back to {newest}")
        load(base)
        early += not started
        writing += started and bool(leftovers(base))
        print(f"killed {killed} of {kills} times, at step {newest}; {writing} times while it wrote", flush=True)
    for path in leftovers(base):  # younger ones could be another process's
        os.utime(path, 2 * (time.time() - 2 * STALE_SECONDS,))
    finish_training(training(base, photos, newest + 3, "-rl"), log)
    check(not leftovers(base), f"a whole run leaves {leftovers(base)} behind")
    whole = base.with_name("whole")
    finish_training(training(whole, photos, newest + 3), log)
    for name, array in weights(base).items():
        check(np.array_equal(array, weights(whole)[name]), f"{name} differs from that of a run without kills")
    finish([sys.executable, "train.py", *training(base, photos, newest + 5, "-rl")])
    check(newest_step(base) == newest + 5, "an ordinary start did not go on")
    print(f"training: killed {killed} times, {early} of them while it started and {writing} while it wrote a checkpoint; "
          f"all loaded, and the weights of step {newest + 3} are those of one run")  # fmt: skip


def wait_for_a_moment(base: Path, startup: float, process: multiprocessing.Process, log: Path, rng: random.Random) -> bool:
    """Wait until it is time for a kill. Return whether training had started by then, and had written a checkpoint."""
    moment, before = rng.random(), newest_step(base)
    if moment < STARTING:
        time.sleep(rng.uniform(0, startup))
        return newest_step(base) > before
    seconds = wait_until(lambda: newest_step(base) > before, process, log)
    if moment < STARTING + WRITING:
        wait_until(lambda: leftovers(base), process, log)
        time.sleep(rng.uniform(0, WRITE_SECONDS))
    else:
        time.sleep(rng.uniform(0, 0.2) * seconds)
    return True


def wait_until(holds: Callable[[], Any], process: multiprocessing.Process, log: Path) -> float:
    """Wait until something holds, while training goes on. Return how many seconds that took."""
    began = time.time()
    while not holds():
        check(process.is_alive(), f"training had ended by itself\n{log.read_text()}")
        check(time.time() - began < PATIENCE, f"training stands still\n{log.read_text()}")
        time.sleep(0.002)
    return time.time() - began


def fill_disks(base: Path, photos: Path, times: int, rng: random.Random) -> None:
    """Train on a small tmpfs until it is full, with room for a random part of a checkpoint; then make room and go on."""
    base.mkdir()
    log = base.with_name("full.txt")
    with small_disk(base, megabytes=40) as disk:
        if disk is None:
            return
        finish_training(training(disk, photos, 3), log)
        for i in range(1, times + 1):
            before = newest_step(disk)
            ballast = disk / "ballast"
            room = int(rng.uniform(0, 1) * sum(file.stat().st_size for file in newest_folder(disk).iterdir()))
            ballast.write_bytes(bytes(shutil.disk_usage(disk).free - room))
            process = start_training(training(disk, photos, before + 50, "-rl"), log)
            process.join(PATIENCE)
            said = log.read_text()
            lines = [line for line in said.splitlines() if "error:" in line]
            check(process.exitcode == 2, f"full disk {i}: exit status {process.exitcode}\n{said}")
            check("Traceback" not in said, f"full disk {i}: a traceback\n{said}")
            check(len(lines) == 1 and str(disk) in lines[0], f"full disk {i}: not one line that names the file\n{said}")
            check(not leftovers(disk), f"full disk {i}: {leftovers(disk)} are left behind")
            load(disk)
            check(newest_step(disk) >= before, f"full disk {i}: a checkpoint was lost")
            print(f"disk full {i} of {times} times, {room} bytes before the end: {lines[0]}", flush=True)
            ballast.unlink()
            after = newest_step(disk) + 2
            finish_training(training(disk, photos, after, "-rl"), log)
            check(newest_step(disk) == after, f"full disk {i}: training did not go on")
    print(f"full disks: {times} times, no checkpoint lost, training went on")


def load(base: Path) -> None:
    """Load the newest checkpoint's arrays and knobs in full."""
    newest = newest_folder(base)
    for name in ("model.npz", "training.npz"):
        with np.load(newest / name, allow_pickle=False) as arrays:
            check(all(np.isfinite(arrays[key]).all() for key in arrays.files), f"{newest / name}: not finite")
    check((newest / "config.json").stat().st_size > 0, f"{newest}: no knobs")


def newest_step(base: Path) -> int:
    folders = (base / "checkpoints" / "run").glob("ckpt-????????")
    return max(int(folder.name.removeprefix("ckpt-")) for folder in folders)


def newest_folder(base: Path) -> Path:
    return base / "checkpoints" / "run" / f"ckpt-{newest_step(base):08d}"


def weights(base: Path) -> dict[str, np.ndarray]:
    with np.load(newest_folder(base) / "model.npz") as arrays:
        return dict(arrays)


def leftovers(base: Path) -> list[str]:
    """Return the hidden files and folders below a run: what is being written, or was when training died."""
    return sorted(str(path) for path in base.rglob(".*") if path.name != LOCK)


@contextmanager
def small_disk(folder: Path, megabytes: int):
    """Mount a tmpfs of this size, or yield None where that is not allowed."""
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]).returncode:
        print("full disks: skipped, mounting a tmpfs takes root")
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


# ----------------------------------------------------------------------------------------------------------------------
# Folders
# ----------------------------------------------------------------------------------------------------------------------


def kill_folder_runs(base: Path, photos: Path, kills: int, rng: random.Random) -> None:
    """Kill compress.py over a folder, start it again until all is done, and compare with an undisturbed run."""
    command = [sys.executable, "compress.py", "-i", str(photos), "-o"]
    began = time.time()
    finish([*command, str(base / "whole")])
    whole = time.time() - began
    expected = contents(base / "whole")
    killed = rounds = 0
    while killed < kills:
        rounds += 1
        output = base / f"killed{rounds}"
        while True:
            fresh, began = not output.exists(), time.time()
            process = start([*command, str(output)])
            try:
                process.wait(rng.uniform(0.3, 1.2) * whole)
                whole = time.time() - began if fresh else whole  # the machine may have been busier before
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
        finish([*command, str(output)])
        check(contents(output) == expected, f"{output}: not the files of an undisturbed run")
        print(f"killed {killed} folder runs of {kills}", flush=True)
    print(f"folders: killed {killed} times, every file right in the end")


def contents(folder: Path) -> dict[str, bytes]:
    """All finished files of a folder but results.csv, which has times in it."""
    whole = (path for path in folder.rglob("[!.]*") if path.is_file() and path.name != "results.csv")
    return {path.name: path.read_bytes() for path in whole}


# ----------------------------------------------------------------------------------------------------------------------
# Processes
# ----------------------------------------------------------------------------------------------------------------------


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(command: list[str]) -> None:
    """Run a command to its end; what it prints on stderr is shown where it fails."""
    process = start(command)
    try:
        _, error = process.communicate(timeout=900)
    finally:
        process.kill()  # else it would keep a small disk busy
    check(process.returncode == 0, f"{' '.join(command)}: exit status {process.returncode}\n{error}")


def check(holds: bool, complaint: str) -> None:
    if not holds:
        raise SystemExit(f"FAILED: {complaint}")


if __name__ == "__main__":
    sys.exit(main())
