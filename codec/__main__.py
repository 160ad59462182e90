"""Print what .gc files say about themselves, without running a network.

    python3 -m codec photo.gc
    python3 -m codec results/   # every .gc file of a folder

The model is found by its fingerprint among the checkpoints that are here, as decompress.py finds it. The exit status is 1 if
any file is damaged, or is no .gc file of this version.
"""

import argparse
import sys
import zlib
from pathlib import Path

from codec.checkpoint import read_knobs
from codec.compressed_files import compressed_files_in, read_compressed
from codec.container import CRC_SIZE, SCALES, Header, check_magic, read_header, split
from codec.files import printable
from codec.models import Models
from codec.options import models_here, split_knobs
from codec.streams import STANDARD_INPUT, STREAM
from config import UserError, config_train
from utils import Utils


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Utils.parser(__doc__)
    parser.prog = "python3 -m codec"
    parser.add_argument("files", nargs="+", metavar="FILE.gc", help="compressed files, or folders of them; - is standard input")
    parser.add_argument("-k", "--knob", action="append", default=[], metavar="NAME=VALUE",
                        help="override a knob of directories, such as checkpoints; may be repeated")  # fmt: skip
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    models = models_here(split_knobs(args.knob)[0])
    all_whole = True
    for named in args.files:
        for file in compressed_files_in(named) if Path(named).is_dir() else [named]:
            lines, whole = describe(file, models)
            print("\n".join(printable(line) for line in lines))
            all_whole = all_whole and whole
    return 0 if all_whole else 1


def describe(file: str, models: Models) -> tuple[list[str], bool]:
    """Return what a file says about itself as lines of text, and whether it is a whole .gc file of this version."""
    name = str(STANDARD_INPUT) if file == STREAM else file
    try:
        data = read_compressed(file)
    except UserError as error:  # which names the file
        return [str(error)], False
    try:
        check_magic(data)
        header, start = read_header(data[:-CRC_SIZE])
    except UserError as error:
        return [f"{name}: {error}"], False
    holds = zlib.crc32(data[:-CRC_SIZE]) == int.from_bytes(data[-CRC_SIZE:], "little")
    folder = models.find(header.fingerprint)
    config = read_knobs(folder) if folder else None
    coded_height, coded_width = header.coded_size
    scale = f"2^(-{header.scale}/{SCALES}) of its size" if header.scale else "its own size"
    parts = parts_of(data[start:-CRC_SIZE], config)
    inside = ", ".join(f"{part} {size}" for part, size in {"header": start, **parts, "checksum": CRC_SIZE}.items())
    lines = [
        f"{name}:",
        f"  size:      {header.width}x{header.height}",
        f"  coded at:  {coded_width}x{coded_height}, {scale}",
        f"  channels:  {channels_sent(header, config)}",
        f"  model:     {models.name(folder) if folder else 'unknown'}, fingerprint {header.fingerprint.hex()}",
        f"  bytes:     {len(data)}: {inside}",
        f"  checksum:  {'holds' if holds else 'does not match: the file is damaged'}",
    ]
    return lines, holds


def channels_sent(header: Header, config: config_train | None) -> str:
    """Return how many channels of the feature map a file has. config: the model's knobs; None if it is unknown."""
    of_all = f"{config.channel_bottleneck}" if config else "the model's"
    return f"{header.channels} of {of_all}" if header.channels else f"all of {of_all}"


def parts_of(payload: bytes, config: config_train | None) -> dict[str, int]:
    """Return the bytes of each section of a payload; of the payload as a whole where its sections are not known."""
    if config is None:
        return {"payload": len(payload)}
    names = [name for name in ("code", "mask", "symbols") if name in config.coded]
    try:
        sizes = {name: len(part) for name, part in zip(names, split(payload, len(names)), strict=True)}
    except UserError:  # damaged
        return {"payload": len(payload)}
    lengths = len(payload) - sum(sizes.values())
    return sizes | ({"lengths of the sections": lengths} if lengths else {})


if __name__ == "__main__":
    sys.exit(main())
