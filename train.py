#!/usr/bin/env python3
"""Train a model.

    python3 train.py -opt momentum --name run                 # the paper's network, for a GPU, on the sample photos that ship
    python3 train.py -c presets/first_try.toml --name first   # five minutes on two cores, with a picture to recognize
    python3 train.py -c presets/photo_structure.toml -ds photos_train.h5 --name photo --steps 60000  # a photo model, for CPUs
    python3 train.py -rl --name run -ds sample                # go on from the newest checkpoint of that run
    python3 train.py --fit-entropy -r checkpoints/run -ds photos_train.h5  # fit the context model of a checkpoint alone
    tensorboard --logdir tensorboard                       # watch

Where training starts: -r CKPT (that checkpoint; one without training.npz gives its weights, at step 0), -rl (the newest of
this run), --transfer CKPT (the weights that fit, at step 0), or from scratch. But for the last, the knobs are the
checkpoint's. The data set is not stored: -r and -rl take -ds again. -c FILE changes knobs, and -k has the last word.
How long: --steps, --epochs, or the knob num_epochs.
"""

import argparse
import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.loading import load_codec
from config import UserError, config_train, directories
from data import Data, Dataset
from gcodec.checkpoint import Checkpoint, read_checkpoint, resolve_checkpoint
from gcodec.files import locked
from gcodec.labels import Classes
from training import distribution
from training.console import unbreakable
from training.folders import RunFolders
from utils import Utils

if TYPE_CHECKING:
    from training.run import Run
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


@unbreakable
@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    elsewhere, own = directories.split(args.knob)
    where = directories().override(elsewhere)
    changes = read_changes(args.config, args.classes, args.optimizer, own)
    if not (args.restore or args.restore_last or args.transfer):  # whose knobs the changes must suit instead; see prepare
        config_train().replace(changes)  # before a folder is made
    if min(n for n in (args.steps, args.epochs, 1) if n is not None) < 1:
        raise UserError("--steps and --epochs: at least 1")
    goes_on = bool(args.restore or args.restore_last)
    if args.fit_entropy:
        check_fit(goes_on, bool(args.steps or args.epochs or args.optimizer or args.classes), changes)
    if goes_on and not args.dataset:
        raise UserError("-ds: name the data set again, a checkpoint does not store it (-ds sample: the photos that ship)")
    data_set = args.dataset or "sample"
    dataset = Data.dataset(data_set, where, args.val)
    folders = RunFolders.of(args.name, where)
    if args.fit_entropy:
        return fit_entropy(args.restore or folders.checkpoints, changes, dataset)
    source = args.restore or (folders.checkpoints if args.restore_last else None)
    again = ["train.py", "-rl", "--name", args.name, "-ds", data_set, *(["--val", args.val] if args.val else [])]
    with folders.locked() if distribution.is_chief() else contextlib.nullcontext():  # the others write nothing
        run, end = prepare(folders, dataset, changes, source, args.transfer, args.steps, args.epochs, shlex.join(again))
        return run.train(end) if run.first < end else 0


def read_changes(files: list[str], classes: str | None, optimizer: str | None, knobs: list[str]) -> dict[str, Any]:
    """Return the values that the command line gives to knobs of config_train. What comes later has the last word."""
    changes: dict[str, Any] = {}
    for file in files:
        changes |= config_train.read(Utils.locate(file))
    if classes:
        changes |= class_knobs(classes)
    if optimizer:
        changes["optimizer"] = optimizer
    return changes | config_train.parse(knobs)


def class_knobs(file: str | Path) -> dict[str, Any]:
    classes = Classes.read(file)
    return {"classes": str(classes), "n_classes": len(classes)}


def check_fit(goes_on: bool, others: bool, changes: dict[str, Any]) -> None:
    """Raise UserError for what does not go with --fit-entropy, which changes nothing of the networks."""
    if not goes_on:
        raise UserError("--fit-entropy: name the checkpoint with -r or -rl")
    if others:
        raise UserError(
            "--fit-entropy: takes no --steps, --epochs, -opt or --classes; the knob entropy_steps says how long it takes"
        )
    if other := sorted(set(changes) - {"entropy_steps", "seed", "max_pixels"}):
        raise UserError(
            f"--fit-entropy: knob {other[0]} is the checkpoint's; only entropy_steps, seed and max_pixels can be changed"
        )


def fit_entropy(source: str | Path, changes: dict[str, Any], dataset: Dataset) -> int:
    folder = resolve_checkpoint(source)
    codec = load_codec(folder)
    config = codec.checkpoint.knobs(config_train).replace(changes)
    if not config.entropy_steps:
        raise UserError("knob entropy_steps: 0 steps fit nothing; give -k entropy_steps=6000")
    from training.fit_entropy import fit_context_models

    with locked(folder.parent if folder.name.startswith("ckpt-") else folder, f"checkpoint {folder}"):
        fit_context_models(codec, config, folder, dataset)
    return 0


def prepare(
    folders: RunFolders,
    dataset: Dataset,
    changes: dict[str, Any],  #      of knobs
    source: str | Path | None,  #    to go on from
    transfer: str | None,  #         to take weights from
    steps: int | None,  #            to train up to, if it is a step
    epochs: int | None,  #           or an epoch; otherwise, the knob num_epochs says
    again: str,  #                   the command that goes on with this run
) -> tuple["Run", int]:
    """Return a run that is ready to train, in folders that no other run writes to, and the step to train up to."""
    start = find_start(folders, source)
    if start is None and dataset.classes and not changes.get("classes") and config_train().replace(changes).use_conditional_GAN:
        changes = changes | class_knobs(dataset.classes)
    origin = read_checkpoint(source) if (source := start or transfer) else None
    config = (origin.knobs(config_train) if origin else config_train()).replace(changes)
    with Utils.importing_tensorflow():
        from training.run import Run

    devices = distribution.cluster(config)
    devices.check(config)
    data = Data(dataset, config)
    with devices.strategy.scope():
        trainer = build_trainer(origin, changes, goes_on=start is not None)
    devices.check_networks(trainer.networks.values())
    if config.use_conditional_GAN:
        data.warn_of_unknown_labels()
    epochs = epochs or config.num_epochs
    end = steps or epochs * data.steps_per_epoch
    if trainer.step >= end:
        why = f", which is where {epochs} epochs of {len(data.paths)} images in batches of {config.batch_size} end"
        goal = f"step {end}" + ("" if steps else why)
        print(f"nothing to do: training is at step {trainer.step}, and was to go up to {goal}; raise --steps or --epochs")
    elif devices.chief and not folders.is_taken:
        folders.move_aside()
    return Run(folders, devices, start, again, trainer, data, dataset), end


def find_start(folders: RunFolders, source: str | Path | None) -> Path | None:
    """Return the checkpoint to go on from, None for a new run. Raise UserError for a run that would be overwritten."""
    start = resolve_checkpoint(source) if source else None
    if folders.is_taken and (start is None or start.resolve() != resolve_checkpoint(folders.checkpoints).resolve()):
        raise UserError(
            f"run {folders.name}: there are checkpoints in {folders.checkpoints}; go on with -rl, or take another --name"
        )
    return start


def build_trainer(origin: Checkpoint | None, changes: dict[str, Any], *, goes_on: bool) -> "Trainer":
    """Build the trainer, from a checkpoint to go on from, from the weights of one that fit, or from scratch."""
    from training.trainer import Trainer

    if origin and goes_on:
        trainer = Trainer.start_from(origin, changes)
        print(f"going on from {origin.folder}, step {trainer.step}")
    elif origin:
        trainer, weights = Trainer.transfer(origin, changes)
        print(f"weights of {origin.folder}; afresh: {', '.join(weights.afresh) or 'none'}; taken in part, of another shape: "
              f"{', '.join(weights.in_part) or 'none'}; not used: {', '.join(weights.unused) or 'none'}")  # fmt: skip
    else:
        trainer = Trainer(config_train().replace(changes))
    return trainer


if __name__ == "__main__":
    sys.exit(main())
