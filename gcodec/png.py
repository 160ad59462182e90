"""A PNG file without what does not make the picture.

Metadata may be huge, or expand to something huge, or be damaged, while the picture is well. Pillow then refuses the file, so
it is shown only the chunks that matter.
"""

import io
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO

from PIL import PngImagePlugin

from gcodec.colour import CURVES, HDR, PRIMARIES
from gcodec.errors import UserError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", *COLOURS)
GRAY, RGB = 0, 2  # colour types

MAX_PROFILE = 2**24  # bytes; profiles of printers take 2 MB
PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE  # which Pillow applies to them too


def without_metadata(file: BinaryIO, max_bytes: int, warn: Callable[[str], None]) -> io.BytesIO:
    """Return a PNG with the chunks that make the picture. A file that ends early is given an end, and reported.

    An animation is left with its default image, which is reported. Raises UserError where these chunks take more than
    max_bytes, and for the PNG files inside of iPhone applications, which are of another format.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(len(SIGNATURE))
    kept, header, colours = io.BytesIO(), b"", dict[bytes, bytes]()
    kept.write(SIGNATURE)
    while len(start := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", start)
        length = min(length, size)  # a damaged length would allocate as much
        if name == b"CgBI":
            raise UserError("is a PNG of Apple's own kind (CgBI), from inside of an application; Xcode's pngcrush reverts it")
        if name == b"acTL":
            warn(several(int.from_bytes(file.read(4), "big")))
            file.seek(-4, io.SEEK_CUR)
        if name not in KEPT:
            file.seek(length + 4, io.SEEK_CUR)
            continue
        if kept.tell() + length > max_bytes:
            raise UserError(f"has over {max_bytes >> 20} MiB of compressed pixels")
        body, crc = file.read(length), file.read(4)
        if name in COLOURS:
            colours[name] = _chunk(name, body, crc)
            continue
        if name == b"IHDR":
            header = body
        else:  # the chunks about colours come after the header
            kept.write(_colours(colours, warn))
            colours.clear()
        if name == b"tRNS":
            body, crc = _transparency(body, header), b""
        kept.write(_chunk(name, body, crc))
        if name == b"IEND":
            return kept
    kept.write(_chunk(b"IEND", b""))
    warn("is cut short: its end is missing")
    return kept


def several(n: int) -> str:
    """Return the warning for a file of n pictures."""
    return f"has {n} pictures; only the first is read"


def _chunk(name: bytes, body: bytes, crc: bytes = b"") -> bytes:
    """Return a chunk with its checksum, which is computed if the file has none."""
    if len(crc) < 4:
        crc = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I4s", len(body), name) + body + crc


def _colours(chunks: dict[bytes, bytes], warn: Callable[[str], None]) -> bytes:
    """Return the chunks that say what the colours are, given by name. cICP, which Pillow does not know, replaces the others."""
    coding = chunks.pop(b"cICP", b"")[8:-4]
    if len(coding) == 4:
        primaries, curve, matrix, full_range = coding
        if primaries in PRIMARIES and curve in CURVES and (matrix, full_range) == (0, 1):
            gamma = struct.pack(">I", round(1e5 * CURVES[curve]))
            chromaticities = struct.pack(">8I", *(round(1e5 * v) for v in PRIMARIES[primaries]))
            return _chunk(b"gAMA", gamma) + _chunk(b"cHRM", chromaticities)
        kind = f"they are for HDR displays, {HDR[curve]}" if curve in HDR else f"the cICP chunk {tuple(coding)} is not known"
        warn(f"its colours are not converted to sRGB ({kind})")
    if b"iCCP" in chunks and not _inflates(chunks[b"iCCP"][8:-4]):
        warn("its colour profile is ignored (it is damaged, or huge)")
        del chunks[b"iCCP"]
    return b"".join(chunks.values())


def _inflates(body: bytes) -> bool:
    """Whether an iCCP chunk holds a profile of bearable size."""
    _, _, rest = body.partition(b"\0")
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(rest[1:], MAX_PROFILE)
    except zlib.error:
        return False
    return rest[:1] == b"\0" and inflater.eof


def _transparency(body: bytes, header: bytes) -> bytes:
    """Return the transparent colour in 8 bits where Pillow has the pixels so, but not the colour."""
    if len(header) < 10:
        return body
    depth, kind = header[8:10]
    if kind == GRAY and depth in (2, 4) and len(body) == 2:
        return struct.pack(">H", int.from_bytes(body, "big") * 255 // (2**depth - 1) & 0xFFFF)
    if kind == RGB and depth == 16 and len(body) == 6:
        return bytes(v for high in body[::2] for v in (0, high))
    return body
