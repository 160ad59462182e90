"""Path tables: what each version of pandas wrote is read, and nothing that is in a table is run."""

import os
import pickle
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from config import UserError
from path_tables import read_columns, write_columns

COLUMNS = {"path": ["a/b.png", "ü/d e.png"], "semantic_map_paths": ["x", "y"]}  # as many rows as columns


def hdf(frame, path, **options):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas says that it pickles strings
        frame.to_hdf(path, **({"key": "df"} | options))
    return path


@pytest.mark.parametrize("kind", ["fixed", "table", "data_columns", "compressed", "nested", "csv"])
@pytest.mark.parametrize("dtype", ["str", object])
def test_what_pandas_writes_is_read(kind, dtype, tmp_path):
    frame = pd.DataFrame(COLUMNS | {"n": [1, 2]}).astype(dict.fromkeys(COLUMNS, dtype))
    options = {
        "fixed": {},
        "table": {"format": "table"},
        "data_columns": {"format": "table", "data_columns": True},
        "compressed": {"format": "table", "complevel": 5, "complib": "zlib"},
        "nested": {"key": "some/where"},
    }
    if kind == "csv":
        frame.to_csv(tmp_path / "t.csv")
        columns = read_columns(tmp_path / "t.csv")
    else:
        columns = read_columns(hdf(frame, tmp_path / "t.h5", **options[kind]))
    assert {name: columns[name] for name in COLUMNS} == COLUMNS and columns["n"] == ["1", "2"]


@pytest.mark.parametrize("name", ["t.h5", "t.csv"])
def test_what_is_written_is_read_by_us_and_by_pandas(name, tmp_path):
    write_columns(tmp_path / name, COLUMNS)
    assert read_columns(tmp_path / name) == COLUMNS
    frame = pd.read_csv(tmp_path / name) if name == "t.csv" else pd.read_hdf(tmp_path / name)
    assert frame.to_dict("list") == COLUMNS


@pytest.mark.parametrize("options", [{}, {"format": "table"}])
def test_missing_cells_stay_missing_and_a_series_is_a_column(options, tmp_path):
    frame = pd.DataFrame({"path": ["a", None, "c"]})
    assert read_columns(hdf(frame, tmp_path / "t.h5", **options)) == {"path": ["a", None, "c"]}
    assert read_columns(hdf(frame["path"][::2], tmp_path / "s.h5", **options)) == {"path": ["a", "c"]}


def test_categories_and_paths_of_pathlib_are_read_as_text(tmp_path):
    frame = pd.DataFrame({"path": pd.Categorical(["b.png", None, "a.png", "b.png"]), "n": range(4)})
    columns = read_columns(hdf(frame, tmp_path / "t.h5", format="table"))
    assert columns == {"path": ["b.png", None, "a.png", "b.png"], "n": ["0", "1", "2", "3"]}
    frame = pd.DataFrame({"path": [Path("/x/y.png"), Path("b/c.png")]})
    assert read_columns(hdf(frame, tmp_path / "p.h5")) == {"path": ["/x/y.png", "b/c.png"]}


@pytest.mark.parametrize("options", [{}, {"format": "table"}])
@pytest.mark.parametrize("library", ["blosc", "bzip2"])
def test_a_compression_that_is_not_read_is_named_with_the_way_out(library, options, tmp_path):
    hdf(pd.DataFrame(COLUMNS), tmp_path / "t.h5", complevel=5, complib=library, **options)
    with pytest.raises(UserError, match=rf"t\.h5: .*data that {library} compressed.*as CSV"):
        read_columns(tmp_path / "t.h5")


def old_pandas(path, strings: bytes):
    """Write the fixed format as pandas and numpy did before 2020: the strings are a pickle of protocol 2."""
    with h5py.File(path, "w") as file:
        group = file.create_group("df")
        group.attrs.update({"pandas_type": b"frame", "nblocks": 1, "encoding": b"UTF-8"})
        group["axis0"] = group["block0_items"] = np.array([b"path", b"semantic_map_paths"])
        values = group.create_dataset("block0_values", (1,), h5py.vlen_dtype(np.uint8))
        values[0] = np.frombuffer(strings, np.uint8)
        values.attrs.update({"CLASS": b"VLARRAY", "PSEUDOATOM": b"object", "transposed": np.uint8(1)})
    return path


def test_tables_of_old_versions_are_read(tmp_path):
    strings = pickle.dumps(np.array(list(zip(*COLUMNS.values(), strict=True)), object), 2)
    strings = strings.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert read_columns(old_pandas(tmp_path / "t.h5", strings)) == COLUMNS


class Forged:
    """Touches a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("where", ["strings", "cell", "names"])
def test_a_forged_table_runs_nothing(where, tmp_path):
    marker, table = tmp_path / "marker", tmp_path / "t.h5"
    forged = pickle.dumps(Forged(marker), 0)
    if where == "strings":
        old_pandas(table, forged)
    elif where == "cell":
        hdf(pd.DataFrame({"path": ["a", Forged(marker)]}), table)
    else:
        hdf(pd.DataFrame(COLUMNS), table, format="table")
        with h5py.File(table, "a") as file:
            file["df/table"].attrs["values_block_0_kind"] = np.bytes_(forged)
    with pytest.raises(UserError, match=r"t\.h5: is not loaded, .*system.* save the table as CSV instead") as error:
        read_columns(table)
    assert not marker.exists() and "\n" not in str(error.value)
    if where == "cell":
        pd.read_hdf(table)  # the forgery is a good one: pandas does run it
        assert marker.exists()


def test_a_table_reads_no_other_file(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret" * 10)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        group = file.create_group("df")
        group.attrs["pandas_type"] = b"series"
        group.create_dataset("values", (6,), "S6", external=[(str(tmp_path / "secret"), 0, 60)])
    with pytest.raises(UserError, match="in another file"):
        read_columns(tmp_path / "t.h5")


def test_two_tables_in_one_file_are_named(tmp_path):
    for key in ("train", "val"):
        hdf(pd.DataFrame(COLUMNS), tmp_path / "t.h5", key=key)
    with pytest.raises(UserError, match=r"t\.h5.*/train, /val.*CSV"):
        read_columns(tmp_path / "t.h5")
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["itself"] = file["/"]
    with pytest.raises(UserError, match=r"none\.h5.*none"):
        read_columns(tmp_path / "none.h5")


@pytest.mark.parametrize("name", ["t.h5", "t.csv"])
def test_a_git_lfs_pointer_is_called_by_its_name(name, tmp_path):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n")
    with pytest.raises(UserError, match=r"Git LFS pointer.*git lfs pull"):
        read_columns(tmp_path / name)


@pytest.mark.parametrize("options", [{}, {"format": "table"}])
def test_a_damaged_table_is_one_line_or_reads(options, tmp_path, capfd):
    """Bits flipped at random places, and the file cut short."""
    whole = hdf(pd.DataFrame(COLUMNS), tmp_path / "whole.h5", **options).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for i in range(24):
        damaged = bytearray(whole[: len(whole) // 3] if i % 3 == 0 else whole)
        for place in rng.integers(0, min(len(damaged), 9000), 1 + i):
            damaged[place] ^= 1 << rng.integers(8)
        (tmp_path / "t.h5").write_bytes(damaged)
        try:
            read_columns(tmp_path / "t.h5")
        except UserError as error:
            refused += 1
            assert re.fullmatch(r".*t\.h5: [^\n]*", str(error))
    assert refused > 8 and capfd.readouterr() == ("", "")


def test_a_table_that_hdf5_reads_without_end_is_one_line(tmp_path, monkeypatch):
    """The free space of its heap has the size 0, so that HDF5 never comes to the heap's end."""
    monkeypatch.setattr("path_tables.hdf5.SECONDS", 1.0)
    strings = pickle.dumps(np.array(list(zip(*COLUMNS.values(), strict=True)), object), 2)
    table = bytearray(old_pandas(tmp_path / "t.h5", strings).read_bytes())
    free = table.index(b"GCOL") + 16
    while table[free]:  # objects: number, references, size, and data in whole eights; 0 is the free space
        free += 16 + -(-int.from_bytes(table[free + 8 : free + 16], "little") // 8) * 8
    table[free + 8 : free + 16] = bytes(8)
    (tmp_path / "t.h5").write_bytes(table)
    with pytest.raises(UserError, match=r"t\.h5: is damaged: HDF5 was not done with it after 1 s"):
        read_columns(tmp_path / "t.h5")


def test_a_table_that_hdf5_crashes_on_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("path_tables.hdf5.__file__", str(tmp_path / "crash.py"))
    (tmp_path / "crash.py").write_text("import os; os.abort()")
    with pytest.raises(UserError, match=r"t\.h5: is damaged: HDF5 crashed on it"):
        read_columns(hdf(pd.DataFrame(COLUMNS), tmp_path / "t.h5"))
