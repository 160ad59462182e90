"""What compress.py --packets does: an image becomes packets, of which some may get lost on their way."""

import argparse
from pathlib import Path

from codec import Codec, packet_files, packets, read_image
from codec.options import chosen_checkpoint, warn_of_large_files
from codec.pictures import read_standard_image
from codec.streams import STANDARD_INPUT, STREAM
from config import UserError, config_test, directories
from evaluation.metrics import ms_ssim, psnr
from utils import Utils


def compress_to_packets(args: argparse.Namespace, where: directories, knobs: config_test) -> int:
    """Write the packets of an image, and the side-by-side picture if it was asked for; print what was measured."""
    check(args, knobs)
    source = STANDARD_INPUT if args.input[0] == STREAM else Path(args.input[0])
    start, picture = packet_files.outputs(args.output or str(Path(where.samples) / f"{source.stem}.png"), source)
    if picture and picture.resolve() == source.resolve():
        raise UserError(f"{picture}: is the input itself; write somewhere else")
    packet_files.refuse_existing_packets(start, picture, args.overwrite)
    image = read_standard_image(knobs.max_pixels) if source == STANDARD_INPUT else read_image(source, knobs.max_pixels)
    codec = Codec.load(chosen_checkpoint(args, where), knobs)
    try:
        sent = packets.encode(codec, image, args.packets)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    reconstruction = packets.decode(codec, {str(i): data for i, data in enumerate(sent)}).image
    size, decibels, similarity = sum(map(len, sent)), psnr(image, reconstruction), ms_ssim(image, reconstruction)
    caption = f"{len(sent)} packets, {size:,} bytes, PSNR {decibels:.2f} dB"
    side_by_side = Utils.side_by_side([image, reconstruction], [source.name, caption])
    files = packet_files.write(sent, start, picture, side_by_side, args.overwrite)
    warn_of_large_files(codec)
    height, width = image.shape[:2]
    print(f"image:           {source.name}, {width}x{height}")
    print(f"packets:         {len(sent)} of at most {args.packets} bytes, {files[0]} to {files[-1].name}")
    print(f"together:        {size} bytes, {8 * size / (width * height):.4f} bits per pixel")
    print(f"PSNR:            {decibels:.2f} dB")
    print("MS-SSIM:         " + ("n/a (under 161 px a side)" if similarity is None else f"{similarity:.4f}"))
    if picture:
        print(f"side by side:    {picture}")
    return 0


def check(args: argparse.Namespace, knobs: config_test) -> None:
    """Raise UserError for options that do not go with --packets."""
    if len(args.input) > 1 or Path(args.input[0]).is_dir():
        raise UserError("--packets: takes one image; run it once for each")
    if len(args.restore or ()) > 1:
        raise UserError("--packets: takes one model; name one with -r")
    if args.output == STREAM:
        raise UserError("--packets: makes several files, which do not go to standard output; name a folder")
    if knobs.channels:
        raise UserError("--packets: does not go with --channels; packets have all channels")
    guiding = (args.semantic_map, args.instances, args.preserve, args.synthesize, args.mask, args.box)
    if any(option is not None for option in guiding):
        raise UserError("--packets: does not go with label maps; leave out -sm, --instances, --preserve, --mask and the like")
