"""Runs over many inputs: what goes in, the one loop over it, and what is finished, so that a run can be interrupted."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import path_tables
from commands.options import Say
from gcodec.errors import UserError
from gcodec.files import ExistsError, atomic, atomic_together, is_empty, locked, open_binary, output_names, warn
from utils import Utils

RESULTS = "results.csv"
OUTPUT_SUFFIXES = (".png", ".gc", ".gcp")  # of single files that compress.py writes
MARKS = ("settings", "sha256")  # columns by which a row is recognized: of the run, and of the files that went in
TEXTS = (*MARKS, "image", "file", "model")  # columns that are no numbers
Row = dict[str, Any]
Made = tuple[Row, list[bytes]]  # what was measured of an input, and the contents of its outputs


# ----------------------------------------------------------------------------------------------------------------------
# What goes in
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Input:
    """A file to work on. `root` is the folder that the user named, or the file's own folder.

    semantic_map, instances: the label maps that a path table names beside an image.
    """

    path: Path
    root: Path
    semantic_map: Path | None = dataclasses.field(default=None, compare=False)
    instances: Path | None = dataclasses.field(default=None, compare=False)

    @property
    def name(self) -> Path:
        return self.path.relative_to(self.root)


def gather(named: Iterable[str], find: Callable[[str], list[str]], tables: bool = False) -> list[Input]:
    """Return the files that the user named, and those that `find` finds in the folders that the user named.

    tables: a path table stands for the images in it.
    """
    inputs: list[Input] = []
    for path in map(Path, named):
        if path.is_dir():
            inputs += [Input(Path(file), path) for file in find(str(path))]
        elif tables and is_table(path):
            inputs += read_table(path)
        else:
            inputs.append(Input(path, path.parent))
    return list(dict.fromkeys(inputs))


def is_table(path: str | Path) -> bool:
    return Path(path).suffix.lower() in path_tables.SUFFIXES


def read_table(table: Path) -> list[Input]:
    """Return the images of a path table, with the label maps that it names.

    Their root is the table's folder, or the folder that holds all of them if some are elsewhere.
    """
    listed = path_tables.read_table(table)
    images = {Path(os.path.abspath(image)): image for image in listed.images}
    root = Path(os.path.abspath(table.parent))
    if not all(path.is_relative_to(root) for path in images):
        root = Path(os.path.commonpath([path.parent for path in images]))
    maps = [[Path(of[image]) if image in of else None for of in (listed.maps, listed.instances)] for image in images.values()]
    return [Input(path, root, *own) for path, own in zip(images, maps, strict=True)]


def outputs_of(inputs: Iterable[Input], suffix: str) -> dict[Input, Path]:
    """Return the relative name of each output. Raises UserError where two inputs are called the same below their folders."""
    named: dict[str, Input] = {}
    for source in inputs:
        if other := named.get(str(source.name)):
            raise UserError(
                f"{source.path} and {other.path}: both would write {source.name.with_suffix(suffix)}; run them apart"
            )
        named[str(source.name)] = source
    return {named[name]: output for name, output in output_names(list(named), Path(), suffix).items()}


def check_output_folder(folders: Iterable[Path], output: Path) -> None:
    """Raise UserError for an output that does not go with several images, or that lies in a folder of images."""
    if output.suffix.lower() in OUTPUT_SUFFIXES or output.is_file():
        raise UserError(f"{output}: there are several images, so the output must be a folder")
    for folder in folders:
        if output.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{output}: write to a folder apart from {folder}")


def is_folder(output: str | None) -> bool:
    """Whether an output of the command line is a folder: one that is there, or a name that ends in a slash."""
    return output is not None and (output.endswith(("/", os.sep)) or Path(output).is_dir())


def digest(*files: str | Path | None) -> str:
    """Return a fingerprint of the contents of files. Empty ones, such as damaged packets, do not count."""
    sha256 = hashlib.sha256()
    for path in files:
        if path is None or is_empty(path):
            continue
        with open_binary(path) as file:
            sha256.update(hashlib.file_digest(file, "sha256").digest())
    return sha256.hexdigest()[:16]


# ----------------------------------------------------------------------------------------------------------------------
# The loop
# ----------------------------------------------------------------------------------------------------------------------


class Item(Protocol):
    """Something to work on. Its source is what the work is told of it beside its files, and can be pickled."""

    @property
    def source(self) -> Any: ...

    @property
    def files(self) -> Callable[[], Sequence[Path | None]]: ...


T = TypeVar("T", bound=Item)
R = TypeVar("R")
Make = Callable[[Any, Sequence[Path | None]], R]  # does the work on an item's source and files


class RunError(UserError):
    """An error that ends a run, whatever is left to do."""


def in_this_process(make: Make[R], items: Iterable[T]) -> Iterator[tuple[T, R | UserError]]:
    """Yield each item with what `make` returns of it, or with the UserError that it raises."""
    for item in items:
        yield item, attempt(make, item.source, item.files())


def attempt(function: Callable[..., R], *arguments: Any) -> R | UserError:
    """Return what a function returns, or the UserError that it raises."""
    try:
        return function(*arguments)
    except UserError as error:
        return error


def work_through(
    items: Iterable[T],
    kept: Callable[[T], Row | None],  #                what an earlier run noted of an item that is finished
    make: Make[R],  #                                  what `spread` calls
    add: Callable[[T, R], Row],  #                     note what was made of an item; return what was measured, by name
    failed: Callable[[T, UserError], None],  #         an item that is at fault is told, and costs the others nothing
    spread: Callable = in_this_process,  #             where the work is done: see workers.py
    bar: Callable[[Iterable[T]], Iterable[T]] = iter,  # shows progress
) -> tuple[list[Row], int]:
    """Do the work on each item that is not finished already. Return the rows of all, and how many were kept.

    An output that is there and may not be replaced ends the run, as a RunError does.
    """
    finished: list[Row] = []
    rows: list[Row] = []

    def to_do() -> Iterator[T]:
        for item in bar(items):
            row = attempt(kept, item)
            if row is None:
                yield item
            else:
                settle(finished, item, row)

    def settle(done: list[Row], item: T, row: Row | UserError) -> None:
        if isinstance(row, (ExistsError, RunError)):
            raise row
        if isinstance(row, UserError):
            failed(item, row)
        else:
            done.append(row)

    with contextlib.closing(spread(make, to_do())) as outcomes:
        for item, made in outcomes:
            settle(rows, item, made if isinstance(made, UserError) else attempt(add, item, made))
    return finished + rows, len(finished)


def write_files(paths: Sequence[Path], contents: Sequence[bytes], overwrite: bool) -> None:
    """Write files that belong together; see `atomic_together`."""
    with atomic_together(paths, overwrite) as partials:
        for partial, data in zip(partials, contents, strict=True):
            partial.write_bytes(data)


@dataclass
class Job:
    """What a run makes of one input: a row of results.csv, and files."""

    source: Input
    output: Path  # or how the outputs' names begin
    files: Callable[[], Sequence[Path | None]]  # whose contents decide the outputs
    outputs: Callable[[], list[Path]]  # that are finished, or will be
    is_whole: Callable[[Row], bool] = lambda row: True  # whether the outputs that are there are those of a row

    @property
    def name(self) -> str:
        return str(self.source.name)

    @cached_property
    def sha256(self) -> str:
        return digest(*self.files())


class FolderRun:
    """The finished work of a run over many inputs, in results.csv of its output folder.

    A row is written as soon as the outputs of its input are complete. A row of other settings, or of a file that has changed,
    stands for outputs that are not ours to replace without `overwrite`. Rows of files that this run does not have are kept.
    """

    def __init__(self, folder: Path, column: str, settings: str, overwrite: bool):
        """column: the one that names the file. settings: a fingerprint of whatever decides the outputs beside the file."""
        self.path, self.column, self.settings, self.overwrite = folder / RESULTS, column, settings, overwrite
        self.failures = 0
        self._unwritten, self._next_write = False, 0.0  # when results.csv is written again, by time.monotonic

    @cached_property
    def rows(self) -> dict[str, Row]:
        """The rows of finished files by their names, those of earlier runs among them."""
        rows = _read(self.path, self.column) if self.path.exists() else {}
        if not rows and not self.overwrite and self.path.exists():
            raise ExistsError(self.path, "is there already, and is not of a run like this")
        return rows

    def work(
        self,
        jobs: Sequence[Job],
        make: Make[Made],
        what: str,  #                                such as "compressed", for the error if none could be
        say: Say,
        spread: Callable = in_this_process,
        write: Callable[[Job, list[bytes]], Any] | None = None,  # writes the outputs; default: as many as there are
    ) -> tuple[list[Row], int]:
        """Make what is not finished of the jobs. Return the rows of all, and how many were finished already.

        A bad input is named and costs the others nothing. No other process may write to the folder meanwhile.
        """
        write = write or (lambda job, contents: write_files(job.outputs(), contents, self.overwrite))
        bar = lambda items: Utils.progress(items, self.column, hide=say.quiet)  # noqa: E731

        def kept(job: Job) -> Row | None:
            row = self.finished(job.name, job.sha256, job.outputs())
            return row if row and job.is_whole(row) else None

        def add(job: Job, made: Made) -> Row:
            row, contents = made
            write(job, contents)
            self.add(job.name, job.sha256, row)
            say.detail(f"{job.source.path}: " + ", ".join(f"{name} {_short(row[name])}" for name in row if name != self.column))
            return row

        def failed(job: Job, error: UserError) -> None:
            warn(f"skipped: {error}")
            self.failures += 1

        with locked(self.path.parent, RESULTS), contextlib.ExitStack() as at_end:
            self.check({job.name: job.outputs() for job in jobs})
            at_end.callback(self.write)
            rows, n_kept = work_through(jobs, kept, make, add, failed, spread, bar)
        if not rows:
            raise UserError(f"{jobs[0].source.root}: none of its {self.failures} {self.column}s could be {what}")
        return rows, n_kept

    def check(self, outputs: Mapping[str, list[Path]]) -> None:
        """Raise ExistsError, before the work, if outputs are of other settings. outputs: by the name of their file."""
        for name, paths in outputs.items():
            if name in self.rows and self.rows[name]["settings"] != self.settings:
                self._refuse(paths, "is there already, by another model or other settings")

    def finished(self, name: str, sha256: str, outputs: list[Path]) -> Row | None:
        """Return the row of a file whose outputs are there, or None for a file that is still to do."""
        row = self.rows.get(name)
        if row is None:
            return None
        if (row["settings"], row["sha256"]) == (self.settings, sha256):
            return row if all(path.is_file() and path.stat().st_size > 0 for path in outputs) else None
        self._refuse(outputs, "is there already, made from another file or with other settings")
        return None

    def add(self, name: str, sha256: str, row: Row) -> None:
        """Note that a file is finished. Writing results.csv takes a twentieth of the time at most, however long it is."""
        self.rows[name] = {self.column: name} | row | {"settings": self.settings, "sha256": sha256}
        self._unwritten = True
        if (start := time.monotonic()) >= self._next_write:
            self.write()
            self._next_write = time.monotonic() + 20 * (time.monotonic() - start)

    def write(self) -> None:
        """Write results.csv, if a row is not in it yet. The file is whole at any moment."""
        if not self._unwritten:
            return
        self._unwritten = False
        rows = [self.rows[name] for name in sorted(self.rows)]
        columns = list(dict.fromkeys(column for row in rows for column in row if column not in MARKS)) + list(MARKS)
        with atomic(self.path) as partial, partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    def _refuse(self, paths: list[Path], what: str) -> None:
        if not self.overwrite:
            for path in paths:
                if path.exists():
                    raise ExistsError(path, what)


def _read(path: Path, column: str) -> dict[str, Row]:
    """Return the rows of results.csv by the file's name; {} for a file that no run of this kind wrote."""
    try:
        if is_empty(path):
            return {}
        with io.TextIOWrapper(open_binary(path), "utf-8", "surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    whole = [row for row in rows if None not in row and None not in row.values() and row.keys() >= {column, *MARKS}]
    try:
        return {
            row[column]: {name: text if name in (column, *TEXTS) else _value(text) for name, text in row.items()}
            for row in whole
        }
    except ValueError as error:
        raise UserError(f"{path}: was changed by hand ({error}); remove it, or write somewhere else") from None


def _value(text: str) -> float | None:
    """Return a cell as the number that it is, or None if it is empty. Raises ValueError if it is no number."""
    try:
        return int(text)
    except ValueError:
        return float(text) if text else None


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
