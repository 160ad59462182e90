"""Output files and folders: they appear whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from config import UserError


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, of the same suffix; rename it to `path` if all went well, else remove it."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder, but the output is a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        try:
            yield Path(name)
            Path(name).chmod(0o666 & ~_umask())  # mkstemp makes it private
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; rename it to `folder` if all went well, else remove it."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def output_names(images: list[str], source: Path, suffix: str) -> dict[str, Path]:
    """Return the relative name of the output for each image below the folder `source`.

    The suffix replaces the image's own. Where photo.png and photo.jpg would then collide, it follows the image's own.
    """
    stems = Counter(Path(image).with_suffix("") for image in images)
    names = {image: Path(image).relative_to(source) for image in images}
    return {
        image: name.with_suffix(suffix) if stems[Path(image).with_suffix("")] == 1 else Path(f"{name}{suffix}")
        for image, name in names.items()
    }


def _umask() -> int:
    mask = os.umask(0)  # there is no way to read it without setting it
    os.umask(mask)
    return mask
