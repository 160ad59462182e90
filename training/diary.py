"""What a run writes about itself: summaries for TensorBoard, and sample pictures."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from config import UserError, config_train
from data import Data
from evaluation.metrics import psnr
from gcodec.files import atomic
from gcodec.labels import Classes, LabelMap
from gcodec.pictures import save_picture
from training.folders import EVENTS
from training.schedule import learning_rates
from training.trainer import Trainer
from utils import Utils


class Diary:
    """Summaries for TensorBoard, and sample pictures of the same held-out images each time.

    When it begins, it deletes what a killed run left of steps later than `step`.
    """

    def __init__(self, logs: Path, samples: Path, held_out: list[tuple[np.ndarray, LabelMap | None]], step: int = 0):
        self.logs, self.samples, self.held_out = logs, samples, held_out
        with _summary_errors(logs):
            for log in logs.glob(EVENTS):
                _drop_events(log, step)
            for picture in samples.glob("*.png"):
                if picture.stem.isdecimal() and int(picture.stem) > step:
                    picture.unlink()
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
        with _summary_errors(self.logs):
            write_summaries(self.writer, step, scalars, images)
        save_picture(Utils.stack(rows), self.samples / f"{step:08d}.png")


def write_summaries(writer: Any, step: int, scalars: dict[str, float], images: dict[str, list[np.ndarray]]) -> None:
    """Write scalars and lists of uint8 images, by name, to TensorBoard's log."""
    with writer.as_default(step=step):
        for name, value in scalars.items():
            tf.summary.scalar(name, value)
        for name, group in images.items():
            for i, image in enumerate(group):
                tf.summary.image(f"{name}/{i}", image[None])
    writer.flush()


@contextmanager
def _summary_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        raise UserError(f"{folder}: TensorBoard summaries cannot be written ({error.message.splitlines()[0]})") from None


def _panels(image: np.ndarray, labels: LabelMap | None, config: config_train) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the panels that the sample picture has of a held-out image, by caption, and which pixels are preserved."""
    panels, preserved = {"original": image}, np.ones(image.shape[:2], bool)
    if labels is not None:
        panels["label map"] = Classes.parse(config.classes, config.n_classes).colours[labels.classes]
        if config.selective and labels.preserved is not None:
            preserved = labels.preserved != 0
            panels["preserved"] = np.where(preserved[..., None], image, 128).astype(np.uint8)
    return panels, preserved


def _drop_events(log: Path, step: int) -> None:
    """Remove the records of later steps from a file of TensorBoard's log, and one that a killed run left incomplete."""
    kept: list[bytes] = []
    dropped = False
    try:
        for record in tf.data.TFRecordDataset(str(log)):
            raw = record.numpy()
            if tf.compat.v1.Event.FromString(raw).step <= step:
                kept.append(raw)
            else:
                dropped = True
    except tf.errors.DataLossError:
        dropped = True
    if dropped:
        with atomic(log) as partial, tf.io.TFRecordWriter(str(partial)) as writer:
            for raw in kept:
                writer.write(raw)


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
