"""Files and folders: opening what others made, finding images, and writing outputs that appear whole or not at all.

One rule for what is there already: a command replaces an existing output only with --overwrite. In a folder run, an output that
would come out the same, byte for byte, is left as it is, so that a run that was interrupted can be started again.
"""

import contextlib
import errno
import filecmp
import io
import os
import shutil
import stat
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from gcodec.errors import UserError

LFS_POINTER = b"version https://git-lfs"
NOT_FETCHED = "is a Git LFS pointer instead of the file itself; fetch it with: git lfs pull"
REPLACEABLE = (".json", ".npz", ".onnx", ".txt", ".csv")  # what folders consist of that --overwrite replaces as a whole
LOCK = ".lock"  # the file in a folder that whoever writes there holds
MAX_TEXT_BYTES = 2**24
PARTIAL = ".partial-"  # how the names of files begin that are being written; names with a dot are never inputs
STALE_SECONDS = 86_400


class ExistsError(UserError):
    """An output is there already, and --overwrite was not given."""

    def __init__(self, path: str | Path, what: str = "is there already"):
        super().__init__(f"{path}: {what}; write somewhere else, or replace it with --overwrite")


def printable(text: str) -> str:
    """Return text of one line: control characters, and bytes of a file name that are not UTF-8, become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def tell(line: str) -> None:
    """Print a line on stderr, whatever the names in it."""
    print(printable(line), file=sys.stderr)


def warn(message: str) -> None:
    """Print a line of warning on stderr."""
    tell(f"warning: {message}")


# ----------------------------------------------------------------------------------------------------------------------
# Opening
# ----------------------------------------------------------------------------------------------------------------------


def open_binary(path: str | Path) -> io.BufferedReader:
    """Open a file for reading. Raises UserError, without waiting, for anything that is no file or has nothing in it.

    Whatever comes from outside is opened here. A named pipe would wait for a writer, and a device such as /dev/zero has no
    end. A Git LFS pointer, which stands in for a file that was not fetched, is called by its name.
    """
    try:
        file = open(path, "rb", opener=_open_regular)  # noqa: SIM115  (the caller closes it)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder instead of a file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # a zero byte in the name
        raise UserError(f"{path!r}: cannot be read ({error})") from None
    try:
        head = file.read(len(LFS_POINTER))
        if not head:
            raise UserError(f"{path}: is empty")
        if head == LFS_POINTER:
            raise UserError(f"{path}: {NOT_FETCHED}")
        file.seek(0)
    except BaseException as error:
        file.close()
        if isinstance(error, OSError):
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        raise
    return file


def _open_regular(path: str, flags: int) -> int:
    """Open a regular file, and nothing else; what the name stands for cannot change between the look and the opening."""
    if not stat.S_ISSOCK(os.stat(path).st_mode):  # which cannot be opened
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has no named pipes among its files
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return descriptor
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(path)
    kind = "is a device, a pipe or a socket instead of a file"
    raise UserError(f"{path}: {kind}" + ("; standard input is called -" if path.startswith(("/dev/", "/proc/")) else ""))


def read_text(path: str | Path) -> str:
    """Return the text of a file. Raises UserError for what `open_binary` refuses, and for one that is no text or is huge."""
    with open_binary(path) as file:
        data = file.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise UserError(f"{path}: is over {MAX_TEXT_BYTES >> 20} MiB of text")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no text in UTF-8 ({error.reason})") from None


def is_empty(path: str | Path) -> bool:
    """Whether a path is a file with nothing in it."""
    return os.path.isfile(path) and os.path.getsize(path) == 0


# ----------------------------------------------------------------------------------------------------------------------
# Finding
# ----------------------------------------------------------------------------------------------------------------------


def files_in(folder: str | Path, suffixes: Sequence[str]) -> tuple[list[str], Counter[str]]:
    """Return all files below a folder that end in one of the suffixes, sorted; and what was left out and why, counted.

    Symbolic links are followed, but no folder is entered twice. Names that begin with a dot are skipped and not counted.
    """
    found, left_out, links = [], Counter[str](), [Path(folder)]
    entered: set[tuple[int, int]] = set()
    while links:  # the folders themselves come first, so that a file's path has no link in it if it can be without
        root = links.pop(0)
        for where, folders, names in os.walk(root, onerror=lambda _: left_out.update(["folder that cannot be read"])):
            status = os.stat(where)
            if (status.st_dev, status.st_ino) in entered:
                folders.clear()
                continue
            entered.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links += [Path(where, name) for name in folders if os.path.islink(os.path.join(where, name))]
            folders[:] = [name for name in folders if not os.path.islink(os.path.join(where, name))]
            for name in names:
                if name.startswith("."):
                    continue
                path = os.path.join(where, name)
                if not os.path.isfile(path):  # which follows links
                    left_out["broken link" if os.path.islink(path) else "pipe, socket or device"] += 1
                elif (suffix := Path(name).suffix.lower()) in suffixes:
                    found.append(path)
                else:
                    left_out[suffix or "file without a suffix"] += 1
    return sorted(found), left_out


def output_names(images: Sequence[str], source: Path, suffix: str) -> dict[str, Path]:
    """Return the relative name of the output for each image below the folder `source`.

    The suffix replaces the image's own. Where two images would then share a name, as photo.png and photo.jpg do, it follows
    the image's own suffix.
    """
    relative = {image: Path(image).relative_to(source) for image in images}
    names = {image: path.with_suffix(suffix) for image, path in relative.items()}
    while shared := {name for name, n in Counter(names.values()).items() if n > 1}:
        for image, name in names.items():
            if name in shared:
                names[image] = Path(f"{relative[image]}{suffix}")  # which may be another's name, such as that of photo.png.jpg
    return names


# ----------------------------------------------------------------------------------------------------------------------
# Writing
# ----------------------------------------------------------------------------------------------------------------------


def refuse_existing(*paths: Path, overwrite: bool) -> None:
    """Raise ExistsError if an output is there already. Call this before the work."""
    for path in paths:
        if path.is_dir():
            raise UserError(f"{path}: is a folder, but the output is a file")
        if not overwrite and os.path.lexists(path):
            raise ExistsError(path)


@contextlib.contextmanager
def atomic(path: str | Path, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, of the same suffix; rename it to `path` if all went well, else remove it.

    With overwrite=False, another file at `path` is left as it is, and ExistsError is raised unless it has the same contents. A
    symbolic link stays one: the file that it leads to is replaced. A file that is replaced keeps its mode.
    """
    with atomic_together([path], overwrite) as (partial,):
        yield partial


@contextlib.contextmanager
def atomic_together(paths: Sequence[str | Path], overwrite: bool = True) -> Iterator[list[Path]]:
    """Do what `atomic` does for several files that belong together: they are renamed, in this order, once all are written."""
    targets = [Path(os.path.realpath(path)) if os.path.islink(path) else Path(path) for path in paths]
    partials: list[Path] = []
    try:
        for target in targets:
            if target.is_dir():
                raise UserError(f"{target}: is a folder, but the output is a file")
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_partials(target.parent)
            partial = target.parent / f"{PARTIAL}{os.urandom(8).hex()}{target.suffix}"
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            partials.append(partial)
            if target.is_file():
                shutil.copymode(target, partial)
        yield partials
        pairs = list(zip(partials, targets, strict=True))
        for partial, target in pairs:
            if not overwrite and os.path.lexists(target) and not _same(partial, target):
                raise ExistsError(target, "is there already, with other contents")
        for partial, target in pairs:
            partial.replace(target)
    except OSError as error:
        known = dict(zip(map(str, partials), targets, strict=False))
        failed = known.get(str(error.filename), targets[min(len(partials), len(targets) - 1)])
        raise UserError(f"{failed}: cannot be written ({error.strerror or error})") from error
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove what a process that was killed left behind in a folder: what nobody has written to for a day.

    Numbers of processes say nothing about those of other containers and machines that share the folder.
    """
    key = str(folder.resolve())
    if key in _cleaned or not folder.is_dir():
        return
    _cleaned.add(key)
    with os.scandir(folder) as entries:
        partials = [Path(entry.path) for entry in entries if entry.name.startswith(PARTIAL)]
    for path in partials:
        with contextlib.suppress(OSError):  # somebody else removes it, too
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


_cleaned: set[str] = set()  # folders, once in a process


def _same(first: Path, second: Path) -> bool:
    return second.is_file() and filecmp.cmp(first, second, shallow=False)


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for this process alone, within this context. Raises UserError, which begins with `what`, if another does.

    The system releases the lock when a process ends, however it ends. Folders that were made for the lock and stay empty are
    removed. Where the file system knows no locks, there is a warning instead.
    """
    made = [path for path in (folder, *folder.parents) if not os.path.exists(path)]  # the deepest first
    try:
        file = _lock_file(folder, what)
    except OSError as error:
        _remove_empty(made)
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()  # Windows removes no file that is open, and takes the next lock on the same one
        os.close(file)
        _remove_empty(made)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the deepest first, up to one that has something in it, such as another process's work."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _lock_file(folder: Path, what: str) -> int:
    """Return the open file of a folder's lock, which is then held."""
    tries = 0
    while True:
        tries += 1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # whoever held the lock has removed the folder in between; or it can never be made
            if tries < 100:
                continue
            raise
        try:
            _take_lock(file)
            if os.path.samestat(os.fstat(file), os.stat(folder / LOCK)):
                return file  # or else whoever held the lock has removed the file in between
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
                os.close(file)
                raise UserError(f"{what}: another process writes to {folder}; wait, or write somewhere else") from None
            warn(f"{folder}: cannot be locked ({error.strerror}); let nothing else write there meanwhile")
            return file
        os.close(file)


def _take_lock(file: int) -> None:
    """Lock an open file, or raise OSError at once. flock, unlike lockf, also tells two users in one process apart."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def refuse_existing_folder(folder: Path, overwrite: bool) -> None:
    """Raise ExistsError if a folder is there already, or UserError if it holds more than a command writes there."""
    if not os.path.lexists(folder):
        return
    if not overwrite:
        raise ExistsError(folder)
    if not folder.is_dir() or folder.is_symlink():
        raise UserError(f"{folder}: is no folder, and is not replaced; write somewhere else")
    for path in folder.iterdir():
        if path.suffix not in REPLACEABLE or not path.is_file():
            raise UserError(f"{path}: is not ours, so the folder is not replaced; remove it, or write somewhere else")


@contextlib.contextmanager
def new_folder(folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; rename it to `folder` if all went well, else remove it.

    With `overwrite`, an older folder of the same kind makes room at the end.
    """
    refuse_existing_folder(folder, overwrite)
    partial, old = folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.old")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        if folder.exists():
            refuse_existing_folder(folder, overwrite)
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
