#!/usr/bin/env python3
"""Train a model.

    python3 train.py -opt momentum --name run              # on the sample photos that ship with the project
    python3 train.py -ds photos_train.h5 --name photo_c8 -k width=192 -k crop_size=128 -k batch_size=8
    python3 train.py -rl --name run                        # go on from the newest checkpoint of that run
    python3 train.py --fit-entropy -r checkpoints/run -ds photos_train.h5  # fit the context model of a checkpoint alone
    tensorboard --logdir tensorboard                       # watch

Where training starts: -r CKPT (that checkpoint; one without training.npz gives its weights, at step 0), -rl (the newest of
this run), --transfer CKPT (the weights that fit, at step 0), or from scratch. But for the last, the knobs are the
checkpoint's, changed by -k. How long: --steps, --epochs, or the knob num_epochs.
"""

import argparse
import dataclasses
import math
import shutil
import sys
import time
from pathlib import Path

import numpy as np

import distribution
from checkpoint import resolve_checkpoint, save_context_model
from config import UserError, config_train, directories
from data import Data
from semantic import Classes, heat_map
from utils import Utils

FIT_POSITIONS = 2_000_000  # of feature maps, at most, that the context model is fitted to; 0.4 GB
FIT_HELD_OUT = 200  # images, at most, that its figure is of


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    optimizers = config_train.__dataclass_fields__["optimizer"].metadata["allowed"]
    parser.add_argument("-opt", "--optimizer", choices=optimizers, help="optimizer of both updates; default: the knob's")
    parser.add_argument("-name", "--name", default="run", help="of the run and its folders (default: run)")
    parser.add_argument("-ds", "--dataset", default="sample", metavar="DATASET",
                        help="sample, cityscapes, ADE20k, camvid, a path table (.h5, .csv) or a folder "
                             "(default: sample)")  # fmt: skip
    parser.add_argument("--val", metavar="TABLE", help="held-out images, where DATASET is a table or a folder")
    parser.add_argument("--classes", metavar="CSV", help="names and colours of a label map's classes (columns index, name, R, "
                        "G, B): sets the knobs classes and n_classes (default: those of cityscapes and camvid)")  # fmt: skip
    start = parser.add_mutually_exclusive_group()
    start.add_argument("-rl", "--restore-last", action="store_true", help="go on from this run's newest checkpoint")
    start.add_argument("-r", "--restore", metavar="CKPT", help="go on from a checkpoint")
    start.add_argument("--transfer", metavar="CKPT", help="start at step 0 from a checkpoint's knobs, changed by -k, and "
                       "those of its weights that still fit: another channel_bottleneck, for one")  # fmt: skip
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
    where_knobs, knobs = directories.split(args.knob)
    where = directories().override(where_knobs)
    if args.optimizer:
        knobs.append(f"optimizer={args.optimizer}")
    if args.classes:
        knobs += class_knobs(args.classes)
    config = config_train().override(knobs)  # before TensorFlow is imported: mistakes show at once
    if min(n for n in (args.steps, args.epochs, 1) if n is not None) < 1:
        raise UserError("--steps and --epochs: at least 1")
    if args.fit_entropy:
        check_fit(args, knobs)
    run = Path(where.checkpoints) / args.name

    dataset = Data.dataset(args.dataset, where, args.val)
    goes_on = args.restore or args.restore_last
    if dataset.classes and config.use_conditional_GAN and not (config.classes or goes_on):
        knobs += class_knobs(dataset.classes)
        config = config.override(knobs)

    with Utils.quiet_tensorflow():
        from model import Model

    start = resolve_checkpoint(args.restore or run) if goes_on else None
    if args.fit_entropy:
        model = Model.load(start, overrides=knobs)
        if not model.config.entropy_steps:
            raise UserError("knob entropy_steps: 0 steps fit nothing; give -k entropy_steps=6000")
        fit_context_models(model, start, dataset)
        return 0
    taken = any(run.glob("ckpt-*")) or (run / "config.json").exists()
    if taken and (start is None or start.resolve() != resolve_checkpoint(run).resolve()):
        raise UserError(f"run {args.name}: there are checkpoints in {run}; go on with -rl, or take another --name")
    devices = distribution.cluster()
    with devices.strategy.scope():
        if args.transfer:
            model, fresh = Model.transfer(args.transfer, knobs)
            print(f"weights of {args.transfer}; afresh: {', '.join(fresh) or 'none'}")
        else:
            model = Model.resume(start, knobs) if start else Model(config, training=True)
    devices.check(model.config)
    if start:
        print(f"going on from {start}, step {model.step}")
    data = open_data(dataset, model.config)
    if model.config.use_conditional_GAN and (share := data.unknown_labels()) > 0.01:
        print(f"warning: {share:.0%} of the label maps' pixels are none of the {model.config.n_classes} classes and count as "
              f"void; see the knobs n_classes and classes", file=sys.stderr)  # fmt: skip
    steps = args.steps or (args.epochs or model.config.num_epochs) * data.steps_per_epoch
    print(f"{len(dataset.train)} training images, {len(dataset.val)} held out; up to step {steps}")
    return train(model, data, dataset, steps, run, where, devices)


def class_knobs(file: str | Path) -> list[str]:
    classes = Classes.read(file)
    return [f"classes={classes}", f"n_classes={len(classes)}"]


def check_fit(args: argparse.Namespace, knobs: list[str]) -> None:
    """Raise UserError for what does not go with --fit-entropy: it changes nothing of the networks."""
    if not (args.restore or args.restore_last):
        raise UserError("--fit-entropy: name the checkpoint with -r or -rl")
    if args.steps or args.epochs or args.optimizer or args.classes:
        raise UserError(
            "--fit-entropy: takes no --steps, --epochs, -opt or --classes; the knob entropy_steps says how long it takes"
        )
    if other := [knob for knob in knobs if knob.partition("=")[0] not in ("entropy_steps", "seed", "max_pixels")]:
        raise UserError(
            f"--fit-entropy: knob {other[0]} is the checkpoint's; of the knobs, entropy_steps, seed and max_pixels go"
        )


def train(model, data, dataset, steps: int, run: Path, where: directories, devices: distribution.Cluster) -> int:
    """Train up to step `steps`. Returns the exit status: 0, or 128 + the signal that stopped it."""
    import tensorflow as tf
    from tqdm import tqdm

    config = model.config
    chief = devices.chief
    held_out = [data.held_out(path) for path in dataset.val[: config.n_sample_images]]
    logs = Path(where.tensorboard) / run.name
    if chief:
        with Utils.summary_errors(logs):
            writer = tf.summary.create_file_writer(str(logs))
    saved = None
    start, started = model.step, time.time()
    bar = tqdm(total=steps, initial=model.step, unit="step", disable=not chief)
    with Utils.stop_signals() as received, bar:
        for x, labels in data.batches(model.step, devices.worker, devices.workers):
            with devices.lost_workers(f"start all of them again with -rl, from {saved or 'where they started'}"):
                if model.step >= steps or devices.anywhere(bool(received)):
                    break
                terms = model.train_step(x, labels)
            if not all(map(math.isfinite, terms.values())):
                listed = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
                raise UserError(
                    f"step {model.step}: a loss is not finite ({listed}); go on from the last checkpoint, "
                    f"{saved or 'the one that this command started from'}, with a lower learning rate"
                )
            bar.update()
            bar.set_postfix({name: f"{value:.3g}" for name, value in terms.items()}, refresh=False)
            if not chief:
                continue
            if model.step % config.diagnostic_steps == 0:
                terms["steps_per_second"] = (model.step - start) / (time.time() - started)
                try:
                    with Utils.summary_errors(logs):
                        diagnose(model, terms, held_out, writer, Path(where.samples) / run.name)
                except UserError:
                    save(model, run)  # training is worth more than pictures of it
                    raise
            if model.step % (config.checkpoint_epochs * data.steps_per_epoch) == 0 or model.step == config.distortion_steps:
                saved = save(model, run)
    if not chief:
        return 128 + received[0] if received else 0
    if model.step == start:
        print(f"nothing to do: training is at step {model.step}")
        return 0
    saved = save(model, run)
    if received:
        print(f"stopped by a signal at step {model.step}; go on with: train.py -rl --name {run.name}")
    print(f"checkpoint: {saved}" + (f"; {len(data.bad)} unreadable images were skipped" if data.bad else ""))
    if received:
        return 128 + received[0]
    if config.entropy_steps:
        with model.averaged_weights():
            fit_context_models(model, saved, dataset)
    return 0


def open_data(dataset, config: config_train) -> Data:
    maps = {"maps": dataset.maps, "instances": dataset.instances}
    return Data(dataset.train, config, dataset.fit, report=lambda line: print(line, file=sys.stderr), **maps)


def fit_context_models(model, checkpoint: Path, dataset) -> None:
    """Fit context models to what files of training images, flipped ones among them, would hold; they join the checkpoint."""
    from tqdm import tqdm

    from context_network import bits_per_symbol, fit

    config = dataclasses.replace(model.config, batch_size=1, crop_size=0, random_flip=True)
    data = open_data(dataset, config)
    train: dict[str, list] = {}
    positions = 0
    for i in tqdm(range(2 * len(dataset.train)), desc="symbols", unit="image"):
        add_contents(model, data.sample(i), train)
        positions += train["symbols"][-1][0][:, :, 0].size
        if positions > FIT_POSITIONS:
            break
    held_out: dict[str, list] = {}
    for path in dataset.val[:FIT_HELD_OUT]:
        try:
            image, labels = data.held_out(path)
        except UserError as error:
            print(f"skipped: {error}", file=sys.stderr)
            continue
        add_contents(model, image if labels is None else np.concatenate([image, labels], axis=-1), held_out)
    for of, (_, levels) in config.coded.items():
        train[of], held = (
            [pair for pair in pairs if pair[1] is None or pair[1].any()] for pairs in (train[of], held_out.get(of, []))
        )
        if not train[of]:
            print(f"context model of {of}: none, since no training image preserves anything")
            continue
        symbols, masks = zip(*train[of], strict=True)
        one_hot = of == "code" and config.semantic_code == "lossless"
        network, context = fit(symbols, levels, config.entropy_steps, config.seed, masks, one_hot)
        save_context_model(context, checkpoint, of)
        network, integers = (bits_per_symbol(m, held or train[of]) for m in (network, context))
        print(f"context model of {of}: {integers:.4f} bits per symbol ({network:.4f} before rounding to integers) of "
              f"{len(held or train[of])} {'held-out' if held else 'training'} images")  # fmt: skip
    print(f"in {checkpoint}")


def add_contents(model, planes: np.ndarray, contents: dict[str, list]) -> None:
    """Append what the file of an image would hold, by name: symbols, and the mask of those that are coded, or None."""
    m = heat_map(planes[..., 5]) if model.config.selective else None
    contents.setdefault("symbols", []).append((model.compress(np.ascontiguousarray(planes[..., :3]), m), m))
    if "code" in model.config.coded:
        contents.setdefault("code", []).append((model.encode_labels(planes[..., 3:]), None))
    if m is not None:
        contents.setdefault("mask", []).append((m[..., None].astype(np.uint8), None))


def save(model, run: Path) -> Path:
    """Write a checkpoint of this step unless it is there, then delete the oldest beyond the knob keep_checkpoints.

    That of the distortion stage's end stays: `checkpoint.py --blend` takes its generator.
    """
    folder, smooth = run / f"ckpt-{model.step:08d}", f"ckpt-{model.config.distortion_steps:08d}"
    if not folder.exists():
        model.save(folder)
    for old in sorted(path for path in run.glob("ckpt-*") if path.name != smooth)[: -model.config.keep_checkpoints]:
        shutil.rmtree(old)
    return folder


def diagnose(model, terms: dict[str, float], held_out: list, writer, samples: Path) -> None:
    """Scalars and images for TensorBoard, and the sample picture of the held-out images, with the averaged weights."""
    with model.averaged_weights():
        reconstructions = [model.reconstruct(image, labels) for image, labels in held_out]
    psnr, rows = [], []
    for (image, labels), reconstruction in zip(held_out, reconstructions, strict=True):
        panels = {"original": image}
        preserved = np.ones(image.shape[:2], bool)
        if labels is not None:
            panels["label map"] = Classes.parse(model.config.classes, model.config.n_classes).colours[labels[..., 0]]
        if model.config.selective:
            preserved = labels[..., 2] != 0
            panels["preserved"] = np.where(preserved[..., None], image, 128).astype(np.uint8)
        psnr.append(Utils.psnr(image[preserved], reconstruction[preserved]) if preserved.any() else math.nan)
        panels[f"step {model.step}, PSNR {psnr[-1]:.2f} dB"] = reconstruction
        rows.append(Utils.side_by_side(list(panels.values()), list(panels)))
    G_rate, D_rate = model.learning_rates(model.step)
    scalars = {**terms, "held_out_PSNR": np.nanmean(psnr), "G_learning_rate": G_rate, "D_learning_rate": D_rate}
    originals = [image for image, _ in held_out]
    Utils.write_summaries(writer, model.step, scalars, {"original": originals, "reconstruction": reconstructions})
    Utils.save_picture(Utils.stack(rows), samples / f"{model.step:08d}.png")


if __name__ == "__main__":
    sys.exit(main())
