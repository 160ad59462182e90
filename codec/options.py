"""What the commands share: the options that name a checkpoint and knobs, and a warning about a checkpoint."""

import argparse
from pathlib import Path

from codec.checkpoint import newest_checkpoint
from codec.codec import Codec
from codec.entropy import StaticTables
from codec.files import warn
from codec.models import Models
from config import config_test, directories
from utils import PROJECT, Utils


def add_model_arguments(parser: argparse.ArgumentParser, default: str = "the one that ships") -> None:
    """Add the options that name a checkpoint and knobs. default: what -r's help says is used without it."""
    model = parser.add_mutually_exclusive_group()
    model.add_argument("-r", "--restore", metavar="CKPT", help=f"checkpoint or run folder (default: {default})")
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
    return Path(args.restore) if args.restore else None


def models_here(where: directories) -> Models:
    """Return the models that files may be of: those in the working directory's folder, those that ship, and the default."""
    return Models([where.checkpoints, PROJECT / where.checkpoints, Utils.locate(where.default_checkpoint)])


def warn_of_large_files(codec: Codec) -> None:
    """Warn if a checkpoint has no context model: its files are then about twice as large."""
    if isinstance(codec.checkpoint.entropy_models["symbols"], StaticTables):
        folder = codec.checkpoint.folder
        warn(f"{folder} has no context model, and its files are larger than need be: train.py --fit-entropy makes one")
