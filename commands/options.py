"""What the commands share: the options that name a checkpoint and knobs, what they decide, and a warning about a checkpoint."""

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from config import config_test, directories
from gcodec.checkpoint import SHIPPED, newest_checkpoint, read_knobs
from gcodec.codec import Codec
from gcodec.entropy import StaticTables
from gcodec.files import warn
from gcodec.finding import Models
from utils import PROJECT, Utils


def add_model_arguments(parser: argparse.ArgumentParser, default: str = "the one that ships", several: bool = False) -> None:
    """Add the options that name a checkpoint and knobs.

    default: what -r's help says is used without it. several: -r takes more than one, and args.restore is a list.
    """
    model = parser.add_mutually_exclusive_group()
    model.add_argument("-r", "--restore", metavar="CKPT", nargs="+" if several else None,
                       help=f"checkpoint or run folder (default: {default})")  # fmt: skip
    model.add_argument("-rl", "--restore-last", action="store_true", help="the newest checkpoint below checkpoints/")
    parser.add_argument("-k", "--knob", action="append", default=[], metavar="NAME=VALUE",
                        help="override a knob of config_test or directories; may be repeated")  # fmt: skip


def split_knobs(assignments: list[str]) -> tuple[directories, config_test]:
    """Return the knobs that -k changes, by their classes."""
    where, own = directories.split(assignments)
    return directories().override(where), config_test().override(own)


def chosen_checkpoint(args: argparse.Namespace, where: directories) -> Path:
    """Return the checkpoint that -r or -rl names, or the one that ships."""
    return named_checkpoint(args, where) or Utils.locate(where.default_checkpoint)


def named_checkpoint(args: argparse.Namespace, where: directories) -> Path | None:
    """Return the checkpoint that -r or -rl names; None without either."""
    if args.restore_last:
        return newest_checkpoint(where.checkpoints)
    return Path(args.restore[0] if isinstance(args.restore, list) else args.restore) if args.restore else None


def chosen_checkpoints(args: argparse.Namespace, where: directories) -> list[Path]:
    """Return the checkpoints that -r or -rl names, for a choice among them.

    Without either, these are the default checkpoint and those in the same folder whose files have nothing but symbols.
    """
    if args.restore_last:
        return [newest_checkpoint(where.checkpoints)]
    if args.restore:
        return [Path(path) for path in args.restore]
    default = Utils.locate(where.default_checkpoint)
    beside = sorted(config.parent for config in default.parent.glob("*/config.json"))
    return [folder for folder in beside if folder == default or read_knobs(folder).coded.keys() == {"symbols"}]


def models_here(where: directories) -> Models:
    """Return the models that files may be of: those that ship, the default, and those in the working directory's folder.

    Those that ship come first: a folder that a stranger made cannot take their place.
    """
    return Models([SHIPPED, Utils.locate(where.default_checkpoint), PROJECT / where.checkpoints, where.checkpoints])


def settings_of(own: config_test, model: str | None = None, *options: Any) -> str:
    """Return a fingerprint of whatever decides an output beside its input: knobs, options, and the model's fingerprint.

    model: None where the input itself says which one.
    """
    knobs = dataclasses.asdict(own)
    del knobs["max_pixels"]  # which decides only whether there is an output
    facts = [model, knobs, *options]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def warn_of_large_files(*codecs: Codec) -> None:
    """Warn of each checkpoint that has no context model: its files are then about twice as large."""
    for folder in [c.checkpoint.folder for c in codecs if isinstance(c.checkpoint.entropy_models["symbols"], StaticTables)]:
        warn(f"{folder} has no context model, and its files are larger than need be: train.py --fit-entropy makes one")
