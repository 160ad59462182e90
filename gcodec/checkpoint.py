"""A checkpoint is a folder. This module finds, reads, checks and writes its files.

config.json     the knobs: those of ModelKnobs, and many more that only training reads
model.npz       what compressing needs: averaged weights by name, and integer symbol frequencies
context.npz     the context model that codes the symbols, if one was fitted; context_code.npz and context_mask.npz likewise
                for label maps and heat maps
fingerprint.txt the fingerprint as 8 hexadecimal digits, so that a model is found without hashing every checkpoint
training.npz    what resuming needs: weights, optimizers, averages, step; a checkpoint that ships has none
"""

import hashlib
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gcodec.context_model import ContextModel
from gcodec.entropy import EntropyModel, StaticTables, integer_frequencies
from gcodec.errors import UserError
from gcodec.files import atomic_together, new_folder, open_binary, read_text
from gcodec.knobs import Knobs, ModelKnobs

CONTEXT_FILES = {"symbols": "context.npz", "code": "context_code.npz", "mask": "context_mask.npz"}  # by what they code
FINGERPRINT_FILE = "fingerprint.txt"
# all that a checkpoint may have
FILES = frozenset({"config.json", "model.npz", "training.npz", FINGERPRINT_FILE, *CONTEXT_FILES.values()})
MAX_INFLATION = 50  # an .npz of more than 64 MB in memory, and of so many times its size on disk, is a trap
UNDOUBTED_SIZE = 1000  # of a network, in channels or blocks; more is believed only of a checkpoint with weights to match
CENTERS = "quantizer/Quantizer_0/centers"
Arrays = dict[str, np.ndarray]
SHIPPED = Path(__file__).with_name("models")  # the models that ship; in the project's working tree:
if not SHIPPED.is_dir():
    SHIPPED = Path(__file__).parents[1] / "checkpoints"
T = TypeVar("T")
K = TypeVar("K", bound=Knobs)


@dataclass(frozen=True)
class Checkpoint:
    """What compressing and decompressing need of a checkpoint, read and checked.

    written: the knobs as config.json has them, without the defaults of knobs that came later. weights: by names
    network/layer/weight. entropy_models: what codes the "symbols" and, where there are any, the "code" of the label map and the
    heat map ("mask"). fingerprint: 4 bytes that tell whether a file was made with this checkpoint.
    """

    folder: Path
    written: dict[str, Any]
    config: ModelKnobs
    weights: Arrays
    entropy_models: dict[str, EntropyModel]
    static_tables: StaticTables  # of the symbols, whether a context model codes them or not
    fingerprint: bytes

    def __reduce__(self) -> tuple:
        return _read_again, (self.folder.absolute(), self.fingerprint)  # a pickle is small, and the files are checked again

    @property
    def centers(self) -> np.ndarray:
        """The quantizer's centers, (L,) float32."""
        return self.weights[CENTERS].astype(np.float32)

    def knobs(self, kind: type[K]) -> K:
        """Return the knobs as a class that has all of them. Raises UserError for weights of far smaller networks."""
        knobs = _knobs_of(self.written, kind, self.folder)
        _check_size(knobs, self.weights, self.folder)
        return knobs


# ----------------------------------------------------------------------------------------------------------------------
# Finding
# ----------------------------------------------------------------------------------------------------------------------


def resolve_checkpoint(path: str | Path) -> Path:
    """Return a checkpoint's folder: `path` itself, the newest checkpoint of a run's folder, or a shipped model by its name.

    A name that ships means what ships, whatever is in the working directory. Raises UserError if there is no checkpoint.
    """
    path = Path(path)
    ships = path.name == str(path) and (SHIPPED / path / "config.json").is_file()
    path = SHIPPED / path if ships else beside_shipped(path)
    if (path / "config.json").is_file():
        return path
    steps = [p for p in path.glob("ckpt-*") if re.fullmatch(r"ckpt-\d+", p.name) and p.is_dir()]
    if not steps:
        names = ", ".join(sorted(file.parent.name for file in SHIPPED.glob("*/config.json")))
        what = "has no checkpoint in it (config.json, or folders ckpt-STEP)" if path.is_dir() else "is not a folder"
        raise UserError(f"checkpoint {path}: {what}; name a run or a checkpoint of training, or a model that ships: {names}")
    return max(steps, key=lambda p: int(p.name.removeprefix("ckpt-")))


def beside_shipped(path: Path) -> Path:
    """Return a path as it is given, or the same path below the folder of the project if only that exists."""
    project = SHIPPED.parent
    return project / path if not path.exists() and (project / path).exists() else path


def newest_checkpoint(folder: str | Path) -> Path:
    """Return the checkpoint that was written last, of all runs below a folder, and of runs in folders of runs."""
    written = [config.parent for config in Path(folder).glob("*/**/ckpt-*/config.json")]
    if not written:
        raise UserError(f"{folder}: no run below it has a checkpoint; train one, or name one with -r")
    return max(written, key=lambda p: p.stat().st_mtime)


# ----------------------------------------------------------------------------------------------------------------------
# Reading
# ----------------------------------------------------------------------------------------------------------------------


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint, or the newest of a run's folder. Raises UserError that names the file for whatever is wrong."""
    folder = resolve_checkpoint(path)
    written, arrays, contexts = _read_parts(folder)
    checkpoint = _assemble(folder, written, arrays, contexts)
    _check_kept_fingerprint(checkpoint)
    return checkpoint


def _read_again(folder: Path, mark: bytes) -> Checkpoint:
    """Read the checkpoint that was pickled. Raises UserError if another one has taken its place."""
    checkpoint = read_checkpoint(folder)
    if checkpoint.fingerprint != mark:
        raise UserError(f"checkpoint {folder}: has changed since it was pickled")
    return checkpoint


def unsaved_checkpoint(config: Knobs, weights: Arrays, frequencies: np.ndarray) -> Checkpoint:
    """Return the checkpoint that `write_checkpoint` would write of these, for a model in training."""
    return _assemble(Path("unsaved"), json.loads(config.to_json()), {**weights, "frequencies": frequencies}, {})


def _assemble(folder: Path, written: dict[str, Any], arrays: Arrays, contexts: dict[str, Arrays]) -> Checkpoint:
    config = _knobs_of(written, ModelKnobs, folder)
    frequencies = {"symbols": arrays.get("frequencies")}
    weights = {name: array for name, array in arrays.items() if name != "frequencies"}
    if CENTERS not in weights:
        raise UserError(f"checkpoint {folder}: {CENTERS} is missing")
    if weights[CENTERS].shape != (config.L,):
        raise UserError(f"checkpoint {folder}: {CENTERS} is {weights[CENTERS].shape}, the knobs want {(config.L,)}")
    _check_size(config, weights, folder)
    tables = {of: _tables(shape, frequencies.get(of), folder / "model.npz") for of, shape in config.sections.items()}
    models: dict[str, EntropyModel] = dict(tables)
    for of in contexts.keys() & config.sections.keys():
        models[of] = _context_model(contexts[of], config.sections[of], folder / CONTEXT_FILES[of])
    mark = fingerprint(written, arrays, *contexts.values())
    return Checkpoint(folder, written, config, weights, models, tables["symbols"], mark)


def _check_size(config: Knobs, weights: Arrays, folder: Path) -> None:
    """Raise UserError for knobs that want networks far larger than the weights are, before any is built."""
    largest = max(max(array.shape, default=1) for array in weights.values())
    for name, limit in {"width": 8 * largest, "noise_dim": 8 * largest, "n_residual_blocks": len(weights),
                        "n_encoder_blocks": len(weights), "discriminator_width": 8 * largest}.items():  # fmt: skip
        if (value := getattr(config, name, 0)) > max(limit, UNDOUBTED_SIZE):
            raise UserError(f"checkpoint {folder}: knob {name} is {value}, far more than its weights are of")


def read_knobs(folder: Path) -> ModelKnobs:
    """Read those knobs of a checkpoint that the codec must know."""
    return _knobs_of(read_json(folder / "config.json"), ModelKnobs, folder)


def _knobs_of(written: Any, kind: type[K], folder: Path) -> K:
    """Return a checkpoint's knobs as a class. One that it lacks is an error, but for the codec, which need not know all."""
    return _read(folder / "config.json", lambda _: kind.from_written(written, others=kind is ModelKnobs))


def _read_parts(folder: Path) -> tuple[dict[str, Any], Arrays, dict[str, Arrays]]:
    """Read all that a fingerprint covers: the knobs as they were written, model.npz, and the context models."""
    return read_json(folder / "config.json"), read_arrays(folder / "model.npz"), read_contexts(folder)


def read_json(file: Path) -> Any:
    """Read a JSON file of a checkpoint."""
    return _read(file, lambda file: json.loads(read_text(file)))


def read_contexts(folder: Path) -> dict[str, Arrays]:
    """Read the arrays of the context models that a checkpoint has, by what they code."""
    return {of: read_arrays(folder / name) for of, name in CONTEXT_FILES.items() if (folder / name).exists()}


def read_arrays(file: Path) -> Arrays:
    """Read an .npz file of numbers. No code can hide in it: pickled objects are refused, and so is what is no finite number.

    Members are stored or deflated, as numpy writes them, so that zipfile takes no more memory than is asked of it. Of what
    bzip2 or LZMA expand to, or where nothing is said, it takes all.
    """

    def reader(file: Path) -> Arrays:
        with open_binary(file) as stream, zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            if odd := [m.filename for m in members if m.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]:
                raise UserError(f"{odd[0]} is compressed in another way than numpy's")
            inflated = sum(member.file_size for member in members)
            if inflated > max(MAX_INFLATION * os.fstat(stream.fileno()).st_size, 2**26):
                raise UserError(f"damaged: it would take {inflated / 1e9:.1f} GB in memory")
            arrays = {}
            for member in members:
                with archive.open(member) as source:
                    arrays[member.filename.removesuffix(".npy")] = _read_array(source, member)
            return arrays

    return _read(file, reader)


def _read_array(source: Any, member: zipfile.ZipInfo) -> np.ndarray:
    """Read one .npy file of an archive, whose header is checked before memory is taken for what it announces."""
    version = np.lib.format.read_magic(source)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(source)
    if dtype.kind not in "fiub":
        raise UserError(f"{member.filename} is no array of numbers")
    if (size := math.prod(shape) * dtype.itemsize) > member.file_size:
        raise UserError(f"damaged: {member.filename} says that it is {size} bytes long")
    array = np.frombuffer(source.read(member.file_size), dtype)  # to its end, where zipfile checks the sum
    array = array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
    with np.errstate(over="ignore"):  # beyond float32, in which the networks have their weights, a number is infinite
        finite = dtype.kind != "f" or np.isfinite(array.astype(np.float32, copy=False)).all()
    if not finite:
        raise UserError(f"{member.filename} is not finite")
    return array.copy() if not array.flags.writeable else array


def read_training_state(folder: Path) -> Arrays | None:
    """Read what training needs in order to go on, by name; None for a checkpoint that has none."""
    file = folder / "training.npz"
    return read_arrays(file) if file.exists() else None


def restore(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray], folder: Path) -> None:
    """Assign arrays to the Keras or TensorFlow variables of the same names. Names and shapes must all agree."""
    if odd := sorted(set(variables) ^ set(arrays)):
        raise UserError(f"checkpoint {folder}: {odd[0]} is {'missing' if odd[0] in variables else 'of another network'}")
    for name, var in variables.items():  # before the first is assigned
        if tuple(var.shape) != arrays[name].shape:
            raise UserError(f"checkpoint {folder}: {name} is {arrays[name].shape}, the knobs want {tuple(var.shape)}")
    for name, var in variables.items():
        var.assign(arrays[name])


def _read(file: Path, reader: Callable[[Path], T]) -> T:
    """Read a file of a checkpoint; an error becomes one line that names the file."""
    try:
        return reader(file)
    except UserError as error:
        raise UserError(f"checkpoint file {file}: {str(error).removeprefix(f'{file}: ')}") from None
    except Exception as error:  # zipfile, numpy and json raise many kinds of errors for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"checkpoint file {file}: damaged, or of another format ({reason})") from None


def _tables(shape: tuple[int, int], frequencies: np.ndarray | None, file: Path) -> StaticTables:
    """Return the tables of a checkpoint's symbol frequencies, or uniform ones if it has none; shape: channels and levels."""
    if frequencies is None:
        frequencies = integer_frequencies(np.ones(shape))
    if frequencies.shape != shape:
        raise UserError(f"checkpoint file {file}: its symbol frequencies do not fit the knobs; take another checkpoint")
    return _read(file, lambda _: StaticTables(frequencies))


def _context_model(arrays: Arrays, shape: tuple[int, int], file: Path) -> ContextModel:
    """Return the context model of a file's arrays. Raises UserError if it is not one of `shape`, channels and levels."""
    model = _read(file, lambda _: ContextModel(arrays))
    if (model.channels, model.levels) != shape:
        raise UserError(f"checkpoint file {file}: for {model.channels} channels of {model.levels} values, not for its knobs'")
    return model


# ----------------------------------------------------------------------------------------------------------------------
# Fingerprints
# ----------------------------------------------------------------------------------------------------------------------


def fingerprint(knobs: dict, *parts: Arrays) -> bytes:
    """Return 4 bytes of SHA-256 over the knobs and all that decoding depends on."""
    digest = hashlib.sha256(json.dumps(knobs, sort_keys=True).encode())
    for arrays in parts:
        for name in sorted(arrays):
            array = arrays[name]
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.digest()[:4]


def hashed_fingerprint(folder: Path) -> bytes:
    """Return the fingerprint of a checkpoint's folder from all that it covers, which is read for that."""
    written, arrays, contexts = _read_parts(folder)
    return fingerprint(written, arrays, *contexts.values())


def kept_fingerprint(folder: Path) -> bytes | None:
    """Return the fingerprint that a checkpoint's folder keeps in a file; None where there is no such file."""
    file = folder / FINGERPRINT_FILE
    if not os.path.lexists(file):
        return None
    with open_binary(file) as stream:
        text = stream.read(16).strip()
    if not re.fullmatch(rb"[0-9a-f]{8}", text):
        raise UserError(f"checkpoint file {file}: is no fingerprint of 8 hexadecimal digits; delete it")
    return bytes.fromhex(text.decode())


def keep_fingerprint(file: Path, mark: bytes) -> None:
    """Write a checkpoint's fingerprint to a file."""
    file.write_text(mark.hex() + "\n")


def _check_kept_fingerprint(checkpoint: Checkpoint) -> None:
    """Raise UserError if a checkpoint keeps another fingerprint than it has."""
    kept = kept_fingerprint(checkpoint.folder)
    if kept not in (None, checkpoint.fingerprint):
        raise UserError(
            f"checkpoint file {checkpoint.folder / FINGERPRINT_FILE}: says {kept.hex()}, but the files beside it have the "
            f"fingerprint {checkpoint.fingerprint.hex()}: they were changed, or belong to another checkpoint; restore the "
            f"checkpoint, or delete {FINGERPRINT_FILE} to use it as it is"
        )


# ----------------------------------------------------------------------------------------------------------------------
# Writing
# ----------------------------------------------------------------------------------------------------------------------


def write_checkpoint(
    folder: Path,
    config: Knobs,
    weights: Arrays,
    frequencies: np.ndarray,
    state: Arrays | None = None,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint to a new folder, which appears whole or not at all.

    frequencies: (C, L) integers, of the symbols. state: what training needs in order to go on, by name.
    Raises UserError if a weight is not finite.
    """
    for name, array in [*(state or {}).items(), *weights.items()]:  # the same names, of other values: averages are weights
        if not np.isfinite(array).all():
            raise UserError(f"{folder}: {name} is not finite; nothing was saved; lower the learning rate")
    with new_folder(folder, overwrite) as partial:
        arrays = {"frequencies": frequencies, **weights}
        (partial / "config.json").write_text(config.to_json())
        save_arrays(partial / "model.npz", arrays)
        keep_fingerprint(partial / FINGERPRINT_FILE, fingerprint(json.loads(config.to_json()), arrays))
        if state is not None:
            save_arrays(partial / "training.npz", state)


def save_context_model(context: ContextModel, folder: Path, of: str = "symbols") -> None:
    """Make a context model part of a checkpoint, whose fingerprint then changes. The file appears whole or not at all."""
    written, arrays, contexts = _read_parts(folder)
    contexts[of] = context.arrays
    mark = fingerprint(written, arrays, *(contexts[name] for name in CONTEXT_FILES if name in contexts))
    with atomic_together([folder / CONTEXT_FILES[of], folder / FINGERPRINT_FILE]) as (file, fingerprint_file):
        save_arrays(file, context.arrays, compressed=True)
        keep_fingerprint(fingerprint_file, mark)


def save_arrays(file: Path, arrays: Mapping[str, Any], *, compressed: bool = False) -> None:
    """Write arrays by name to an .npz file."""
    with file.open("wb") as stream:
        (np.savez_compressed if compressed else np.savez)(stream, **arrays)
