"""Runs a network on a large image piece by piece, so that memory does not grow with the image.

It is for networks that look at a bounded surrounding of each position. Each tile is cut out with a margin as wide as that, and
the margin of the result is thrown away, so the tiles fit together without seams.
"""

from collections.abc import Callable, Iterator

import numpy as np

TILE = 64  # positions of the feature map a side, 1024 px, without margins


def is_cut(x: np.ndarray, in_scale: int, margin: int) -> bool:
    """Say whether `in_tiles` cuts x into several tiles."""
    return max(x.shape[1:3]) // in_scale > TILE + 2 * margin


def in_tiles(
    network: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,  #    (B, H, W, k)
    in_scale: int,  #    values of x a side of a position: 16 for an image, 1 for a feature map
    out_scale: int,  #   the same for the result
    margin: int,  #      positions that the network sees beyond its own
) -> np.ndarray:
    """Return network(x), which has out_scale / in_scale times the height and width, computed tile by tile."""
    if not is_cut(x, in_scale, margin):
        return network(x)
    height, width = x.shape[1] // in_scale, x.shape[2] // in_scale
    whole: np.ndarray | None = None
    for top, bottom in _spans(height):
        for left, right in _spans(width):
            y, x0 = max(0, top - margin), max(0, left - margin)
            end_y, end_x = min(height, bottom + margin), min(width, right + margin)
            tile = network(np.ascontiguousarray(x[:, y * in_scale : end_y * in_scale, x0 * in_scale : end_x * in_scale]))
            if whole is None:
                whole = np.empty((len(x), height * out_scale, width * out_scale, tile.shape[3]), tile.dtype)
            whole[:, top * out_scale : bottom * out_scale, left * out_scale : right * out_scale] = tile[
                :,
                (top - y) * out_scale : (bottom - y) * out_scale,
                (left - x0) * out_scale : (right - x0) * out_scale,
            ]
    assert whole is not None  # an image has at least one tile
    return whole


def _spans(n: int) -> Iterator[tuple[int, int]]:
    """Cut 0..n into nearly equal spans of at most TILE."""
    count = -(-n // TILE)
    for i in range(count):
        yield i * n // count, (i + 1) * n // count
