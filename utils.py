"""Pictures, metrics, summaries, and the small rest. Importing this file is cheap: TensorFlow comes late."""

import contextlib
import ctypes
import functools
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from config import UserError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")  # that are read, and written
LOSSLESS_SUFFIXES = (".png", ".bmp")
PROJECT = Path(__file__).resolve().parent
STRIDE = 16  # pixels a side of one position of the feature map
MIN_SIDE = 32  # pixels; the reflection padding of a feature map needs 2 x 2 positions
MS_SSIM_MIN_SIDE = 161  # px; the fifth scale must hold an 11 px window: ceil(161 / 16) = 11


class Utils:
    """Static methods only."""

    # ------------------------------------------------------------------------------------------------------------------
    # Command lines
    # ------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def command(main: Callable[[list[str] | None], int]) -> Callable[..., int]:
        """Decorate a script's main: a UserError becomes one line on stderr and exit status 2."""

        @functools.wraps(main)
        def wrapped(argv: list[str] | None = None) -> int:
            try:
                return main(argv)
            except UserError as error:
                print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
                return 2
            except OSError as error:  # of a path that the command line named, such as a name too long
                if error.filename is None:
                    raise
                print(f"{Path(sys.argv[0]).name}: error: {error.filename}: {error.strerror}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                return 128 + signal.SIGINT

        return wrapped

    @staticmethod
    @contextlib.contextmanager
    def quiet_tensorflow() -> Iterator[None]:
        """Import TensorFlow within this context, and its native code keeps its notices to itself; exceptions still come.

        Setting TF_CPP_MIN_LOG_LEVEL oneself brings them back. The level alone does not do: some are written before TensorFlow
        reads it, hence the muted file descriptor.
        """
        if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
            yield
            return
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        sys.stderr.flush()
        stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            os.close(null)

    @staticmethod
    def return_freed_memory() -> None:
        """To call before TensorFlow's first tensor: what is freed goes back to the system, for a next tensor of any size.

        TensorFlow's oneDNN allocator on CPU never returns memory and fragments: its peak creeps up from step to step, by 1 GB
        for a full-width step. The system's allocator does return it; glibc's, from a block size that is set here.
        It costs a full-width step nothing, but a small network, whose steps are all allocation, a quarter of its speed.
        """
        os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
        m_mmap_threshold = -3  # malloc.h
        with contextlib.suppress(AttributeError, OSError, TypeError):  # no glibc
            ctypes.CDLL(None).mallopt(m_mmap_threshold, 4 * 2**20)

    @staticmethod
    def memory(field: str = "VmRSS") -> int | None:
        """Bytes of memory that this process has now (VmRSS), or had at most (VmHWM); None where there is no /proc."""
        try:
            status = Path("/proc/self/status").read_text()
        except OSError:
            return None
        return 1024 * int(status.split(f"{field}:")[1].split()[0])

    @staticmethod
    def reset_peak_memory() -> None:
        """From here on, `memory("VmHWM")` is of what follows; where the system cannot do that, of the whole process."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    @staticmethod
    def locate(path: str) -> Path:
        """A path as given (from the working directory), or the same below this project's folder if only that exists."""
        return PROJECT / path if not Path(path).exists() and (PROJECT / path).exists() else Path(path)

    @staticmethod
    @contextlib.contextmanager
    def stop_signals() -> Iterator[list[int]]:
        """Within this context, SIGINT and SIGTERM only append themselves to the list; a second SIGINT interrupts."""
        received: list[int] = []

        def handle(signum, frame):
            received.append(signum)
            signal.signal(signum, signal.default_int_handler)

        old = {signum: signal.signal(signum, handle) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield received
        finally:
            for signum, handler in old.items():
                signal.signal(signum, handler)

    @staticmethod
    @contextlib.contextmanager
    def atomic(path: str | Path) -> Iterator[Path]:
        """Yield a temporary path beside `path`, of the same suffix; rename it to `path` if all went well, else remove it."""
        path = Path(path)
        if path.is_dir():
            raise UserError(f"{path}: is a folder, where an output file is wanted")
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

    @staticmethod
    def picture_path(path: str | Path, suffixes: tuple = PICTURE_SUFFIXES) -> Path:
        """The path, if it ends in one of the suffixes; raises UserError else, before any work is done."""
        path = Path(path)
        if path.suffix.lower() not in suffixes:
            raise UserError(f"{path}: the output must end in one of {', '.join(suffixes)}")
        return path

    @staticmethod
    def output_names(images: list[str], source: Path, suffix: str) -> dict[str, Path]:
        """For each image below the folder `source`, the relative name of its output.

        The suffix replaces the image's own, but where photo.png and photo.jpg would collide, it follows it.
        """
        stems = Counter(Path(image).with_suffix("") for image in images)
        names = {image: Path(image).relative_to(source) for image in images}
        return {
            image: name.with_suffix(suffix) if stems[Path(image).with_suffix("")] == 1 else Path(f"{name}{suffix}")
            for image, name in names.items()
        }

    @staticmethod
    def save_picture(picture: np.ndarray | Image.Image, path: Path) -> None:
        """Write an image (H, W, 3) uint8 or a Pillow picture; whole, or not at all."""
        with Utils.atomic(path) as partial:
            try:
                (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(partial)
            except ValueError as error:  # too large for the format, for one
                raise UserError(f"{path}: cannot be written ({error})") from None

    # ------------------------------------------------------------------------------------------------------------------
    # Metrics
    # ------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def psnr(a: np.ndarray, b: np.ndarray) -> float:
        """Peak signal-to-noise ratio of uint8 images, in dB: 10 log10(255^2 / MSE); infinite for equal images."""
        mse = np.mean(np.square(a.astype(np.float64) - b.astype(np.float64)))
        return float(10 * np.log10(255**2 / mse)) if mse else float("inf")

    @staticmethod
    def ms_ssim(a: np.ndarray, b: np.ndarray) -> float | None:
        """Multiscale structural similarity (Wang et al. 2003) of uint8 RGB images, at most 1; None under 161 px a side."""
        if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
            return None
        import tensorflow as tf

        return float(tf.image.ssim_multiscale(a.astype(np.float32), b.astype(np.float32), max_val=255))

    # ------------------------------------------------------------------------------------------------------------------
    # Pictures and summaries
    # ------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def side_by_side(panels: list[np.ndarray], captions: list[str]) -> Image.Image:
        """Images (H, W, 3) uint8 of one size, from left to right with a gap, a caption under each."""
        height, width = panels[0].shape[:2]
        column = max(width, 240)  # px; a caption's room under a tiny image
        font = ImageFont.load_default(max(10, min(22, column // 32)))
        lines = [_wrap(caption, font, column - 8) for caption in captions]
        line_height = font.getbbox("Ag")[3] + 4
        gap = 8
        footer = line_height * max(map(len, lines)) + gap
        size = (len(panels) * (column + gap) - gap, height + footer)
        picture = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(picture)
        for i, (panel, text) in enumerate(zip(panels, lines, strict=True)):
            left = i * (column + gap)
            picture.paste(Image.fromarray(panel), (left + (column - width) // 2, 0))
            draw.multiline_text((left + 4, height + 2), "\n".join(text), fill="black", font=font, spacing=4)
        return picture

    @staticmethod
    def stack(pictures: list[Image.Image]) -> Image.Image:
        """Pictures from top to bottom."""
        sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
        top = 0
        for picture in pictures:
            sheet.paste(picture, (0, top))
            top += picture.height
        return sheet

    @staticmethod
    def write_summaries(writer, step: int, scalars: dict[str, float], images: dict[str, list[np.ndarray]]) -> None:
        """TensorBoard: scalars by name, and lists of uint8 images by name."""
        import tensorflow as tf

        with writer.as_default(step=step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)
            for name, group in images.items():
                for i, image in enumerate(group):
                    tf.summary.image(f"{name}/{i}", image[None])
        writer.flush()

    @staticmethod
    @contextlib.contextmanager
    def summary_errors(folder: Path) -> Iterator[None]:
        """Within this context, what TensorFlow throws when it cannot write summaries becomes a UserError."""
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError as error:
            raise UserError(f"{folder}: TensorBoard summaries cannot be written ({error.message.splitlines()[0]})") from None


# ----------------------------------------------------------------------------------------------------------------------
# Images and tensors
# ----------------------------------------------------------------------------------------------------------------------


def to_float(image: np.ndarray) -> np.ndarray:
    """uint8 in [0, 255] -> float32 in [-1, 1]."""
    return image.astype(np.float32) / 127.5 - 1


def to_uint8(x: np.ndarray) -> np.ndarray:
    """float in [-1, 1] -> uint8, rounded."""
    return np.clip(np.rint((x + 1) * 127.5), 0, 255).astype(np.uint8)


def padded_size(height: int, width: int) -> tuple[int, int]:
    """Each side rounded up to a multiple of 16 px, and to at least 32 px."""
    return tuple(max(MIN_SIDE, -(-side // STRIDE) * STRIDE) for side in (height, width))


def pad(image: np.ndarray) -> np.ndarray:
    """Repeat the last row and column up to the padded size; the inverse is image[:height, :width]."""
    height, width = image.shape[:2]
    padded_height, padded_width = padded_size(height, width)
    return np.pad(image, ((0, padded_height - height), (0, padded_width - width), (0, 0)), mode="edge")


# ----------------------------------------------------------------------------------------------------------------------
# Helpers
# ----------------------------------------------------------------------------------------------------------------------


def _wrap(text: str, font, width: int) -> list[str]:
    """Break text into lines that are no wider than `width` px."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
