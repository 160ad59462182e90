#!/usr/bin/env python3
"""Damage whatever else a stranger can hand over, and read it: each must be read or be a clean error, soon and in little memory.

    python3 tests/fuzz_doors.py --files 10000            # of each door; seven minutes of one core
    python3 tests/fuzz_doors.py --files 10000 --door tables --jobs 4

Doors: the files of a checkpoint (config.json, model.npz, context.npz, training.npz, graphs.json, generator.onnx), path tables,
images of each format that Pillow writes here, images that were made to take long, and label maps. fuzz.py does the same with
.gc files. Most are also forged: their checksums are right, and arrays have other types, shapes and values, graphs other
operators, constants and inputs, and images other sizes.

A file may take 10 seconds of the processor, whatever else the machine does, and 1 GB of memory. A file that is not done after
five minutes by the clock ends the run with the traceback of where it hangs.
"""

import argparse
import contextlib
import faulthandler
import hashlib
import io
import json
import os
import resource
import struct
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests"), str(PROJECT / "tests/codec")]

import test_graphs
from conftest import label_map, model_arrays, photo
from fuzz import bit_flips, cut, extended, splice, zeroed_block
from PIL import Image
from test_reading import many_scans, tiff

from config import UserError, config_train
from gcodec import Codec
from gcodec.checkpoint import CENTERS, FINGERPRINT_FILE, read_checkpoint, read_training_state, restore, write_checkpoint
from gcodec.entropy import integer_frequencies
from gcodec.graphs import OPERATORS
from gcodec.labels import Classes, read_classes, read_instances
from gcodec.onnx_runtime import GRAPHS_FILE
from gcodec.pictures import read_image
from path_tables import read_table, write_columns
from utils import Utils

MAX_SECONDS = 10  # of the processor, for a file
MAX_WAIT = 300  # s by the clock, for a file
MAX_BYTES = 1e9
STDERR = os.dup(2)  # for the traceback of a file that takes too long; see `silent`
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


def forged_index(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the JSON of graphs.json with another value somewhere."""
    index = json.loads(data)
    values = [None, 7, "", "\0", "/dev/zero", "../" * 9, [], [[1, 2]], {}, {"/dev/zero": "0"}, {"\0": 1}, {"generator.onnx": 7}]
    names = sorted(index)
    index[names[rng.integers(len(names))]] = values[rng.integers(len(values))]
    return json.dumps(index).encode()


def forged_graph(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a graph that is another one in one or two places."""
    import onnx

    model = onnx.load_from_string(data)
    graph = model.graph
    kinds = sorted(OPERATORS if rng.random() < 0.5 else {schema.name for schema in onnx.defs.get_all_schemas()})
    for _ in range(rng.integers(1, 3)):
        node, tensor = (part[rng.integers(len(part))] for part in (graph.node, graph.initializer))
        names = [t.name for t in graph.initializer] + [name for n in graph.node for name in n.output] + ["z", "", "nobody"]
        name, number = names[rng.integers(len(names))], [0, -1, 1, 2, 3, 2**40, -(2**40), 2**63 - 1][rng.integers(8)]
        kind = rng.integers(12)
        if kind == 0:
            node.op_type = kinds[rng.integers(len(kinds))]
        elif kind == 1 and node.input:
            node.input[rng.integers(len(node.input))] = name
        elif kind == 2:
            node.output[0] = name
        elif kind == 3:
            tensor.data_location = 1
            tensor.external_data.add(
                key="location", value=["/etc/passwd", "../secret", "secret", "weights.bin"][rng.integers(4)]
            )
        elif kind == 4:
            tensor.dims[:] = [abs(number)] * rng.integers(3)
        elif kind == 5:
            whole = np.full(rng.integers(1, 5), number, np.int64)
            tensor.CopyFrom(onnx.numpy_helper.from_array(whole, tensor.name))
        elif kind == 6:
            tensor.data_type = int(rng.integers(20))
        elif kind == 7:
            graph.node.remove(node)
        elif kind == 8:
            graph.node.add().CopyFrom(node)
        elif kind == 9:
            graph.input.add().CopyFrom(graph.output[0])
        elif kind == 10:
            graph.input[0].type.tensor_type.shape.dim[rng.integers(4)].dim_value = number
        else:
            node.attribute.add(name="body", type=5).g.name = "body"
    return model.SerializeToString()


def forged_sizes(data: bytes, rng: np.random.Generator) -> bytes:
    """Return an image in which numbers that may be its width or height are others."""
    changed = bytearray(data)
    for size in (40, 60):
        for code in ("<H", ">H", "<I", ">I"):
            old = struct.pack(code, size)
            most = 2 ** (8 * len(old)) - 1
            new = struct.pack(code, [1, 1000, 30_000, most // 2, most][rng.integers(5)])
            if rng.random() < 0.5:
                changed = changed.replace(old, new, rng.integers(1, 5))
    if data.startswith(b"\x89PNG"):
        changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
    return bytes(changed)


# ----------------------------------------------------------------------------------------------------------------------
# Doors
# ----------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Raise AssertionError if anything is written to standard output or error, by C libraries too, but for our warnings."""
    outputs = [os.dup(1), os.dup(2)]
    printed = io.StringIO()
    with tempfile.TemporaryFile() as said, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        for number in (1, 2):
            os.dup2(said.fileno(), number)
        try:
            yield
        finally:
            for number, output in enumerate(outputs, start=1):
                os.dup2(output, number)
                os.close(output)
        said.seek(0)
        assert not (text := said.read() + printed.getvalue().encode()), text


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

    @silent()
    def read(damaged: Path) -> None:
        whole.write_bytes(damaged.read_bytes())
        checkpoint = read_checkpoint(folder)
        restore({name: Variable(array) for name, array in weights.items()}, checkpoint.weights, folder)
        restore({name: Variable(array) for name, array in state.items()}, read_training_state(folder) or {}, folder)

    return [copy], read


def graphs_door(base: Path, name: str) -> Door:
    """A graph of a small model, or the index of its graphs. What was made of it takes its place, and a picture is decoded."""
    folder = test_graphs.write(base / name / "m")
    data = Codec.load(folder).encode(photo(40, 60))
    whole, index_file = folder / name, folder / GRAPHS_FILE
    copy, index = base / f"whole-{name}", json.loads(index_file.read_text())
    copy.write_bytes(whole.read_bytes())
    (base / "secret").write_bytes(bytes(1000))

    @silent()
    def read(damaged: Path) -> None:
        whole.write_bytes(damaged.read_bytes())
        if whole != index_file:
            index["graphs"][name] = hashlib.sha256(whole.read_bytes()).hexdigest()
            index_file.write_text(json.dumps(index))
        assert Codec.load(folder).decode(data).shape == (40, 60, 3)

    return [copy], read


def bombs_door(base: Path) -> Door:
    """Images that take long or much memory for their size, where nobody looks before they are decoded."""
    image = Image.fromarray(photo(40, 60))
    image.save(base / "tiles.tif", compression="tiff_lzw")
    (base / "scans.jpg").write_bytes(many_scans(image, 500))
    (base / "tile.tif").write_bytes(tiff((40, 60), {258: (8,) * 3, 322: 43008, 323: 43008}, bytes(40 * 60 * 3)))
    image.save(base / "pages.tif", save_all=True, append_images=[Image.new("L", (40, 60))] * 1000)
    frames = [Image.new("P", (40, 60), i % 2) for i in range(1000)]
    frames[0].save(base / "frames.gif", save_all=True, append_images=frames[1:])
    Image.new("L", (16_000, 16_000)).save(base / "large.png")
    Image.new("L", (16_000, 16_000)).save(base / "large.gif")
    Image.new("RGB", (8000, 8000)).save(base / "large.webp", lossless=True, method=0)
    image.save(base / "a.ico")
    return sorted(base.iterdir()), lambda file: read_image(file, 10**6)


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
    return files, read_table


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
        s = read_classes(file, CLASSES, (40, 60))
        assert s.shape == (40, 60) and s.max() < len(CLASSES)
        read_instances(file, (40, 60))

    return files, read


DOORS: dict[str, Callable[[Path], Door]] = {
    **{name: lambda base, name=name: checkpoint_door(base, name)
       for name in ("config.json", "model.npz", "context.npz", "training.npz")},
    **{name: lambda base, name=name: graphs_door(base, name) for name in ("generator.onnx", "graphs.json")},
    "tables": tables_door,
    "images": images_door,
    "bombs": bombs_door,
    "labels": labels_door,
}  # fmt: skip


FORGERIES: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {  # by the door or the suffix of the file
    "graphs.json": forged_index,
    ".json": forged_knobs,
    ".npz": forged_arrays,
    ".onnx": forged_graph,
    **dict.fromkeys((".png", ".jpg", ".bmp", ".webp", ".tif", ".gif", ".avif"), forged_sizes),
}


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
            if (forge := FORGERIES.get(door if door == "graphs.json" else files[which].suffix)) and i % 2:
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
    faulthandler.dump_traceback_later(MAX_WAIT, exit=True, file=STDERR)
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
