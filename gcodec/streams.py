"""Standard input and standard output in the place of files, where a command line says `-`."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from gcodec.errors import UserError

STREAM = "-"
STANDARD_INPUT = Path("standard input")  # what `-` is called in messages and results


def check_streams(inputs: Sequence[str], output: str | None) -> None:
    """Raise UserError where `-` does not go with the rest of a command line."""
    if STREAM in inputs and len(inputs) > 1:
        raise UserError("-i -: standard input goes alone, without other inputs")
    if STREAM in inputs and output is None:
        raise UserError("-i -: say with -o where to write; -o - is standard output")
    if output == STREAM and (len(inputs) > 1 or Path(inputs[0]).is_dir()):
        raise UserError("-o -: standard output takes one file, and there are several inputs; name a folder")
    if output == STREAM and sys.stdout is not None and sys.stdout.isatty():
        raise UserError("-o -: standard output is a terminal; send it to a file or a program")


def read_standard_input(max_bytes: int) -> bytes:
    """Return all of standard input. Raises UserError if it is empty, closed, or longer than max_bytes."""
    if sys.stdin is None:
        raise UserError(f"{STANDARD_INPUT}: is closed")
    try:
        data = sys.stdin.buffer.read(max_bytes + 1)
    except OSError as error:
        raise UserError(f"{STANDARD_INPUT}: cannot be read ({error.strerror})") from None
    if not data:
        raise UserError(f"{STANDARD_INPUT}: is empty")
    if len(data) > max_bytes:
        raise UserError(f"{STANDARD_INPUT}: is over {max_bytes >> 20} MiB")
    return data


@contextlib.contextmanager
def output_path(named: str | Path, suffix: str) -> Iterator[Path]:
    """Yield the path to write to for an output of the command line.

    For `-` it is a temporary file, which goes to standard output once all went well; what is printed meanwhile goes to standard
    error.
    """
    if str(named) != STREAM:
        yield Path(named)
        return
    if sys.stdout is None:
        raise UserError("standard output: is closed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"out{suffix}"
        with contextlib.redirect_stdout(sys.stderr):
            yield path
        sys.stdout.buffer.write(path.read_bytes())
        sys.stdout.buffer.flush()
