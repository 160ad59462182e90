#!/usr/bin/env python3
"""Compress a photo to a .gc file, decode that file, and show both side by side.

    python3 compress.py -i photo.png -o out.png            # out.gc, and the side-by-side picture out.png
    python3 compress.py -i photo.png -o out.gc             # the file alone
    python3 compress.py -r checkpoints/run -i photos/ -o results/  # every image of a folder, and results.csv

Without -r the checkpoint that ships with the project compresses. Every figure is of the file on disk, header included.
"""

import argparse
import csv
import math
import sys
import time
from pathlib import Path

import numpy as np

from config import UserError, config_test
from data import Data
from decompress import add_model_arguments, decode, load_model, split_knobs
from utils import Utils


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument("-i", "--input", required=True, metavar="IMAGE", help="an image, or a folder of images")
    parser.add_argument("-o", "--output", metavar="OUT", help="OUT.png, OUT.gc, or a folder if IMAGE is one "
                        "(default: below the knob `samples`)")  # fmt: skip
    parser.add_argument("--channels", type=int, metavar="K", help="send the first K channels of the feature map only: a "
                        "smaller file, a worse picture (default: the knob `channels`)")  # fmt: skip
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.channels is not None and args.channels < 1:
        raise UserError(f"--channels {args.channels}: at least 1")
    channels = [f"channels={args.channels}"] if args.channels else []
    where, knobs = split_knobs(args.knob + channels)
    source = Path(args.input)
    if source.is_dir():
        images = Data.images_in(source)
        model = load_model(args, where)
        return compress_folder(model, images, source, Path(args.output or Path(where.samples) / source.name), knobs)
    output = Path(args.output or Path(where.samples) / f"{source.stem}.png")
    if output.suffix.lower() != ".gc":
        output = Utils.picture_path(output)
    if source.resolve() in (output.resolve(), output.with_suffix(".gc").resolve()):
        raise UserError(f"{output}: is the input itself; write somewhere else")
    image = Data.read_image(source, knobs.max_pixels)
    model = load_model(args, where)
    result = compress_image(model, image, source, output, knobs)
    print(report(result, model, knobs))
    print(f"compressed file: {output.with_suffix('.gc')}")
    if output.suffix.lower() != ".gc":
        print(f"side by side:    {output}")
    return 0


def encode(model, image: np.ndarray, channels: int = 0) -> bytes:
    """Image (H, W, 3) uint8 -> the bytes of a .gc file. `decompress.decode` is its inverse, but for the loss.

    channels: send only the first so many channels of the feature map; 0: all.
    """
    from codec import check_size, pack

    height, width = image.shape[:2]
    check_size(width, height)
    check_channels(model, channels)
    symbols = model.compress(image)[:, :, : channels or None]
    return pack(width, height, symbols.shape[2], model.fingerprint, model.entropy_model.encode(symbols))


def check_channels(model, channels: int) -> None:
    if channels > model.config.channel_bottleneck:
        raise UserError(f"channels {channels}: the model has {model.config.channel_bottleneck}; lower --channels")


def compress_image(model, image: np.ndarray, source: Path, output: Path, knobs: config_test) -> dict:
    """Write OUT.gc, and OUT.png unless `output` is the .gc file itself; return what was measured, by name."""
    height, width = image.shape[:2]
    start = time.perf_counter()
    try:
        data = encode(model, image, knobs.channels)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    encoded = time.perf_counter()
    reconstruction = decode(model, data, knobs)
    decoded = time.perf_counter()
    size = len(data)
    result = {
        "image": source.name,
        "width": width,
        "height": height,
        "bytes": size,
        "bpp": 8 * size / (width * height),
        "psnr": Utils.psnr(image, reconstruction),
        "ms_ssim": Utils.ms_ssim(image, reconstruction),
        "encode_seconds": encoded - start,
        "decode_seconds": decoded - encoded,
    }
    with Utils.atomic(output.with_suffix(".gc")) as path:  # the file appears after the picture, or neither does
        path.write_bytes(data)
        if output.suffix.lower() != ".gc":
            similarity = "" if result["ms_ssim"] is None else f", MS-SSIM {result['ms_ssim']:.3f}"
            caption = f"{size:,} bytes, {result['bpp']:.4f} bpp, PSNR {result['psnr']:.2f} dB{similarity}"
            Utils.save_picture(Utils.side_by_side([image, reconstruction], [source.name, caption]), output)
    return result


def report(result: dict, model, knobs: config_test) -> str:
    """What compress_image measured, a line each."""
    C, L = model.config.channel_bottleneck, model.config.L
    K = knobs.channels or C
    similarity = "n/a (under 161 px a side)" if result["ms_ssim"] is None else f"{result['ms_ssim']:.4f}"
    return "\n".join([
        f"image:           {result['image']}, {result['width']}x{result['height']}",
        f"file:            {result['bytes']} bytes",
        f"bits per pixel:  {result['bpp']:.4f} (bound {K * math.log2(L) / 256:.4f} for {K} of C={C} channels, L={L})",
        f"PSNR:            {result['psnr']:.2f} dB",
        f"MS-SSIM:         {similarity}",
        f"seconds:         encode {result['encode_seconds']:.2f}, decode {result['decode_seconds']:.2f}",
    ])  # fmt: skip


def compress_folder(model, images: list[str], source: Path, output: Path, knobs: config_test) -> int:
    """Compress each image with one model; write results.csv. An unreadable image is named and costs the others nothing."""
    from tqdm import tqdm

    if output.suffix.lower() in (".png", ".gc") or output.is_file():
        raise UserError(f"{output}: the input is a folder, so the output must be one too")
    if output.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{output}: write to a folder apart from {source}")
    check_channels(model, knobs.channels)
    results, failures = [], 0
    for image, name in tqdm(Utils.output_names(images, source, ".png").items(), unit="image"):
        try:
            pixels = Data.read_image(image, knobs.max_pixels)
            result = compress_image(model, pixels, Path(image), output / name, knobs)
        except UserError as error:
            tqdm.write(f"skipped: {error}", file=sys.stderr)
            failures += 1
            continue
        results.append(result | {"image": str(Path(image).relative_to(source))})
    if not results:
        raise UserError(f"{source}: none of its {failures} images could be compressed")
    with Utils.atomic(output / "results.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, results[0])
        writer.writeheader()
        writer.writerows(results)
    measured = {"bytes": ".0f", "bpp": ".4f", "psnr": ".2f", "ms_ssim": ".4f"}
    for name, form in measured.items():
        values = [result[name] for result in results if result[name] is not None]
        print(f"mean {name}: " + (f"{np.mean(values):{form}}" if values else "n/a") + f" over {len(values)} images")
    print(f"results: {output / 'results.csv'}")
    return 2 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
