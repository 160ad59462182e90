"""Path tables: which images there are, as a CSV file or as a dataframe that pandas wrote to an HDF5 file."""

import csv
import itertools
from pathlib import Path

from config import UserError
from gcodec.files import open_binary
from path_tables import hdf5

SUFFIXES = (".h5", ".hdf5", ".csv")
Columns = dict[str, list[str | None]]  # column -> its cells; None where one is missing


def read_columns(source: Path) -> Columns:
    """Return the columns of a path table. Raises UserError, in one line, for a file that is none."""
    if not source.exists():
        raise UserError(f"{source}: no such path table or folder; data/make_paths.py writes one")
    if source.suffix.lower() not in SUFFIXES:
        raise UserError(f"{source}: a path table ends in .h5, .hdf5 or .csv")
    open_binary(source).close()  # which refuses what is no file, and Git LFS pointers
    if source.suffix.lower() == ".csv":
        return _read_csv(source)
    return hdf5.read_columns(source)


def write_columns(target: Path, columns: dict[str, list[str]]) -> None:
    """Write a path table, as CSV or as an HDF5 file that `pandas.read_hdf` reads too.

    Names keep their bytes, even where those are not UTF-8.
    """
    import pandas as pd

    frame = pd.DataFrame(columns)
    if target.suffix.lower() == ".csv":
        frame.to_csv(target, index=False, errors="surrogateescape")
    else:  # index=False: the index of rows would take 1 MB
        frame.astype(object).to_hdf(target, key="df", mode="w", format="table", index=False, errors="surrogateescape")


def _read_csv(source: Path) -> Columns:
    """Return the columns of a CSV file, whose first line has their names. An empty cell is a missing one."""
    try:
        with source.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            names, *rows = list(filter(None, csv.reader(file))) or [["path"]]
    except (OSError, csv.Error) as error:
        raise UserError(f"{source}: cannot be read as a CSV file ({error})") from None
    if longer := next((i for i, row in enumerate(rows, 1) if len(row) > len(names)), None):
        raise UserError(f"{source}: cannot be read as a CSV file (row {longer} has more cells than there are columns)")
    columns = zip(names, itertools.zip_longest(*rows), strict=False)
    return {name: [cell or None for cell in column] for name, column in columns} if rows else {name: [] for name in names}
