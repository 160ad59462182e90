"""What training prints. Its output can break at any moment, and that must cost nothing but the output."""

import contextlib
import datetime
import functools
import io
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

from gcodec.files import printable

LINE_SECONDS, LINE_SHARE = 60.0, 0.01  # without a terminal, a line of progress after so long, or so much of the whole


def unbreakable(main: Callable[..., int]) -> Callable[..., int]:
    """Decorate a command's main: it goes on where its output does not, as behind `| head`, on a full disk or without stderr."""

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        _open_standard_files()
        streams = sys.stdout, sys.stderr
        with open(os.devnull, "w") as null:
            sys.stdout, sys.stderr = (Unbreakable(stream or null) for stream in streams)
            try:
                return main(argv)
            finally:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                sys.stdout, sys.stderr = streams

    return wrapped


def _open_standard_files() -> None:
    """Open /dev/null for what is closed of the files 0, 1 and 2; the next file that is opened would be one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free


class Unbreakable:
    """A text stream. What cannot be written is dropped; each line goes out at once."""

    def __init__(self, stream: Any):
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError):  # ValueError: it was closed
            self._drop()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._drop()

    def _drop(self) -> None:
        """Drop what the stream keeps to write it later. Python would try at its end, and complain."""
        with contextlib.suppress(OSError, ValueError):
            number = self._stream.fileno()
            kept, null = os.dup(number), os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, number)
                self._stream.flush()
            finally:  # a disk may have room again
                os.dup2(kept, number)
                os.close(kept)
                os.close(null)


class Progress:
    """How far a loop is: a bar on a terminal; elsewhere a line a minute, and one for each hundredth of the whole."""

    def __init__(self, total: int, what: str, unit: str, done: int = 0, silent: bool = False):
        self.total, self.what, self.unit, self.done, self._first = total, what, unit, done, done
        self._silent = silent
        self._began = self._said = time.monotonic()
        self._said_at = done
        self._values: Mapping[str, float] = {}
        self._bar = None
        if sys.stderr.isatty() and not silent:
            self._bar = tqdm(total=total, desc=what, initial=done, unit=unit, file=sys.stderr, dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self.done > self._said_at:
            self._say()

    def add(self, n: int = 1) -> None:
        self.done += n
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.update(n)
            return
        much = self.done - self._said_at >= LINE_SHARE * self.total
        if (much or time.monotonic() - self._said >= LINE_SECONDS) and self.done < self.total:
            self._say()

    def show(self, values: Mapping[str, float]) -> None:
        """Show these numbers with the progress, from now on."""
        self._values = values
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()}, refresh=False)

    def print(self, line: str, file: Any = None) -> None:
        """Print a line, above the bar if there is one."""
        line = printable(line)
        if self._bar is not None:
            tqdm.write(line, file=file)
        elif not self._silent:
            print(line, file=file)

    def _say(self) -> None:
        self._said, self._said_at = time.monotonic(), self.done
        rate = (self.done - self._first) / max(1e-9, self._said - self._began)
        left = datetime.timedelta(seconds=round((self.total - self.done) / max(1e-9, rate)))
        numbers = "".join(f", {name} {value:.3g}" for name, value in self._values.items())
        if not self._silent:
            line = f"{self.what}: {self.done} of {self.total}{numbers}, {rate:.3g} {self.unit}/s, {left} left"
            print(line, file=sys.stderr)
