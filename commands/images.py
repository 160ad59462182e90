"""What becomes of one input: an image becomes a file and a picture of it, and a file or packets become a picture.

Nothing is written here. Whoever calls these functions, which may be another process (workers.py), writes what they return.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from commands import packet_files
from commands.coder import Coder
from commands.folder_run import Input, Made, Row
from commands.guide import Guide
from config import UserError
from evaluation.metrics import measures, psnr
from gcodec import Codec, packets, read_image
from gcodec.compressed_files import read_compressed
from gcodec.container import unpack
from gcodec.files import warn
from gcodec.finding import Codecs
from gcodec.inspection import arrived
from gcodec.knobs import ModelKnobs
from gcodec.labels import Classes, LabelMap
from gcodec.pictures import picture_bytes
from utils import Utils

Files = Sequence[Path | None]

# ----------------------------------------------------------------------------------------------------------------------
# An image becomes a file
# ----------------------------------------------------------------------------------------------------------------------


def compress_file(coder: Coder, guide: Guide, files_only: bool, source: Input, files: Files) -> Made:
    """Return what was measured of an image in a folder, by name, its .gc file and, unless `files_only`, the picture's PNG.

    files: the image, its label map, its instance map and its mask, which are None for a model that takes none.
    """
    path, *maps = files
    image = read_image(path or source.path, coder.knobs.max_pixels)
    picture = None if files_only else source.name.with_suffix(".png")
    row, made = compress_image(coder, image, source, guide, maps, not files_only, picture)
    return row | {"image": str(source.name)}, made


def compress_image(
    coder: Coder,
    image: np.ndarray,
    source: Input,
    guide: Guide,
    maps: Files,  #                   the files of its label map, its instance map and its mask
    decode: bool = True,  #           measure what the file gives, too
    picture: Path | None = None,  #   the name of a side-by-side picture, which says its format
) -> Made:
    """Return what was measured of an image, by name, and the contents of its .gc file and of the picture, if there is one."""
    labels = guide.read(coder.config, image, source, *maps)
    start = time.perf_counter()
    try:
        codec, data, shown = coder.encode(image, labels, decode)
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from None
    shown = shown if decode else None
    row: Row = {"image": source.path.name, **measures(image, len(data), shown), "seconds": time.perf_counter() - start}
    if coder.budget:
        coded_height, coded_width = unpack(data).header.coded_size
        row |= {"model": codec.checkpoint.folder.name, "coded_width": coded_width, "coded_height": coded_height}
    if labels is not None:
        row |= measure_parts(image, shown, labels, codec.sections(data))
    if picture is None or shown is None:
        return row, [data]
    return row, [data, picture_bytes(side_by_side(image, shown, labels, codec, row), picture)]


def measure_parts(image: np.ndarray, picture: np.ndarray | None, labels: LabelMap, sections: Mapping[str, bytes]) -> Row:
    """Return the bytes of each part of the file, and how well what is preserved came out."""
    result: Row = {f"{name}_bytes": len(part) for name, part in sections.items()}
    if labels.preserved is not None:
        kept = labels.preserved
        result["preserved_share"] = float(kept.mean())
        if picture is not None:
            result["preserved_psnr"] = psnr(image[kept], picture[kept]) if kept.any() else None
    return result


def side_by_side(image: np.ndarray, picture: np.ndarray, labels: LabelMap | None, codec: Codec, result: Row) -> Any:
    """Return the image beside its label map, if it has one, and its picture."""
    panels = {result["image"]: image, **label_panels(image, labels, codec.config, result)}
    structure = "" if result["ms_ssim"] is None else f", MS-SSIM {result['ms_ssim']:.3f}"
    panels[f"{result['bytes']:,} bytes, {result['bpp']:.4f} bpp, PSNR {result['psnr']:.2f} dB{structure}"] = picture
    return Utils.side_by_side(list(panels.values()), list(panels))


def label_panels(image: np.ndarray, labels: LabelMap | None, config: ModelKnobs, result: Row) -> dict[str, np.ndarray]:
    """Return the pictures of the label map and of what is preserved, by their captions."""
    panels: dict[str, np.ndarray] = {}
    if labels is not None:
        colours = Classes.parse(config.classes, config.n_classes).colours
        panels[f"label map, {result['code_bytes']:,} bytes"] = colours[labels.classes]
        if labels.preserved is not None:
            caption = f"preserved: {labels.preserved.mean():.0%} of the picture, {result['symbols_bytes']:,} bytes"
            panels[caption] = np.where(labels.preserved[..., None], image, 128).astype(np.uint8)
    return panels


# ----------------------------------------------------------------------------------------------------------------------
# A file becomes a picture
# ----------------------------------------------------------------------------------------------------------------------


def decompress_file(codecs: Codecs, source: Input, files: Files) -> Made:
    """Return what was measured of a .gc file in a folder, by name, and its picture's PNG."""
    data = read_compressed(files[0] or source.path)
    return decompress_data(codecs, data, source.path, source.name.with_suffix(".png"))


def decompress_data(codecs: Codecs, data: bytes, name: Path, picture: Path) -> Made:
    """Return what was measured of a .gc file's bytes, by name, and its picture in the format that its name says."""
    try:
        codec = codecs.of(data)
        start = time.perf_counter()
        image = codec.decode(data)
        seconds = time.perf_counter() - start
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    row = {"width": image.shape[1], "height": image.shape[0], "bytes": len(data), "seconds": seconds}
    return row, [picture_bytes(image, picture)]


def decompress_packets(codecs: Codecs, source: Input, files: Files) -> Made:
    """Return what was measured of an image's packets, by name, and the picture's PNG. Warns of packets that are missing."""
    contents = packet_files.read(filter(None, files))
    received, seconds = decode_packets(codecs, contents)
    if received.missing:
        warn(f"{source.path}: {arrived(received.total, received.missing)}")
    row = {
        "width": received.image.shape[1],
        "height": received.image.shape[0],
        "bytes": sum(map(len, contents.values())),
        "packets": received.total,
        "missing": len(received.missing),
        "seconds": seconds,
    }
    return row, [picture_bytes(received.image, source.name.with_suffix(".png"))]


def decode_packets(codecs: Codecs, contents: Mapping[str, bytes]) -> tuple[packets.Received, float]:
    """Return what packets give, by the model that made them, and the seconds that it took. Warns of those left out."""
    whole, _ = packets.read_packets(contents)
    first, packet = next(iter(whole.items()))
    try:
        codec = codecs.of_fingerprint(packet.header.fingerprint)
        codec.check(packet.header)
    except UserError as error:
        raise UserError(f"{first}: {error}") from None
    start = time.perf_counter()
    received = packets.decode(codec, contents)
    seconds = time.perf_counter() - start
    for name, reason in received.damaged.items():
        warn(f"{name}: {reason}; left out")
    return received, seconds
