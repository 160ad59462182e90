"""Packets as files, OUT-001.gcp and so on: their names, writing all of an image's, and finding them among the inputs."""

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from commands.folder_run import Input, gather, is_folder
from gcodec.errors import UserError
from gcodec.files import ExistsError, atomic_together, files_in, is_empty, open_binary, refuse_existing
from gcodec.packets import SUFFIX
from gcodec.pictures import picture_bytes, picture_path
from gcodec.streams import STREAM

PACKET_NAME = re.compile(r"(.+)-\d{3}\.gcp", re.IGNORECASE | re.DOTALL)
MAX_BYTES = 2**24  # what follows in a file is not read


def outputs(output: str, source: Path) -> tuple[Path, Path | None]:
    """Return how the names of the packets of an image begin, and the side-by-side picture to write, if there is one.

    output: OUT.png for OUT-001.gcp and so on beside the picture, OUT.gcp for the packets alone, or a folder for packets that
    are called like the image.
    """
    path = Path(output)
    if names_folder(output):
        return path / source.stem, None
    if path.suffix.lower() == SUFFIX:
        return path.with_suffix(""), None
    picture = picture_path(path)
    return picture.with_suffix(""), picture


def names_folder(output: str) -> bool:
    """Whether an output of the command line is a folder: one that `is_folder` knows, or a name without a suffix."""
    return output != STREAM and (is_folder(output) or not Path(output).suffix)


def names(start: Path, total: int) -> list[Path]:
    """Return the files of `total` packets."""
    return [start.with_name(f"{start.name}-{i + 1:03d}{SUFFIX}") for i in range(total)]


def existing(start: Path) -> list[Path]:
    """Return the packets that are there already under names that begin so."""
    return sorted(start.parent.glob(f"{glob.escape(start.name)}-[0-9][0-9][0-9]{SUFFIX}"))


def refuse_existing_packets(start: Path, picture: Path | None, overwrite: bool) -> None:
    """Raise ExistsError if there are packets of that name, or the picture, and they may not be replaced."""
    refuse_existing(*existing(start), *([picture] if picture else []), overwrite=overwrite)


def write(
    sent: Sequence[bytes],
    start: Path,
    picture: Path | None = None,
    side_by_side: Image.Image | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write an image's packets and, where `picture` names a file, its side-by-side picture, all or none; return the packets.

    With `overwrite`, packets of that name which are left from an image in more packets are removed; otherwise they raise
    ExistsError.
    """
    files = names(start, len(sent))
    left_over = set(existing(start)) - set(files)
    if left_over and not overwrite:
        raise ExistsError(min(left_over), "is there already, of an image in more packets")
    with atomic_together([*files, *([picture] if picture else [])], overwrite) as partials:
        for partial, data in zip(partials, sent, strict=False):
            partial.write_bytes(data)
        if picture and side_by_side:
            partials[-1].write_bytes(picture_bytes(side_by_side, picture))
    for path in left_over:
        path.unlink()
    return files


def find(named: Sequence[str], other_suffixes: Sequence[str]) -> list[Input]:
    """Return the packets that the user named, or that are in the folders that the user named; [] if there are none at all.

    Raises UserError where they are among files with one of the other suffixes.
    """
    inputs = gather(named, lambda folder: files_in(folder, (SUFFIX, *other_suffixes))[0])
    found = [source for source in inputs if source.path.suffix.lower() == SUFFIX]
    if found and (other := next((source for source in inputs if source not in found), None)):
        raise UserError(f"{other.path}: is no packet, but {found[0].path} is one; decompress packets apart from other files")
    return found


def by_image(found: Iterable[Input]) -> dict[Input, list[Path]]:
    """Return the packets of each image. Images are told apart by the packets' names: NAME-001.gcp is of NAME.gcp.

    The packets themselves do not tell, where one is damaged or where two images happen to have the same id.
    """
    images: dict[Input, list[Path]] = {}
    for source in found:
        name = PACKET_NAME.fullmatch(source.path.name)
        if not name:
            raise UserError(f"{source.path}: packets of several images are told apart by names such as photo-001{SUFFIX}; "
                            f"rename it, or name a picture with -o if all packets are of one image")  # fmt: skip
        image = source.path.with_name(name[1] + SUFFIX)
        images.setdefault(Input(image, source.root), []).append(source.path)
    return images


def read(paths: Iterable[Path]) -> dict[str, bytes]:
    """Return the contents of packets, by their paths. An empty file is a damaged packet."""
    contents = {}
    for path in paths:
        contents[str(path)] = b""
        if not is_empty(path):
            with open_binary(path) as file:
                contents[str(path)] = file.read(MAX_BYTES)
    return contents
