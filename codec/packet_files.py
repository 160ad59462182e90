"""Packets as files, OUT-001.gcp and so on: their names, writing all of an image's, and finding them among the inputs."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from codec.files import atomic_together, files_in, open_binary, refuse_existing
from codec.pictures import picture_path, write_picture
from config import UserError

SUFFIX = ".gcp"
MAX_BYTES = 2**24  # what follows in a file is not read


def outputs(output: str, source: Path) -> tuple[Path, Path | None]:
    """Return how the names of the packets of an image begin, and the side-by-side picture to write, if there is one.

    output: OUT.png for OUT-001.gcp and so on beside the picture, OUT.gcp for the packets alone, or a folder for packets that
    are called like the image.
    """
    path = Path(output)
    if path.is_dir() or not path.suffix or output.endswith("/"):
        return path / source.stem, None
    if path.suffix.lower() == SUFFIX:
        return path.with_suffix(""), None
    picture = picture_path(path)
    return picture.with_suffix(""), picture


def names(start: Path, total: int) -> list[Path]:
    """Return the files of `total` packets."""
    return [start.with_name(f"{start.name}-{i + 1:03d}{SUFFIX}") for i in range(total)]


def existing(start: Path) -> list[Path]:
    """Return the packets that are there already under names that begin so."""
    return sorted(start.parent.glob(f"{glob.escape(start.name)}-[0-9][0-9][0-9]{SUFFIX}"))


def refuse_existing_packets(start: Path, picture: Path | None, overwrite: bool) -> None:
    """Raise ExistsError if there are packets of that name, or the picture, and they may not be replaced."""
    refuse_existing(*existing(start), *([picture] if picture else []), overwrite=overwrite)


def write(sent: Sequence[bytes], start: Path, picture: Path | None, side_by_side: Image.Image, overwrite: bool) -> list[Path]:
    """Write an image's packets and, where `picture` names a file, its side-by-side picture, all or none; return the packets.

    Packets of that name which are left from an image in more packets are removed.
    """
    files, before = names(start, len(sent)), existing(start)
    with atomic_together([*files, *([picture] if picture else [])], overwrite) as partials:
        for partial, data in zip(partials, sent, strict=False):
            partial.write_bytes(data)
        if picture:
            write_picture(side_by_side, partials[-1], picture)
    for path in set(before) - set(files):
        path.unlink()
    return files


def find(named: Sequence[str], other_suffixes: Sequence[str]) -> list[Path]:
    """Return the packets that the user named, or that are in the folders that the user named; [] if there are none at all.

    Raises UserError where they are among files with one of the other suffixes.
    """
    files: list[Path] = []
    for path in map(Path, named):
        files += map(Path, files_in(path, (SUFFIX, *other_suffixes))[0]) if path.is_dir() else [path]
    found = [path for path in files if path.suffix.lower() == SUFFIX]
    if found and (other := next((path for path in files if path not in found), None)):
        raise UserError(f"{other}: is no packet, but {found[0]} is one; decompress packets apart from other files")
    return found


def read(paths: Iterable[Path]) -> dict[str, bytes]:
    """Return the contents of packets, by their paths. An empty file is a damaged packet."""
    contents = {}
    for path in paths:
        contents[str(path)] = b""
        if not path.is_file() or path.stat().st_size:
            with open_binary(path) as file:
                contents[str(path)] = file.read(MAX_BYTES)
    return contents


def arrived(total: int, missing: Sequence[int]) -> str:
    """Say how many of an image's packets arrived, and which are missing. missing: their numbers, from 0."""
    if not missing:
        return "its only packet" if total == 1 else f"all {total} packets"
    numbers = ", ".join(str(number + 1) for number in missing)
    return f"{total - len(missing)} of {total} packets ({len(missing)} missing: {numbers})"
