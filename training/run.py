"""A training run: batches go through the trainer; checkpoints, summaries and sample pictures come out."""

import datetime
import math
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import tensorflow as tf

from config import UserError
from data import Data, Dataset
from gcodec.files import warn
from gcodec.memory import available_memory
from training.console import Progress
from training.devices import describe, warnings
from training.diary import Diary, readable_samples
from training.distribution import Cluster
from training.fit_entropy import fit_context_models
from training.folders import RunFolders
from training.schedule import stage
from training.stopping import StopSignals
from training.trainer import Snapshot, Trainer

ESTIMATE_SECONDS = 10.0  # of steps, at least, from which a run's duration is estimated
SLOW_STEP = 5.0  # seconds a step; without a GPU, a smaller network is then named
LOOK_SECONDS = 1.0  # between two looks at the loss terms, each of which waits for the device
COPY_SHARE = 0.25  # of the free memory that a copy of the state may take
OF_WHAT_IS_PRESERVED = ("distortion", "PSNR", "bpp")  # terms that say nothing where nothing is preserved


@dataclass
class Run:
    """Training by one command, in the folders that the run's name gives it."""

    folders: RunFolders
    devices: Cluster
    start: Path | None  # the checkpoint that it goes on from, if it does
    again: str  # the command that goes on with it
    trainer: Trainer
    data: Data
    dataset: Dataset
    saved: Path | None = None  # the checkpoint that this command wrote last
    _end: int = 0  # the step that it trains up to
    _copy: Snapshot | None = None  # of the last diagnosis, when all was finite
    _intact: bool = True  # whether the variables are those after a whole step, as far as is known

    def __post_init__(self) -> None:
        self.first = self.trainer.step

    def train(self, steps: int) -> int:
        """Train up to step `steps`, then fit context models. Return 0, or 128 + the signal that stopped it.

        Whatever ends it, what was trained is saved first.
        """
        trainer, data, diary = self.trainer, self.data, None
        self._end = steps
        if self.devices.chief:
            self._announce(steps)
            held_out = readable_samples(data, self.dataset.val, trainer.config.n_sample_images)
            diary = Diary(self.folders.logs, self.folders.samples, held_out, self.first)
        with StopSignals() as signals:
            try:
                self._loop(steps, diary, signals.received)
                if diary and trainer.step > self.first:
                    self._save(self._snapshot())
            except BaseException as error:
                if not diary:
                    raise
                where = self._rescue(error)
                if isinstance(error, UserError):
                    raise UserError(f"{error}; {where}") from None
                print(where)
                raise
        status = 128 + signals.received[0] if signals.received else 0
        if not diary:
            return status
        if trainer.rate.is_out_of_reach:
            warn(f"knob target_bpp: {trainer.config.target_bpp} is out of this model's reach; the term bpp says what it uses")
        if status:
            print(f"stopped by a signal at step {trainer.step}")
        print(f"checkpoint: {self.saved or self.start or 'none, since no step was trained'}"
              + (f"; {len(data.bad)} unreadable images were skipped" if data.bad else ""))  # fmt: skip
        if status and (self.saved or self.folders.is_taken):
            print(f"go on with: {self._go_on}")
        if not status and self.saved and trainer.config.entropy_steps:
            self._fit(self.saved)
        return status

    def _announce(self, steps: int) -> None:
        """Print what this run computes on, how precisely, how many parameters, and how much data it sees."""
        trainer, data = self.trainer, self.data
        for line in warnings(trainer.precision):
            warn(line)
        sizes = [f"{name} {net.count_params() / 1e6:.2f} M" for name, net in trainer.networks.items() if name != "quantizer"]
        batch, side = trainer.config.batch_size, trainer.config.crop_size
        size = f"{side}x{side} px, {batch * side**2 / 1e6:.2f} megapixels" if side else "whole images"
        print(f"device: {describe()}; precision: {trainer.precision}")
        print(f"parameters: {', '.join(sizes)}")
        n, held_out, size_on_disk = len(data.paths), len(self.dataset.val), sum(map(_file_size, data.paths))
        print(f"data: {n} training image{'s' * (n > 1)}, {size_on_disk / 1e6:.1f} MB of files; {held_out} held out")
        print(f"a step: {batch} x {size}; {data.steps_per_epoch} steps are an epoch; up to step {steps}")

    def _loop(self, steps: int, diary: Diary | None, received: list[int]) -> None:
        """Train until step `steps` or a signal. On the way, the chief writes checkpoints, and keeps the diary."""
        trainer, config, devices = self.trainer, self.trainer.config, self.devices
        checkpoint_steps = config.checkpoint_epochs * self.data.steps_per_epoch
        bar = Progress(steps, "training", "step", trainer.step, silent=not devices.chief)
        watch = Watch()
        with bar:
            for x, labels in self.data.batches(trainer.step, devices.worker, devices.workers):
                with devices.lost_workers():
                    if trainer.step >= steps or devices.anywhere(bool(received)):
                        break
                    self._intact = False
                    watch.add(trainer.step + 1, trainer.train_step(x, labels))
                    self._intact = True
                    diagnosed = trainer.step % config.diagnostic_steps == 0
                    due = trainer.step % checkpoint_steps == 0 or trainer.step == config.distortion_steps
                    if diagnosed or due or watch.is_due:
                        self._look(watch, bar)
                    bar.add()
                    if devices.chief and (seconds := watch.first_estimate):
                        for line in duration(seconds, steps - trainer.step, trainer):
                            bar.print(line)
                if diary and (diagnosed or due):
                    copy = self._snapshot() if due or self._has_room_for_copies else None
                    self._copy = copy if self._has_room_for_copies else None
                if diary and diagnosed:
                    self._write(diary, watch, bar)
                if diagnosed:
                    watch.begin()
                if diary and due and copy:
                    self._save_on_the_way(copy, bar)
            self._look(watch, bar)

    def _look(self, watch: "Watch", bar: Progress) -> None:
        """Show the terms. Raises UserError if one is not finite; the weights then are of no use either."""
        try:
            watch.look()
        except UserError:
            self._intact = False
            raise
        bar.show(watch.means)

    def _write(self, diary: Diary, watch: "Watch", bar: Progress) -> None:
        """Write to the diary. What goes wrong is a warning: training is worth more than pictures of it."""
        try:
            diary.write(self.trainer, watch.means | {"steps_per_second": watch.steps_per_second})
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            bar.print(f"warning: step {self.trainer.step} is not in the log or has no sample picture: {reason}", sys.stderr)

    @cached_property
    def _has_room_for_copies(self) -> bool:
        """Whether there is memory for a copy of the state, which is saved if a later step breaks."""
        free = available_memory()
        return free is None or self.trainer.size < COPY_SHARE * free

    def _snapshot(self) -> Snapshot:
        """Return a copy of the state. Raises UserError if it is not finite."""
        snapshot = self.trainer.snapshot()
        if not snapshot.is_finite:
            self._intact = False
            raise UserError(f"step {snapshot.step}: a weight is not finite; lower the learning rate")
        return snapshot

    def _save_on_the_way(self, snapshot: Snapshot, bar: Progress) -> None:
        """Write a checkpoint. If that fails, a later one may succeed, for example when the disk has room again."""
        try:
            self._save(snapshot)
        except UserError as error:
            bar.print(f"warning: {error}; training goes on, and the next checkpoint is tried when it is due", sys.stderr)

    def _save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, unless this run has, then delete the oldest beyond the knob keep_checkpoints.

        That of the distortion stage's end stays: `tools/checkpoint.py --blend` takes its generator.
        """
        folder = self.folders.checkpoint(snapshot.step)
        if folder == self.saved:
            return
        snapshot.write(folder)
        self.saved = folder
        self.folders.prune(snapshot.config.keep_checkpoints, spared=snapshot.config.distortion_steps)

    def _rescue(self, ended_by: BaseException) -> str:
        """Save what was trained, if it is of use, or else the last copy of what was. Return where it is, as a phrase."""
        obstacle = ""
        try:
            if latest := self._latest():
                self._save(latest)
        except UserError as error:
            obstacle = "" if str(error) == str(ended_by) else f"it cannot be saved: {error}; "
        if self.saved:
            return f"{obstacle}step {_step(self.saved)} is saved in {self.saved}; go on with: {self._go_on}"
        return f"{obstacle}nothing was saved, so go on from {self.start}" if self.start else f"{obstacle}nothing was saved"

    @property
    def _go_on(self) -> str:
        """The command that goes on to the same step; without it, the knobs would say when to stop."""
        return f"{self.again} --steps {self._end}"

    def _latest(self) -> Snapshot | None:
        """Return the state of the newest step that is whole and finite, unless it is older than what is saved."""
        if self._intact and self.trainer.step > self.first:
            latest = self.trainer.snapshot()
            if latest.is_finite:
                return latest
        if self._copy and (self.saved is None or self._copy.step > _step(self.saved)):
            return self._copy
        return None

    def _fit(self, folder: Path) -> None:
        """Fit context models. If that is interrupted, say how to do it later."""
        try:
            with self.trainer.averaged_codec() as codec:
                fit_context_models(codec, self.trainer.config, folder, self.dataset)
        except BaseException:
            print(f"the context models, which make files smaller, were not fitted; fit them with: {self.again} --fit-entropy")
            raise


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("ckpt-"))


def duration(step_seconds: float, steps: int, trainer: Trainer) -> list[str]:
    """Return lines that say how long a run will take, how large its checkpoints are and, without a GPU, what is faster."""
    stored = trainer.size + sum(var.numpy().nbytes for var in trainer.model.weights.values())
    left = datetime.timedelta(seconds=round(step_seconds * steps))
    first, last = (stage(trainer.config, step)[0] for step in (trainer.step, trainer.step + steps - 1))
    unless = "" if first == last else f", if those of the stage {last} take as long"
    lines = [f"a step takes {step_seconds:.2g} s: {left} for the {steps} that are left{unless}; "
             f"a checkpoint takes {stored / 1e6:,.0f} MB"]  # fmt: skip
    if step_seconds > SLOW_STEP and not tf.config.list_physical_devices("GPU"):
        lines.append(
            "no GPU was found, and this network wants one: presets/first_try.toml makes a picture in five minutes, "
            "and presets/photo_structure.toml trains a network for CPUs (train.py -c FILE)"
        )
    return lines


def _file_size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # reported when it is its turn to be read
        return 0


class Watch:
    """Keeps the loss terms on the device until somebody looks at them: then they are numbers, and all must be finite.

    means: the mean of each term over the steps since the last diagnosis that have it. A step that preserves nothing of its
    images says nothing about what is preserved, so the means of OF_WHAT_IS_PRESERVED leave it out.
    """

    def __init__(self) -> None:
        self.means: dict[str, float] = {}
        self._unseen: list[tuple[int, dict[str, tf.Tensor]]] = []
        self._steps, self._started = 0, time.perf_counter()
        self._looked = self._started
        self._first_ended = 0.0  # when the first step did, in which the graph is made
        self._estimated = False
        self.begin()

    def begin(self) -> None:
        """Let the means begin anew. Until the next look, they stay as they are."""
        self._sums: dict[str, tuple[float, int]] = {}
        self._begun, self._steps_before = time.perf_counter(), self._steps

    def add(self, step: int, terms: dict[str, tf.Tensor]) -> None:
        self._unseen.append((step, terms))
        self._steps += 1
        if self._steps == 1:
            float(next(iter(terms.values())))  # waits for the step
            self._first_ended = time.perf_counter()

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
        """Of the steps since the last diagnosis."""
        return (self._steps - self._steps_before) / (time.perf_counter() - self._begun)

    def look(self) -> None:
        """Add the terms to the means. Raise UserError with the first step that has one that is not finite, and its terms."""
        for step, terms in self._unseen:
            values = {name: float(term) for name, term in terms.items()}
            if not all(map(math.isfinite, values.values())):
                listed = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
                raise UserError(f"step {step}: a loss is not finite ({listed}); lower the learning rate")
            left_out = OF_WHAT_IS_PRESERVED if values.get("preserved") == 0 else ()
            for name, value in values.items():
                if name not in left_out:
                    total, n = self._sums.get(name, (0.0, 0))
                    self._sums[name] = total + value, n + 1
        self._unseen, self._looked = [], time.perf_counter()
        self.means = {name: total / n for name, (total, n) in self._sums.items()} or self.means
