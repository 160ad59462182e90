"""A folder run's work on many workers, by Dask: processes of this machine, or workers of a scheduler that is running already.

    this process: inputs ─▶ worker: file, picture, row ─▶ this process: writes the files, and the row to results.csv

A worker opens an input by its path if it sees the same file there, and is sent its contents if not. It needs the project and
the model, which is loaded once, but nothing of the output folder. The input of a worker that dies goes to another one.
"""

import asyncio
import contextlib
import functools
import heapq
import importlib.util
import io
import itertools
import logging
import os
import pickle
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from PIL import Image

from commands.folder_run import RunError, T, attempt, in_this_process
from commands.loading import load_codec
from config import VERSION, UserError, config_test
from gcodec import Codec, packets
from gcodec.checkpoint import SHIPPED
from gcodec.compressed_files import read_compressed
from gcodec.container import read_header
from gcodec.files import warn
from gcodec.finding import Checkpoints
from gcodec.memory import TILED, available_memory
from gcodec.onnx_runtime import OnnxRuntime
from gcodec.pictures import padded_size
from utils import PROJECT

TIMEOUT = 6  # seconds that a scheduler has to answer
IN_FLIGHT = 8  # inputs at most for each thread of the workers, so that the next one is there when one is done
WORKER_BYTES = 300e6  # memory of a worker, with libraries and a model, beside what an image takes
LOOKED_AT = 100  # files, whose headers say how large their images are
NO_INTERRUPT = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # Ctrl-C is for the process that started them
NOT_SEEN = "not seen"  # what a worker says of files that it does not see
LOST = "lost"  # a result that cannot be fetched
KILLED = "workers died of it, perhaps for want of memory"
Stamp = tuple[int, int] | None  # size and time of a file


@dataclass(frozen=True)
class Workers:
    """Where the work of a folder run is done: in N processes, at a Dask scheduler, or, without either, in this process."""

    number: int | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        """Raises UserError for a number that makes no sense, and where Dask is not installed."""
        if self.number is not None and self.number < 1:
            raise UserError(f"--workers {self.number}: at least 1")
        if self and importlib.util.find_spec("distributed") is None:
            raise UserError("--workers, --scheduler: need the package distributed: pip install -r requirements-scale.txt")

    def __bool__(self) -> bool:
        return self.number is not None or self.scheduler is not None

    def within_memory(self, paths: Iterable[Path], codecs: Sequence[Codec] = ()) -> "Workers":
        """Return fewer workers, and say so, where memory does not take as many, each with the largest image.

        It is looked for among the largest files.
        """
        there = available_memory()
        if self.number is None or there is None:
            return self
        each = max([codec.runtime.bytes_per_pixel for codec in codecs], default=TILED)
        size = lambda path: path.stat().st_size if path.is_file() else 0  # noqa: E731
        largest = max(heapq.nlargest(LOOKED_AT, paths, size), key=pixels)
        needed = WORKER_BYTES + each * pixels(largest)
        fit = max(1, int(there / needed))
        if fit >= self.number:
            return self
        warn(f"--workers {self.number}: each takes {needed / 1e9:.1f} GB for {largest}, and {there / 1e9:.1f} GB can be had; "
             f"starting {fit}")  # fmt: skip
        return replace(self, number=fit)

    @contextlib.contextmanager
    def started(self) -> Iterator[Callable]:
        """Yield what `work_through` takes as `spread`. Processes that are started end with this context."""
        if not self:
            yield in_this_process
            return
        import dask
        import distributed

        for library in ("distributed", "distributed.client", "tornado", "tornado.application"):
            logging.getLogger(library).setLevel(logging.CRITICAL)  # what goes wrong is told here, in a line
        quiet: dict[str, Any] = {"silence_logs": logging.CRITICAL, "dashboard_address": "127.0.0.1:0", "preload": NO_INTERRUPT}
        with contextlib.ExitStack() as stack:
            where: Any = self.scheduler
            if self.number:
                one = {"threads_per_worker": 1, "memory_limit": 0}  # `within_memory` has seen to the memory
                with _later(), dask.config.set({"distributed.scheduler.worker-ttl": "60 s"}):  # instead of five minutes
                    where = stack.enter_context(distributed.LocalCluster(n_workers=self.number, **one, **quiet))
            else:
                _check_scheduler(where)
            client = stack.enter_context(distributed.Client(where, timeout=TIMEOUT, set_as_default=False))
            if not client.nthreads():
                warn(f"--scheduler {self.scheduler}: has no workers yet; waiting for them")
            try:
                yield lambda make, items: _Spread(self, client, make).over(items)
            finally:
                with _later():
                    stack.close()


class _Spread:
    """One run's work at a Dask client."""

    def __init__(self, workers: Workers, client: Any, make: Callable):
        import distributed

        self.workers, self.client, self.dask = workers, client, distributed
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = max(1, cores // workers.number) if workers.number else 0
        self.folder = os.getcwd() if workers.scheduler else ""  # processes that are started here have the same one
        self.work = _pickled(make)
        self.by_path = True

    def over(self, items: Iterable[T]) -> Iterator[tuple[T, Any]]:
        items = iter(items)
        waiting: dict[Any, T] = {}
        done = self.dask.as_completed(loop=self.client.loop)  # with_results=True would lose one that cannot be fetched

        def send(some: list[T]) -> None:
            futures = self.client.map(pickle.loads, [self._task(item) for item in some], pure=False)
            waiting.update(zip((future.key for future in futures), some, strict=True))
            done.update(futures)

        most = 0
        while True:
            if 2 * len(waiting) <= most:  # workers may have come or gone
                most = (IN_FLIGHT if self.by_path else 2) * max(1, sum(self.client.nthreads().values()))
                send(list(itertools.islice(items, max(0, most - len(waiting)))))
            if not waiting:
                return
            batch = done.next_batch()
            for future, made in zip(batch, self._results(batch), strict=True):
                item = waiting.pop(future.key)
                if made in (NOT_SEEN, LOST):
                    self.by_path = self.by_path and made == LOST
                    send([item])
                else:
                    yield item, UserError(f"{next(iter(item.files()))}: {made}") if made == KILLED else made

    def _task(self, item: T) -> bytes:
        """Return the bytes that, where they are unpickled, do the work on an item.

        So Dask's scheduler needs nothing of this project, and what a worker lacks of it is an error of the task.
        """
        names = [path and Path(path) for path in item.files()]
        paths = [name and Path(self.folder, name) for name in names]
        stamps = [_stamp(path) for path in paths]
        contents = None if self.by_path else [path.read_bytes() if path and path.is_file() else None for path in paths]
        return pickle.dumps(_Call(_work_on, VERSION, self.work, self.threads, item.source, names, paths, stamps, contents))

    def _results(self, futures: list[Any]) -> list[Any]:
        try:
            return self.client.gather(futures)  # all at once, which is quicker
        except Exception:
            return [self._result(future) for future in futures]

    def _result(self, future: Any) -> Any:
        """Return what a task returned, KILLED or LOST. Raises RunError for what ends the run."""
        try:
            return future.result()
        except self.dask.KilledWorker:
            return KILLED
        except ImportError as error:
            raise RunError(f"a worker lacks this project or what it requires ({error}); "
                           f"start it where Python finds them: PYTHONPATH={PROJECT}") from None  # fmt: skip
        except self.dask.CancelledError:
            raise RunError(
                f"--scheduler {self.workers.scheduler}: is gone; the same command goes on where it stopped"
            ) from None
        except OSError:  # such as of a connection to a worker that died
            if future.status == "error":  # it was the task's own
                raise
            return LOST


def _check_scheduler(address: str) -> None:
    """Raise UserError unless a Dask scheduler answers there in time. `Client` would wait for whatever else takes the call."""
    import distributed

    async def kind() -> str:
        async with distributed.rpc(address, connection_args=distributed.Security().get_connection_args("client")) as there:
            return (await there.identity())["type"]

    try:
        if (answer := asyncio.run(asyncio.wait_for(kind(), TIMEOUT))) == "Scheduler":
            return
        reason = f"it is a {answer.lower()}"
    except MemoryError:  # by what it took for the length of a message
        reason = "but something else does"
    except Exception as error:  # what answers may be anything
        reason = str(error).splitlines()[0] if str(error) else f"not within {TIMEOUT} s"
    raise UserError(f"--scheduler {address}: no Dask scheduler answers there ({reason})")


@contextlib.contextmanager
def _later() -> Iterator[None]:
    """Let Ctrl-C wait until this context ends, as half a cluster cannot be closed; processes that start in it never get it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda signum, frame: pressed.append(signum))
    if hasattr(signal, "pthread_sigmask"):  # not on Windows. What starts inherits the mask
        resource_tracker.ensure_running()  # which would lift it
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        signal.signal(signal.SIGINT, before)
        if pressed:
            signal.raise_signal(signal.SIGINT)


def pixels(path: Path) -> int:
    """Return how many pixels an image has, or that of a .gc file or a packet, by its header; 0 if it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.height * image.width
    except Exception:  # Pillow raises many kinds of errors
        pass
    with contextlib.suppress(UserError):
        data = read_compressed(path)
        header = packets.read_packet(data).header if packets.is_packet(data) else read_header(data)[0]
        height, width = padded_size(*header.coded_size)
        return height * width
    return 0


# ----------------------------------------------------------------------------------------------------------------------
# To a worker
# ----------------------------------------------------------------------------------------------------------------------


class _Call:
    """A call that takes place where it is unpickled."""

    def __init__(self, function: Callable, *arguments: Any):
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


def _pickled(value: Any) -> bytes:
    """Pickle the work. Its models become names and fingerprints: a worker loads them from its own disk."""
    import cloudpickle  # which Dask brings, for functions within functions

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, Codec):
                runtime = "onnx" if isinstance(value.runtime, OnnxRuntime) else "tensorflow"
                options = {name: getattr(value, name) for name in ("channels", "max_pixels", "noise_seed")}
                checkpoint = value.checkpoint
                return _load, (checkpoint.folder.absolute(), checkpoint.fingerprint, config_test(runtime=runtime, **options))
            if isinstance(value, Checkpoints):
                return _checkpoints, ([root.absolute() for root in value.roots],)
            return super().reducer_override(value)

    file = io.BytesIO()
    Pickler(file).dump(value)
    return file.getvalue()


def _stamp(path: Path | None) -> Stamp:
    with contextlib.suppress(OSError):
        if path is not None:
            status = path.stat()
            return status.st_size, status.st_mtime_ns
    return None


# ----------------------------------------------------------------------------------------------------------------------
# On a worker
# ----------------------------------------------------------------------------------------------------------------------


def _work_on(
    version: str,  #                            of the project, where the run was started
    work: bytes,  #                             what to do, as `_pickled` returns it
    threads: int,  #                            for a network; 0: as many as the worker has
    source: Any,
    names: list[Path | None],  #                of the files, as the user calls them
    paths: list[Path | None],
    stamps: list[Stamp],  #                     of the files, where the run was started
    contents: list[bytes | None] | None,  #     None: the worker must see the files
) -> Any:
    """Return what the work makes of an input, the UserError that it raises, or NOT_SEEN."""
    if version != VERSION:
        return RunError(f"worker {_name()}: has version {VERSION} of this project instead of {version}")
    try:
        with _LOADING:  # Dask's threads share a model
            make = _loaded(work, threads)
    except UserError as error:
        return RunError(f"worker {_name()}: {error}")
    with contextlib.ExitStack() as stack:
        if contents is not None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            paths = [name and Path(folder, f"{i}{name.suffix}") for i, name in enumerate(names)]
            for path, data in zip(paths, contents, strict=True):
                if path and data is not None:
                    path.write_bytes(data)
        elif [_stamp(path) for path in paths] != stamps:
            return NOT_SEEN
        made = attempt(make, source, paths)
    if isinstance(made, UserError):
        for path, name in zip(paths, names, strict=True):
            made = UserError(str(made).replace(str(path), str(name)))
    return made


@functools.lru_cache(maxsize=1)
def _loaded(work: bytes, threads: int) -> Callable:
    """Return the work, with its models. It is loaded once."""
    from distributed import get_worker

    OnnxRuntime.threads = threads or get_worker().state.nthreads
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3":  # of the process that started this one, where TensorFlow is imported
        del os.environ["TF_CPP_MIN_LOG_LEVEL"]
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(OnnxRuntime.threads)
    Image.MAX_IMAGE_PIXELS = None  # the knob max_pixels is checked before anything is decoded
    warnings.filterwarnings("ignore", module="PIL")  # they are about metadata
    return pickle.loads(work)


_LOADING = threading.Lock()


def _load(folder: Path, fingerprint: bytes, knobs: config_test) -> Codec:
    """Load a model on a worker. Raises UserError if it is not the one with this fingerprint."""
    if not folder.exists():
        folder = _checkpoints([]).find(fingerprint) or folder
    codec = load_codec(folder, knobs)
    if codec.checkpoint.fingerprint != fingerprint:
        there = codec.checkpoint.fingerprint.hex()
        raise UserError(f"{folder}: is another model there, of the fingerprint {there} instead of {fingerprint.hex()}")
    return codec


def _checkpoints(roots: list[Path]) -> Checkpoints:
    return Checkpoints([*roots, SHIPPED, PROJECT / "checkpoints"])


def _name() -> str:
    from distributed import get_worker

    return f"{get_worker().address} on {socket.gethostname()}"
