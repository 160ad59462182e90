"""What compress.py --packets does: an image becomes packets, of which some may get lost on their way."""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from commands import packet_files
from commands.coder import Coder
from commands.folder_run import FolderRun, Input, Job, Made, outputs_of
from commands.guide import Guide
from commands.images import Files
from commands.options import ModelChoice, Say, warn_of_large_files
from commands.workers import Workers
from config import UserError
from evaluation.metrics import measures, similarity
from gcodec import Codec, packets, read_image
from gcodec.container import SMALLEST
from gcodec.streams import STREAM
from utils import Utils


def check_packet_options(size: int, choice: ModelChoice, output: str | None, channels: int, guide: Guide) -> None:
    """Raise UserError for a size that no image fits into, and for options that do not go with --packets."""
    if size <= (beside := packets.HEADER_SIZE + SMALLEST):
        raise UserError(f"--packets {size}: must be more than {beside}, which headers and checksum take")
    choice.one("--packets takes one")
    if output == STREAM:
        raise UserError("--packets: makes several files, which do not go to standard output; name a folder")
    if channels:
        raise UserError("--packets: does not go with --channels; packets have all channels")
    if guide != Guide():
        raise UserError("--packets: does not go with label maps; leave out -sm, --instances, --preserve, --mask and the like")


def image_to_packets(
    load: Callable[[], Coder],
    read: Callable[[], np.ndarray],
    source: Path,
    output: str,  #         see packet_files.outputs
    size: int,  #           bytes of a packet, at most
    say: Say,
    files_only: bool = False,
    overwrite: bool = False,
) -> None:
    """Write the packets of an image, and the side-by-side picture if it was asked for; say what was measured."""
    start, picture = packet_files.outputs(output, source)
    if picture and picture.resolve() == source.resolve():
        raise UserError(f"{picture}: is the input itself; write somewhere else")
    if picture and files_only:
        raise UserError(f"{picture}: --files-only writes no picture; name a folder, or OUT{packets.SUFFIX}")
    packet_files.refuse_existing_packets(start, picture, overwrite)
    image = read()
    codec = load().codecs[0]
    sent, reconstruction, result = encode(codec, image, source, size, decode=not files_only)
    side_by_side = None
    if reconstruction is not None:
        caption = f"{len(sent)} packets, {result['bytes']:,} bytes, PSNR {result['psnr']:.2f} dB"
        side_by_side = Utils.side_by_side([image, reconstruction], [source.name, caption])
    files = packet_files.write(sent, start, picture, side_by_side, overwrite)
    warn_of_large_files(codec)
    say(f"image:           {source.name}, {result['width']}x{result['height']}")
    say(f"packets:         {len(sent)} of at most {size} bytes, {files[0]} to {files[-1].name}")
    say(f"together:        {result['bytes']} bytes, {result['bpp']:.4f} bits per pixel")
    if reconstruction is not None:
        say(f"PSNR:            {result['psnr']:.2f} dB")
        say(f"MS-SSIM:         {similarity(result)}")
    if picture:
        say(f"side by side:    {picture}")


def folder_to_packets(
    coder: Coder,
    inputs: list[Input],
    output: Path,
    size: int,  #                 bytes of a packet, at most
    say: Say,
    workers: Workers,
    files_only: bool = False,
    overwrite: bool = False,
) -> int:
    """Write the packets of each image into a folder with results.csv. A bad image is named and costs the others nothing."""
    packets.check_model(coder.codecs[0])

    def job(source: Input, start: Path) -> Job:
        return Job(source, start, lambda: [source.path], lambda: packet_files.existing(start), lambda row: complete(row, start))

    def write(job: Job, sent: list[bytes]) -> None:
        packet_files.write(sent, job.output, overwrite=overwrite)

    starts = {source: output / name.with_suffix("") for source, name in outputs_of(inputs, packets.SUFFIX).items()}
    run = FolderRun(output, "image", coder.settings("packets", size), overwrite)
    make = functools.partial(packets_of_file, coder, size, files_only)
    with workers.within_memory([source.path for source in inputs], coder.codecs).started() as spread:
        rows, kept = run.work([job(*pair) for pair in starts.items()], make, "compressed", say, spread, write)
    warn_of_large_files(*coder.codecs)
    if kept:
        say(f"kept: {kept} images that were finished already")
    say(f"packets: {sum(row['packets'] for row in rows)} of at most {size} bytes, of {len(rows)} images")
    say(f"results: {run.path}")
    return 2 if run.failures else 0


def packets_of_file(coder: Coder, size: int, files_only: bool, source: Input, files: Files) -> Made:
    """Return what was measured of an image in a folder, by name, and its packets."""
    image = read_image(files[0] or source.path, coder.knobs.max_pixels)
    sent, _, row = encode(coder.codecs[0], image, source.path, size, decode=not files_only)
    return row, sent


def encode(
    codec: Codec, image: np.ndarray, source: Path, size: int, decode: bool
) -> tuple[list[bytes], np.ndarray | None, dict[str, Any]]:
    """Return the packets of an image, the picture that all of them give (with `decode`), and what was measured, by name."""
    begin = time.perf_counter()
    try:
        sent = packets.encode(codec, image, size)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    picture = packets.decode(codec, {str(i): data for i, data in enumerate(sent)}).image if decode else None
    result = {"packets": len(sent), **measures(image, sum(map(len, sent)), picture)}
    return sent, picture, result | {"seconds": time.perf_counter() - begin}


def complete(row: Mapping[str, Any], start: Path) -> bool:
    """Whether the packets that a row of results.csv is about are all there, and no others."""
    files = packet_files.existing(start)
    return files == packet_files.names(start, row["packets"]) and row["bytes"] == sum(path.stat().st_size for path in files)
