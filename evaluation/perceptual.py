"""Perceptual measures: LPIPS and DISTS of picture pairs, Fréchet and kernel distances of picture sets.

LPIPS (Zhang et al. 2018) is version 0.1 by AlexNet and by VGG16, DISTS is Ding et al. 2020. The distances of sets compare
features of 256x256 patches, taken as Mentzer et al. 2020 take them, by EfficientNet-Lite0 or by Keras' Inception v3. Those
by Inception are called FID (Heusel et al. 2017) and KID (Binkowski et al. 2018); it is not the network of the original FID.
All distances of sets depend on the number of patches: compare values of the same set of images, not with those of papers.
"""

from collections import defaultdict
from collections.abc import Callable

import keras
import numpy as np

import pretrained.weights
from config import UserError
from pretrained import networks

PATCH = 256  # px
BATCH = 16  # patches
MAX_PIXELS = 2**22  # of an image whose pairs are measured; VGG16's features take 0.5 kB a pixel

Image = np.ndarray  # (H, W, 3) uint8


# ----------------------------------------------------------------------------------------------------------------------
# Pairs
# ----------------------------------------------------------------------------------------------------------------------


class PairMeasure:
    """A distance of a picture from its original, both (H, W, 3) uint8: 0 for equal ones, larger for less similar ones."""

    def __init__(self, name: str, network: networks.FrozenNetwork, distance: Callable):
        """name: its key in results; distance(real_maps, fake_maps) -> (B,)."""
        self.name, self.min_side = name, network.min_side
        self._features = network.network
        x = keras.Input((None, None, 3))
        real_maps = [keras.Input(output.shape[1:]) for output in self._features.outputs]
        self._distance = keras.Model([x, *real_maps], distance(real_maps, self._features(x)))
        for model in (self._features, self._distance):
            model.compile(jit_compile=False)  # XLA is up to ten times slower here

    def features(self, image: Image) -> list[np.ndarray]:
        """Return what the network makes of the original, for `distance`; it serves for all pictures of that original."""
        return self._features.predict_on_batch(_to_batch([image]))

    def distance(self, original: list[np.ndarray], picture: Image) -> float:
        """Return the distance of a picture from the original with these features."""
        return float(self._distance.predict_on_batch([_to_batch([picture]), *original])[0])

    def measures(self, image: Image) -> bool:
        """Return whether an image is neither too small for the network nor too large for the memory."""
        height, width = image.shape[:2]
        return min(height, width) >= self.min_side and height * width <= MAX_PIXELS

    def add(self, original: Image, pictures: dict[str, Image], records: dict[str, dict]) -> None:
        """Set records[codec][name] for each codec's picture of an original; None where it is too small or too large."""
        missing = [codec for codec in pictures if self.name not in records[codec]]
        of_original = self.features(original) if missing and self.measures(original) else None
        for codec in missing:
            records[codec][self.name] = None if of_original is None else self.distance(of_original, pictures[codec])


def lpips(network: networks.LPIPSNetwork, name: str) -> PairMeasure:
    """LPIPS by one of its networks."""
    return PairMeasure(name, network, lambda real, fake: networks.lpips(real, fake, network.lin))


def dists(network: networks.DISTSNetwork, weights: dict[str, np.ndarray]) -> PairMeasure:
    """DISTS; weights: alpha and beta, each of 1475 channels."""
    channels = (3 + sum(network.channels),)
    if {key: array.shape for key, array in weights.items()} != {"alpha": channels, "beta": channels}:
        raise UserError(f"not the weights of DISTS as {pretrained.weights.HOW_TO_GET} writes them")
    return PairMeasure("dists", network, lambda real, fake: networks.dists(real, fake, weights["alpha"], weights["beta"]))


# ----------------------------------------------------------------------------------------------------------------------
# Sets
# ----------------------------------------------------------------------------------------------------------------------


class SetMeasure:
    """Fréchet and kernel distance of the patches of a codec's pictures from those of the originals."""

    def __init__(self, frechet_name: str, kernel_name: str, extract: Callable[[np.ndarray], np.ndarray]):
        """frechet_name, kernel_name: their keys in results; extract: patches (n, 256, 256, 3) in [-1, 1] -> (n, d)."""
        self.frechet_name, self.kernel_name, self._extract = frechet_name, kernel_name, extract
        self._originals: list[np.ndarray] = []
        self._pictures: dict[str, list[np.ndarray]] = defaultdict(list)

    def add(self, original: Image, pictures: dict[str, Image]) -> None:
        """Take in the patches of an original and of each codec's picture of it."""
        if patches := patches_of(original):
            self._originals.append(self.features(patches))
            for codec, picture in pictures.items():
                self._pictures[codec].append(self.features(patches_of(picture)))

    def distances(self, codec: str) -> dict[str, float]:
        """Return both distances and the number of patches; {} where there are not two patches."""
        if sum(map(len, self._pictures[codec])) < 2:
            return {}
        a, b = np.concatenate(self._originals), np.concatenate(self._pictures[codec])
        return {self.frechet_name: frechet(a, b), self.kernel_name: kernel(a, b), "patches": len(b)}

    def features(self, patches: list[Image]) -> np.ndarray:
        """Patches -> (n, d)."""
        batches = [patches[start : start + BATCH] for start in range(0, len(patches), BATCH)]
        return np.concatenate([self._extract(_to_batch(batch)) for batch in batches])


def efficientnet(network: networks.EfficientNetLite0) -> SetMeasure:
    """Distances of the 1280 features that EfficientNet-Lite0's classifier sees."""
    network.to_pooled.compile(jit_compile=False)
    return SetMeasure("frechet_lite0", "kernel_lite0", network.to_pooled.predict_on_batch)


def inception(weights: str | None = "imagenet") -> SetMeasure:
    """FID and KID; weights: "imagenet" (Keras' cache, or a download), a path to such a file, or None for random ones."""
    network = networks.keras_application(
        keras.applications.InceptionV3, "inception_v3", weights, "Inception v3 weights", pooling="avg"
    )
    return SetMeasure("fid", "kid", network.predict_on_batch)


def patches_of(image: Image) -> list[Image]:
    """Return patches of 256 px side by side from the top left, and from 128 px below and right; none in a smaller image."""
    return [
        image[top : top + PATCH, left : left + PATCH]
        for offset in (0, PATCH // 2)
        for top in range(offset, image.shape[0] - PATCH + 1, PATCH)
        for left in range(offset, image.shape[1] - PATCH + 1, PATCH)
    ]


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Fréchet distance of Gaussians fitted to features (n, d): |mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2))."""
    X, Y = ((f - f.mean(axis=0)) / np.sqrt(len(f) - 1) for f in (a, b))  # A = X^T X, B = Y^T Y
    root = np.linalg.svd(X @ Y.T, compute_uv=False).sum()  # tr (A B)^(1/2), without a root of a d x d matrix
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + (X**2).sum() + (Y**2).sum() - 2 * root)


def kernel(a: np.ndarray, b: np.ndarray) -> float:
    """Return the squared maximum mean discrepancy of features (n, d) with the kernel (x.y / d + 1)^3, unbiased.

    It is about 0 for equal distributions, and sometimes below.
    """

    def similarity(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    def off_diagonal(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    return float(off_diagonal(similarity(a, a)) + off_diagonal(similarity(b, b)) - 2 * similarity(a, b).mean())


# ----------------------------------------------------------------------------------------------------------------------
# What there are weights for
# ----------------------------------------------------------------------------------------------------------------------


def available(say: Callable[[str], None]) -> tuple[list[PairMeasure], list[SetMeasure]]:
    """Return the measures whose weights are in the cache; `say` is told how to get what is missing, and what is damaged."""
    pairs = {
        "LPIPS by AlexNet": (["alexnet"], lambda: lpips(networks.AlexNet.load(), "lpips_alex")),
        "LPIPS by VGG16": (["vgg16"], lambda: lpips(networks.VGG16.load(), "lpips_vgg")),
        "DISTS": (["vgg16", "dists"], lambda: dists(networks.DISTSNetwork.load(), pretrained.weights.load("dists"))),
    }
    sets = {
        "distances of EfficientNet-Lite0's features": (
            ["efficientnet_lite0"],
            lambda: efficientnet(networks.EfficientNetLite0.load()),
        )
    }
    present = {name for name in pretrained.weights.WEIGHTS if pretrained.weights.cached(name).is_file()}
    missing = [name for name, (weights, _) in (pairs | sets).items() if not present.issuperset(weights)]
    if missing:
        say(f"not measured: {', '.join(missing)}; their weights come with {pretrained.weights.HOW_TO_GET}")

    def load(measures: dict) -> list:
        loaded = []
        for name, (_, make) in measures.items():
            try:
                loaded += [make()] if name not in missing else []
            except UserError as error:
                say(f"not measured: {name}: {error}")
        return loaded

    return load(pairs), load(sets)


def _to_batch(images: list[Image]) -> np.ndarray:
    """Images of one size -> (B, H, W, 3) float32 in [-1, 1]."""
    return np.stack(images).astype(np.float32) / 127.5 - 1
