#!/usr/bin/env python3
"""Damage whatever else a stranger can hand over, and read it: each must be read or be a clean error, soon and in little memory.

    python3 tests/fuzz_doors.py --files 10000            # of each door; seven minutes of one core
    python3 tests/fuzz_doors.py --files 10000 --door tables --jobs 4

Doors: the files of a checkpoint (config.json, model.npz, context.npz, training.npz), path tables, images of each format that
Pillow writes here, and label maps. fuzz.py does the same with .gc files. An .npz file is also forged: its checksums are right,
and its arrays have other types, shapes and values.

A file may take 10 seconds of the processor, whatever else the machine does, and 1 GB of memory. A file that is not done after
five minutes by the clock ends the run with the traceback of where it hangs.
"""

import argparse
import faulthandler
import io
import json
import os
import resource
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from conftest import label_map, model_arrays, photo
from fuzz import bit_flips, cut, extended, splice, zeroed_block
from PIL import Image

from config import UserError, config_train
from data import Data
from gcodec.checkpoint import CENTERS, FINGERPRINT_FILE, read_checkpoint, read_training_state, restore, write_checkpoint
from gcodec.entropy import integer_frequencies
from gcodec.labels import Classes, read_instances, read_label_map
from gcodec.pictures import read_image
from path_tables import write_columns
from utils import Utils

MAX_SECONDS = 10  # of the processor, for a file
MAX_WAIT = 300  # s by the clock, for a file
MAX_BYTES = 1e9
CHUNK = 500  # files that a worker damages and reads at a time
DAMAGE = (bit_flips, cut, splice, extended, zeroed_block)
CLASSES = Classes.parse("", 4)
Door = tuple[list[Path], Callable[[Path], object]]  # whole files, and what reads one


# ----------------------------------------------------------------------------------------------------------------------
# Forgeries
# ----------------------------------------------------------------------------------------------------------------------


def forged_arrays(data: bytes, rng: np.random.Generator) -> bytes:
    """Return an .npz file in which one array is another one, or is missing."""
    with np.load(io.BytesIO(data)) as archive:
        arrays = dict(archive)
    name = sorted(arrays)[rng.integers(len(arrays))]
    array = arrays[name]
    others = [
        array.astype(str), array.astype(complex), array.astype("M8[s]"), array.astype(bool), array.astype(np.int64),
        array.astype(np.float64) * 1e300, np.full(array.shape, np.nan), np.full(array.shape, np.inf), -array, array[..., None],
        array.ravel()[:1], array.ravel()[:0], np.array(7), array.T, np.zeros((1, 2, 3, 4)), np.full(array.shape, 2**62),
    ]  # fmt: skip
    choice = rng.integers(len(others) + 2)
    if choice < len(others):
        arrays[name] = others[choice]
    elif choice == len(others):
        del arrays[name]
    else:
        arrays[f"{name}x"] = array
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def forged_knobs(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the JSON of knobs, one of which has another value."""
    knobs = json.loads(data)
    name = sorted(knobs)[rng.integers(len(knobs))]
    values = [None, True, -1, 0, 1, 10**9, 10**400, 1e300, float("nan"), float("inf"), "", "x" * 10**5, [], [1, "a"],
              [1.0] * 300, list(range(255)), {}, {"a": [[]]}]  # fmt: skip
    knobs[name] = values[rng.integers(len(values))]
    return json.dumps(knobs).encode()


# ----------------------------------------------------------------------------------------------------------------------
# Doors
# ----------------------------------------------------------------------------------------------------------------------


def checkpoint_door(base: Path, name: str) -> Door:
    """A file of a small checkpoint. The damaged file takes its place, and the checkpoint is read."""
    folder = base / name / "ckpt-00000001"
    config = config_train(width=16, channel_bottleneck=4)
    rng = np.random.default_rng(0)
    weights = {
        CENTERS: np.array(config.centers, np.float32),
        "generator/Conv2D_0/kernel": rng.random((3, 3, 4, 16), np.float32),
    }
    frequencies = integer_frequencies(rng.random((4, 5)) + 0.1)
    state = weights | {"step": np.array(1)}
    write_checkpoint(folder, config, weights, frequencies, state)
    np.savez_compressed(folder / "context.npz", **model_arrays(4, 5))
    (folder / FINGERPRINT_FILE).unlink()  # which would refuse every other checkpoint, good or bad
    whole = folder / name
    copy = base / f"whole-{name}"
    copy.write_bytes(whole.read_bytes())

    class Variable:
        def __init__(self, array: np.ndarray):
            self.shape = array.shape

        def assign(self, array: np.ndarray) -> None:
            assert array.shape == self.shape and np.isfinite(np.asarray(array, np.float32)).all()

    def read(damaged: Path) -> None:
        whole.write_bytes(damaged.read_bytes())
        checkpoint = read_checkpoint(folder)
        restore({name: Variable(array) for name, array in weights.items()}, checkpoint.weights, folder)
        restore({name: Variable(array) for name, array in state.items()}, read_training_state(folder) or {}, folder)

    return [copy], read


def tables_door(base: Path) -> Door:
    import pandas as pd

    (base / "a.png").touch()
    columns = {"path": ["a.png"] * 3, "semantic_map_paths": ["b.png"] * 3}
    files = [base / "t.h5", base / "t.csv", base / "fixed.h5"]
    for file in files[:2]:
        write_columns(file, columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas says that it pickles strings
        pd.DataFrame(columns).to_hdf(files[2], key="df")
    return files, lambda file: (Data.read_table(file), Data.read_pairs(file, "semantic_map_paths"))


def images_door(base: Path) -> Door:
    image = Image.fromarray(photo(40, 60))
    formats = {"png": {}, "jpg": {}, "bmp": {}, "webp": {"lossless": True}, "tif": {}, "gif": {}, "ppm": {}, "avif": {}}
    files = []
    for suffix, options in formats.items():
        file = base / f"whole.{suffix}"
        image.save(file, **options)
        files.append(file)
    return files, lambda file: read_image(file, 10**6)


def labels_door(base: Path) -> Door:
    files = [base / "s.png", base / "s.bmp", base / "colours.png"]
    for file in files[:2]:
        Image.fromarray(label_map(40, 60)).save(file)
    Image.fromarray(CLASSES.colours[label_map(40, 60)]).save(files[2])

    def read(file: Path) -> None:
        labels = read_label_map(file, None, CLASSES, (40, 60))
        assert labels.classes.shape == (40, 60) and labels.classes.max() < len(CLASSES)
        read_instances(file, (40, 60))

    return files, read


DOORS: dict[str, Callable[[Path], Door]] = {
    **{name: lambda base, name=name: checkpoint_door(base, name)
       for name in ("config.json", "model.npz", "context.npz", "training.npz")},
    "tables": tables_door,
    "images": images_door,
    "labels": labels_door,
}  # fmt: skip


@dataclass
class Outcome:
    """How often each kind of damage was read or was a clean error; the longest time and the most memory for one file."""

    counts: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    bytes: float = 0.0

    def add(self, other: "Outcome") -> None:
        self.counts += other.counts
        self.seconds, self.bytes = max(self.seconds, other.seconds), max(self.bytes, other.bytes)


def fuzz(door: str, n: int, seed: int = 0, chunk: int = 0) -> Outcome:
    """Read n damaged files. Raises whatever but UserError the reader raises."""
    rng = np.random.default_rng([seed, chunk])
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        files, read = DOORS[door](Path(folder))
        wholes = [file.read_bytes() for file in files]
        for i in range(n):
            which, other = rng.integers(len(files), size=2)
            kind = DAMAGE[rng.integers(len(DAMAGE))]
            data, name = kind(wholes[which], wholes[other], rng), kind.__name__
            if files[which].suffix in (".npz", ".json") and i % 2:
                forge = forged_arrays if files[which].suffix == ".npz" else forged_knobs
                data, name = forge(wholes[which], rng), "forged"
            damaged = Path(folder) / f"damaged{files[which].suffix}"
            damaged.write_bytes(data)
            try:
                how = read_one(read, damaged, outcome)
            except Exception:
                print(f"{door}, file {i} of chunk {chunk} of seed {seed}: {name} of {files[which].name}", file=sys.stderr)
                raise
            outcome.counts[f"{name} {files[which].suffix}", how] += 1
    return outcome


def read_one(read: Callable[[Path], object], damaged: Path, outcome: Outcome) -> str:
    """Read one file. Return whether it was read or was a clean error, and note its time and memory."""
    before, children = Utils.memory() or 0, _largest_child()
    Utils.reset_peak_memory()
    start = sum(os.times()[:4])  # with child processes, which read path tables
    faulthandler.dump_traceback_later(MAX_WAIT, exit=True)
    try:
        read(damaged)
        return "read"
    except UserError as error:
        assert "\n" not in str(error), str(error)
        return "clean error"
    finally:
        faulthandler.cancel_dump_traceback_later()
        outcome.seconds = max(outcome.seconds, sum(os.times()[:4]) - start)
        outcome.bytes = max(outcome.bytes, (Utils.memory("VmHWM") or 0) - before)
        if _largest_child() > children:
            outcome.bytes = max(outcome.bytes, _largest_child())


def _largest_child() -> int:
    """Return the most bytes that one child process has had in memory so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="of each door")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--door", choices=DOORS, action="append", help="default: all")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args(argv)
    failed = False
    chunks = range(-(-args.files // CHUNK))
    sizes = [min(CHUNK, args.files - CHUNK * chunk) for chunk in chunks]
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        for door in args.door or DOORS:
            outcome = Outcome()
            for part in pool.map(fuzz, [door] * len(chunks), sizes, [args.seed] * len(chunks), chunks):
                outcome.add(part)
            report(door, outcome)
            failed |= outcome.seconds > MAX_SECONDS or outcome.bytes > MAX_BYTES
    return int(failed)


def report(door: str, outcome: Outcome) -> None:
    for (kind, how), count in sorted(outcome.counts.items()):
        print(f"{count:8} {door:14} {kind:20} {how}")
    most = f"{outcome.seconds:.2f} s of the processor and {outcome.bytes / 1e6:.0f} MB"
    print(f"{door}: {outcome.counts.total()} files; one took at most {most}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
