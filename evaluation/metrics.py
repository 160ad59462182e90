"""PSNR and MS-SSIM of two uint8 images, without TensorFlow, which whoever compresses a photo does not need."""

from typing import Any

import numpy as np
from PIL import Image

MS_SSIM_MIN_SIDE = 161  # px; the fifth scale must hold a window: ceil(161 / 16) = 11
POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales (Wang et al. 2003)
WINDOW, SIGMA = 11, 1.5  # px, of the Gaussian window
KERNEL = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
KERNEL = (KERNEL / KERNEL.sum()).astype(np.float32)
C1, C2 = 0.01**2, 0.03**2  # for values in [0, 1]


def measures(image: np.ndarray, n_bytes: int, picture: np.ndarray | None = None) -> dict[str, Any]:
    """Return what is measured of an image (H, W, 3) uint8 in n_bytes bytes, by name; with its picture, quality too."""
    height, width = image.shape[:2]
    sizes = {"width": width, "height": height, "bytes": n_bytes, "bpp": 8 * n_bytes / (width * height)}
    return sizes if picture is None else sizes | {"psnr": psnr(image, picture), "ms_ssim": ms_ssim(image, picture)}


def similarity(result: dict[str, Any]) -> str:
    """Return a measured MS-SSIM as text."""
    return "n/a (under 161 px a side)" if result["ms_ssim"] is None else f"{result['ms_ssim']:.4f}"


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE). It is infinite for equal images."""
    mse = np.mean(np.square(a.astype(np.float64) - b.astype(np.float64)))
    return float(10 * np.log10(255**2 / mse)) if mse else float("inf")


def psnr_quarter(a: np.ndarray, b: np.ndarray) -> float:
    """Return the PSNR in dB of both images (H, W, 3) scaled down by 4 with Lanczos' filter: of structure, without texture."""

    def quarter(image: np.ndarray) -> np.ndarray:
        height, width = (max(1, round(side / 4)) for side in image.shape[:2])
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))

    return psnr(quarter(a), quarter(b))


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return the multiscale structural similarity (Wang et al. 2003) of RGB images (H, W, 3), at most 1.

    It is None for a side under 161 px. The similarity is computed channel by channel and averaged, as TensorFlow's
    `tf.image.ssim_multiscale` does, whose values it reproduces.
    """
    if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
        return None
    x, y = (np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / 255 for image in (a, b))
    similarity = np.ones(len(x))
    for scale, power in enumerate(POWERS):
        if scale:
            x, y = _halve(x), _halve(y)
        luminance, contrast = _ssim_terms(x, y)
        last = scale == len(POWERS) - 1
        similarity *= np.maximum(luminance if last else contrast, 0) ** power
    return float(similarity.mean())


def _ssim_terms(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean SSIM and the mean of its contrast and structure term, for each channel of images (3, H, W)."""
    mean_x, mean_y = _blur(x), _blur(y)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance = _blur(x * y) - product
    variances = _blur(x * x + y * y) - squares
    structure = (2 * covariance + C2) / (variances + C2)
    similarity = (2 * product + C1) / (squares + C1) * structure
    return similarity.mean(axis=(1, 2), dtype=np.float64), structure.mean(axis=(1, 2), dtype=np.float64)


def _blur(x: np.ndarray) -> np.ndarray:
    """Convolve images (3, H, W) with the Gaussian window, where it lies within them: (3, H - 10, W - 10)."""
    for axis in (1, 2):
        length = x.shape[axis] - WINDOW + 1
        shifted = [x[:, i : i + length] if axis == 1 else x[..., i : i + length] for i in range(WINDOW)]
        blurred = KERNEL[WINDOW // 2] * shifted[WINDOW // 2]
        pair = np.empty_like(blurred)
        for i in range(WINDOW // 2):  # the window is symmetric
            np.add(shifted[i], shifted[-1 - i], out=pair)
            pair *= KERNEL[i]
            blurred += pair
        x = blurred
    return x


def _halve(x: np.ndarray) -> np.ndarray:
    """Average blocks of 2 x 2 pixels of images (3, H, W); an odd side repeats its last row or column."""
    x = np.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2)), mode="symmetric")
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def quality(image: np.ndarray, picture: np.ndarray) -> float:
    """Return MS-SSIM, or for an image too small for it PSNR."""
    similarity = ms_ssim(image, picture)
    return psnr(image, picture) if similarity is None else similarity
