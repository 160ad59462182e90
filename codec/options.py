"""The options that compress.py and decompress.py share: which checkpoint, and the knobs."""

import argparse
from pathlib import Path

from codec.checkpoint import newest_checkpoint
from config import config_test, directories
from utils import Utils


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_mutually_exclusive_group()
    model.add_argument("-r", "--restore", metavar="CKPT", help="checkpoint or run folder (default: the one that ships)")
    model.add_argument("-rl", "--restore-last", action="store_true", help="the newest checkpoint below checkpoints/")
    parser.add_argument("-k", "--knob", action="append", default=[], metavar="NAME=VALUE",
                        help="override a knob of config_test or directories; may be repeated")  # fmt: skip


def split_knobs(assignments: list[str]) -> tuple[directories, config_test]:
    """Return the knobs that -k changes, by their classes."""
    where, own = directories.split(assignments)
    return directories().override(where), config_test().override(own)


def chosen_checkpoint(args: argparse.Namespace, where: directories) -> Path:
    """Return the checkpoint that -r or -rl names, or the one that ships."""
    if args.restore_last:
        return newest_checkpoint(where.checkpoints)
    return Path(args.restore) if args.restore else Utils.locate(where.default_checkpoint)
