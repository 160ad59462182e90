"""Fitting context models to what the files of a data set would hold.

`train.py` does this at the end of training, or alone with --fit-entropy.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
from tqdm import trange

from codec import Codec
from codec.checkpoint import save_context_model
from codec.codec import Contents
from config import UserError, config_train
from data import Data, Dataset
from training.context_network import bits_per_symbol, fit

FIT_POSITIONS = 2_000_000  # of feature maps, at most, that the context model is fitted to; 0.4 GB
FIT_HELD_OUT = 200  # held-out images, at most, that the fit is measured on


def fit_context_models(codec: Codec, config: config_train, folder: Path, dataset: Dataset) -> None:
    """Fit context models to what files of training images, flipped ones among them, would hold; they join the checkpoint.

    codec: of the checkpoint in `folder`. config: its knobs, of which those that say how to fit may be others.
    """
    data = Data.of(dataset, dataclasses.replace(config, batch_size=1, crop_size=0, random_flip=True))
    train: list[Contents] = []
    positions = 0
    for i in trange(2 * len(dataset.train), desc="symbols", unit="image"):
        train.append(codec.contents(*data.sample(i)))
        positions += train[-1].symbols[:, :, 0].size
        if positions > FIT_POSITIONS:
            break
    held_out: list[Contents] = []
    for path in dataset.val[:FIT_HELD_OUT]:
        try:
            held_out.append(codec.contents(*data.held_out(path)))
        except UserError as error:
            print(f"skipped: {error}", file=sys.stderr)
    for of in config.coded:
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
    network, context = fit(symbols, config.coded[of][1], config.entropy_steps, config.seed, masks, one_hot)
    save_context_model(context, folder, of)
    before, after = (bits_per_symbol(model, held or pairs) for model in (network, context))
    print(f"context model of {of}: {after:.4f} bits per symbol ({before:.4f} before rounding to integers) of "
          f"{len(held or pairs)} {'held-out' if held else 'training'} images")  # fmt: skip


def _pairs(of: str, images: list[Contents]) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Return what each image has of this, with the mask of what is coded; images of which nothing is coded are left out."""
    masks = [contents.mask[:, :, 0] if of == "symbols" and contents.mask is not None else None for contents in images]
    pairs = zip([getattr(contents, of) for contents in images], masks, strict=True)
    return [(symbols, mask) for symbols, mask in pairs if mask is None or mask.any()]
