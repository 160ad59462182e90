#!/usr/bin/env python3
"""Train a conditional GAN: train.py with the preset cGAN/camvid.json.

    python3 cGAN/train.py -ds camvid_train.h5 --classes classes.csv -name run
    python3 cGAN/train.py -ds camvid_train.h5 --classes classes.csv -name run -k semantic_code=learned
    python3 cGAN/train.py -ds camvid_train.h5 -name run -rl

-ds: a path table with a column semantic_map_paths. All options are those of train.py; its -k has the last word.
"""

import os
import sys
from pathlib import Path

PRESET = Path(__file__).with_name("camvid.json")
TRAIN = Path(__file__).resolve().parent.parent / "train.py"


def arguments(argv: list[str]) -> list[str]:
    """Return what train.py is called with. A run that goes on keeps its knobs; it must be that of a conditional GAN."""
    options = {argument.partition("=")[0] for argument in argv}
    if "--fit-entropy" in options:
        return argv
    if options & {"-r", "--restore", "-rl", "--restore-last"}:
        return ["-k", "use_conditional_GAN=true", *argv]
    return ["-c", str(PRESET), *argv]


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, str(TRAIN), *arguments(sys.argv[1:])])
