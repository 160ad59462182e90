#!/usr/bin/env python3
"""Train a conditional GAN: train.py with the preset cGAN/camvid.json.

    python3 cGAN/train.py -ds camvid_train.h5 --classes classes.csv -name run
    python3 cGAN/train.py -ds camvid_train.h5 --classes classes.csv -name run -k semantic_code=learned

-ds: a path table with a column semantic_map_paths. All options are those of train.py; its -k has the last word.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train

PRESET = Path(__file__).with_name("camvid.json")


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    args = train.parse_args(arguments)
    if args.fit_entropy:
        return train.main(arguments)
    goes_on = args.restore or args.restore_last  # then the knobs are the checkpoint's, which must be a conditional GAN
    values = {"use_conditional_GAN": True} if goes_on else json.loads(PRESET.read_text())
    knobs = [part for name, value in values.items() for part in ("-k", f"{name}={value}")]
    return train.main([*knobs, *arguments])


if __name__ == "__main__":
    sys.exit(main())
