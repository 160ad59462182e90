#!/usr/bin/env python3
"""Bring the images of a folder to the size that a dataset trains at, as PNGs in another folder, without ImageMagick.

python3 data/resample.py cityscapes/leftImg8bit/train cityscapes_512/train --fit 512x1024
python3 data/resample.py ADE20k/train ADE20k_512/train --fit width512

An image that is there already stays if it is the same; another one is replaced only with --overwrite.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import UserError, config_train
from data import to_size
from gcodec.files import output_names, warn
from gcodec.pictures import images_in, read_image, save_picture
from utils import Utils


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Utils.parser(__doc__)
    parser.add_argument("folder", help="of images, searched with its subfolders")
    parser.add_argument("output", help="folder to write to; not the same one")
    parser.add_argument("--fit", choices=("512x1024", "width512"), default="512x1024",
                        help="height x width (Cityscapes), or width 512 and sides cut to multiples of 16 (ADE20k)")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace images that are there already")
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    source, output = Path(args.folder).resolve(), Path(args.output).resolve()
    if output.is_relative_to(source) or source.is_relative_to(output):
        raise UserError(f"{args.output}: write to a folder apart from {args.folder}; nothing is resampled in place")
    if not source.is_dir():
        raise UserError(f"{args.folder}: no such folder")
    images = images_in(source)
    failures = 0
    for image, name in output_names(images, source, ".png").items():
        try:
            pixels = read_image(image, config_train().max_pixels)
        except UserError as error:
            warn(f"skipped: {error}")
            failures += 1
            continue
        save_picture(to_size(pixels, args.fit), output / name, args.overwrite)
    print(f"{output}: {len(images) - failures} images")
    return 2 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
