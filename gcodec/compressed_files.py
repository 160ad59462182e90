"""Compressed files, `.gc`: finding them and reading their bytes. What the bytes mean is container.py's business."""

from pathlib import Path

from gcodec.container import is_compressed
from gcodec.errors import UserError
from gcodec.files import files_in, open_binary
from gcodec.pictures import picture_format
from gcodec.streams import STANDARD_INPUT, STREAM, read_standard_input

SUFFIX = ".gc"
MAX_FILE_BYTES = 2**28


def compressed_files_in(folder: str) -> list[str]:
    """Return all .gc files below a folder, sorted. Raises UserError if there are none."""
    found, _ = files_in(folder, (SUFFIX,))
    if not found:
        raise UserError(f"{folder}: no {SUFFIX} files in this folder")
    return found


def read_compressed(path: str | Path) -> bytes:
    """Return the bytes of a .gc file, or of standard input for `-`. Raises UserError that names the file.

    One that is too large to be a .gc file is refused before it is read, and a picture is called what it is.
    """
    if str(path) == STREAM:
        path, data = STANDARD_INPUT, read_standard_input(MAX_FILE_BYTES)
    else:
        with open_binary(path) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UserError(f"{path}: not a .gc file (over {MAX_FILE_BYTES >> 20} MiB)")
    if not is_compressed(data) and (kind := picture_format(data)):
        raise UserError(f"{path}: is a picture ({kind}), not a .gc file; compress it first")
    return data
