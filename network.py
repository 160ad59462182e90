"""The networks of Agustsson et al., "Generative Adversarial Networks for Extreme Learned Image Compression"
(arXiv 1804.02958), as in its appendix: encoder, quantizer, generator, discriminators; and a noise generator.

To add an architecture, add a static method to `Network` with the signature of the one it replaces, and name it in the knob
`encoder`, `generator` or `discriminator`. This file uses Keras only, so the networks run on every Keras backend.

Notation, after Johnson et al. 2016: c7s1-k a 7x7 stride-1 convolution with k filters, dk a 3x3 stride-2 convolution, Rk a
residual block of two 3x3 convolutions, uk an upsampling to twice the size; each followed by norm and ReLU. Tensors are NHWC.
"""

import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import keras
from keras import KerasTensor, Layer, layers, ops

from config import UserError, config_train

# ----------------------------------------------------------------------------------------------------------------------
# Layers that Keras does not have
# ----------------------------------------------------------------------------------------------------------------------


class Norm(Layer):
    """Normalize to zero mean and unit variance over `axes`, then scale by gamma and add beta, both per channel.

    axes (1, 2): instance norm, over the pixels of each channel (Ulyanov et al. 2016; epsilon as in the paper's code).
    axes (-1,): channel norm, over the channels of each pixel (Mentzer et al. 2020, with their epsilon): unlike
    instance norm it keeps the brightness and colour of a whole image, and does not depend on how large the image is.
    """

    def __init__(self, axes: tuple, gamma: str = "ones", **kwargs):
        super().__init__(**kwargs)
        self.axes, self.start = axes, gamma
        self.epsilon = 1e-3 if axes == (-1,) else 1e-6

    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), initializer=self.start, name="gamma")
        self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros", name="beta")

    def call(self, x):
        x32 = ops.cast(x, "float32")  # the square of a half-precision value may be too large for one
        mean, variance = ops.moments(x32, self.axes, keepdims=True)
        scale = ops.rsqrt(variance + self.epsilon) * self.gamma
        return ops.cast(x32 * scale + (self.beta - mean * scale), x.dtype)


class Quantizer(Layer):
    """q: each value of w becomes the nearest of L centers; the gradient is that of the soft assignment.

    Forward, w_hat = argmin_c |w - c|; a tie goes to the lower center. Backward, straight through, the gradient of
    sum_c c * softmax_c(-d(w, c) / temperature) (Mentzer et al. 2018, section 3.2), with respect to w and the centers.

    With d = |w - c|, all distances grow alike outside the outer centers, so the gradient there is exactly zero and such
    values stay lost. With d = (w - c)^2, the default, the soft assignment at unit spacing and temperature is w itself to 0.02
    one unit inside the outer centers; it bends towards them (0.3 at them), and beyond them its gradient fades: the loss
    `range_penalty` brings such values back.
    """

    def __init__(self, config: config_train, **kwargs):
        super().__init__(**kwargs)
        self.config = config

    def build(self, shape):
        self.centers = self.add_weight(
            shape=(self.config.L,),
            initializer=lambda *_, **__: ops.convert_to_tensor(self.config.centers, "float32"),
            trainable=self.config.learn_centers,
            name="centers",
        )

    def call(self, w):
        distance = ops.abs(w[..., None] - self.centers)  # (B, h, w, C, L)
        symbols = ops.argmin(distance, axis=-1)  # (B, h, w, C); argmin takes the first of equals
        hard = ops.take(self.centers, symbols)
        if self.config.quantizer_distance == "squared":
            distance = ops.square(distance)
        assignment = ops.softmax(-distance / self.config.quantizer_temperature)
        soft = ops.sum(self.centers * assignment, axis=-1)
        return soft + ops.stop_gradient(hard - soft), symbols, assignment


class AddNoise(Layer):
    """h + scale * noise, the scale learned for each channel, from 0 (Karras et al. 2019): (B, h, w, k), (B, h, w, 1)."""

    def build(self, h_shape, noise_shape):
        self.scale = self.add_weight(shape=(h_shape[-1],), initializer="zeros", name="scale")

    def call(self, h, noise):
        return h + self.scale * noise

    def compute_output_shape(self, h_shape, noise_shape):
        return h_shape


_resize: ContextVar[Callable] = ContextVar("resize", default=ops.image.resize)


@contextmanager
def resizing_by(resize: Callable) -> Iterator[None]:
    """Within this context, networks that are built resize by `resize(x, (height, width))`, bilinear.

    Keras' own, the default, wants a size that is known when TensorFlow makes a graph.
    """
    token = _resize.set(resize)
    try:
        yield
    finally:
        _resize.reset(token)


class Resize(Layer):
    """Resize a map bilinearly."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.resize = _resize.get()

    def resized(self, x, height, width):
        """x (B, h, w, C) -> (B, height, width, C)."""
        return ops.cast(self.resize(x, (height, width)), x.dtype)


class ResizeLike(Resize):
    """Resize the first map bilinearly to the height and width of the second; the identity where they agree."""

    def call(self, x, like):
        return self.resized(x, *ops.shape(like)[1:3])

    def compute_output_shape(self, x_shape, like_shape):
        return (x_shape[0], *like_shape[1:3], x_shape[3])


class Doubling(Resize):
    """Bilinear upsampling to twice the height and width."""

    def call(self, x):
        height, width = ops.shape(x)[1:3]
        return self.resized(x, 2 * height, 2 * width)

    def compute_output_shape(self, shape):
        return (shape[0], *(side and 2 * side for side in shape[1:3]), shape[3])


# ----------------------------------------------------------------------------------------------------------------------
# Blocks
# ----------------------------------------------------------------------------------------------------------------------


_within: ContextVar[str] = ContextVar("within", default="")  # what the names of layers begin with


@contextmanager
def within(name: str) -> Iterator[None]:
    """Within this context, the names of layers begin with `name`."""
    token = _within.set(f"{_within.get()}{name}.")
    try:
        yield
    finally:
        _within.reset(token)


def place(name: str) -> str:
    """Return the name of a layer that is called `name` where it is built, as "scale0.conv1". Keras forbids slashes."""
    return _within.get() + name


def norm(x, name: str, config: config_train, gamma: str = "ones"):
    """The normalization that the knob `normalization` names, of the layer `name`. gamma: what its scale starts as."""
    return Norm({"instance": (1, 2), "channel": (-1,)}[config.normalization], gamma, name=place(f"{name}.norm"))(x)


def has_bias(config: config_train) -> bool:
    """Whether convolutions before a norm have a bias: an instance norm would cancel it.

    A channel norm does not, and needs it: without one, the network could not tell a dark patch from a bright one.
    """
    return config.normalization != "instance"


def reflect_conv(x, filters: int, name: str, *, kernel: int, bias: bool = True, initializer="glorot_uniform"):
    """Stride-1 convolution of an image padded by reflection, so that borders look like the rest."""
    p = kernel // 2
    x = ops.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), mode="reflect")
    return layers.Conv2D(filters, kernel, use_bias=bias, kernel_initializer=initializer, name=place(name))(x)


def conv_block(x, filters: int, name: str, *, kernel: int, stride: int = 1, config: config_train):
    """Convolution, norm, ReLU."""
    bias = has_bias(config)
    if stride == 1:
        x = reflect_conv(x, filters, name, kernel=kernel, bias=bias)
    else:
        x = layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=bias, name=place(name))(x)
    return ops.relu(norm(x, name, config))


def residual_block(x, name: str, config: config_train, normalized: bool = True):
    """Rk: x + norm(conv(ReLU(norm(conv(x))))), without a ReLU after the sum (Gross and Wilber 2016).

    Except with the paper's instance norm, the block begins as the identity: its second scale starts at zero or, without the
    norms, its second kernel (Goyal et al. 2017; Zhang et al. 2019). Otherwise the sum grows with each block, and networks that
    have no norm after it start with images of black and white, and with feature maps beyond the outer centers.
    """
    k = x.shape[-1]
    if not normalized:
        h = ops.relu(reflect_conv(x, k, f"{name}.conv1", kernel=3))
        return x + reflect_conv(h, k, f"{name}.conv2", kernel=3, initializer="zeros")
    h = conv_block(x, k, f"{name}.conv1", kernel=3, config=config)
    h = reflect_conv(h, k, f"{name}.conv2", kernel=3, bias=has_bias(config))
    return x + norm(h, f"{name}.conv2", config, gamma="zeros" if config.normalization == "channel" else "ones")


def upsample_block(x, filters: int, name: str, config: config_train, normalized: bool = True):
    """uk: to twice the height and width, then norm and ReLU, or ReLU alone."""
    if config.upsampling in ("nearest", "bilinear"):
        x = (layers.UpSampling2D(2) if config.upsampling == "nearest" else Doubling())(x)
        x = reflect_conv(x, filters, name, kernel=3, bias=has_bias(config) or not normalized)
        return ops.relu(norm(x, name, config) if normalized else x)
    kernel = {"transpose": 3, "transpose4": 4}[config.upsampling]
    bias = has_bias(config) or not normalized
    x = layers.Conv2DTranspose(filters, kernel, strides=2, padding="same", use_bias=bias, name=place(name))(x)
    return ops.relu(norm(x, name, config) if normalized else x)


def subpixel_block(x, filters: int, name: str):
    """Twice the height and width by a convolution and depth-to-space (Shi et al. 2016), a blur, and ReLU.

    The kernel starts alike for the four pixels of each block (ICNR, Aitken et al. 2017), so that this begins as bilinear
    upsampling. In training the four drift apart, and a checkerboard appears; the blur takes away all that has its period.
    """
    x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    x = layers.Conv2D(4 * filters, 3, kernel_initializer=icnr, name=place(name))(x)
    return ops.relu(blur(ops.depth_to_space(x, 2)))


def blur(x):
    """Smooth an image by the kernel (1, 2, 1) / 4 along each axis, which is two means over 2x2 pixels."""
    x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    return ops.average_pool(ops.average_pool(x, 2, strides=1), 2, strides=1)


def icnr(shape: tuple, dtype=None):
    """A kernel (k, k, in, 4 * out) for depth-to-space by 2 whose four groups of filters are the same random one."""
    return ops.tile(keras.initializers.GlorotUniform()((*shape[:-1], shape[-1] // 4), dtype), (1, 1, 1, 4))


def faint():
    """A kernel a third as large as usual, so that images begin near gray, where tanh has its gradient."""
    return keras.initializers.VarianceScaling(0.1, "fan_avg", "uniform")


def bounded(layer, config: config_train):
    """A layer of a discriminator, with the knob `spectral_norm` such that its kernel's largest singular value is 1.

    Miyato et al. 2018, but that Keras' layer, in each training call, divides the kernel itself: a projection after the step,
    not a reparametrization within it. In float32, whatever the layer computes in: the kernel is written back.
    """
    if not config.spectral_norm:
        return layer
    return layers.SpectralNormalization(layer, power_iterations=3, dtype="float32", name=layer.name)


def strided_convs(x, config: config_train, *, kernel: int, norm: Callable | None) -> tuple:
    """The four stride-2 convolutions of a discriminator, with LeakyReLU 0.2, and a norm from the second on if there is one.

    Returns the last of their maps, and all of them by name.
    """
    f = config.discriminator_width
    h, maps = x, {}
    for k, filters in enumerate((f, 2 * f, 4 * f, 8 * f), start=1):
        own = norm if k > 1 else None
        conv = layers.Conv2D(filters, kernel, strides=2, padding="same", use_bias=own is None, name=place(f"conv{k}"))
        h = bounded(conv, config)(h)
        if own:
            h = own(name=place(f"conv{k}.norm"))(h)
        h = maps[f"map{k}"] = ops.leaky_relu(h, 0.2)  # (B, H/2^k, W/2^k, f * 2^(k-1))
    return h, maps


def mean_score(h, config: config_train):
    """One score an image, of a discriminator's last map at any size, where a flat layer would fix it: (B, 1)."""
    return bounded(layers.Dense(1, name=place("last")), config)(layers.GlobalAveragePooling2D()(h))


def split_noise(z, config: config_train) -> tuple:
    """Take the blocks' noise out of z. Returns z without it, and an iterator of each block's noise, (B, k h, k w, 1).

    Unless noise_mode is `layers`, there is no such noise, and z stays as it is.
    """
    if not config.sample_noise or config.noise_mode != "layers":
        return z, iter(())
    first, n = config.channel_bottleneck, config.noise_channels  # z: w_hat, noise, what else G sees
    noise, z = z[..., first : first + n], ops.concatenate([z[..., :first], z[..., first + n :]], axis=-1)
    maps, start = [], 0
    for k in config.noise_scales:
        own = noise[..., start : start + k * k]
        maps.append(ops.depth_to_space(own, k) if k > 1 else own)
        start += k * k
    return z, iter(maps)


def add_noise(h, name: str, noise):
    """The output h of the block `name` with the next map of the iterator `noise` added, if there is one."""
    own = next(noise, None)
    return h if own is None else AddNoise(name=place(f"{name}.noise"))(h, own)


# ----------------------------------------------------------------------------------------------------------------------
# Networks
# ----------------------------------------------------------------------------------------------------------------------


def sees(positions: Callable[[config_train], int]) -> Callable:
    """Say of a method of Network how far it looks: positions of the feature map beyond its own, where norms look no further.

    Whoever runs the network on a large image can then cut the image into tiles with such a margin.
    """

    def note(method):
        method.sees = positions
        return method

    return note


class Network:
    """Each method is a pure function from symbolic Keras tensors to symbolic Keras tensors. B: batch, H x W: image."""

    @staticmethod
    @sees(lambda config: 3)
    def encoder(x: KerasTensor, config: config_train) -> KerasTensor:
        """E: image in [-1, 1] -> feature map.  c7s1-60, d120, d240, d480, d960, c3s1-C (linear).

        H and W are multiples of 16, at least 32 (the last reflection needs a feature map of 2 x 2).
        """
        f = config.width
        h = conv_block(x, f // 16, "first", kernel=7, config=config)  # (B, H, W, f/16)
        for i in (8, 4, 2, 1):
            h = conv_block(h, f // i, f"down{16 // i}", kernel=3, stride=2, config=config)  # (B, i/16 H, i/16 W, f/i)
        if config.bottleneck_norm:  # as the seed: leaves only the centers {0, 1, 2} in reach
            return conv_block(h, config.channel_bottleneck, "last", kernel=3, config=config)  # (B, H/16, W/16, C)
        return reflect_conv(h, config.channel_bottleneck, "last", kernel=3)  # (B, H/16, W/16, C)

    @staticmethod
    @sees(lambda config: 1 + 2 * config.n_encoder_blocks + 2)
    def subpixel_encoder(x: KerasTensor, config: config_train) -> KerasTensor:
        """E for CPUs: space-to-depth by 4, c3s1-W/2, d W/2, d W, residual blocks at 1/16, c3s1-C (linear).

        It has no layer above a quarter of the image's size, where convolutions of few channels move memory rather than compute.
        """
        f = config.width
        h = ops.space_to_depth(x, 4)  # (B, H/4, W/4, 16 * channels of x)
        h = conv_block(h, f // 2, "first", kernel=3, config=config)  # (B, H/4, W/4, f/2)
        h = conv_block(h, f // 2, "down8", kernel=3, stride=2, config=config)  # (B, H/8, W/8, f/2)
        h = conv_block(h, f, "down16", kernel=3, stride=2, config=config)  # (B, H/16, W/16, f)
        for k in range(1, config.n_encoder_blocks + 1):
            h = residual_block(h, f"block{k}", config)  # (B, H/16, W/16, f)
        return reflect_conv(h, config.channel_bottleneck, "last", kernel=3)  # (B, H/16, W/16, C)

    @staticmethod
    def quantizer(w: KerasTensor, config: config_train) -> tuple[KerasTensor, dict[str, KerasTensor]]:
        """q: feature map -> nearest centers w_hat (B, h, w, C).

        Also their indices, "symbols", in 0..L-1, and the soft "assignment" (B, h, w, C, L), which sums to 1 over L.
        """
        w_hat, symbols, assignment = Quantizer(config)(w)
        return w_hat, {"symbols": symbols, "assignment": assignment}

    @staticmethod
    @sees(lambda config: 1 + 2 * config.n_residual_blocks + 4)
    def generator(z: KerasTensor, config: config_train) -> KerasTensor:
        """G: w_hat, with noise or not -> image in [-1, 1].  c3s1-960, R960 x 9, u480, u240, u120, u60, c7s1-3, tanh."""
        f = config.width
        z, noise = split_noise(z, config)
        h = conv_block(z, f, "first", kernel=3, config=config)  # (B, H/16, W/16, f)
        h = add_noise(h, "first", noise)
        for k in range(1, config.n_residual_blocks + 1):
            h = residual_block(h, f"block{k}", config)  # (B, H/16, W/16, f)
            h = add_noise(h, f"block{k}", noise)
        for i in (2, 4, 8, 16):
            h = upsample_block(h, f // i, f"up{16 // i}", config)  # (B, i/16 H, i/16 W, f/i)
            h = add_noise(h, f"up{16 // i}", noise)
        return ops.tanh(reflect_conv(h, 3, "last", kernel=7))  # (B, H, W, 3)

    @staticmethod
    @sees(lambda config: 1 + 2 * config.n_residual_blocks + 7)
    def subpixel_generator(z: KerasTensor, config: config_train) -> KerasTensor:
        """G for CPUs: c3s1-W, residual blocks at 1/16, two sub-pixel doublings with more blocks, u W/8, u W/16, c3s1-3, tanh.

        Most of the work is done at 1/16 to 1/4 of the size. The last two doublings are those of the knob `upsampling` with few
        channels; `bilinear` leaves no grid, where depth-to-space at the end left one of 4 px. Above 1/16 of the size there is
        no norm: a channel norm makes a sharp line of a zero crossing, and so drew outlines around everything.
        """
        f = config.width
        z, noise = split_noise(z, config)
        h = conv_block(z, f, "first", kernel=3, config=config)  # (B, H/16, W/16, f)
        h = add_noise(h, "first", noise)
        for k in range(1, config.n_residual_blocks + 1):
            h = residual_block(h, f"block{k}", config)  # (B, H/16, W/16, f)
            h = add_noise(h, f"block{k}", noise)
        h = add_noise(subpixel_block(h, f // 2, "up8"), "up8", noise)  # (B, H/8, W/8, f/2)
        for k in (1, 2):
            h = residual_block(h, f"at8.block{k}", config, normalized=False)  # (B, H/8, W/8, f/2)
        h = add_noise(subpixel_block(h, f // 4, "up4"), "up4", noise)  # (B, H/4, W/4, f/4)
        for k in (1, 2, 3):
            h = residual_block(h, f"at4.block{k}", config, normalized=False)  # (B, H/4, W/4, f/4)
        for i in (8, 16):
            h = upsample_block(h, f // i, f"up{16 // i}", config, normalized=False)  # (B, i/16 H, i/16 W, f/i)
            h = add_noise(h, f"up{16 // i}", noise)
        return ops.tanh(reflect_conv(h, 3, "last", kernel=3, initializer=faint()))  # (B, H, W, 3)

    @staticmethod
    def noise_generator(v: KerasTensor, w_hat: KerasTensor, config: config_train) -> KerasTensor:
        """DCGAN-like (Radford et al. 2016): noise v (B, noise_dim) -> C-channel map of the height and width of w_hat.

        It makes the 32 x 64 map of a 512 x 1024 image, and fits that to other sizes. Batch norm (`noise_norm`) over a
        batch of one outputs its offset whatever the noise, so the default norm looks at one sample at a time.
        """

        def noise_norm(h, name):
            batch, name = config.noise_norm == "batch", place(f"{name}.norm")
            return (layers.BatchNormalization(name=name) if batch else Norm((-1,), name=name))(ops.relu(h))

        h = noise_norm(layers.Dense(4 * 8 * 256, name=place("first"))(v), "first")  # (B, 8192)
        h = ops.reshape(h, (-1, 4, 8, 256))  # (B, 4, 8, 256)
        for k, filters in enumerate((128, 64, 32), start=1):
            h = layers.Conv2DTranspose(filters, 5, strides=2, padding="same", name=place(f"up{k}"))(h)
            h = noise_norm(h, f"up{k}")  # (B, 8, 16, 128), (B, 16, 32, 64), (B, 32, 64, 32)
        h = reflect_conv(h, config.channel_bottleneck, "last", kernel=7)  # (B, 32, 64, C)
        return ResizeLike()(h, w_hat)  # (B, H/16, W/16, C)

    @staticmethod
    def patch_discriminator(x: KerasTensor, config: config_train) -> tuple[KerasTensor, dict[str, KerasTensor]]:
        """D at one scale (Isola et al. 2017): image -> logits of patches, and the four intermediate maps by name.

        4x4 stride-2 c64 (no norm), c128, c256, c512 with instance norm and LeakyReLU 0.2, then a 4x4 convolution to 1.
        The knob spectral_norm takes the place of the instance norm, which would scale up again what it keeps small.
        """
        h, maps = strided_convs(x, config, kernel=4, norm=None if config.spectral_norm else partial(Norm, (1, 2)))
        return bounded(layers.Conv2D(1, 4, padding="same", name=place("last")), config)(h), maps  # (B, H/16, W/16, 1)

    @staticmethod
    def projected_discriminator(
        x: KerasTensor, config: config_train, features: Sequence[KerasTensor]
    ) -> tuple[list, dict[str, KerasTensor]]:
        """A patch discriminator on the image, and a small head on each depth of a frozen network (Sauer et al. 2021).

        features: what AlexNet makes of x (pretrained/networks.py), (B, h_k, w_k, c_k). Returns the logits of the patches and
        of each head, and the intermediate maps by "0/name" (patches) and "head k/name".
        """
        f = config.discriminator_width
        with within("patches"):
            patches, maps = Network.patch_discriminator(x, config)
        logits, maps = [patches], {f"0/{name}": h for name, h in maps.items()}
        for k, h in enumerate(features, start=1):
            h = h * ops.rsqrt(ops.mean(ops.square(h), axis=-1, keepdims=True) + 1e-6)  # depths differ in their range
            with within(f"head{k}"):
                conv1 = bounded(layers.Conv2D(f, 1, name=place("conv1")), config)
                conv2 = bounded(layers.Conv2D(f, 3, padding="same", name=place("conv2")), config)
                last = bounded(layers.Conv2D(1, 1, name=place("last")), config)
            h = ops.leaky_relu(conv1(h), 0.2)  # (B, h_k, w_k, f)
            h = maps[f"head {k}/map1"] = ops.leaky_relu(conv2(h), 0.2)
            logits.append(last(h))  # (B, h_k, w_k, 1)
        return logits, maps

    @staticmethod
    def multiscale_discriminator(
        x: KerasTensor, config: config_train, features: Sequence[KerasTensor] = ()
    ) -> tuple[list, dict[str, KerasTensor]]:
        """Discriminators of one design on the image, and on the image pooled once and twice (Wang et al. 2018).

        Returns the logits at each scale, and all intermediate maps by "scale/name". With `features`, those of a frozen network,
        the projected discriminator takes their place.
        """
        if features:
            return Network.projected_discriminator(x, config, features)
        logits: list[KerasTensor] = []
        maps: dict[str, KerasTensor] = {}
        for scale in range(config.n_scales if config.multiscale else 1):
            if scale > 0:
                x = layers.AveragePooling2D(3, strides=2, padding="same")(x)  # (B, H/2^scale, W/2^scale, channels)
            with within(f"scale{scale}"):
                scale_logits, scale_maps = getattr(Network, config.discriminator)(x, config)
            logits.append(scale_logits)
            maps |= {f"{scale}/{name}": h for name, h in scale_maps.items()}
        return logits, maps

    @staticmethod
    def dcgan_discriminator(x: KerasTensor, config: config_train) -> tuple[KerasTensor, dict[str, KerasTensor]]:
        """Image -> one logit an image, and the intermediate maps. 5x5 stride-2 convolutions, batch norm (Radford 2016)."""
        h, maps = strided_convs(x, config, kernel=5, norm=layers.BatchNormalization)
        return mean_score(h, config), maps  # (B, 1)

    @staticmethod
    def wgan_critic(x: KerasTensor, config: config_train) -> tuple[KerasTensor, dict[str, KerasTensor]]:
        """Image -> one score an image. As the DCGAN discriminator, but each sample by itself (Gulrajani et al. 2017)."""
        h, maps = strided_convs(x, config, kernel=5, norm=None)
        return mean_score(h, config), maps  # (B, 1)


# ----------------------------------------------------------------------------------------------------------------------
# Building
# ----------------------------------------------------------------------------------------------------------------------


def build(config: config_train, role: str, x: KerasTensor, channels: int):
    """What the static method of Network that the knob `role` names makes of x; raises UserError if it has another role."""
    name = getattr(config, role)
    methods = [key for key, value in vars(Network).items() if isinstance(value, staticmethod) and key[0] != "_"]
    if name not in methods:
        raise UserError(f"knob {role}: Network has no method {name!r}; it has {', '.join(methods)}")
    misfit = UserError(f"knob {role}: Network.{name} does not make {channels} channels of {x.shape[-1]}, as this role needs")
    method = getattr(Network, name)
    signature = inspect.signature(method)
    try:
        signature.bind(x, config=config)  # as the seed's my_generator(z, **kwargs) can be called too
    except TypeError:
        raise UserError(f"knob {role}: Network.{name}{signature} cannot be called as {name}(x, config=config)") from None
    try:
        output = method(x, config=config)  # what it raises is shown as it is
    except RecursionError:  # multiscale_discriminator, of itself
        raise misfit from None
    tensor = output[0] if role == "discriminator" and isinstance(output, tuple) else output
    if isinstance(output, tuple) != (role == "discriminator") or getattr(tensor, "shape", (None,))[-1] != channels:
        raise misfit
    return output


def margin(config: config_train, role: str) -> int | None:
    """Return how many positions of the feature map the network of a role sees beyond its own.

    None where that is not known, as with a method that does not say it by `sees`, and where the network sees everything,
    because an instance norm does.
    """
    positions = getattr(getattr(Network, getattr(config, role)), "sees", None)
    return positions(config) if positions and config.normalization == "channel" else None


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this context, layers get initial weights that follow from the seed. Nothing global is changed after it.

    An initializer without a seed draws one from Python's generator, which is the only one that Keras uses for this.
    """
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Within this context, networks compute with numbers of this kind, and have weights of float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype_policy(name))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def dtype_policy(precision: str) -> str:
    """Return the name of Keras' policy for computing in a precision, with weights of float32."""
    return precision if precision == "float32" else f"mixed_{precision}"


def float32(outputs):
    """What networks return, in the precision that losses are computed in."""
    return keras.tree.map_structure(lambda x: x if x.dtype == "float32" else ops.cast(x, "float32"), outputs)
