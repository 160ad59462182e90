#!/usr/bin/env python3
"""Train a model.

    python3 train.py -opt momentum --name run                 # the paper's network, for a GPU, on the sample photos that ship
    python3 train.py -c presets/first_try.toml --name first   # five minutes on two cores, with a picture to recognize
    python3 train.py -c presets/photo_structure.toml -ds photos_train.h5 --name photo  # a small network, for a CPU
    python3 train.py -rl --name run -ds sample                # go on from the newest checkpoint of that run
    python3 train.py --fit-entropy -r checkpoints/run -ds photos_train.h5  # fit the context model of a checkpoint alone
    tensorboard --logdir tensorboard                       # watch

Where training starts: -r CKPT (that checkpoint; one without training.npz gives its weights, at step 0), -rl (the newest of
this run), --transfer CKPT (the weights that fit, at step 0), or from scratch. But for the last, the knobs are the
checkpoint's. The data set is not stored: -r and -rl take -ds again. -c FILE changes knobs, and -k has the last word.
How long: --steps, --epochs, or the knob num_epochs.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.runtime import load_codec
from config import UserError, config_train, directories
from data import Data, Dataset
from gcodec.checkpoint import read_knobs_as, resolve_checkpoint
from gcodec.labels import Classes
from training import distribution
from training.folders import RunFolders
from utils import Utils

if TYPE_CHECKING:
    from training.trainer import Trainer


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Utils.parser(__doc__)
    optimizers = config_train.__dataclass_fields__["optimizer"].metadata["allowed"]
    parser.add_argument("-opt", "--optimizer", choices=optimizers, help="optimizer of both updates; default: the knob's")
    parser.add_argument("-name", "--name", default="run", help="of the run and its folders (default: run)")
    parser.add_argument("-ds", "--dataset", metavar="DATASET", help="sample, cityscapes, ADE20k, camvid, a path table "
                        "(.h5, .csv) or a folder (default: sample; -r and -rl have no default)")  # fmt: skip
    parser.add_argument("--val", metavar="TABLE", help="held-out images, if DATASET is a table or a folder")
    parser.add_argument("--classes", metavar="CSV", help="names and colours of a label map's classes (columns index, name, R, "
                        "G, B): sets the knobs classes and n_classes (default: those of cityscapes and camvid)")  # fmt: skip
    start = parser.add_mutually_exclusive_group()
    start.add_argument("-rl", "--restore-last", action="store_true", help="go on from this run's newest checkpoint")
    start.add_argument("-r", "--restore", metavar="CKPT", help="go on from a checkpoint")
    start.add_argument("--transfer", metavar="CKPT", help="start at step 0 from a checkpoint's knobs, changed by -c and -k, "
                       "and those of its weights that still fit: another channel_bottleneck, for one")  # fmt: skip
    parser.add_argument("-c", "--config", action="append", default=[], metavar="FILE",
                        help="TOML or JSON with knobs of config_train, as presets/first_try.toml; may be repeated")  # fmt: skip
    parser.add_argument("-k", "--knob", action="append", default=[], metavar="NAME=VALUE",
                        help="override a knob of config_train or directories; may be repeated")  # fmt: skip
    parser.add_argument("--fit-entropy", action="store_true", help="train nothing but the context model, anew, of the "
                        "checkpoint that -r or -rl names; its files from before can then no longer be decoded")  # fmt: skip
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="train up to this step")
    length.add_argument("--epochs", type=int, help="train up to this epoch")
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    where_knobs, own_knobs = directories.split(args.knob)
    where = directories().override(where_knobs)
    changes = read_changes(args, own_knobs)
    config_train().replace(changes)  # before TensorFlow is imported: mistakes show at once
    if min(n for n in (args.steps, args.epochs, 1) if n is not None) < 1:
        raise UserError("--steps and --epochs: at least 1")
    if args.fit_entropy:
        check_fit(args, changes)
    dataset = Data.dataset(dataset_name(args), where, args.val)
    if args.fit_entropy:
        return fit_entropy(args, changes, dataset, where)
    return train(args, changes, dataset, where)


def dataset_name(args: argparse.Namespace) -> str:
    """Return what -ds says. Raise UserError where a default would go on with other photos than before."""
    if args.dataset is None and (args.restore or args.restore_last):
        raise UserError("-ds: name the data set again, a checkpoint does not store it (-ds sample: the photos that ship)")
    return args.dataset or "sample"


def read_changes(args: argparse.Namespace, knobs: list[str]) -> dict[str, Any]:
    """Return the values that the command line gives to knobs of config_train. What comes later has the last word."""
    changes: dict[str, Any] = {}
    for file in args.config:
        changes |= config_train.read(Utils.locate(file))
    if args.classes:
        changes |= class_knobs(Classes.read(args.classes))
    if args.optimizer:
        changes["optimizer"] = args.optimizer
    return changes | config_train.parse(knobs)


def class_knobs(classes: Classes) -> dict[str, Any]:
    return {"classes": str(classes), "n_classes": len(classes)}


def check_fit(args: argparse.Namespace, changes: dict[str, Any]) -> None:
    """Raise UserError for what does not go with --fit-entropy, which changes nothing of the networks."""
    if not (args.restore or args.restore_last):
        raise UserError("--fit-entropy: name the checkpoint with -r or -rl")
    if args.steps or args.epochs or args.optimizer or args.classes:
        raise UserError(
            "--fit-entropy: takes no --steps, --epochs, -opt or --classes; the knob entropy_steps says how long it takes"
        )
    if other := sorted(set(changes) - {"entropy_steps", "seed", "max_pixels"}):
        raise UserError(
            f"--fit-entropy: knob {other[0]} is the checkpoint's; only entropy_steps, seed and max_pixels can be changed"
        )


def fit_entropy(args: argparse.Namespace, changes: dict[str, Any], dataset: Dataset, where: directories) -> int:
    folder = resolve_checkpoint(args.restore or RunFolders.of(args.name, where).checkpoints)
    codec = load_codec(folder)
    config = codec.checkpoint.knobs(config_train).replace(changes)
    if not config.entropy_steps:
        raise UserError("knob entropy_steps: 0 steps fit nothing; give -k entropy_steps=6000")
    from training.fit_entropy import fit_context_models

    fit_context_models(codec, config, folder, dataset)
    return 0


def train(args: argparse.Namespace, changes: dict[str, Any], dataset: Dataset, where: directories) -> int:
    """Train, and then fit context models. Return the exit status."""
    folders = RunFolders.of(args.name, where)
    start = find_start(args, folders)
    if start is None and not changes.get("classes"):
        changes = changes | known_classes(dataset, config_train().replace(changes))
    source = start or (resolve_checkpoint(args.transfer) if args.transfer else None)
    config = (read_knobs_as(config_train, source) if source else config_train()).replace(changes)
    with Utils.importing_tensorflow():
        from training.run import Run

    devices = distribution.cluster(config)
    devices.check(config)
    if devices.chief:
        folders.check()
    data = Data.of(dataset, config)
    with devices.strategy.scope():
        trainer = build_trainer(start, args.transfer, changes)
    devices.check_networks([*trainer.model.networks.values(), trainer.discriminator])
    if config.use_conditional_GAN and (share := data.unknown_labels()) > 0.01:
        print(f"warning: {share:.0%} of the label maps' pixels are none of the {config.n_classes} classes and count as "
              f"void; see the knobs n_classes and classes", file=sys.stderr)  # fmt: skip
    steps = args.steps or (args.epochs or config.num_epochs) * data.steps_per_epoch
    status = Run(folders, devices).train(trainer, data, dataset, steps)
    if status and devices.chief:
        held_out = ["--val", args.val] if args.val else []
        print("go on with: train.py " + shlex.join(["-rl", "--name", args.name, "-ds", dataset_name(args), *held_out]))
    return status


def find_start(args: argparse.Namespace, folders: RunFolders) -> Path | None:
    """Return the checkpoint to go on from, None for a new run. Raise UserError for a run that would be overwritten."""
    source = args.restore or (folders.checkpoints if args.restore_last else None)
    start = resolve_checkpoint(source) if source else None
    if folders.is_taken and (start is None or start.resolve() != resolve_checkpoint(folders.checkpoints).resolve()):
        raise UserError(
            f"run {folders.name}: there are checkpoints in {folders.checkpoints}; go on with -rl, or take another --name"
        )
    return start


def known_classes(dataset: Dataset, config: config_train) -> dict[str, Any]:
    """Return the knobs that list the classes of a data set whose label maps are trained with, as far as they are known."""
    return class_knobs(Classes.read(dataset.classes)) if dataset.classes and config.use_conditional_GAN else {}


def build_trainer(start: Path | None, transfer: str | None, changes: dict[str, Any]) -> "Trainer":
    """Build the trainer, from a checkpoint, from the weights of one that fit, or from scratch."""
    from training.trainer import Trainer

    if start:
        trainer = Trainer.start_from(start, changes)
        print(f"going on from {start}, step {trainer.step}")
    elif transfer:
        trainer, weights = Trainer.transfer(transfer, changes)
        print(f"weights of {transfer}; afresh: {', '.join(weights.afresh) or 'none'}; taken in part, of another shape: "
              f"{', '.join(weights.in_part) or 'none'}; not used: {', '.join(weights.unused) or 'none'}")  # fmt: skip
    else:
        trainer = Trainer(config_train().replace(changes))
    return trainer


if __name__ == "__main__":
    sys.exit(main())
