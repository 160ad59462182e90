"""Reads a dataframe that pandas wrote to an HDF5 file, without trusting the file.

pandas keeps column names, and in its "fixed" format the strings themselves, as pickles inside the HDF5 file, and
`pandas.read_hdf` unpickles whatever it finds: a table from a stranger could run any code. Here h5py reads the file, which
unpickles nothing by itself, and `_Unpickler` knows lists, strings and arrays of them, and refuses everything else.

The HDF5 library itself can crash on a damaged file, or read in circles without end. So a child process reads the file (this
module run as a script), whose processor time is limited, and hands over the columns as JSON.
"""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from config import UserError

if TYPE_CHECKING:
    import h5py

MAX_BYTES = 2**30  # of one column; a table of a million paths has a tenth of it
SECONDS, SECONDS_PER_MB = 5.0, 0.3  # of processor time; a table of a million pairs of paths, 112 MB, took 6.5 s in all
PICKLED_NONE = b"N."
PROJECT = Path(__file__).resolve().parent.parent
Columns = dict[str, list[str | None]]  # column -> its cells; None where one is missing


class _RefusedError(Exception):
    """What is in a table that pandas would not have written; the message completes "it has ..."."""


def read_columns(source: Path) -> Columns:
    """Return the columns of a table. Raises UserError, in one line, for a file that is none.

    Another process reads it, which a damaged file can bring down or hold up.
    """
    seconds = int(SECONDS + SECONDS_PER_MB * source.stat().st_size / 1e6)
    command = [sys.executable, __file__, str(source), str(seconds)]
    folders = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    if done.returncode:
        late = done.returncode == -getattr(signal, "SIGXCPU", 0)  # Windows has no such signal
        how = f"was not done with it after {seconds} s" if late else f"crashed on it (exit status {done.returncode})"
        raise UserError(f"{source}: is damaged: HDF5 {how}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["columns"]


def _read(source: Path) -> Columns:
    try:
        import h5py
    except ModuleNotFoundError:
        raise UserError(f"{source}: HDF5 needs the package h5py: pip install -r requirements.txt; or save it as CSV") from None
    try:
        with h5py.File(source, "r") as file:
            tables = _tables(file)
            if len(tables) != 1:
                keys = ", ".join(tables) or "none"
                raise UserError(f"{source}: should hold one table, but its keys are {keys}; save the one you want as CSV, "
                                f"with pandas: pd.read_hdf(FILE, KEY).to_csv('paths.csv')")  # fmt: skip
            (group,) = tables.values()
            columns = _read_group(group)
            if len({len(cells) for cells in columns.values()}) > 1:
                raise UserError(f"{source}: is damaged: its columns are not of one length")
            return columns
    except UserError:
        raise
    except _RefusedError as refused:
        raise UserError(f"{source}: is not loaded, because it has {refused}; save the table as CSV instead") from None
    except Exception as error:  # h5py and pickle raise many kinds of errors for a damaged file
        first = (str(error).splitlines() or ["?"])[0]
        raise UserError(f"{source}: cannot be read as a path table ({first})") from None


def _tables(file: "h5py.File") -> dict[str, "h5py.Group"]:
    """Return the groups that hold a dataframe or a series, by key; links, which may lead to other files, are not followed."""
    found: dict[str, h5py.Group] = {}

    def visit(name: str, item: Any) -> None:
        if "pandas_type" in item.attrs and not any(f"/{name}".startswith(f"{key}/") for key in found):
            found[f"/{name}"] = item

    file.visititems(visit)
    return found


def _read_group(group: "h5py.Group") -> Columns:
    kind = _text(group.attrs["pandas_type"])
    readers = {"frame": _fixed_frame, "series": _fixed_series, "frame_table": _table, "series_table": _table}
    if kind not in readers:
        raise _RefusedError(f"an object of the kind {kind!r}")
    return readers[kind](group)


def _fixed_frame(group: "h5py.Group") -> Columns:
    """Read format="fixed": a block holds all columns of one type, (columns, rows) once it is transposed back."""
    columns: Columns = {}
    for i in range(int(group.attrs["nblocks"])):
        names = _strings(_dataset(group, f"block{i}_items"), group)
        block = _dataset(group, f"block{i}_values")
        values = _strings(block, group)
        values = np.atleast_2d(values.T if block.attrs.get("transposed") else values)
        columns |= {str(name): list(map(_cell, row)) for name, row in zip(names, values, strict=True)}
    order = [str(name) for name in _strings(_dataset(group, "axis0"), group)]
    return {name: columns[name] for name in order}


def _fixed_series(group: "h5py.Group") -> Columns:
    name = _text(group.attrs.get("name")) or "0"  # which is pandas' name of a column without one
    return {name: list(map(_cell, _strings(_dataset(group, "values"), group)))}


def _table(group: "h5py.Group") -> Columns:
    """Read format="table": one compound dataset, whose fields hold one column or a block of them."""
    table = _dataset(group, "table")
    rows = table[()]
    columns: Columns = {}
    for field in rows.dtype.names:
        kind = table.attrs.get(f"{field}_kind")
        if field == "index" or kind is None:
            continue
        names = _unpickle(kind)
        values = rows[field].reshape(len(rows), -1)
        if _text(table.attrs.get(f"{field}_meta", "")) == "category":  # numbers of strings, which are in a table of their own
            categories = next(iter(_read_group(group[f"meta/{field}/meta"]).values()))
            columns[str(names[0])] = [None if code < 0 else categories[code] for code in values[:, 0].tolist()]
            continue
        missing = _text(table.attrs.get(f"{field}_nan_rep", "nan"))
        for name, column in zip(names, values.T, strict=True):
            cells = [_cell(cell) for cell in _decoded(column, group)]
            columns[str(name)] = [None if cell == missing else cell for cell in cells]
    return columns


def _dataset(group: "h5py.Group", name: str) -> "h5py.Dataset":
    """Return a member that is a dataset of bearable size and in this file."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(group[name], h5py.Dataset):
        raise _RefusedError(f"no dataset {name!r}")
    dataset = group[name]
    if dataset.external or dataset.is_virtual:
        raise _RefusedError(f"its dataset {name!r} in another file")
    if dataset.size * max(1, dataset.dtype.itemsize) > MAX_BYTES:
        raise _RefusedError(f"over {MAX_BYTES >> 30} GiB in the dataset {name!r}")
    filters = dataset.id.get_create_plist()
    for number, _, _, what in map(filters.get_filter, range(filters.get_nfilters())):
        if not h5py.h5z.filter_avail(number):
            raise _RefusedError(f"data that {what.decode(errors='replace')} compressed, which is not read here")
    return dataset


def _strings(dataset: "h5py.Dataset", group: "h5py.Group") -> np.ndarray:
    """Return the values of a dataset, as objects; a pickled array, which is how pandas stores strings, is unpickled."""
    if _text(dataset.attrs.get("PSEUDOATOM", "")) != "object":
        return _decoded(dataset[()], group)
    if dataset.shape == (0,) or len(dataset[0]) == 0:
        return np.array([], object)
    array = _unpickle(bytes(dataset[0]))
    if not isinstance(array, _Array):
        raise _RefusedError(f"a pickled {type(array).__name__}")
    return array.values


def _decoded(values: np.ndarray, group: "h5py.Group") -> np.ndarray:
    """Decode an array of bytes; other arrays become arrays of objects."""
    if values.dtype.kind == "S":
        return np.char.decode(values, _text(group.attrs.get("encoding", "UTF-8")), "surrogateescape").astype(object)
    return values.astype(object)


def _cell(value: Any) -> str | None:
    if value is None or value != value:  # NaN
        return None
    return value.decode() if isinstance(value, bytes) else str(value)


def _text(value: Any) -> str:
    """Return an attribute as text. pandas writes text as bytes, and None as a pickle."""
    if isinstance(value, bytes):
        return "" if value == PICKLED_NONE else value.decode()
    return value if isinstance(value, str) else ""


# ----------------------------------------------------------------------------------------------------------------------
# Pickles
# ----------------------------------------------------------------------------------------------------------------------


class _ObjectType:
    """Stands in for numpy's dtype in a pickle; arrays of strings have no other type than "object"."""

    def __init__(self, name: str, *_: Any):
        if str(name) not in ("O", "O4", "O8"):
            raise _RefusedError(f"a pickled array of the type {name!r}")

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Stands in for numpy's array in a pickle."""

    values = np.array([], object)

    def __setstate__(self, state: tuple) -> None:
        _, shape, _, _, cells = state
        self.values = np.array(cells, object).reshape(shape)


class _Unpickler(pickle.Unpickler):
    """Reads numbers, strings, lists, dictionaries, and numpy arrays of them, without calling numpy or anything else."""

    KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): _ObjectType,
        ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),  # by which old pickles write bytes
        ("pathlib", "PosixPath"): lambda *parts: str(PurePosixPath(*map(str, parts))),
    }

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core").replace("pathlib._local", "pathlib")  # new names of old modules
        if (module, name) not in self.KNOWN:
            raise _RefusedError(f"a pickled object that is not text, {module}.{name}")
        return self.KNOWN[module, name]


def _unpickle(data: bytes) -> Any:
    return _Unpickler(io.BytesIO(data), encoding="latin1").load()


def _main(source: str, seconds: str) -> None:
    """Print the columns of an HDF5 table, or what is wrong with it, as JSON."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))  # signals: SIGXCPU, SIGKILL
    except ModuleNotFoundError:  # Windows
        pass
    try:
        answer: dict[str, Any] = {"columns": _read(Path(source))}
    except UserError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _main(*sys.argv[1:])
