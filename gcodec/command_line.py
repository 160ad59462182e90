"""What all commands have in common: how they parse, and how they end."""

import argparse
import contextlib
import errno
import functools
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

from gcodec.errors import UserError
from gcodec.files import printable

# Characters that command a terminal: C0 without line feed and tab, C1, and those that turn the direction of the text.
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}
CONTROLS |= {code: f"\\u{code:04x}" for code in (*range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def parser(description: str | None, version: str) -> argparse.ArgumentParser:
    """Return a parser with what every command has: the module's docstring as its help, and --version, which prints `version`.

    An option that is given twice is an error, unless it is declared to collect values; argparse itself takes the last.
    """
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.register("action", None, _StoreOnce)
    parser.add_argument("--version", action="version", version=version)
    return parser


def command(main: Callable[[list[str] | None], int]) -> Callable[..., int]:
    """Decorate a command's main: what ends it early becomes at most one line on stderr, and an exit status.

    That is 2 for a UserError and for what goes wrong with a file that the user named, and 128 + n for signal n. SIGTERM
    and SIGHUP raise an exception as SIGINT does, so that temporary files are removed. A reader of our output that has
    gone, as in `| head`, ends the command as SIGPIPE would. Names that the terminal cannot show are printed with escapes.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        Image.MAX_IMAGE_PIXELS = None  # the knob max_pixels is checked before anything is decoded
        warnings.filterwarnings("ignore", module="PIL")  # they are about metadata
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            with _signals_raise(), contextlib.redirect_stdout(sys.stdout and _Escaping(sys.stdout)):
                try:
                    return main(argv)
                finally:
                    if sys.stdout is not None:
                        sys.stdout.flush()  # Python's own, at the end, would write a page about an error
        except UserError as error:
            return _fail(str(error))
        except MemoryError:
            return _fail("there is not enough memory")
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        except BrokenPipeError:
            _discard(sys.stdout)
            return 128 + signal.SIGPIPE
        except OSError as error:  # about a path that the command line named, such as a name that is too long
            if error.filename is not None:
                return _fail(f"{error.filename}: {error.strerror}")
            if error.errno != errno.ENOSPC:
                raise
            _discard(sys.stdout)
            return _fail(f"standard output: {error.strerror}")

    return wrapped


class _Escaping:
    """A text stream that shows control characters as escapes: the name of a file must not command the terminal."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(text.translate(CONTROLS))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Parser(argparse.ArgumentParser):
    """Complains about arguments in one line, whatever is in them."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


class _StoreOnce(argparse._StoreAction):
    """Stores a value, and refuses a second one."""

    given = False

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if self.given and self.option_strings:
            parser.error(f"argument {option_string}: is given twice")
        self.given = True
        super().__call__(parser, namespace, values, option_string)


def _fail(message: str) -> int:
    program = Path(sys.argv[0])
    name = f"python3 -m {program.parent.name}" if program.name == "__main__.py" else program.name
    with contextlib.suppress(BrokenPipeError):
        print(printable(f"{name}: error: {message}"), file=sys.stderr)
    return 2


def _discard(stream: Any) -> None:
    """Send what is still to be written nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Let the signals that ask a process to end raise SystemExit within this context, unless they are handled or ignored."""

    def stop(signum: int, frame: Any) -> None:
        raise SystemExit(128 + signum)

    wanted = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    ours = [s for s in wanted if signal.getsignal(s) is signal.SIG_DFL] if _in_main_thread() else []
    for signum in ours:
        signal.signal(signum, stop)
    try:
        yield
    finally:
        for signum in ours:
            signal.signal(signum, signal.SIG_DFL)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
