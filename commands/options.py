"""What the commands share: the options that name a checkpoint, knobs, inputs and outputs, and what they decide."""

import argparse
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import UserError, config_test, directories
from gcodec.checkpoint import SHIPPED, newest_checkpoint, read_knobs
from gcodec.codec import Codec
from gcodec.entropy import StaticTables
from gcodec.files import printable, warn
from gcodec.finding import Checkpoints
from utils import PROJECT, Utils


@dataclass(frozen=True)
class Say:
    """Prints what a command reports: nothing with --quiet, and details with --verbose. Warnings come in any case."""

    quiet: bool = False
    verbose: bool = False

    def __call__(self, line: str) -> None:
        if not self.quiet:
            print(line)

    def detail(self, line: str) -> None:
        if self.verbose:
            print(printable(line))


@dataclass(frozen=True)
class ModelChoice:
    """The checkpoints that a command line names, by -r or -rl; without either, those that ship."""

    restore: tuple[str, ...]
    last: bool
    where: directories

    @property
    def named(self) -> list[Path]:
        """The checkpoints that -r or -rl names; none without either."""
        return [newest_checkpoint(self.where.checkpoints)] if self.last else [Path(path) for path in self.restore]

    def one(self, reason: str = "takes one model") -> Path:
        """Return the checkpoint that is named, or the default one. Raises UserError, with the reason, if there are several."""
        if len(self.restore) > 1:
            raise UserError(f"-r: names several models, but {reason}")
        return (self.named or [Utils.locate(self.where.default_checkpoint)])[0]

    def several(self) -> list[Path]:
        """Return the checkpoints that are named, for a choice among them.

        Without any, these are the default checkpoint and those in the same folder whose files have nothing but symbols.
        """
        default = Utils.locate(self.where.default_checkpoint)
        beside = sorted(config.parent for config in default.parent.glob("*/config.json"))
        alike = (folder for folder in beside if folder == default or read_knobs(folder).sections.keys() == {"symbols"})
        return self.named or list(alike)

    def here(self) -> Checkpoints:
        """Return the models that files may be of. Those that ship come first: a stranger's folder cannot take their place."""
        where = self.where
        return Checkpoints([SHIPPED, Utils.locate(where.default_checkpoint), PROJECT / where.checkpoints, where.checkpoints])


# ----------------------------------------------------------------------------------------------------------------------
# Options
# ----------------------------------------------------------------------------------------------------------------------


def add_model_arguments(parser: argparse.ArgumentParser, default: str = "the one that ships", several: bool = False) -> None:
    """Add the options that name a checkpoint and knobs.

    default: what -r's help says is used without it. several: -r takes more than one.
    """
    model = parser.add_mutually_exclusive_group()
    model.add_argument("-r", "--restore", metavar="CKPT", nargs="+" if several else 1, default=[],
                       help=f"checkpoint or run folder (default: {default})")  # fmt: skip
    model.add_argument("-rl", "--restore-last", action="store_true", help="the newest checkpoint below checkpoints/")
    parser.add_argument("-k", "--knob", action="append", default=[], metavar="NAME=VALUE",
                        help="override a knob of config_test or directories; may be repeated")  # fmt: skip


def add_path_arguments(parser: argparse.ArgumentParser, inputs: str, output: str, metavar: tuple[str, str]) -> None:
    """Add the options that name inputs and an output, and those about what is printed. inputs, output: their help."""
    parser.add_argument("paths", nargs="*", metavar="IN OUT", help="the same as -i IN -o OUT; several IN take a folder as OUT")
    parser.add_argument("-i", "--input", nargs="+", action="extend", default=[], metavar=metavar[0], help=inputs)
    parser.add_argument("-o", "--output", metavar=metavar[1], help=output)
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that are there already")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="print warnings and errors only")
    loudness.add_argument("-v", "--verbose", action="store_true", help="say more: the model, and each file of a folder")


def add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that spread the inputs over many workers; see workers.py."""
    workers = parser.add_mutually_exclusive_group()
    workers.add_argument("-j", "--workers", type=int, metavar="N", help="work on several inputs in N processes, by Dask")
    workers.add_argument("--scheduler", metavar="ADDRESS", help="work on several inputs with the workers of this Dask "
                         "scheduler, such as tcp://HOST:8786")  # fmt: skip


def parse_with_paths(parser: argparse.ArgumentParser, argv: list[str] | None, needs_output: bool) -> argparse.Namespace:
    """Parse a command line, and bring inputs and output that it names by position to `input` and `output`.

    -r takes several models. Where no input is left then, it has one, and what follows are IN and OUT.
    """
    args = parser.parse_intermixed_args(argv)
    if not args.paths and not args.input:
        args.restore, args.paths = args.restore[:1], args.restore[1:]
    if args.paths and args.input:
        parser.error(f"{args.paths[0]}: name the inputs by their position or with -i, not both")
    if args.output is None and len(args.paths) > 1:
        args.output = args.paths.pop()
    args.input = args.input or args.paths
    missing = ["IN, or -i/--input"] * (not args.input) + ["OUT, or -o/--output"] * (needs_output and args.output is None)
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    return args


# ----------------------------------------------------------------------------------------------------------------------
# What they decide
# ----------------------------------------------------------------------------------------------------------------------


def split_knobs(assignments: list[str]) -> tuple[directories, config_test]:
    """Return the knobs that -k changes, by their classes."""
    where, own = directories.split(assignments)
    return directories().override(where), config_test().override(own)


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
