#!/usr/bin/env python3
"""Train a conditional GAN: train.py with cGAN/config.py's knobs on top of the defaults.

    python3 cGAN/train.py -ds camvid_train.h5 --classes classes.csv -name run
    python3 cGAN/train.py -ds camvid_train.h5 --classes classes.csv -name run -k semantic_code=learned

-ds: a path table with a column semantic_map_paths. All options are those of train.py; its -k still has the last word.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import importlib.util

import train


def main(argv: list[str] | None = None) -> int:
    spec = importlib.util.spec_from_file_location("cGAN_config", Path(__file__).with_name("config.py"))
    config = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(config)
    arguments = sys.argv[1:] if argv is None else argv
    args = train.parse_args(arguments)
    if args.fit_entropy:
        return train.main(arguments)
    goes_on = args.restore or args.restore_last  # then the knobs are the checkpoint's, which has to be of a conditional GAN
    values = {"use_conditional_GAN": True} if goes_on else config.KNOBS
    knobs = [part for name, value in values.items() for part in ("-k", f"{name}={value}")]
    return train.main([*knobs, *arguments])


if __name__ == "__main__":
    sys.exit(main())
