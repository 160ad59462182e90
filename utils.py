"""Command-line plumbing, and pictures side by side. Importing this file is cheap: TensorFlow comes late."""

import argparse
import contextlib
import ctypes
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageText

from config import VERSION, UserError
from gcodec import command_line

PROJECT = Path(__file__).resolve().parent
T = TypeVar("T")


class Utils:
    """Static methods only."""

    # ------------------------------------------------------------------------------------------------------------------
    # Command lines
    # ------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def parser(description: str | None) -> argparse.ArgumentParser:
        """Return a parser with what every command has; see gcodec/command_line.py."""
        return command_line.parser(description, f"generative-compression {VERSION}")

    command = staticmethod(command_line.command)

    @staticmethod
    def progress(items: Iterable[T], unit: str, description: str | None = None, hide: bool = False) -> Iterator[T]:
        """Iterate, with a bar if stderr is a terminal and tqdm is installed."""
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            yield from items
            return
        yield from tqdm(items, description, unit=unit, disable=hide or None)  # None: where stderr is no terminal

    @staticmethod
    @contextlib.contextmanager
    def importing_tensorflow() -> Iterator[None]:
        """Import TensorFlow in this context: with oneDNN, and without the notices of its native code. Exceptions still come.

        TensorFlow leaves oneDNN off on processors without AVX-512, where a training step is faster with it (docs/speed.md);
        TF_ENABLE_ONEDNN_OPTS=0 in the environment turns it off everywhere. Whoever sets TF_CPP_MIN_LOG_LEVEL sees the notices.
        The level alone is not enough: TensorFlow writes some before it reads the level, so the file descriptor is muted too.
        """
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever the user's other programs take
        if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
            yield
            Utils._set_up_keras()
            return
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        if sys.stderr is not None:
            sys.stderr.flush()
        stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        try:
            yield
            Utils._set_up_keras()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            os.close(null)
            if (tensorflow := sys.modules.get("tensorflow")) is None:  # not imported, and the next context has to mute it
                del os.environ["TF_CPP_MIN_LOG_LEVEL"]
            else:  # no warning that an image of another size needs another trace
                tensorflow.get_logger().setLevel("ERROR")

    @staticmethod
    def _set_up_keras() -> None:
        """Undo what the user's keras.json changes for all programs: networks here are NHWC and of float32."""
        if (keras := sys.modules.get("keras")) is None:
            return
        if keras.config.backend() != "tensorflow":
            raise UserError(f"Keras was imported with the backend {keras.config.backend()}: set KERAS_BACKEND=tensorflow")
        keras.config.set_image_data_format("channels_last")
        keras.config.set_floatx("float32")
        keras.config.set_epsilon(1e-7)

    @staticmethod
    def return_freed_memory() -> None:
        """Make TensorFlow return the memory that it frees to the system. Call this before its first tensor.

        TensorFlow's oneDNN allocator on CPU never returns memory, and it fragments: its peak grows from step to step, by 1 GB
        for a full-width step. The system's allocator returns memory; glibc's does from a block size on, which is set here.
        A full-width step gets no slower. A small network, which allocates all the time, loses a quarter of its speed.
        """
        os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
        m_mmap_threshold = -3  # malloc.h
        with contextlib.suppress(AttributeError, OSError, TypeError):  # no glibc
            ctypes.CDLL(None).mallopt(m_mmap_threshold, 4 * 2**20)

    @staticmethod
    def memory(field: str = "VmRSS", process: int | str = "self") -> int | None:
        """Return the bytes of memory that a process has now (VmRSS) or had at most (VmHWM), or None without /proc.

        psutil knows no peak on Linux, and the peak of `resource` cannot be reset.
        """
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            return None
        return 1024 * int(status.split(f"{field}:")[1].split()[0])

    @staticmethod
    def reset_peak_memory() -> None:
        """Let `memory("VmHWM")` start anew. Where the system cannot do that, it stays the peak of the whole process."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    @staticmethod
    def locate(path: str) -> Path:
        """Return a path as it is given, or the same path below this project's folder if only that exists."""
        return PROJECT / path if not Path(path).exists() and (PROJECT / path).exists() else Path(path)

    # ------------------------------------------------------------------------------------------------------------------
    # Pictures
    # ------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def side_by_side(panels: list[np.ndarray], captions: list[str]) -> Image.Image:
        """Put images (H, W, 3) uint8 of one size beside each other, with a gap between them and a caption under each."""
        height, width = panels[0].shape[:2]
        column = max(width, 240)  # px; a tiny image needs room for its caption
        font = ImageFont.load_default(max(10, min(22, column // 32)))
        texts = [ImageText.Text(caption, font) for caption in captions]
        for text in texts:
            text.wrap(column - 8)
        gap = 8
        footer = round(max(text.get_bbox()[3] for text in texts)) + gap
        size = (len(panels) * (column + gap) - gap, height + footer)
        picture = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(picture)
        for i, (panel, text) in enumerate(zip(panels, texts, strict=True)):
            left = i * (column + gap)
            picture.paste(Image.fromarray(panel), (left + (column - width) // 2, 0))
            draw.text((left + 4, height + 2), text, fill="black")
        return picture

    @staticmethod
    def stack(pictures: list[Image.Image]) -> Image.Image:
        """Put pictures below each other."""
        sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
        top = 0
        for picture in pictures:
            sheet.paste(picture, (0, top))
            top += picture.height
        return sheet
