"""What .gc files and packets say about themselves, without running a network."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gcodec.checkpoint import read_knobs
from gcodec.compressed_files import SUFFIX, read_compressed
from gcodec.container import CRC_SIZE, SCALES, Header, check_magic, checksum_holds, read_header, split
from gcodec.errors import UserError
from gcodec.files import files_in, printable
from gcodec.finding import Checkpoints
from gcodec.knobs import ModelKnobs
from gcodec.packets import HEADER_SIZE, MAGIC, Packet, read_packet, separate, slice_size
from gcodec.packets import SUFFIX as PACKET_SUFFIX
from gcodec.pictures import STRIDE, padded_size
from gcodec.streams import STANDARD_INPUT, STREAM


class Description(NamedTuple):
    """What is printed of a file. whole: whether it is a file of this version whose checksum holds. packet: if it is one."""

    lines: list[str]
    whole: bool
    packet: Packet | None = None


def inspect(named: Iterable[str], models: Checkpoints) -> bool:
    """Print what files say about themselves, and say whether all are whole. named: files or folders; "-" is standard input."""
    all_whole, whole_packets = True, []
    for file in (file for path in named for file in files_of(path)):
        for lines, whole, packet in describe(file, models):
            print("\n".join(printable(line) for line in lines))
            all_whole = all_whole and whole
            whole_packets += [packet] if packet and whole else []
    if len(whole_packets) > 1:
        print("\n".join(describe_images(whole_packets)))
    return all_whole


def files_of(named: str) -> list[str]:
    """Return the files to describe for an argument: itself, or what is in the folder that it names."""
    if not Path(named).is_dir():
        return [named]
    found, _ = files_in(named, (SUFFIX, PACKET_SUFFIX))
    if not found:
        raise UserError(f"{named}: no {SUFFIX} or {PACKET_SUFFIX} files in this folder")
    return found


def describe(file: str, models: Checkpoints) -> list[Description]:
    """Return what a file says about itself: one description, or one for each packet in it."""
    name = str(STANDARD_INPUT) if file == STREAM else file
    try:
        data = read_compressed(file)
    except UserError as error:  # which names the file
        return [Description([str(error)], False)]
    parts = separate(data) if data[:1] == MAGIC else [data]
    return [describe_data(name if len(parts) == 1 else f"{name}, packet {i}", part, models) for i, part in enumerate(parts, 1)]


def describe_data(name: str, data: bytes, models: Checkpoints) -> Description:
    """Return what the bytes of a .gc file or of a packet say. name: what they are called."""
    try:
        packet = read_packet(data) if data[:1] == MAGIC else None
        lines = describe_packet(packet, data, models) if packet else describe_compressed(data, models)
    except UserError as error:
        return Description([f"{name}: {error}"], False)
    whole = checksum_holds(data)
    checksum = f"  checksum:  {'holds' if whole else 'does not match: the file is damaged'}"
    return Description([f"{name}:", *lines, checksum], whole, packet)


def describe_compressed(data: bytes, models: Checkpoints) -> list[str]:
    """Return what a .gc file says, a line each. Raises UserError for data that is no .gc file of this version."""
    check_magic(data)
    header, start = read_header(data[:-CRC_SIZE])
    config = config_of(header, models)
    parts = {"header": start, **parts_of(data[start:-CRC_SIZE], config), "checksum": CRC_SIZE}
    return [*describe_header(header, models, config), bytes_by_part(len(data), parts)]


def describe_packet(packet: Packet, data: bytes, models: Checkpoints) -> list[str]:
    """Return what a packet says, a line each."""
    h, w = (side // STRIDE for side in padded_size(*packet.header.coded_size))
    positions = slice_size(h, w, packet.total, packet.number)
    header = len(data) - HEADER_SIZE - len(packet.payload) - CRC_SIZE
    parts = {"packet's header": HEADER_SIZE, "image's header": header, "symbols": len(packet.payload), "checksum": CRC_SIZE}
    return [
        f"  packet:    {packet.number + 1} of {packet.total} of the image with the id {packet.image_id:04x}",
        *describe_header(packet.header, models, config_of(packet.header, models)),
        f"  slice:     {positions} of the {h * w} positions of the feature map",
        bytes_by_part(len(data), parts),
    ]


def describe_header(header: Header, models: Checkpoints, config: ModelKnobs | None) -> list[str]:
    """Return what the header of a .gc file says, a line each. config: the model's knobs; None if it is unknown."""
    folder = models.find(header.fingerprint)
    coded_height, coded_width = header.coded_size
    scale = f"2^(-{header.scale}/{SCALES}) of its size" if header.scale else "its own size"
    return [
        f"  size:      {header.width}x{header.height}",
        f"  coded at:  {coded_width}x{coded_height}, {scale}",
        f"  channels:  {channels_sent(header, config)}",
        f"  model:     {models.name(folder) if folder else 'unknown'}, fingerprint {header.fingerprint.hex()}",
    ]


def describe_images(whole_packets: list[Packet]) -> list[str]:
    """Return a line for each image that packets are of: which packets are there, and which are missing."""
    lines = []
    for image_id, total, header in dict.fromkeys(packet.image for packet in whole_packets):
        copies = Counter(packet.number for packet in whole_packets if packet.image == (image_id, total, header))
        missing = [number for number in range(total) if number not in copies]
        repeated = ", ".join(str(number + 1) for number, count in sorted(copies.items()) if count > 1)
        line = f"image {image_id:04x}, {header.width}x{header.height}: {arrived(total, missing)}"
        lines.append(line + (f"; more than once: {repeated}" if repeated else ""))
    return lines


def config_of(header: Header, models: Checkpoints) -> ModelKnobs | None:
    """Return the knobs of a file's model, or None if the model is not here."""
    folder = models.find(header.fingerprint)
    return read_knobs(folder) if folder else None


def channels_sent(header: Header, config: ModelKnobs | None) -> str:
    """Return how many channels of the feature map a file has. config: the model's knobs; None if it is unknown."""
    of_all = f"{config.channel_bottleneck}" if config else "the model's"
    return f"{header.channels} of {of_all}" if header.channels else f"all of {of_all}"


def bytes_by_part(size: int, parts: dict[str, int]) -> str:
    return f"  bytes:     {size}: " + ", ".join(f"{part} {length}" for part, length in parts.items())


def parts_of(payload: bytes, config: ModelKnobs | None) -> dict[str, int]:
    """Return the bytes of each section of a payload; of the payload as a whole where its sections are not known."""
    if config is None:
        return {"payload": len(payload)}
    try:
        sizes = {name: len(part) for name, part in split(payload, config.sections).items()}
    except UserError:  # damaged
        return {"payload": len(payload)}
    lengths = len(payload) - sum(sizes.values())
    return sizes | ({"lengths of the sections": lengths} if lengths else {})


def arrived(total: int, missing: Sequence[int]) -> str:
    """Say how many of an image's packets arrived, and which are missing. missing: their numbers, from 0."""
    if not missing:
        return "its only packet" if total == 1 else f"all {total} packets"
    numbers = ", ".join(str(number + 1) for number in missing)
    return f"{total - len(missing)} of {total} packets ({len(missing)} missing: {numbers})"
