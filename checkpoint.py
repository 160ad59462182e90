#!/usr/bin/env python3
"""A checkpoint is a folder. Its files, here found, read and checked:

config.json     the knobs
model.npz       what compressing needs: averaged weights, and integer symbol frequencies
context.npz     where one was fitted, the context model, which then codes the symbols; context_code.npz and context_mask.npz
                likewise, for label maps and heat maps
training.npz    unless it only ships: what resuming needs (weights, optimizers, averages, step)

    python3 checkpoint.py -r checkpoints/run -o checkpoints/mine  # what of it ships: weights in half precision, no training.npz
    python3 checkpoint.py -r checkpoints/run --blend checkpoints/run/ckpt-00003500 0.3 -o checkpoints/mine

--blend CKPT SHARE: between two generators of one encoder, that before the GAN stage (higher PSNR) and that after it (sharper),
by averaging their weights: network interpolation, Wang et al. 2018 (ESRGAN), section 3.4. It takes freeze_encoder=true.
"""

import argparse
import contextlib
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from codec.context_model import ContextModel
from codec.entropy import StaticTables, integer_frequencies
from config import UserError, config_train
from utils import Utils

CONTEXT_FILES = {"symbols": "context.npz", "code": "context_code.npz", "mask": "context_mask.npz"}  # by what they code


def resolve_checkpoint(path: str | Path) -> Path:
    """A checkpoint's folder, or a run's folder -> the checkpoint, the run's newest. Raises UserError if there is none."""
    path = Path(path)
    if (path / "config.json").is_file():
        return path
    steps = [p for p in path.glob("ckpt-*") if re.fullmatch(r"ckpt-\d+", p.name)]
    if not steps:
        what = "has no checkpoint in it (config.json, or folders ckpt-STEP)" if path.is_dir() else "is not a folder"
        raise UserError(f"checkpoint {path}: {what}; train.py writes checkpoints/NAME/ckpt-STEP")
    return max(steps, key=lambda p: int(p.name.removeprefix("ckpt-")))


def newest_checkpoint(folder: str | Path) -> Path:
    """The checkpoint that was written last, of all runs below a folder."""
    written = [config.parent for config in Path(folder).glob("*/ckpt-*/config.json")]
    if not written:
        raise UserError(f"{folder}: no run below it has a checkpoint; train one, or name one with -r")
    return max(written, key=lambda p: p.stat().st_mtime)


def read(file: Path, reader: Callable[[Path], Any]) -> Any:
    """Read a file of a checkpoint; what goes wrong becomes one line that names the file."""
    try:
        return reader(file)
    except FileNotFoundError:
        raise UserError(f"checkpoint file {file}: missing") from None
    except UserError as error:
        raise UserError(f"checkpoint file {file}: {error}") from None
    except Exception as error:  # zipfile, numpy and json throw what they like at a damaged file
        raise UserError(f"checkpoint file {file}: damaged, or of another format ({error})") from None


def read_knobs(folder: Path) -> config_train:
    return read(folder / "config.json", lambda file: config_train.from_json(file.read_text()))


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    def reader(file: Path) -> dict[str, np.ndarray]:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return dict(arrays)

    return read(file, reader)


def restore(variables: dict, arrays: dict, folder: Path) -> None:
    """Assign arrays to the variables of the same names; both must have exactly the same names and shapes."""
    if odd := sorted(set(variables) ^ set(arrays)):
        raise UserError(f"checkpoint {folder}: {odd[0]} is {'missing' if odd[0] in variables else 'of another network'}")
    for name, var in variables.items():
        if tuple(var.shape) != arrays[name].shape:
            raise UserError(f"checkpoint {folder}: {name} is {arrays[name].shape}, the knobs want {tuple(var.shape)}")
        var.assign(arrays[name])


def static_tables(shape: tuple[int, int], frequencies: np.ndarray | None, file: Path) -> StaticTables:
    """Of a checkpoint's symbol frequencies, or, where it has none, of equal ones; shape: channels and levels."""
    if frequencies is None:
        frequencies = integer_frequencies(np.ones(shape))
    if frequencies.shape != shape:
        raise UserError(f"checkpoint file {file}: its symbol frequencies do not fit the knobs; take another checkpoint")
    return read(file, lambda _: StaticTables(frequencies))


def context_model(arrays: dict[str, np.ndarray], shape: tuple[int, int], file: Path) -> ContextModel:
    """The context model of a file's arrays; raises UserError if it is not one of `shape`, channels and levels."""
    model = read(file, lambda _: ContextModel(arrays))
    if (model.channels, model.levels) != shape:
        raise UserError(f"checkpoint file {file}: for {model.channels} channels of {model.levels} values, not for its knobs'")
    return model


def fingerprint(knobs: dict, *parts: dict) -> bytes:
    """4 bytes of SHA-256 over the knobs and all that decoding depends on."""
    digest = hashlib.sha256(json.dumps(knobs, sort_keys=True).encode())
    for arrays in parts:
        for name in sorted(arrays):
            array = arrays[name]
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.digest()[:4]


def save_context_model(context: ContextModel, checkpoint: Path, of: str = "symbols") -> None:
    """Make a context model part of a checkpoint, whose fingerprint then is another. Whole or not at all."""
    with Utils.atomic(checkpoint / CONTEXT_FILES[of]) as path, path.open("wb") as file:
        np.savez_compressed(file, **context.arrays)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, which takes its place if all went well, and else is removed."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot write the checkpoint: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


# ----------------------------------------------------------------------------------------------------------------------
# Saving and loading a model
# ----------------------------------------------------------------------------------------------------------------------


class Checkpointed:
    """What the class Model has of checkpoints. `Self` has the attributes that its docstring lists, and is made from knobs."""

    def save(self, folder: Path) -> None:
        """Write a checkpoint to a new folder. It appears whole or not at all. Raises UserError, also for broken weights."""
        with self.averaged_weights():
            inference = {name: var.numpy() for name, var in self._weights(self.networks).items()}
        state = {name: var.numpy() for name, var in self._state().items()}
        for name, array in [*state.items(), *inference.items()]:
            if not np.isfinite(array).all():
                raise UserError(f"step {self.step}: {name} is not finite; nothing was saved; lower the learning rate")
        frequencies = integer_frequencies(self.histogram.numpy())
        with new_folder(folder) as partial:
            (partial / "config.json").write_text(self.config.to_json())
            np.savez(partial / "model.npz", frequencies=frequencies, **inference)
            np.savez(partial / "training.npz", step=self.step, **state)

    @classmethod
    def load(cls, path: str | Path, *, training: bool = False, overrides: list[str] | None = None) -> Self:
        """Rebuild a model from a checkpoint's own knobs, with the averaged weights; `overrides` change knobs."""
        folder = resolve_checkpoint(path)
        config = read_knobs(folder).override(overrides or [])
        model = cls(config, training=training)
        arrays = read_arrays(folder / "model.npz")
        files = {of: folder / name for of, name in CONTEXT_FILES.items()}
        contexts = {of: read_arrays(file) for of, file in files.items() if file.exists()}
        knobs = json.loads((folder / "config.json").read_text())  # as written, whatever knobs came later
        model.fingerprint = fingerprint(knobs, arrays, *contexts.values())
        frequencies = {"symbols": arrays.pop("frequencies", None)}
        for of, shape in config.coded.items():
            model.entropy_models[of] = static_tables(shape, frequencies.get(of), folder / "model.npz")
            if of == "symbols":
                model.static_tables = model.entropy_models[of]
            if of in contexts:
                model.entropy_models[of] = context_model(contexts[of], shape, files[of])
        restore(model._weights(model.networks), arrays, folder)
        if training:  # a checkpoint that ships has no more than this to start from
            assign(model.averages, model.G_variables)
        return model

    @classmethod
    def transfer(cls, path: str | Path, overrides: list[str]) -> tuple[Self, list[str]]:
        """A model to train from step 0: a checkpoint's knobs, changed by `overrides`, and its weights as far as they fit.

        Of a kernel with more or fewer channels than there, those that both have are taken: the first ones, and w_hat is the
        first of what G sees. The discriminator's are taken where there is a training.npz: D does not see C. Returns the
        model, and the names of the weights that start afresh, in whole or in part.
        """
        folder = resolve_checkpoint(path)
        model = cls(read_knobs(folder).override(overrides), training=True)
        arrays, networks = read_arrays(folder / "model.npz"), dict(model.networks)
        if (folder / "training.npz").exists():
            state = read_arrays(folder / "training.npz")
            arrays |= {name: array for name, array in state.items() if name.startswith("discriminator/")}
            networks["discriminator"] = model.discriminator
        weights = model._weights(networks)
        fresh = [name for name, var in weights.items() if name not in arrays or arrays[name].shape != tuple(var.shape)]
        for name, var in weights.items():
            if name in arrays and arrays[name].ndim == len(var.shape):
                common = tuple(slice(min(sides)) for sides in zip(arrays[name].shape, var.shape, strict=True))
                values = var.numpy()
                values[common] = arrays[name][common]
                var.assign(values)
        assign(model.averages, model.G_variables)
        return model, fresh

    @classmethod
    def resume(cls, path: str | Path, overrides: list[str] | None = None) -> Self:
        """Load a checkpoint and all that training had beside it. Without training.npz: its weights, at step 0."""
        folder = resolve_checkpoint(path)
        model = cls.load(folder, training=True, overrides=overrides)
        if (folder / "training.npz").exists():
            saved = read_knobs(folder)
            for knob in ("optimizer", "rate_model"):
                if (old := getattr(saved, knob)) != (new := getattr(model.config, knob)):
                    raise UserError(
                        f"knob {knob}: {folder} has the state of {old}, not of {new}; --transfer takes its weights alone"
                    )
            arrays = read_arrays(folder / "training.npz")
            model.step = int(arrays.pop("step"))
            restore(model._state(), arrays, folder)
        return model

    def _weights(self, networks: dict) -> dict:
        """Variables by names that do not depend on what else was built in this process: network/layer_k/weight."""
        named = {}
        for name, net in networks.items():
            seen: dict[str, int] = {}
            for layer in net.layers:
                kind = type(layer).__name__
                for var in layer.weights:
                    named[f"{name}/{kind}_{seen.get(kind, 0)}/{var.name}"] = var
                seen[kind] = seen.get(kind, 0) + bool(layer.weights)
        return named

    def _state(self) -> dict:
        """All that changes in training, by name."""
        state = self._weights({**self.networks, "discriminator": self.discriminator}) | {"histogram": self.histogram}
        numbered = {
            "average": self.averages,
            "G_optimizer": self.G_optimizer.variables,
            "D_optimizer": self.D_optimizer.variables,
        }
        if self.context_network:
            numbered["context_network"] = self.context_network.variables
            numbered["context_optimizer"] = self.context_optimizer.variables
        for name, variables in numbered.items():
            state |= {f"{name}/{i:03d}": var for i, var in enumerate(variables)}
        return state


def assign(variables: list, values: list) -> None:
    for var, value in zip(variables, values, strict=True):
        var.assign(value)


# ----------------------------------------------------------------------------------------------------------------------
# What ships
# ----------------------------------------------------------------------------------------------------------------------


def export(source: Path, output: Path, other: Path | None = None, share: float = 0.0) -> None:
    """Write what compressing needs of a checkpoint to a new folder, the weights as float16: half the size.

    With `other`, G is (1 - share) of the source's weights and `share` of that checkpoint's. What is written is another
    checkpoint, if only by the rounding: its fingerprint differs, and files of the one are not those of the other.
    """
    if output.exists():
        raise UserError(f"{output}: is there already; name a new folder")
    arrays = read_arrays(source / "model.npz")
    if other:
        arrays = blend(arrays, read_arrays(other / "model.npz"), share, other)
    with np.errstate(over="ignore"):  # infinite then, which is reported
        halves = {name: array.astype(np.float16) if array.dtype == np.float32 else array for name, array in arrays.items()}
    if broken := [name for name, array in halves.items() if not np.isfinite(array).all()]:
        raise UserError(f"checkpoint {source}: {broken[0]} has values beyond half precision, 65504")
    read_knobs(source)
    with new_folder(output) as partial:
        np.savez_compressed(partial / "model.npz", **halves)
        for name in ("config.json", *CONTEXT_FILES.values()):
            if (source / name).exists():
                shutil.copy(source / name, partial)


def blend(arrays: dict, others: dict, share: float, other: Path) -> dict[str, np.ndarray]:
    """(1 - share) `arrays` + share `others`, of what decodes only. Raises UserError where the two are not of one encoder."""
    blended = dict(arrays)
    for name, array in arrays.items():
        if name not in others or others[name].shape != array.shape:
            raise UserError(f"checkpoint {other}: {name} is not as in the one to blend it with")
        if name.startswith(("generator/", "noise_generator/")):
            blended[name] = ((1 - share) * array + share * others[name]).astype(array.dtype)
        elif name != "frequencies" and not np.array_equal(array, others[name]):
            raise UserError(f"checkpoint {other}: {name} differs; blend checkpoints of one run with freeze_encoder=true")
    return blended


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-r", "--restore", required=True, metavar="CKPT", help="checkpoint or run folder")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="the checkpoint to write")
    parser.add_argument("--blend", nargs=2, metavar=("CKPT", "SHARE"), help="take SHARE of the generator from that checkpoint")
    return parser.parse_args(argv)


def _share_of(other: str, share: str) -> tuple[Path, float]:
    with contextlib.suppress(ValueError):
        if 0 <= float(share) <= 1:
            return resolve_checkpoint(other), float(share)
    raise UserError(f"--blend: {share!r} is not a share from 0 to 1")


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    source, output = resolve_checkpoint(args.restore), Path(args.output)
    export(source, output, *(_share_of(*args.blend) if args.blend else ()))
    size = sum(file.stat().st_size for file in output.iterdir())
    print(f"{source} -> {output}: {size / 1e6:.1f} MB; it is a checkpoint of its own: files of {source} are not for it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
