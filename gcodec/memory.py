"""How much memory there is, asked before it is taken: what an image takes can then be refused in a line, without a crash."""

import contextlib
import os
from pathlib import Path

from gcodec.errors import UserError
from gcodec.knobs import ModelKnobs
from gcodec.pictures import padded_size
from gcodec.runtime import Runtime

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (  # limit, usage, and the line of memory.stat that says what of it are cached files; of versions 2 and 1
    ("memory.max", "memory.current", "inactive_file "),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file "),
)


TILED = 170.0  # bytes a pixel, where networks see a large image tile by tile: 140 were measured at 12 megapixels


def whole_image(config: ModelKnobs) -> float:
    """Return about how many bytes of memory a pixel takes where the networks see all of an image at once.

    photo_c8 (W=192) takes 270 to 570 by TensorFlow, depending on the size; encoding takes less than decoding.
    """
    return 150 + 2.2 * config.width


def check_memory(height: int, width: int, runtime: Runtime) -> None:
    """Raise UserError if an image takes more memory than there is. It counts with its padding."""
    height, width = padded_size(height, width)
    _check(height * width, runtime.bytes_per_pixel, available_memory())
    if runtime.address_space_per_pixel:
        _check(height * width, runtime.address_space_per_pixel, available_address_space())


def _check(pixels: int, each: float, there: int | None) -> None:
    needed = pixels * each
    if there is not None and needed > there:
        raise UserError(
            f"{pixels / 1e6:.1f} megapixels take {needed / 1e9:.1f} GB of memory, but only {max(0, there) / 1e9:.1f} GB can be "
            f"had; make the image smaller, or use a machine that has more"
        )


def available_memory() -> int | None:
    """Return how many bytes this process can still take, by the system, its control group and its own limits; None: unknown."""
    limits = [_of_system(), _of_group(), *_of_process()]
    return min((limit for limit in limits if limit is not None), default=None)


def available_address_space() -> int | None:
    """Return the largest piece of address space that the system gives to this process; None: unknown."""
    limits = list(_of_process())
    with contextlib.suppress(OSError, ValueError, IndexError):  # Linux refuses a piece that memory and swap could never hold
        text = Path("/proc/meminfo").read_text()
        limits.append(1024 * sum(int(text.split(f"{field}:")[1].split()[0]) for field in ("MemTotal", "SwapTotal")))
    return min(limits, default=None)


def _of_system() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return 1024 * int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0])
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no /proc
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_group() -> int | None:
    """Return what a container's limit leaves. What its files take in memory can be had back."""
    for limit, usage, files in CGROUP_FILES:
        with contextlib.suppress(OSError, ValueError, IndexError):  # "max" is no number: there is no limit
            free = int((CGROUP / limit).read_text()) - int((CGROUP / usage).read_text())
            stat = (CGROUP / usage).with_name("memory.stat").read_text()
            return free + int(stat.split(files)[1].split()[0])
    return None


def _of_process() -> list[int]:
    """Return what the limits of `ulimit -v` and `ulimit -d` leave."""
    left = []
    with contextlib.suppress(OSError, ValueError, IndexError, AttributeError):
        status = Path("/proc/self/status").read_text()
        for kind, field in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
            limit = resource.getrlimit(kind)[0]
            if limit != resource.RLIM_INFINITY:
                left.append(limit - 1024 * int(status.split(field)[1].split()[0]))
    return left
