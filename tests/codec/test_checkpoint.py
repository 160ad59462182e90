"""Reading and writing the files of a checkpoint, without a network."""

import ast
import io
import json
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, model_arrays

from config import UserError, config_train
from gcodec.checkpoint import (
    CENTERS,
    FINGERPRINT_FILE,
    hashed_fingerprint,
    kept_fingerprint,
    newest_checkpoint,
    read_arrays,
    read_checkpoint,
    read_knobs,
    resolve_checkpoint,
    restore,
    save_context_model,
    unsaved_checkpoint,
    write_checkpoint,
)
from gcodec.context_model import ContextModel
from gcodec.entropy import StaticTables, integer_frequencies

CONFIG = config_train(width=32)
WEIGHTS = {CENTERS: np.array(CONFIG.centers, np.float32), "generator/Conv2D_0/kernel": np.ones((3, 3, 8, 2), np.float32)}
FREQUENCIES = integer_frequencies(np.random.default_rng(0).random((8, 5)) + 0.1)

FINGERPRINTS = {  # of what ships: files that are out there must stay decodable
    "photo_c4": "7564f11c",
    "photo_c8": "d39f3c96",
    "photo_c16": "772c464a",
    "camvid_sc_c8": "e1037582",
}


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path / "ckpt-0", CONFIG, WEIGHTS, FREQUENCIES, {"step": np.array(0)})
    return tmp_path / "ckpt-0"


@pytest.mark.parametrize(("name", "mark"), FINGERPRINTS.items())
def test_the_fingerprints_of_what_ships_stay(name, mark):
    folder = PROJECT / "checkpoints" / name
    assert read_checkpoint(folder).fingerprint.hex() == mark == kept_fingerprint(folder).hex()


def test_what_is_written_is_read_again(folder):
    read = read_checkpoint(folder)
    assert read.knobs(config_train) == CONFIG and read.weights.keys() == WEIGHTS.keys()
    np.testing.assert_array_equal(read.static_tables.frequencies, FREQUENCIES)
    np.testing.assert_array_equal(read.centers, CONFIG.centers)
    assert read.fingerprint == unsaved_checkpoint(CONFIG, WEIGHTS, FREQUENCIES).fingerprint == kept_fingerprint(folder)


def test_the_fingerprint_follows_knobs_weights_and_frequencies():
    marks = {
        unsaved_checkpoint(config, weights, frequencies).fingerprint
        for config in (CONFIG, config_train(width=48))
        for weights in (WEIGHTS, WEIGHTS | {"generator/Conv2D_0/kernel": np.zeros((3, 3, 8, 2), np.float32)})
        for frequencies in (FREQUENCIES, FREQUENCIES[::-1])
    }
    assert len(marks) == 8


def test_a_checkpoint_that_keeps_another_fingerprint_than_it_has_is_refused_until_the_file_is_deleted(folder):
    np.savez(folder / "model.npz", **WEIGHTS, frequencies=FREQUENCIES[::-1])
    with pytest.raises(UserError, match=f"{folder}/fingerprint.txt: says [0-9a-f]{{8}}, but .* delete fingerprint.txt"):
        read_checkpoint(folder)
    for text in ("", "5af6efc", "5af6efcc0", "text text", LFS):
        (folder / FINGERPRINT_FILE).write_text(text)
        with pytest.raises(UserError, match=r"fingerprint\.txt: "):
            read_checkpoint(folder)
    (folder / FINGERPRINT_FILE).unlink()
    assert kept_fingerprint(folder) is None
    assert read_checkpoint(folder).fingerprint == hashed_fingerprint(folder)


def test_a_context_model_takes_over_from_the_tables_and_changes_the_fingerprint(folder):
    before = read_checkpoint(folder)
    save_context_model(ContextModel(model_arrays(8, 5)), folder)
    after = read_checkpoint(folder)
    assert isinstance(before.entropy_models["symbols"], StaticTables)
    assert isinstance(after.entropy_models["symbols"], ContextModel)
    assert before.fingerprint != after.fingerprint == kept_fingerprint(folder)
    np.testing.assert_array_equal(before.static_tables.frequencies, after.static_tables.frequencies)


def test_without_context_model_and_frequencies_all_symbols_are_alike(folder):
    np.savez(folder / "model.npz", **WEIGHTS)
    (folder / FINGERPRINT_FILE).unlink()
    frequencies = read_checkpoint(folder).static_tables.frequencies
    assert frequencies.shape == (8, 5) and np.ptp(frequencies) <= 1


def test_a_run_has_a_newest_checkpoint(folder, tmp_path):
    write_checkpoint(tmp_path / "ckpt-10", CONFIG, WEIGHTS, FREQUENCIES)
    write_checkpoint(tmp_path / "ckpt-9", CONFIG, WEIGHTS, FREQUENCIES)
    assert resolve_checkpoint(tmp_path).name == "ckpt-10"
    assert newest_checkpoint(tmp_path.parent).name == "ckpt-9"  # the last that was written


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    broken = WEIGHTS | {"encoder/Conv2D_0/kernel": np.array([np.nan], np.float32)}
    with pytest.raises(UserError, match="encoder/Conv2D_0/kernel is not finite"):
        write_checkpoint(tmp_path / "ckpt-0", CONFIG, broken, FREQUENCIES)
    assert list(tmp_path.iterdir()) == []


def test_restoring_wants_the_same_names_and_shapes(tmp_path):
    class Variable:
        shape = (2, 3)

        def assign(self, array):
            self.array = array

    variable = Variable()
    restore({"a": variable}, {"a": np.ones((2, 3))}, tmp_path)
    assert variable.array.sum() == 6
    for arrays, named in [({}, "a is missing"), ({"a": np.ones((2, 3)), "b": np.ones(1)}, "b is of another network"),
                          ({"a": np.ones((3, 2))}, "the knobs want")]:  # fmt: skip
        with pytest.raises(UserError, match=named):
            restore({"a": variable}, arrays, tmp_path)


def change_knobs(folder, **changes):
    knobs = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(knobs | changes))


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"


def store_by(file, method: int) -> None:
    """Write an .npz file whose members are compressed as numpy never does; some methods expand without bound."""
    data = io.BytesIO()
    np.save(data, np.zeros(100, np.float32))
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a.npy", data.getvalue())


def replace_by_pipe(file) -> None:
    file.unlink()
    os.mkfifo(file)


def forge_header(file, shape: str) -> None:
    """Write an .npz file with one array whose header says that it has another shape."""
    with zipfile.ZipFile(file, "w") as archive:
        data = io.BytesIO()
        np.lib.format.write_array_header_1_0(data, {"descr": "<f4", "fortran_order": False, "shape": ast.literal_eval(shape)})
        archive.writestr("a.npy", data.getvalue() + bytes(40))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda f: (f / "config.json").unlink(), "no checkpoint in it"),
        (lambda f: (f / "config.json").write_text("{"), "config.json"),
        (lambda f: (f / "config.json").write_text('{"width": "wide"}'), "width"),
        (lambda f: change_knobs(f, channel_bottleneck=4), "model.npz.*do not fit the knobs"),
        (lambda f: (f / "model.npz").unlink(), "model.npz"),
        (lambda f: (f / "model.npz").write_bytes((f / "model.npz").read_bytes()[:500]), "model.npz"),
        (lambda f: (f / "model.npz").write_text("text"), "model.npz"),
        (lambda f: np.savez(f / "model.npz", a=np.array([{}], object)), "model.npz"),  # a pickle, which could run code
        (lambda f: np.savez(f / "model.npz", a=np.ones(3)), "centers is missing"),
        (lambda f: (f / "context.npz").write_text("text"), "context.npz"),
        (lambda f: np.savez(f / "context.npz", **model_arrays(4, 5)), "context.npz.*4 channels"),
        (lambda f: np.savez(f / "context.npz", hidden=np.zeros(3)), "context.npz.*neighbours"),
        (lambda f: np.savez(f / "context.npz"), "context.npz"),
        (lambda f: np.savez(f / "model.npz", **WEIGHTS | {CENTERS: np.array([*CONFIG.centers[:4], np.nan])}), "not finite"),
        (lambda f: np.savez(f / "model.npz", **WEIGHTS | {CENTERS: np.zeros(4)}), "centers is"),
        (lambda f: np.savez(f / "model.npz", **WEIGHTS | {"a": np.array(["text"])}), "no array of numbers"),
        (lambda f: forge_header(f / "model.npz", "(1000000000000,)"), "says that it is"),
        (lambda f: np.savez_compressed(f / "model.npz", **WEIGHTS | {"a": np.zeros(2**25)}), "would take 0.3 GB"),
        (lambda f: change_knobs(f, width=16 * 10**6), "knob width is 16000000"),
        (lambda f: change_knobs(f, n_residual_blocks=10**9), "knob n_residual_blocks"),
        (lambda f: (f / "model.npz").write_text(LFS), "Git LFS pointer"),
        (lambda f: (f / "context.npz").write_text(LFS), "Git LFS pointer"),
        (lambda f: (f / "config.json").write_text(LFS), "Git LFS pointer"),
        (lambda f: (f / "config.json").write_text("[" * 10**5), "config.json"),
        (lambda f: (f / "config.json").write_text(" " * 2**24 + "{}"), "config.json: is over 16 MiB"),
        (lambda f: store_by(f / "model.npz", zipfile.ZIP_BZIP2), "model.npz.*another way than numpy's"),
        (lambda f: store_by(f / "context.npz", zipfile.ZIP_LZMA), "context.npz.*another way than numpy's"),
        (lambda f: replace_by_pipe(f / "config.json"), "no checkpoint in it"),
        (lambda f: replace_by_pipe(f / "model.npz"), "model.npz: is a device, a pipe or a socket"),
        (lambda f: replace_by_pipe(f / "fingerprint.txt"), "fingerprint.txt: is a device, a pipe or a socket"),
        (lambda f: os.mkfifo(f / "context.npz"), "context.npz: is a device, a pipe or a socket"),
        (lambda f: np.savez(f / "model.npz", **WEIGHTS, frequencies=wrapping(np.int64)), "symbol frequencies"),
        (lambda f: np.savez(f / "model.npz", **WEIGHTS, frequencies=wrapping(np.uint64)), "symbol frequencies"),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe{}"), "config.json"),
    ],
)
def test_a_damaged_checkpoint_is_an_error_that_names_it(damage, named, folder):
    damage(folder)
    with pytest.raises(UserError, match=named):
        read_checkpoint(folder)


def wrapping(dtype: type) -> np.ndarray:
    """Frequencies whose sum, in 64 bits, is right only because it wraps around."""
    frequencies = FREQUENCIES.astype(dtype)
    top = int(np.iinfo(dtype).max)
    frequencies[0] = [top, top, 2**16, 1, 1] if dtype is np.int64 else [top, 2**16 - 2, 1, 1, 1]
    assert frequencies[0].sum() == 2**16
    return frequencies


def test_an_archive_that_expands_to_more_than_it_says_is_read_no_further(tmp_path):
    said, size = io.BytesIO(), 10**8
    np.save(said, np.zeros(10**6, np.float32))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", said.getvalue().ljust(size, b"\0"))
    forged = (tmp_path / "a.npz").read_bytes().replace(struct.pack("<I", size), struct.pack("<I", said.tell()))
    (tmp_path / "a.npz").write_bytes(forged)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="CRC"):
            read_arrays(tmp_path / "a.npz")
        assert tracemalloc.get_traced_memory()[1] < size / 4
    finally:
        tracemalloc.stop()


def test_a_name_that_ships_is_what_ships_and_project_paths_are_found_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photo_c4", "checkpoints/own"):
        write_checkpoint(tmp_path / name, CONFIG, WEIGHTS, FREQUENCIES)
    for named in ("photo_c4", "checkpoints/photo_c4", str(PROJECT / "checkpoints/photo_c4")):
        assert resolve_checkpoint(named).samefile(PROJECT / "checkpoints/photo_c4")
    assert resolve_checkpoint("checkpoints/own") == Path("checkpoints/own")
    assert resolve_checkpoint(tmp_path / "photo_c4") == tmp_path / "photo_c4"


def test_a_knob_that_nobody_knows_is_an_error_where_all_are_read_and_none_of_the_codecs_business(folder):
    change_knobs(folder, frobnicate=1)
    (folder / FINGERPRINT_FILE).unlink()  # which covers all knobs
    with pytest.raises(UserError, match=r"config\.json: unknown knob frobnicate"):
        read_checkpoint(folder).knobs(config_train)
    assert read_checkpoint(folder).config == read_knobs(folder)


def test_knobs_of_networks_far_larger_than_the_weights_are_refused_before_these_are_built(folder):
    change_knobs(folder, discriminator_width=10**9)
    (folder / FINGERPRINT_FILE).unlink()
    with pytest.raises(UserError, match="knob discriminator_width is 1000000000"):
        read_checkpoint(folder).knobs(config_train)


def test_a_missing_checkpoint_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        read_checkpoint(tmp_path / "nowhere")
