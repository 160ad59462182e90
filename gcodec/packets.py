"""Packets for lossy links: an image is cut into independent slices, and each slice travels in a packet of its own.

    bytes  what
        1  magic, "p"
        1  version, 1
        2  image id, little-endian: the same in all packets of an image; it also seeds the decoder's noise
        1  number of the packet, from 0
        1  total, how many packets the image has, 1..255
        m  the header of a .gc file (container.py): magic, version and flags, sizes, fingerprint
        n  payload: the symbols of the slice, coded as if the feature map had no other positions
        4  CRC-32 of everything before it, little-endian

Each packet repeats the picture's header, so any of them can arrive first or alone. `slices` says which positions it holds.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice, takewhile
from math import ceil, isqrt
from typing import NamedTuple

import numpy as np

from gcodec.checkpoint import Checkpoint
from gcodec.codec import Codec, Contents
from gcodec.container import CRC_SIZE, SMALLEST, Header, check_magic, checksum_holds, pack_header, read_header
from gcodec.errors import UserError
from gcodec.memory import check_memory
from gcodec.pictures import STRIDE, check_image, padded_size, resize

MAGIC, VERSION = b"p", 1
SUFFIX = ".gcp"  # of a packet's file
HEADER_SIZE = 6  # bytes before the picture's own header
MAX_TOTAL = 255
MOST_BYTES = 2**16  # of a packet that is followed by others or by zeros
MOST_LOST = 20  # the search through a file ends after so many places that look like the beginning of a packet and are none
RESIDUE = zlib.crc32(zlib.crc32(b"").to_bytes(CRC_SIZE, "little"))  # CRC-32 of any data followed by its own CRC-32
LIKELY = 8  # slices that are coded to see whether a size can work
BLOCK = 4  # positions a side; larger blocks cost fewer bytes, smaller ones are easier to paint when they are lost


class Packet(NamedTuple):
    """A packet, read."""

    image_id: int
    number: int  # from 0
    total: int
    header: Header
    payload: bytes

    @property
    def image(self) -> tuple[int, int, Header]:
        """What all packets of an image share."""
        return self.image_id, self.total, self.header


class Received(NamedTuple):
    """The picture that the packets gave, and which of them did not arrive."""

    image: np.ndarray  #            (H, W, 3) uint8
    total: int  #                   packets that were sent
    missing: list[int]  #           numbers, from 0, of those that did not arrive whole
    damaged: dict[str, str]  #      name -> why it was left out


def slices(h: int, w: int, n: int) -> np.ndarray:
    """Return for each position of a feature map which of the n slices it belongs to: (h, w), 0..n-1.

    The map is cut into blocks of 4x4 positions, or of 2x2 or 1x1 if there would be fewer blocks than slices. The blocks of a
    row are dealt to the slices in turn, and each row starts about sqrt(n) slices further on than the row above it, so that
    the blocks of a slice lie far apart in all directions.
    """
    side, step = _pattern(h, w, n)
    y, x = np.arange(h)[:, None] // side, np.arange(w) // side
    return (x + step * y) % n


def slice_size(h: int, w: int, n: int, i: int) -> int:
    """Return the number of positions in slice i of n, without computing the map of all slices."""
    side, step = _pattern(h, w, n)
    rows = np.bincount(np.arange(h) // side)
    columns = np.bincount(np.arange(w) // side % n, minlength=n)  # of each slice, in the first row of blocks
    return int(rows @ columns[(i - step * np.arange(len(rows))) % n])


def _pattern(h: int, w: int, n: int) -> tuple[int, int]:
    """Return the side of a block, and by how many slices each row of blocks is shifted against the row above it."""
    side = BLOCK
    while side > 1 and -(-h // side) * -(-w // side) < n:
        side //= 2
    columns = -(-w // side)
    return side, isqrt(n) if n <= columns else columns  # a shift by `columns` numbers the blocks as one reads


# ----------------------------------------------------------------------------------------------------------------------
# One packet <-> bytes
# ----------------------------------------------------------------------------------------------------------------------


def pack(packet: Packet) -> bytes:
    """Return the bytes of a packet."""
    start = MAGIC + bytes([VERSION]) + packet.image_id.to_bytes(2, "little") + bytes([packet.number, packet.total])
    body = start + pack_header(packet.header) + packet.payload
    return body + zlib.crc32(body).to_bytes(CRC_SIZE, "little")


def unpack(data: bytes) -> Packet:
    """Return the packet that `pack` turned into these bytes. Raises UserError for damaged packets and for anything else."""
    if not is_packet(data):
        raise UserError("not a packet" + (" (it is empty)" if not data else ""))
    if not checksum_holds(data):
        raise UserError("damaged (the checksum does not match)")
    return read_packet(data)


def separate(data: bytes) -> list[bytes]:
    """Cut the contents of a file or a stream into its packets, without the zeros that radios append to them.

    A packet ends where its checksum holds. Anything between packets is dropped. Data without a whole packet is returned as it
    is. Unless a packet is alone, it may have at most MOST_BYTES bytes.
    """
    if checksum_holds(data):
        return [data]
    found, start, lost = [], 0, 0
    while lost < MOST_LOST and (start := data.find(MAGIC + bytes([VERSION]), start)) >= 0:
        if end := _end(data, start):
            found.append(data[start:end])
            start = end
        else:
            lost, start = lost + 1, start + 1
    return found or [data]


def _end(data: bytes, start: int) -> int:
    """Return the end of the packet that begins at `start`, or 0 if its checksum holds nowhere."""
    smallest = start + HEADER_SIZE + SMALLEST
    crc = zlib.crc32(data[start : smallest - 1])
    for end in range(smallest, min(len(data), start + MOST_BYTES) + 1):
        crc = zlib.crc32(data[end - 1 : end], crc)
        if crc == RESIDUE:
            return end
    return 0


def is_packet(data: bytes) -> bool:
    """Return whether data begins like a packet."""
    return data[:1] == MAGIC


def read_packet(data: bytes) -> Packet:
    """Read a packet without looking at its checksum. Raises UserError for contents that no packet can have."""
    if len(data) < HEADER_SIZE + SMALLEST:
        raise UserError(f"cut short ({len(data)} bytes)")
    if data[1] != VERSION:
        raise UserError(f"not a packet of version {VERSION}, the one that this program reads")
    body = data[:-CRC_SIZE]
    number, total = body[4], body[5]
    if number >= total:
        raise UserError(f"damaged (packet {number} of {total})")
    check_magic(data[HEADER_SIZE:])  # from there on, it is laid out like a .gc file
    header, start = read_header(body[HEADER_SIZE:])
    if header.channels:
        raise UserError("damaged (packets have all channels)")
    h, w = feature_map_size(header)
    if total > h * w:
        raise UserError(f"damaged ({total} packets of a feature map of {h * w} positions)")
    return Packet(int.from_bytes(body[2:4], "little"), number, total, header, body[HEADER_SIZE + start :])


# ----------------------------------------------------------------------------------------------------------------------
# An image <-> packets
# ----------------------------------------------------------------------------------------------------------------------


def check_model(codec: Codec) -> None:
    """Raise UserError for a model whose files have more than symbols."""
    if list(codec.checkpoint.entropy_models) != ["symbols"]:
        raise UserError("the files of this model have a label map or a heat map, which are not sent in packets")


def encode(codec: Codec, image: np.ndarray, size: int, scale: int = 0) -> list[bytes]:
    """Return the packets of an image (H, W, 3) uint8: as few as possible, of at most `size` bytes each.

    scale: 0..63; the image is coded at 2^(-scale/8) times its size, as in a .gc file. Raises UserError for a `size` that is too
    small, and names about the smallest one that works.
    """
    check_model(codec)
    check_image(image)
    header = Header(image.shape[1], image.shape[0], scale, 0, codec.checkpoint.fingerprint)
    beside = HEADER_SIZE + len(pack_header(header)) + CRC_SIZE
    if size <= beside:
        raise UserError(f"packets of {size} bytes are too small: {beside} bytes are headers and checksum")
    check_memory(*header.coded_size, codec.runtime)
    symbols = codec.contents(resize(image, *header.coded_size)).symbols
    least = least_room(codec.checkpoint, symbols)
    payloads = fewest_payloads(codec.checkpoint, symbols, size - beside) if least <= size - beside else None
    if payloads is None:
        needed = max(size, beside + ceil(1.05 * least)) + 1  # for slices that were not coded
        raise UserError(
            f"packets of {size} bytes are too small for this image; the smallest size that works is about {needed} bytes"
        )
    image_id = zlib.crc32(pack_header(header) + symbols.tobytes()) & 0xFFFF
    return [pack(Packet(image_id, i, len(payloads), header, payload)) for i, payload in enumerate(payloads)]


def fewest_payloads(checkpoint: Checkpoint, symbols: np.ndarray, room: int) -> list[bytes] | None:
    """Return the payloads of as few slices as take at most `room` bytes each; None if no number of slices does.

    The search starts from what the symbols would take in one piece, because slices never take much less.
    """
    most = most_slices(symbols)
    start = len(checkpoint.entropy_models["symbols"].encode(symbols)) // max(room, 1)
    for n in range(min(max(start, 1), most), most + 1):
        if payloads := payloads_within(checkpoint, symbols, n, room):
            return payloads
    return None


def least_room(checkpoint: Checkpoint, symbols: np.ndarray) -> int:
    """Cut the map into as many slices as possible, and return the size of the largest payload of those LIKELY to be large."""
    payloads = slice_payloads(checkpoint, symbols, most_slices(symbols))
    return max(len(payload) for _, payload in islice(payloads, LIKELY))


def payloads_within(checkpoint: Checkpoint, symbols: np.ndarray, n: int, room: int) -> list[bytes] | None:
    """Return the payloads of n slices; None if one of them takes more than `room` bytes."""
    fitting = dict(takewhile(lambda item: len(item[1]) <= room, slice_payloads(checkpoint, symbols, n)))
    return [fitting[i] for i in range(n)] if len(fitting) == n else None


def slice_payloads(checkpoint: Checkpoint, symbols: np.ndarray, n: int) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the payload of each of n slices.

    Slices that are likely to be large come first, so that whoever finds one too large need not code the others.
    """
    slice_of = slices(symbols.shape[0], symbols.shape[1], n)
    bits = checkpoint.static_tables.bits(symbols).sum(axis=-1)  # of each position, without its context
    for i in np.argsort(-np.bincount(slice_of.ravel(), bits.ravel(), minlength=n)).tolist():
        yield i, checkpoint.entropy_models["symbols"].encode(symbols, slice_of == i)


def most_slices(symbols: np.ndarray) -> int:
    """Return the largest number of slices of a feature map: each has a position at least."""
    return min(MAX_TOTAL, symbols.shape[0] * symbols.shape[1])


def decode(codec: Codec, files: Mapping[str, bytes]) -> Received:
    """Decode the packets of one image, in any order, and paint what is missing. files: their contents by name.

    Damaged packets and strays of another image are left out. Raises UserError as `read_packets` does, and for another model.
    """
    check_model(codec)
    packets, damaged = read_packets(files)
    image_id, total, header = next(iter(packets.values())).image
    codec.check(header)
    h, w = feature_map_size(header)
    slice_of, coder = slices(h, w, total), codec.checkpoint.entropy_models["symbols"]
    symbols, received = np.zeros((h, w, codec.config.channel_bottleneck), np.uint8), np.zeros((h, w), bool)
    arrived: set[int] = set()
    for name, packet in packets.items():
        if packet.number in arrived:  # another copy
            continue
        mask = slice_of == packet.number
        try:
            symbols[mask] = coder.decode(packet.payload, symbols.shape, mask)[mask]
        except UserError as error:
            damaged[name] = str(error)
            continue
        received |= mask
        arrived.add(packet.number)
    if not arrived:
        raise none_is_whole(damaged)
    picture = codec.picture(Contents(symbols), *header.coded_size, image_id, received)
    missing = sorted(set(range(total)) - arrived)
    return Received(resize(picture, header.height, header.width), total, missing, damaged)


def feature_map_size(header: Header) -> tuple[int, int]:
    """Return the height and the width of the feature map of an image with this header."""
    height, width = padded_size(*header.coded_size)
    return height // STRIDE, width // STRIDE


def read_packets(files: Mapping[str, bytes]) -> tuple[dict[str, Packet], dict[str, str]]:
    """Return the packets of one image by name, and the reason why each of the others is left out.

    A file may have several packets, one after the other, with zeros between and behind them. The image is the one
    that most of the whole packets belong to, copies counted once; packets of other images are strays. Raises UserError where no
    packet is whole, and where no image has most of them.
    """
    packets: dict[str, Packet] = {}
    damaged: dict[str, str] = {}
    for file, data in files.items():
        parts = separate(data)
        for i, part in enumerate(parts, 1):
            name = file if len(parts) == 1 else f"{file}, packet {i}"
            try:
                packets[name] = unpack(part)
            except UserError as error:
                damaged[name] = str(error)
    if not packets:
        raise none_is_whole(damaged)
    different = dict.fromkeys((packet.image, packet.number) for packet in packets.values())
    [(image, count)] = Counter(image for image, _ in different).most_common(1)
    strays = [name for name, packet in packets.items() if packet.image != image]
    first = next(name for name in packets if name not in strays)
    if strays and 2 * count <= len(different):
        raise UserError(f"{strays[0]}: is a packet of another image than {first}; decompress the packets of each image apart, "
                        f"or name a folder with -o for the pictures of all")  # fmt: skip
    damaged |= dict.fromkeys(strays, f"is a packet of another image than {first}")
    return {name: packet for name, packet in packets.items() if packet.image == image}, damaged


def none_is_whole(damaged: Mapping[str, str]) -> UserError:
    """Return the error for packets none of which can be used."""
    if not damaged:
        return UserError("there are no packets")
    name, reason = next(iter(damaged.items()))
    others = f", and so for the {len(damaged) - 1} others" if len(damaged) > 1 else ""
    return UserError(f"{name}: {reason}{others}; there is no packet to make a picture of")
