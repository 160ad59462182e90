"""Path tables: which images there are, as a CSV file or as a dataframe that pandas wrote to an HDF5 file."""

import csv
import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path

from config import UserError
from gcodec.files import open_binary
from gcodec.pictures import images_in
from path_tables import hdf5

SUFFIXES = (".h5", ".hdf5", ".csv")
MAP_COLUMNS = ("semantic_map_paths", "semantic_map_path")  # today's name, and the older spelling
INSTANCE_COLUMN = "instance_map_paths"
Columns = dict[str, list[str | None]]  # column -> its cells; None where one is missing


@dataclass(frozen=True)
class Table:
    """The images of a path table, and the label map and the instance map of an image where the table has such columns."""

    images: list[str]
    maps: dict[str, str] = field(default_factory=dict)
    instances: dict[str, str] = field(default_factory=dict)


def read_table(source: str | Path) -> Table:
    """Return what an HDF5 dataframe (.h5), a CSV file, or a plain folder lists. Raises UserError for a missing image.

    A relative path is taken from the table's folder or from the working directory, whichever has it. Whether maps exist shows
    when they are read: whoever trains without label maps need not have them.
    """
    source = Path(source)
    if source.is_dir():
        return Table(images_in(source))
    columns = read_columns(source)
    if "path" not in columns:
        raise UserError(f"{source}: no column 'path'; it has {', '.join(columns) or 'none'}")
    if not columns["path"]:
        raise UserError(f"{source}: the table is empty")
    images = []
    for row, path in enumerate(columns["path"], 1):
        if path is None:
            raise UserError(f"{source}: row {row} has no path; remove it or name its file")
        if (image := _located(path, source)) is None:
            tried = dict.fromkeys([str(source.parent / path), path])  # for an absolute path, both are the path itself
            raise UserError(f"{source}: image not found; tried {' and '.join(tried)}")
        images.append(image)
    maps, instances = (
        {image: _located(path, source) or path for image, path in zip(images, cells, strict=False) if path is not None}
        for cells in (
            next((columns[name] for name in names if name in columns), []) for names in (MAP_COLUMNS, [INSTANCE_COLUMN])
        )
    )
    return Table(images, maps, instances)


def _located(path: str, table: Path) -> str | None:
    """Return the path of a file that a table names, as it is seen from here; None if it is not there."""
    tried = [str(table.parent / path), path]
    return next(filter(os.path.exists, tried), None)  # Path.exists would raise OSError for a name that is too long


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
