#!/usr/bin/env python3
"""Perceptual metrics: LPIPS of picture pairs, FID and KID of picture sets; and the features of the perceptual loss.

    pip install lpips && python3 perceptual.py vgg -o lpips_vgg.npz       # once, where PyTorch can be installed: LPIPS' weights
    python3 evaluate.py -r checkpoints/photo_c8 -i kodak/ -o report/ --lpips lpips_vgg.npz --fid

LPIPS (Zhang et al. 2018) version 0.1 by AlexNet or VGG16, the weights being those of the package `lpips`. FID (Heusel et
al. 2017) and KID (Binkowski et al. 2018) by Inception v3 as keras.applications has it, trained on ImageNet: not the network
of the original FID, so its values compare codecs here, not with those of papers. They are of 256x256 patches, taken as
Mentzer et al. 2020 take them.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from codec.files import atomic, refuse_existing
from config import UserError
from utils import Utils

PATCH = 256  # px
BATCH = 16  # patches
MIN_SIDE = 32  # px; LPIPS' networks halve the size four times
# LPIPS' backbones: convolutions (channels, kernel, stride, padding) and max poolings (kernel, stride), a tap after each group
BACKBONES = {
    "alex": [
        [("conv", 64, 11, 4, 2)],
        [("pool", 3, 2), ("conv", 192, 5, 1, 2)],
        [("pool", 3, 2), ("conv", 384, 3, 1, 1)],
        [("conv", 256, 3, 1, 1)],
        [("conv", 256, 3, 1, 1)],
    ],
    "vgg": [
        [("pool", 2, 2)] * (i > 0) + [("conv", channels, 3, 1, 1)] * n
        for i, (channels, n) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)])
    ],
}
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of the input in [-1, 1]


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Utils.parser(__doc__)
    parser.add_argument("network", choices=sorted(BACKBONES), help="whose LPIPS weights to convert from the package lpips")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.npz")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there already")
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    """Convert LPIPS' weights from PyTorch."""
    args = parse_args(argv)
    refuse_existing(Path(args.output), overwrite=args.overwrite)
    try:
        import lpips
    except ImportError as error:
        raise UserError(f"the weights come from a package that is not here ({error}): pip install lpips") from None
    state = lpips.LPIPS(net=args.network).state_dict()
    arrays = from_torch({name: value.numpy() for name, value in state.items()}, args.network)
    with atomic(args.output) as path, path.open("wb") as file:
        np.savez(file, **arrays)
    print(args.output)
    return 0


def from_torch(state: dict[str, np.ndarray], network: str) -> dict[str, np.ndarray]:
    """The state of PyTorch's LPIPS -> arrays by the names that LPIPS below wants, kernels (k, k, in, out)."""
    kernels = [name for name in state if name.startswith("net.") and name.endswith(".weight")]
    kernels.sort(key=lambda name: int(name.split(".")[2]))  # net.slice3.10.weight: its number in the backbone
    arrays = {}
    for i, name in enumerate(kernels):
        arrays[f"kernel_{i}"] = state[name].transpose(2, 3, 1, 0)
        arrays[f"bias_{i}"] = state[name.replace("weight", "bias")]
    return arrays | {f"lin_{i}": state[f"lin{i}.model.1.weight"].reshape(-1) for i in range(len(BACKBONES[network]))}


# ----------------------------------------------------------------------------------------------------------------------
# LPIPS
# ----------------------------------------------------------------------------------------------------------------------


class LPIPS:
    """Learned perceptual image patch similarity: 0 for equal pictures, larger for less similar ones."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        """arrays: what perceptual.py wrote; raises UserError for others. The network is known by its first kernel."""
        first = arrays.get("kernel_0")
        network = "alex" if first is not None and first.shape[0] == 11 else "vgg"
        self.backbone = _backbone(network)
        variables = self.backbone.weights
        wanted = {f"{('kernel', 'bias')[i % 2]}_{i // 2}": tuple(var.shape) for i, var in enumerate(variables)}
        wanted |= {f"lin_{i}": (tap.shape[-1],) for i, tap in enumerate(self.backbone.outputs)}
        if {name: array.shape for name, array in arrays.items()} != wanted:
            raise UserError("no LPIPS weights of AlexNet or VGG16 as perceptual.py writes them")
        for name, var in zip(wanted, variables, strict=False):
            var.assign(arrays[name])
        self.lin = [arrays[f"lin_{i}"] for i in range(len(self.backbone.outputs))]

    @classmethod
    def load(cls, path: str | Path) -> "LPIPS":
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(dict(file))
        except FileNotFoundError:
            how = f"pip install lpips && python3 perceptual.py vgg -o {path}"
            raise UserError(f"{path}: missing; make it with: {how}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except Exception as error:  # zipfile and numpy throw what they like at a damaged file
            raise UserError(f"{path}: cannot be read as LPIPS weights ({error})") from None

    def __call__(self, a: np.ndarray, b: np.ndarray) -> float | None:
        """Of two images (H, W, 3) uint8; None below 32 px a side."""
        if min(a.shape[:2]) < MIN_SIDE:
            return None
        x = (np.stack([a, b]).astype(np.float32) / 127.5 - 1 - SHIFT) / SCALE
        distance = 0.0
        for tap, lin in zip(self.backbone(x.astype(np.float32)), self.lin, strict=True):
            features = np.asarray(tap, np.float32)
            features = features / (np.sqrt((features**2).sum(axis=-1, keepdims=True)) + 1e-10)
            distance += float((((features[0] - features[1]) ** 2) @ lin).mean())
        return distance


def _backbone(network: str):
    """Image -> the features after each group, (H', W', channels)."""
    import keras
    from keras import layers

    x = h = keras.Input((None, None, 3))
    taps = []
    for group in BACKBONES[network]:
        for kind, *sizes in group:
            if kind == "pool":
                h = layers.MaxPooling2D(*sizes)(h)
            else:
                channels, kernel, stride, padding = sizes
                h = layers.Conv2D(channels, kernel, stride, activation="relu")(layers.ZeroPadding2D(padding)(h))
        taps.append(h)
    return keras.Model(x, taps)


# ----------------------------------------------------------------------------------------------------------------------
# Perceptual loss
# ----------------------------------------------------------------------------------------------------------------------


class VGG19:
    """Features of VGG19 (Simonyan and Zisserman 2015), as losses.perceptual compares them: relu1_1, relu2_1, ..., relu5_1.

    The weights of keras.applications are those of the original: their inputs are 0..255, blue first, less the means of
    ImageNet, 58 times as large as those of weights for inputs of unit variance, and 127.5 times as large as pix2pixHD's in
    [-1, 1]. Biases aside, the features and the loss grow alike, so the weight of the loss has to be as much smaller.
    """

    def __init__(self, weights: str = "imagenet"):
        """weights: "imagenet" (Keras' cache, or a download), or a path to such a file. Raises UserError where they are not."""
        import keras

        network = _pretrained(keras.applications.VGG19, "vgg19", weights, "knob vgg_weights")
        outputs = [network.get_layer(f"block{i}_conv1").output for i in range(1, 6)]  # Keras' layers have the ReLU in them
        self.network = keras.Model(network.input, outputs)
        self.network.trainable = False

    def __call__(self, x) -> list:
        """Images (B, H, W, 3) in [-1, 1], of at least 16 px a side -> five maps, (B, H/2^k, W/2^k, channels)."""
        from keras.applications import imagenet_utils

        return self.network(imagenet_utils.preprocess_input((x + 1) * 127.5, data_format="channels_last", mode="caffe"))


# ----------------------------------------------------------------------------------------------------------------------
# FID and KID
# ----------------------------------------------------------------------------------------------------------------------


class Inception:
    """Features of 256x256 patches by Inception v3."""

    def __init__(self, weights: str | None = "imagenet"):
        """weights: "imagenet" (Keras' cache, or a download), a path to such a file, or None for random ones."""
        import keras

        self.network = _pretrained(
            keras.applications.InceptionV3, "inception_v3", weights, "Inception v3 weights", pooling="avg"
        )

    def features(self, patches: list[np.ndarray]) -> np.ndarray:
        """Patches (256, 256, 3) uint8 -> (n, 2048)."""
        found = []
        for start in range(0, len(patches), BATCH):
            batch = np.stack(patches[start : start + BATCH]).astype(np.float32) / 127.5 - 1
            found.append(self.network.predict_on_batch(batch))
        return np.concatenate(found)


def patches_of(image: np.ndarray) -> list[np.ndarray]:
    """Patches of 256 px side by side from the top left, and from 128 px below and right of it; none in a smaller image."""
    return [
        image[top : top + PATCH, left : left + PATCH]
        for offset in (0, PATCH // 2)
        for top in range(offset, image.shape[0] - PATCH + 1, PATCH)
        for left in range(offset, image.shape[1] - PATCH + 1, PATCH)
    ]


def fid(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of two Gaussians fitted to features (n, d): |mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2))."""
    X, Y = ((f - f.mean(axis=0)) / np.sqrt(len(f) - 1) for f in (a, b))  # A = X^T X, B = Y^T Y
    root = np.linalg.svd(X @ Y.T, compute_uv=False).sum()  # tr (A B)^(1/2), without a root of a d x d matrix
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + (X**2).sum() + (Y**2).sum() - 2 * root)


def kid(a: np.ndarray, b: np.ndarray) -> float:
    """Squared maximum mean discrepancy of features (n, d), unbiased: about 0 for equal distributions, and sometimes below.

    With the kernel (x.y / d + 1)^3.
    """

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    def off_diagonal(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    return float(off_diagonal(kernel(a, a)) + off_diagonal(kernel(b, b)) - 2 * kernel(a, b).mean())


# ----------------------------------------------------------------------------------------------------------------------
# Helpers
# ----------------------------------------------------------------------------------------------------------------------


def _pretrained(application, name: str, weights: str | None, what: str, **options):
    """A network of keras.applications without its top; raises UserError, of `what`, where its weights cannot be had."""
    try:
        return application(include_top=False, weights=weights, **options)
    except Exception as error:  # of urllib, h5py or Keras
        raise UserError(
            f"{what}: {weights} cannot be had ({str(error).splitlines()[0]}); give the path of "
            f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5, from "
            f"https://storage.googleapis.com/tensorflow/keras-applications/{name}/"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
