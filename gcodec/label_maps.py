"""A label map as the file has it and as the networks see it, in numpy. network.py has the same in Keras, for training."""

import numpy as np

from gcodec.knobs import ModelKnobs
from gcodec.labels import LabelMap
from gcodec.pictures import pad


def label_channels(labels: LabelMap, config: ModelKnobs) -> np.ndarray:
    """Return what networks see at full size, (H, W, label_channels) float32: one-hot classes and instance boundaries."""
    classes = np.eye(config.n_classes, dtype=np.float32)[labels.classes]
    if not config.use_instances:
        return classes
    return np.concatenate([classes, _boundaries(labels)[..., None].astype(np.float32)], axis=-1)


def map_symbols(labels: LabelMap, config: ModelKnobs) -> np.ndarray:
    """Return what a lossless code sends of a padded map, (H/scale, W/scale, 1) uint8: class [+ n_classes at a boundary].

    The class is that of the middle of each scale x scale block; a boundary anywhere in the block counts.
    """
    k = config.semantic_scale
    symbols = labels.classes[k // 2 :: k, k // 2 :: k].astype(np.uint8)
    if config.use_instances:
        height, width = labels.classes.shape
        edges = (_boundaries(labels) != 0).reshape(height // k, k, width // k, k).any(axis=(1, 3))
        symbols = symbols + np.uint8(config.n_classes) * edges.astype(np.uint8)
    return symbols[..., None]


def code_channels(symbols: np.ndarray, config: ModelKnobs) -> np.ndarray:
    """Return what G sees of map_symbols' (h', w', 1), at 1/16 of the image's size: (h, w, code_channels) float32."""
    classes, edges = symbols[..., 0] % config.n_classes, symbols[..., 0] >= config.n_classes
    channels = np.eye(config.n_classes, dtype=np.float32)[classes]
    if config.use_instances:
        channels = np.concatenate([channels, edges[..., None].astype(np.float32)], axis=-1)
    k = 16 // config.semantic_scale
    height, width, n = channels.shape
    blocks = channels.reshape(height // k, k, width // k, k, n).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(height // k, width // k, k * k * n)


def padded(labels: LabelMap) -> LabelMap:
    """Return the label map at the padded size."""
    return labels.map(pad)


def _boundaries(labels: LabelMap) -> np.ndarray:
    if labels.boundaries is None:
        raise ValueError("this model wants a label map with the boundaries of instances")
    return labels.boundaries
