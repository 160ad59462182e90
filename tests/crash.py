#!/usr/bin/env python3
"""Kill training and folder runs at random moments, fill their disk, and check that nothing is lost.

    python3 tests/crash.py --kills 100 --full-disks 20 --folder-kills 20 --seed 1

It is not part of the gate: a hundred kills take about half an hour. What it checks:

kills         train.py dies by SIGKILL at a random moment, over and over. Each time the newest checkpoint loads and the next
              start goes on from it; at the end the weights are those of a run that nobody killed.
full disks    train.py writes to a small tmpfs whose free space is random. It ends with one line that names the file, the newest
              checkpoint still loads, and with room again training goes on from it. Mounting takes root.
folder kills  compress.py dies at random moments while it works on a folder. The next start finishes the rest, and every file is
              the one that an undisturbed run writes.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from conftest import PROJECT, knobs, photo
from PIL import Image

CHECKPOINT_MB = 3  # about what a checkpoint of the tiny model takes


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--full-disks", type=int, default=20)
    parser.add_argument("--folder-kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        photos = base / "photos"
        photos.mkdir()
        for i in range(12):
            Image.fromarray(photo(80 + i, 96, seed=i)).save(photos / f"{i}.png")
        if args.kills:
            kill_training(base / "killed", photos, args.kills, rng)
        if args.full_disks:
            fill_disks(base / "full", photos, args.full_disks, rng)
        if args.folder_kills:
            kill_folder_runs(base / "folder", photos, args.folder_kills, rng)
    return 0


# ----------------------------------------------------------------------------------------------------------------------
# Training
# ----------------------------------------------------------------------------------------------------------------------


def training(base: Path, photos: Path, steps: int, *more: str) -> list[str]:
    """Return the command that trains a tiny model below `base`, with a checkpoint every third step."""
    where = [part for name in ("checkpoints", "samples", "tensorboard") for part in ("-k", f"{name}={base / name}")]
    small = knobs(checkpoint_epochs=1, crop_size=32, width=16, diagnostic_steps=1000, batch_size=4)
    return [sys.executable, "train.py", "-ds", str(photos), "--name", "run", "--steps", str(steps), *small, *where, *more]


def kill_training(base: Path, photos: Path, kills: int, rng: random.Random) -> None:
    """Kill one run `kills` times, some time between its start and a few dozen steps."""
    began = time.time()
    finish(training(base, photos, 3))
    startup, before = time.time() - began, 3
    for killed in range(1, kills + 1):
        process = start(training(base, photos, 10**6, "-rl"))
        time.sleep(rng.uniform(0.5, 1.8) * startup)
        ended = process.poll() is not None
        process.kill()
        _, error = process.communicate()
        check(not ended, f"kill {killed}: training had ended by itself\n{error}")
        newest = newest_step(base)
        check(newest >= before, f"kill {killed}: the newest checkpoint went from step {before} back to {newest}")
        load(base)
        before = newest
        print(f"\rkilled {killed} of {kills} times, at step {newest}", end="", flush=True)
    finish(training(base, photos, before + 3, "-rl"))
    check(not leftovers(base), f"a whole run leaves {leftovers(base)} behind")
    whole = base.with_name("whole")
    finish(training(whole, photos, before + 3))
    for name, array in weights(base).items():
        check(np.array_equal(array, weights(whole)[name]), f"{name} differs from that of a run without kills")
    print(f"\ntraining: killed {killed} times, every checkpoint loaded; the weights of step {before + 3} are those of one run")


def fill_disks(base: Path, photos: Path, times: int, rng: random.Random) -> None:
    """Train on a small tmpfs with random free space until the disk is full; then make room and go on."""
    base.mkdir()
    for i in range(times):
        with small_disk(base, megabytes=40) as disk:
            if disk is None:
                return
            finish(training(disk, photos, 3))
            before = newest_step(disk)
            free = shutil.disk_usage(disk).free
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(max(0, free - int(rng.uniform(0, 1.2 * CHECKPOINT_MB * 10**6)))))
            process = start(training(disk, photos, 9, "-rl"))
            _, error = process.communicate(timeout=300)
            lines = [line for line in error.splitlines() if "error:" in line]
            check(process.returncode in (0, 2), f"full disk {i}: exit status {process.returncode}\n{error}")
            check("Traceback" not in error, f"full disk {i}: a traceback\n{error}")
            check(process.returncode == 0 or len(lines) == 1, f"full disk {i}: {len(lines)} error lines\n{error}")
            load(disk)
            check(newest_step(disk) >= before, f"full disk {i}: a checkpoint was lost")
            ballast.unlink()
            finish(training(disk, photos, 9, "-rl"))
            check(newest_step(disk) == 9, f"full disk {i}: training did not go on")
        print(f"\rdisk full {i + 1} of {times} times", end="", flush=True)
    print(f"\nfull disks: {times} times, no checkpoint lost, training went on")


def load(base: Path) -> None:
    """Load the newest checkpoint's arrays and knobs in full."""
    newest = base / "checkpoints" / "run" / f"ckpt-{newest_step(base):08d}"
    for name in ("model.npz", "training.npz"):
        with np.load(newest / name, allow_pickle=False) as arrays:
            check(all(np.isfinite(arrays[key]).all() for key in arrays.files), f"{newest / name}: not finite")
    check((newest / "config.json").stat().st_size > 0, f"{newest}: no knobs")


def newest_step(base: Path) -> int:
    folders = (base / "checkpoints" / "run").glob("ckpt-????????")
    return max(int(folder.name.removeprefix("ckpt-")) for folder in folders)


def weights(base: Path) -> dict[str, np.ndarray]:
    with np.load(base / "checkpoints" / "run" / f"ckpt-{newest_step(base):08d}" / "model.npz") as arrays:
        return dict(arrays)


def leftovers(base: Path) -> list[str]:
    """Hidden or partial files and folders below a run."""
    return sorted(str(path) for path in base.rglob(".*"))


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
    killed = 0
    while killed < kills:
        output = base / f"killed{killed}"
        while True:
            process = start([*command, str(output)])
            try:
                process.wait(rng.uniform(0.3, 1.2) * whole)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
        finish([*command, str(output)])
        check(contents(output) == expected, f"{output}: not the files of an undisturbed run")
        print(f"\rkilled {killed} folder runs of {kills}", end="", flush=True)
    print(f"\nfolders: killed {killed} times, every file right in the end")


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder but results.csv, which has times in it."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "results.csv"}


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
        raise SystemExit(f"\nFAILED: {complaint}")


if __name__ == "__main__":
    sys.exit(main())
