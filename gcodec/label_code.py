"""A label map as the file has it and as the networks see it.

The functions that compute work on numpy arrays, for the codec, and with xp=keras.ops on tensors, for training. A leading batch
dimension may be there or not.
"""

from typing import Any

import numpy as np

from gcodec.knobs import ModelKnobs
from gcodec.pictures import STRIDE


def label_input(classes: Any, boundaries: Any, config: ModelKnobs, xp: Any = np) -> Any:
    """Return what networks see at full size, (..., H, W, label_channels) float32: one-hot classes and instance boundaries.

    classes: (..., H, W) integers, 0..n_classes-1. boundaries: (..., H, W), not 0 where an instance ends; any value without the
    knob use_instances.
    """
    channels = xp.take(xp.eye(config.n_classes, dtype="float32"), classes, axis=0)
    if not config.use_instances:
        return channels
    edges = xp.where(xp.not_equal(boundaries, 0), np.float32(1), np.float32(0))
    return xp.concatenate([channels, edges[..., None]], axis=-1)


def map_symbols(classes: Any, boundaries: Any, config: ModelKnobs, xp: Any = np) -> Any:
    """Return what a lossless code sends of a padded map, (..., H/scale, W/scale, 1): class [+ n_classes at a boundary].

    The class is that of the middle of each scale x scale block; a boundary anywhere in the block counts.
    """
    k = config.semantic_scale
    symbols = classes[..., k // 2 :: k, k // 2 :: k]
    if config.use_instances:
        *batch, height, width = xp.shape(boundaries)
        blocks = xp.reshape(xp.not_equal(boundaries, 0), (*batch, height // k, k, width // k, k))
        symbols = xp.where(xp.any(blocks, axis=(-3, -1)), symbols + config.n_classes, symbols)
    return symbols[..., None]


def code_input(symbols: Any, config: ModelKnobs, xp: Any = np) -> Any:
    """Return what G sees of map_symbols' (..., h', w', 1), at 1/16 of the image's size: (..., h, w, code_channels) float32."""
    symbols = symbols[..., 0]
    channels = label_input(symbols % config.n_classes, symbols >= config.n_classes, config, xp)
    k = STRIDE // config.semantic_scale
    *batch, height, width, n = xp.shape(channels)
    blocks = xp.reshape(channels, (*batch, height // k, k, width // k, k, n))
    return xp.reshape(xp.moveaxis(blocks, -4, -3), (*batch, height // k, width // k, k * k * n))
