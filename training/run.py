"""A training run: batches go through the trainer; checkpoints, summaries and sample pictures come out."""

import datetime
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from config import UserError, config_train
from data import Data, Dataset
from evaluation.metrics import psnr
from gcodec.labels import Classes, LabelMap
from gcodec.pictures import save_picture
from training.devices import describe, warnings
from training.distribution import Cluster
from training.fit_entropy import fit_context_models
from training.folders import RunFolders
from training.schedule import learning_rates
from training.trainer import Trainer
from utils import Utils

ESTIMATE_SECONDS = 10.0  # of steps, at least, from which a run's duration is estimated
SLOW_STEP = 5.0  # seconds a step; without a GPU, a smaller network is then named
LOOK_SECONDS = 1.0  # between two looks at the loss terms, each of which waits for the device


class Run:
    """Training by one command, in the folders that the run's name gives it."""

    def __init__(self, folders: RunFolders, devices: Cluster):
        self.folders, self.devices = folders, devices
        self.saved: Path | None = None  # the checkpoint that this command wrote last

    def train(self, trainer: Trainer, data: Data, dataset: Dataset, steps: int) -> int:
        """Train up to step `steps`, then fit context models. Return 0, or 128 + the signal that stopped it."""
        start = trainer.step
        if self.devices.chief:
            self._announce(trainer, data, dataset, steps)
        held_out = readable_samples(data, dataset.val, trainer.config.n_sample_images) if self.devices.chief else []
        diary = Diary(self.folders.logs, self.folders.samples, held_out) if self.devices.chief else None
        with Utils.stop_signals() as received, self.devices.stoppable():
            self._loop(trainer, data, steps, diary, received)
        status = 128 + received[0] if received else 0
        if not self.devices.chief:
            return status
        if trainer.step == start:
            print(f"nothing to do: training is at step {trainer.step}")
            return 0
        folder = self.save(trainer)
        if received:
            print(f"stopped by a signal at step {trainer.step}")
        print(f"checkpoint: {folder}" + (f"; {len(data.bad)} unreadable images were skipped" if data.bad else ""))
        if not received and trainer.config.entropy_steps:
            with trainer.averaged_codec() as codec:
                fit_context_models(codec, trainer.config, folder, dataset)
        return status

    def _announce(self, trainer: Trainer, data: Data, dataset: Dataset, steps: int) -> None:
        """Print what this run computes on, how precisely, how many parameters, and how much data it sees."""
        for line in warnings(trainer.precision):
            print(f"warning: {line}", file=sys.stderr)
        networks = trainer.model.networks | {"discriminator": trainer.discriminator}
        sizes = [f"{name} {net.count_params() / 1e6:.2f} M" for name, net in networks.items() if name != "quantizer"]
        batch, side = trainer.config.batch_size, trainer.config.crop_size
        size = f"{side}x{side} px, {batch * side**2 / 1e6:.2f} megapixels" if side else "whole images"
        print(f"device: {describe()}; precision: {trainer.precision}")
        print(f"parameters: {', '.join(sizes)}")
        n, size_on_disk = len(data.paths), sum(map(_file_size, data.paths))
        print(f"data: {n} training image{'s' * (n > 1)}, {size_on_disk / 1e6:.1f} MB of files; {len(dataset.val)} held out")
        print(f"a step: {batch} x {size}; {data.steps_per_epoch} steps are an epoch; up to step {steps}")

    def _loop(self, trainer: Trainer, data: Data, steps: int, diary: "Diary | None", received: list[int]) -> None:
        """Train until step `steps` or a signal. On the way, the chief writes checkpoints, and keeps the diary."""
        config, devices = trainer.config, self.devices
        checkpoint_steps = config.checkpoint_epochs * data.steps_per_epoch
        watch = Watch(tqdm(total=steps, initial=trainer.step, unit="step", disable=not devices.chief))
        with watch.bar:
            for x, labels in data.batches(trainer.step, devices.worker, devices.workers):
                with devices.lost_workers(f"start all of them again with -rl, from {self.saved or 'where they started'}"):
                    if trainer.step >= steps or devices.anywhere(bool(received)):
                        break
                    watch.add(trainer.step + 1, trainer.train_step(x, labels))
                    diagnosed = trainer.step % config.diagnostic_steps == 0
                    due = trainer.step % checkpoint_steps == 0 or trainer.step == config.distortion_steps
                    if diagnosed or due or watch.is_due:
                        watch.look(self.saved)
                    if devices.chief and (seconds := watch.first_estimate):
                        announce_duration(seconds, steps - trainer.step, trainer)
                if diary and diagnosed:
                    try:
                        diary.write(trainer, watch.values | {"steps_per_second": watch.steps_per_second})
                    except UserError:
                        self.save(trainer)  # training is worth more than pictures of it
                        raise
                if diary and due:
                    self.save(trainer)
            watch.look(self.saved)

    def save(self, trainer: Trainer) -> Path:
        """Write a checkpoint of this step unless there is one, then delete the oldest beyond the knob keep_checkpoints.

        That of the distortion stage's end stays: `tools/checkpoint.py --blend` takes its generator.
        """
        config, folder = trainer.config, self.folders.checkpoint(trainer.step)
        if not folder.exists():
            trainer.save(folder)
        self.folders.prune(config.keep_checkpoints, spared=config.distortion_steps)
        self.saved = folder
        return folder


def readable_samples(data: Data, paths: list[str], n: int) -> list[tuple[np.ndarray, LabelMap | None]]:
    """Return the first n held-out images that can be read, with their label maps, and report the others before them.

    Raises UserError if there is none.
    """
    samples: list[tuple[np.ndarray, LabelMap | None]] = []
    for path in paths:
        if len(samples) == n:
            break
        try:
            samples.append(data.held_out(path))
        except UserError as error:
            data.report(f"skipped: {error}")
    if not samples:
        raise UserError(f"none of the {len(paths)} held-out images can be read; mend them, or name others with --val")
    return samples


def announce_duration(step_seconds: float, steps: int, trainer: Trainer) -> None:
    """Print how long a run will take and how large its checkpoints are; without a GPU, name a network that is fast there."""
    stored = sum(var.numpy().nbytes for var in (*trainer.state().values(), *trainer.model.weights.values()))
    left = datetime.timedelta(seconds=round(step_seconds * steps))
    tqdm.write(
        f"a step takes {step_seconds:.2g} s: {left} for the {steps} that are left; a checkpoint takes {stored / 1e6:,.0f} MB"
    )
    if step_seconds > SLOW_STEP and not tf.config.list_physical_devices("GPU"):
        tqdm.write("no GPU was found, and this network wants one: presets/first_try.toml makes a picture in five minutes, and "
                   "presets/photo_structure.toml trains a network for CPUs (train.py -c FILE)")  # fmt: skip


def _file_size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # reported when it is its turn to be read
        return 0


class Diary:
    """Summaries for TensorBoard, and sample pictures of the same held-out images each time."""

    def __init__(self, logs: Path, samples: Path, held_out: list[tuple[np.ndarray, LabelMap | None]]):
        self.logs, self.samples, self.held_out = logs, samples, held_out
        with Utils.summary_errors(logs):
            self.writer = tf.summary.create_file_writer(str(logs))

    def write(self, trainer: Trainer, terms: Mapping[str, float]) -> None:
        """Write scalars and images, by the averaged weights. Raise UserError where they cannot be written."""
        config, step = trainer.config, trainer.step
        with trainer.averaged_codec() as codec:
            reconstructions = [codec.reconstruct(image, labels) for image, labels in self.held_out]
        qualities, rows = [], []
        for (image, labels), reconstruction in zip(self.held_out, reconstructions, strict=True):
            panels, preserved = _panels(image, labels, config)
            qualities.append(psnr(image[preserved], reconstruction[preserved]) if preserved.any() else math.nan)
            panels[f"step {step}, PSNR {qualities[-1]:.2f} dB"] = reconstruction
            rows.append(Utils.side_by_side(list(panels.values()), list(panels)))
        G_rate, D_rate = learning_rates(config, step)
        mean = float(np.nanmean(qualities))
        scalars = {**terms, "held_out_PSNR": mean, "G_learning_rate": G_rate, "D_learning_rate": D_rate}
        images = {"original": [image for image, _ in self.held_out], "reconstruction": reconstructions}
        with Utils.summary_errors(self.logs):
            Utils.write_summaries(self.writer, step, scalars, images)
        save_picture(Utils.stack(rows), self.samples / f"{step:08d}.png")


def _panels(image: np.ndarray, labels: LabelMap | None, config: config_train) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return what the sample picture shows of a held-out image, by captions, and which pixels are preserved."""
    panels, preserved = {"original": image}, np.ones(image.shape[:2], bool)
    if labels is not None:
        panels["label map"] = Classes.parse(config.classes, config.n_classes).colours[labels.classes]
        if config.selective and labels.preserved is not None:
            preserved = labels.preserved != 0
            panels["preserved"] = np.where(preserved[..., None], image, 128).astype(np.uint8)
    return panels, preserved


class Watch:
    """Keeps the loss terms on the device until somebody looks at them: then they are numbers, and all must be finite."""

    def __init__(self, bar: tqdm):
        self.bar = bar
        self.values: dict[str, float] = {}  # of the last step that was looked at
        self._unseen: list[tuple[int, dict[str, tf.Tensor]]] = []
        self._steps, self._started = 0, time.perf_counter()
        self._looked = self._started
        self._first_ended = 0.0  # when the first step did, in which the graph is made
        self._estimated = False

    def add(self, step: int, terms: dict[str, tf.Tensor]) -> None:
        self._unseen.append((step, terms))
        self._steps += 1
        if self._steps == 1:
            next(iter(terms.values())).numpy()  # waits for the step
            self._first_ended = time.perf_counter()
        self.bar.update()

    @property
    def first_estimate(self) -> float | None:
        """The seconds of a step, once: after some steps, of all but the first."""
        seconds, steps = time.perf_counter() - self._first_ended, self._steps - 1
        if self._estimated or not steps or seconds < ESTIMATE_SECONDS:
            return None
        self._estimated = True
        return seconds / steps

    @property
    def is_due(self) -> bool:
        return time.perf_counter() - self._looked > LOOK_SECONDS

    @property
    def steps_per_second(self) -> float:
        return self._steps / (time.perf_counter() - self._started)

    def look(self, saved: Path | None) -> None:
        """Show the terms. Raise UserError with the first step that has one that is not finite, and that step's terms."""
        for step, terms in self._unseen:
            self.values = {name: float(term) for name, term in terms.items()}
            if not all(map(math.isfinite, self.values.values())):
                listed = ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())
                raise UserError(
                    f"step {step}: a loss is not finite ({listed}); go on from the last checkpoint, "
                    f"{saved or 'the one that this command started from'}, with a lower learning rate"
                )
        self._unseen, self._looked = [], time.perf_counter()
        self.bar.set_postfix({name: f"{value:.3g}" for name, value in self.values.items()}, refresh=False)
