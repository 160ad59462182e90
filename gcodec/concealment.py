"""Paints what did not arrive of a feature map from what did."""

import numpy as np

ITERATIONS = 100  # each carries values one position further; holes between interleaved slices are a few positions wide


def conceal(w_hat: np.ndarray, received: np.ndarray) -> np.ndarray:
    """Return a feature map (h, w, C) whose positions outside `received` (h, w) are estimated from the others.

    Each channel starts from the mean of what was received. Then each missing position becomes the mean of its four neighbours,
    over and over, which approaches the smoothest surface through the received ones (Laplace's equation). A neighbour beyond the
    edge counts as the position itself. Where nothing was received, all is 0.
    """
    if received.all():
        return w_hat
    known = received[..., None]
    x = np.where(known, w_hat, w_hat[received].mean(axis=0, dtype=np.float64) if received.any() else 0.0)
    for _ in range(ITERATIONS if received.any() else 0):
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
        around = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
        x = np.where(known, x, around)
    return x.astype(w_hat.dtype)
