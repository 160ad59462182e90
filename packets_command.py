"""What compress.py --packets does: an image becomes packets, of which some may get lost on their way."""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from commands.options import chosen_checkpoint, settings_of, warn_of_large_files
from commands.runtime import load_codec
from config import UserError, config_test, directories
from evaluation.metrics import ms_ssim, psnr
from gcodec import Codec, packet_files, packets, read_image
from gcodec.folder_run import FolderRun, Input, digest, outputs_of, progress
from gcodec.pictures import read_standard_image
from gcodec.streams import STANDARD_INPUT, STREAM
from utils import Utils


def check_packet_options(args: argparse.Namespace, knobs: config_test) -> None:
    """Raise UserError for options that do not go with --packets."""
    if len(args.restore or ()) > 1:
        raise UserError("--packets: takes one model; name one with -r")
    if args.output == STREAM:
        raise UserError("--packets: makes several files, which do not go to standard output; name a folder")
    if knobs.channels:
        raise UserError("--packets: does not go with --channels; packets have all channels")
    guiding = (args.semantic_map, args.instances, args.preserve, args.synthesize, args.mask, args.box)
    if any(option is not None for option in guiding):
        raise UserError("--packets: does not go with label maps; leave out -sm, --instances, --preserve, --mask and the like")


def image_to_packets(args: argparse.Namespace, where: directories, knobs: config_test) -> int:
    """Write the packets of an image, and the side-by-side picture if it was asked for; print what was measured."""
    source = STANDARD_INPUT if args.input[0] == STREAM else Path(args.input[0])
    start, picture = packet_files.outputs(args.output or str(Path(where.samples) / f"{source.stem}.png"), source)
    if picture and picture.resolve() == source.resolve():
        raise UserError(f"{picture}: is the input itself; write somewhere else")
    packet_files.refuse_existing_packets(start, picture, args.overwrite)
    image = read_standard_image(knobs.max_pixels) if source == STANDARD_INPUT else read_image(source, knobs.max_pixels)
    codec = load_codec(chosen_checkpoint(args, where), knobs)
    sent, reconstruction, result = encode(codec, image, source, args.packets)
    caption = f"{len(sent)} packets, {result['bytes']:,} bytes, PSNR {result['psnr']:.2f} dB"
    side_by_side = Utils.side_by_side([image, reconstruction], [source.name, caption])
    files = packet_files.write(sent, start, picture, side_by_side, args.overwrite)
    warn_of_large_files(codec)
    similarity = "n/a (under 161 px a side)" if result["ms_ssim"] is None else f"{result['ms_ssim']:.4f}"
    print(f"image:           {source.name}, {result['width']}x{result['height']}")
    print(f"packets:         {len(sent)} of at most {args.packets} bytes, {files[0]} to {files[-1].name}")
    print(f"together:        {result['bytes']} bytes, {result['bpp']:.4f} bits per pixel")
    print(f"PSNR:            {result['psnr']:.2f} dB")
    print(f"MS-SSIM:         {similarity}")
    if picture:
        print(f"side by side:    {picture}")
    return 0


def folder_to_packets(
    args: argparse.Namespace, where: directories, knobs: config_test, inputs: list[Input], output: Path
) -> int:
    """Write the packets of each image into a folder with results.csv. A bad image is named and costs the others nothing."""
    codec = load_codec(chosen_checkpoint(args, where), knobs)
    packets.check_model(codec)
    starts = {source: output / name.with_suffix("") for source, name in outputs_of(inputs, packet_files.SUFFIX).items()}
    settings = settings_of(knobs, codec.checkpoint.fingerprint.hex(), "packets", args.packets)
    run = FolderRun(output, "image", settings, args.overwrite)
    run.check({str(source.name): packet_files.existing(start) for source, start in starts.items()})
    results, kept = [], 0
    for source, start in progress(starts.items(), "image"):
        with run.skipping():
            sha256 = digest(source.path)
            row = run.finished(str(source.name), sha256, packet_files.existing(start))
            if row and complete(row, start):
                kept += 1
            else:
                sent, _, row = encode(codec, read_image(source.path, knobs.max_pixels), source.path, args.packets)
                packet_files.write(sent, start, overwrite=args.overwrite)
                run.add(str(source.name), sha256, row)
            results.append(row)
    if not results:
        raise UserError(f"{inputs[0].root}: none of its {run.failures} images could be compressed")
    warn_of_large_files(codec)
    if kept:
        print(f"kept: {kept} images that were finished already")
    print(f"packets: {sum(row['packets'] for row in results)} of at most {args.packets} bytes, of {len(results)} images")
    print(f"results: {run.path}")
    return 2 if run.failures else 0


def encode(codec: Codec, image: np.ndarray, source: Path, size: int) -> tuple[list[bytes], np.ndarray, dict[str, Any]]:
    """Return the packets of an image, the picture that all of them give, and what was measured, by name."""
    begin = time.perf_counter()
    try:
        sent = packets.encode(codec, image, size)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    reconstruction = packets.decode(codec, {str(i): data for i, data in enumerate(sent)}).image
    (height, width), together = image.shape[:2], sum(map(len, sent))
    return sent, reconstruction, {
        "width": width,
        "height": height,
        "packets": len(sent),
        "bytes": together,
        "bpp": 8 * together / (width * height),
        "psnr": psnr(image, reconstruction),
        "ms_ssim": ms_ssim(image, reconstruction),
        "seconds": time.perf_counter() - begin,
    }  # fmt: skip


def complete(row: Mapping[str, Any], start: Path) -> bool:
    """Whether the packets that a row of results.csv is about are all there, and no others."""
    files = packet_files.existing(start)
    return files == packet_files.names(start, row["packets"]) and row["bytes"] == sum(path.stat().st_size for path in files)
