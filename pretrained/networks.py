"""Frozen features of images: AlexNet, VGG16, VGG19 and EfficientNet-Lite0, and the distances that are computed of them.

Losses and measures share these networks. Each takes images (B, H, W, 3) in [-1, 1], does its own normalization and returns a
list of feature maps, shallow to deep. Their weights are those that `tools/get_weights.py` brings; VGG19's come with Keras.
Networks compute in float32 unless they are given another dtype policy, such as "mixed_bfloat16".
"""

from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
from keras import layers, ops

import pretrained.weights
from config import UserError

# ----------------------------------------------------------------------------------------------------------------------
# Distances
# ----------------------------------------------------------------------------------------------------------------------


def lpips(real_taps: list, fake_taps: list, lin: list):
    """Learned perceptual image patch similarity (Zhang et al. 2018, eq. 1), one distance an image: (B,).

    sum_taps mean_positions lin . (f(x)/|f(x)| - f(x_hat)/|f(x_hat)|)^2, the features' norms being over channels.
    """
    distance = 0.0
    for real, fake, weights in zip(real_taps, fake_taps, lin, strict=True):
        difference = ops.square(_unit(real) - _unit(fake))  # (B, h, w, channels)
        distance += ops.mean(ops.sum(difference * weights, axis=-1), axis=(1, 2))
    return distance


def _unit(features):
    """Divide by the norm over channels; the epsilon keeps the gradient finite where all channels are 0."""
    features = ops.cast(features, "float32")
    return features * ops.rsqrt(ops.sum(ops.square(features), axis=-1, keepdims=True) + 1e-10)


def dists(real_maps: list, fake_maps: list, alpha, beta):
    """Deep image structure and texture similarity (Ding et al. 2020, eq. 5 to 7), one distance an image: (B,).

    1 - sum_channels (alpha l + beta s), where l = (2 m_x m_y + c) / (m_x^2 + m_y^2 + c) compares a channel's means (texture)
    and s = (2 cov_xy + c) / (var_x + var_y + c) its deviations (structure), c = 1e-6. alpha and beta are scaled to the sum 1.
    """
    texture, structure = [], []
    for x, y in zip(real_maps, fake_maps, strict=True):
        x, y = ops.cast(x, "float32"), ops.cast(y, "float32")
        mean_x, mean_y = (ops.mean(f, axis=(1, 2), keepdims=True) for f in (x, y))
        x, y = x - mean_x, y - mean_y
        texture.append((2 * mean_x * mean_y + 1e-6) / (ops.square(mean_x) + ops.square(mean_y) + 1e-6))
        variances = ops.mean(ops.square(x), axis=(1, 2)) + ops.mean(ops.square(y), axis=(1, 2))
        structure.append((2 * ops.mean(x * y, axis=(1, 2)) + 1e-6) / (variances + 1e-6))
    texture = ops.concatenate([ops.squeeze(t, axis=(1, 2)) for t in texture], axis=-1)  # (B, all channels)
    structure = ops.concatenate(structure, axis=-1)
    similarity = ops.sum(texture * alpha + structure * beta, axis=-1)
    return 1 - similarity / (np.sum(alpha) + np.sum(beta))


# ----------------------------------------------------------------------------------------------------------------------
# Networks
# ----------------------------------------------------------------------------------------------------------------------


class FrozenNetwork:
    """A network whose weights never change. Subclasses build it in `_build`, from convolutions that `_conv` makes."""

    weights: ClassVar[str]  # their name in the cache
    min_side: ClassVar[int]  # px; in a smaller image a deep map would be empty, or a single point

    def __init__(self, arrays: dict[str, np.ndarray], dtype: str = "float32"):
        """Take arrays kernel_0, bias_0, kernel_1, ... in the order of the layers; raises UserError for others."""
        self.arrays, self.dtype = arrays, dtype
        self._layers: list = []
        x = keras.Input((None, None, 3), dtype="float32")
        self.network = keras.Model(x, self._build(x))
        self.network.trainable = False
        if {name: array.shape for name, array in arrays.items()} != self._shapes():
            raise UserError(f"not the weights of {type(self).__name__} as {pretrained.weights.HOW_TO_GET} writes them")
        for name, variable in self._variables().items():
            variable.assign(arrays[name])

    @classmethod
    def load(cls, path: str | Path | None = None, dtype: str = "float32"):
        """Build the network with the weights in the cache, or in an .npz file; raises UserError where there are none."""
        arrays = pretrained.weights.load(cls.weights, path)
        try:
            return cls(arrays, dtype)
        except UserError as error:
            raise UserError(f"{path or pretrained.weights.cached(cls.weights)}: {error}") from None

    def __call__(self, x) -> list:
        """Images (B, H, W, 3) in [-1, 1], of at least `min_side` px a side -> feature maps (B, h, w, channels)."""
        self.check_size(*x.shape[1:3])
        return self.network(x)

    @classmethod
    def check_size(cls, height: int | None, width: int | None) -> None:
        """Raise UserError where images of this size are too small; None is a size that is not known yet."""
        if any(side is not None and side < cls.min_side for side in (height, width)):
            raise UserError(f"{cls.__name__} needs images of at least {cls.min_side} px a side, not {width}x{height}")

    def _build(self, x):
        raise NotImplementedError

    def _shapes(self) -> dict[str, tuple]:
        """Return the shapes of all arrays by name; subclasses add those that are no kernels and biases."""
        return {name: tuple(variable.shape) for name, variable in self._variables().items()}

    def _conv(self, h, filters: int | None, kernel: int, stride: int = 1, activation="relu", padding: str = "same"):
        """A convolution with bias; depthwise where `filters` is None."""
        options = {"activation": activation, "padding": padding, "dtype": self.dtype}
        layer = (
            layers.Conv2D(filters, kernel, stride, **options) if filters else layers.DepthwiseConv2D(kernel, stride, **options)
        )
        self._layers.append(layer)
        return layer(h)

    def _variables(self) -> dict:
        return {f"{kind}_{i}": getattr(layer, kind) for i, layer in enumerate(self._layers) for kind in ("kernel", "bias")}


class LPIPSNetwork(FrozenNetwork):
    """A network that LPIPS compares images by. `lin` are the weights of its channels there."""

    channels: ClassVar[tuple[int, ...]]

    def __init__(self, arrays: dict[str, np.ndarray], dtype: str = "float32"):
        super().__init__(arrays, dtype)
        self.lin = [arrays[f"lin_{i}"] for i in range(len(self.channels))]

    def _shapes(self) -> dict[str, tuple]:
        return super()._shapes() | {f"lin_{i}": (n,) for i, n in enumerate(self.channels)}


class AlexNet(LPIPSNetwork):
    """AlexNet (Krizhevsky 2014) as in torchvision: relu1 to relu5, at 1/4, 1/8 and three times 1/16 of the size."""

    weights, min_side = "alexnet", 31
    channels = (64, 192, 384, 256, 256)

    def _build(self, x):
        h = ops.pad(_unit_variance(x), ((0, 0), (2, 2), (2, 2), (0, 0)))
        taps = [self._conv(h, 64, kernel=11, stride=4, padding="valid")]  # (B, H/4,  W/4,  64)
        taps += [self._conv(_max_pool(taps[-1], 3), 192, kernel=5)]  # (B, H/8,  W/8,  192)
        taps += [self._conv(_max_pool(taps[-1], 3), 384, kernel=3)]  # (B, H/16, W/16, 384)
        taps += [self._conv(taps[-1], 256, kernel=3)]  # (B, H/16, W/16, 256)
        taps += [self._conv(taps[-1], 256, kernel=3)]  # (B, H/16, W/16, 256)
        return taps  # fmt: skip


class VGG16(LPIPSNetwork):
    """VGG16 (Simonyan and Zisserman 2015) as in torchvision: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3.

    They are at full size, 1/2, 1/4, 1/8 and 1/16.
    """

    weights, min_side = "vgg16", 16
    channels = (64, 128, 256, 512, 512)

    def _build(self, x):
        h = _unit_variance(x)
        taps: list = []
        for filters, repeats in zip(self.channels, (2, 2, 3, 3, 3), strict=True):
            if taps:
                h = self._pool(h)
            for _ in range(repeats):
                h = self._conv(h, filters, kernel=3)
            taps.append(h)  # (B, H/2^k, W/2^k, filters)
        return taps

    def _pool(self, h):
        return _max_pool(h, 2)


class DISTSNetwork(VGG16):
    """VGG16 for DISTS: the image in [0, 1], then VGG16's five maps with L2 pooling in place of max pooling."""

    def _build(self, x):
        return [(x + 1) / 2, *super()._build(x)]

    def _pool(self, h):
        """Root of the local mean of squares, at every second pixel: a Hanning window keeps aliasing out (eq. 1)."""
        window = np.outer([1, 2, 1], [1, 2, 1]) / 16
        kernel = np.tile(window[:, :, None, None], (1, 1, h.shape[-1], 1)).astype(np.float32)  # (3, 3, channels, 1)
        padded = ops.pad(ops.square(ops.cast(h, "float32")), ((0, 0), (1, 1), (1, 1), (0, 0)))
        return ops.sqrt(ops.depthwise_conv(padded, kernel, strides=2, padding="valid") + 1e-12)


class EfficientNetLite0(FrozenNetwork):
    """EfficientNet-Lite0 (Tan and Le 2019; without squeeze and excitation, ReLU6 for swish), its batch norms folded.

    Maps at 1/4, 1/8, 1/16 and 1/32 of the size, each after the last block of its size; `pooled` gives the 1280 features that
    its classifier sees.
    """

    weights, min_side = "efficientnet_lite0", 32
    channels = (24, 40, 112, 320)
    # blocks of a stage, kernel, stride, expansion, channels
    stages = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
              (1, 3, 1, 6, 320))  # fmt: skip

    def __init__(self, arrays: dict[str, np.ndarray], dtype: str = "float32"):
        super().__init__(arrays, dtype)
        *taps, pooled = self.network.outputs
        self.to_pooled = keras.Model(self.network.input, pooled)
        self.network = keras.Model(self.network.input, taps)
        self.network.trainable = self.to_pooled.trainable = False

    def pooled(self, x):
        """Images (B, H, W, 3) in [-1, 1] -> (B, 1280)."""
        self.check_size(*x.shape[1:3])
        return self.to_pooled(x)

    def _build(self, x):
        h = (x * 127.5 + 0.5) / 128  # its training took 0..255, less 127, by 128
        h = self._conv(h, 32, kernel=3, stride=2, activation="relu6")  # (B, H/2, W/2, 32)
        taps = {}
        for repeats, kernel, stride, expansion, filters in self.stages:
            for i in range(repeats):
                h = self._block(h, filters, kernel, stride if i == 0 else 1, expansion)
            taps[filters] = h
        head = self._conv(h, 1280, kernel=1, activation="relu6")  # (B, H/32, W/32, 1280)
        return [*(taps[n] for n in self.channels), ops.mean(ops.cast(head, "float32"), axis=(1, 2))]

    def _block(self, h, filters: int, kernel: int, stride: int, expansion: int):
        """Inverted residual: 1x1 to more channels, depthwise, 1x1 to `filters` (linear)."""
        before = h
        if expansion > 1:
            h = self._conv(h, expansion * h.shape[-1], kernel=1, activation="relu6")
        h = self._conv(h, None, kernel, stride, activation="relu6")
        h = self._conv(h, filters, kernel=1, activation=None)
        return h + before if h.shape[-1] == before.shape[-1] and stride == 1 else h

    def _shapes(self) -> dict[str, tuple]:
        return super()._shapes() | {"classifier": (1280, 1000), "classifier_bias": (1000,)}


class VGG19:
    """Features of VGG19 (Simonyan and Zisserman 2015), as losses.perceptual compares them: relu1_1, relu2_1, ..., relu5_1.

    The weights of keras.applications are the original ones. Their inputs are 0..255, blue first, less the means of ImageNet:
    58 times as large as inputs of unit variance, and 127.5 times as large as pix2pixHD's in [-1, 1]. Biases aside, the
    features and the loss grow alike, so the weight of the loss has to be as much smaller.
    """

    min_side = 16

    def __init__(self, weights: str = "imagenet"):
        """weights: "imagenet" (Keras' cache, or a download), or a path to such a file. Raises UserError where they are not."""
        network = keras_application(keras.applications.VGG19, "vgg19", weights, "knob vgg_weights")
        outputs = [network.get_layer(f"block{i}_conv1").output for i in range(1, 6)]  # Keras' layers have the ReLU in them
        self.network = keras.Model(network.input, outputs)
        self.network.trainable = False

    def __call__(self, x) -> list:
        """Images (B, H, W, 3) in [-1, 1], of at least 16 px a side -> five maps, (B, H/2^k, W/2^k, channels)."""
        from keras.applications import imagenet_utils

        return self.network(imagenet_utils.preprocess_input((x + 1) * 127.5, data_format="channels_last", mode="caffe"))


# ----------------------------------------------------------------------------------------------------------------------
# Helpers
# ----------------------------------------------------------------------------------------------------------------------


def keras_application(application, name: str, weights: str | None, what: str, **options):
    """Return a network of keras.applications without its top; raises UserError, about `what`, if its weights are missing."""
    try:
        return application(include_top=False, weights=weights, **options)
    except Exception as error:  # of urllib, h5py or Keras
        raise UserError(
            f"{what}: {weights} cannot be had ({str(error).splitlines()[0]}); give the path of "
            f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5, from "
            f"https://storage.googleapis.com/tensorflow/keras-applications/{name}/"
        ) from None


def _unit_variance(x):
    """Images in [-1, 1] -> less the mean and by the deviation of ImageNet's colours, as torchvision's networks want them."""
    return (x - np.array([-0.030, -0.088, -0.188], np.float32)) / np.array([0.458, 0.448, 0.450], np.float32)


def _max_pool(h, size: int):
    return ops.max_pool(h, size, strides=2)
