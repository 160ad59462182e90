"""Fitting context models to the symbols that files of a data set would hold.

`train.py` does this at the end of training, or alone with --fit-entropy.
"""

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from config import UserError, config_train
from data import Data, Dataset
from gcodec import Codec
from gcodec.checkpoint import save_context_model
from gcodec.codec import Contents
from gcodec.context_model import ContextModel
from network import seeded
from training.console import Progress
from training.rate import ContextNetwork, network_inputs, network_targets

FIT_POSITIONS = 2_000_000  # at most so many positions of feature maps are collected; they take 0.4 GB
FIT_HELD_OUT = 200  # the fit is measured on at most so many held-out images
BATCH_SIZE = 1024  # positions
LEARNING_RATE = 4e-3  # at first; it falls to 0 as a cosine
MAX_INPUT_BYTES = 10**9  # inputs that take more are thinned out at random
HIDDEN_UNITS = 96  # twice those of the context model in training: 1.5% fewer bits, and coding takes twice as long


def fit_context_models(codec: Codec, config: config_train, folder: Path, dataset: Dataset) -> None:
    """Fit context models to the symbols that files of the training images would hold, and save them with the checkpoint.

    Each image comes twice, and may be flipped. codec: of the checkpoint in `folder`. config: its knobs, except those that say
    how to fit.
    """
    data = Data(dataset, dataclasses.replace(config, batch_size=1, crop_size=0, random_flip=True))
    train: list[Contents] = []
    held_out: list[Contents] = []
    images, few = 2 * len(dataset.train), dataset.val[:FIT_HELD_OUT]
    positions = 0
    with Progress(images + len(few), "symbols", "image") as bar:
        while len(train) < images:
            train.append(codec.contents(*data.sample(len(train))))
            positions += train[-1].symbols[:, :, 0].size
            enough = math.ceil(FIT_POSITIONS * len(train) / positions)  # if the images to come are as large as those so far
            bar.total = (len(train) if positions > FIT_POSITIONS else min(images, max(enough, len(train)))) + len(few)
            bar.add()
            if positions > FIT_POSITIONS:
                break
        for path in few:
            try:
                held_out.append(codec.contents(*data.held_out(path)))
            except UserError as error:
                bar.print(f"skipped: {error}", sys.stderr)
            bar.add()
    for of in config.sections:
        _fit_one(of, train, held_out, config, folder)
    print(f"in {folder}")


def _fit_one(of: str, train: list[Contents], held_out: list[Contents], config: config_train, folder: Path) -> None:
    """Fit the context model of the "symbols", the "code" or the "mask", and save it with the checkpoint."""
    pairs, held = _pairs(of, train), _pairs(of, held_out)
    if not pairs:
        print(f"context model of {of}: none, since no training image preserves anything")
        return
    symbols, masks = zip(*pairs, strict=True)
    one_hot = of == "code" and config.semantic_code == "lossless"
    levels, partial = config.sections[of][1], config.channel_dropout if of == "symbols" else 0.0
    network, context = train_context_model(symbols, levels, config.entropy_steps, config.seed, masks, one_hot, partial)
    save_context_model(context, folder, of)
    before, after = (bits_per_symbol(model, held or pairs) for model in (network, context))
    print(f"context model of {of}: {after:.4f} bits per symbol ({before:.4f} before rounding to integers) of "
          f"{len(held or pairs)} {'held-out' if held else 'training'} images")  # fmt: skip


def _pairs(of: str, images: list[Contents]) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Return each image's symbols of this kind, with the mask of those that are coded. Leave out images that code none."""
    masks = [contents.mask[:, :, 0] if of == "symbols" and contents.mask is not None else None for contents in images]
    pairs = zip([getattr(contents, of) for contents in images], masks, strict=True)
    return [(symbols, mask) for symbols, mask in pairs if mask is None or mask.any()]


def train_context_model(
    symbols: Sequence[np.ndarray],  #  (h, w, C) uint8, of many images
    levels: int,  #                    L
    steps: int,
    seed: int = 0,
    masks: Sequence | None = None,  #  (h, w), of each image: learn only positions where it is not 0
    one_hot: bool = False,  #          symbols are classes, C = 1
    partial: float = 0.0,  #           share of the positions that see the first K channels only, as in files of fewer channels
) -> tuple[ContextNetwork, ContextModel]:
    """Train a context model on symbols of training images. Return the network in floating point, and the integer model."""
    channels = symbols[0].shape[2]
    pairs = list(zip(symbols, masks or [None] * len(symbols), strict=True))
    rng = np.random.default_rng(seed)
    inputs, targets = _rows(pairs, levels, one_hot, rng)
    with seeded(seed):
        network = ContextNetwork(channels, levels, one_hot, HIDDEN_UNITS)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    with Progress(steps, "context model", "step") as bar:
        for _ in range(steps):
            rows = rng.integers(len(inputs), size=BATCH_SIZE)
            seen = _hide_channels(inputs[rows], channels, partial, rng) if partial else inputs[rows]
            network.train_on_batch((seen, targets[rows]), targets[rows])
            bar.add()
    return network, network.to_integers()


def _rows(pairs: list, levels: int, one_hot: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets of all coded positions, or of a random part of them that fits into MAX_INPUT_BYTES."""
    row_bytes = network_inputs(pairs[0][0], levels, pairs[0][1], one_hot)[:1].nbytes
    total = sum(image[..., 0].size if mask is None else np.count_nonzero(mask) for image, mask in pairs)
    inputs, targets = [], []
    for image, mask in pairs:
        rows = network_inputs(image, levels, mask, one_hot)
        chosen = rng.random(len(rows)) < MAX_INPUT_BYTES / (total * row_bytes)
        inputs.append(rows[chosen])
        targets.append(network_targets(image, mask)[chosen])
    return np.concatenate(inputs), np.concatenate(targets)


def _hide_channels(inputs: np.ndarray, channels: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Set the last channels, a random number of them, to 0 in a share of the rows."""
    seen = np.where(rng.random(len(inputs)) < share, rng.integers(1, channels + 1, len(inputs)), channels)
    mask = np.ones((len(inputs), 1, channels + 1), np.float32)
    mask[:, 0, :channels] = np.arange(channels) < seen[:, None]
    return (inputs.reshape(len(inputs), -1, channels + 1) * mask).reshape(inputs.shape)


def bits_per_symbol(model, images: list[tuple]) -> float:
    """Return what an entropy model, or the network, needs for some images' symbols; each comes with its mask, or None."""
    coded = sum(network_targets(symbols, mask).size for symbols, mask in images)
    return sum(model.information(symbols, mask).sum() for symbols, mask in images) / max(1, coded)
