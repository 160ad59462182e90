"""The networks wired together, from an image to its losses.

image x ─▶ E ─▶ w ─▶ q ─▶ w_hat, symbols ──▶ (gcodec/: a file) ──▶ w_hat ─┐
                                                                         ├─ concat ─▶ z ─▶ G ─▶ x_hat
                          noise v ~ N(0, I) ─▶ noise generator ──────────┤
                          label map s ─▶ its code ───────────────────────┘
(x, x_hat[, s]) ─▶ multiscale D ─▶ adversarial and feature-matching losses, and the other terms of terms.py
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from config import UserError, config_train
from gcodec.checkpoint import CENTERS, Checkpoint, restore
from gcodec.label_code import code_input, label_input, map_symbols
from gcodec.labels import LabelBatch
from gcodec.memory import whole_image
from gcodec.pictures import STRIDE
from gcodec.runtime import check_finite
from network import Network, build, dtype_policy, float32, precision, resizing_by, seeded
from pretrained.networks import VGG16, VGG19, AlexNet
from terms import Losses, Pass, all_losses, n_replicas, own_share


class Model:
    """E, q, G and, where the knobs want them, the noise generator and the encoder of label maps; for training, D and more.

    Weights are random until `weights` are assigned. policy: in which precision the networks compute. rate: for training,
    training.rate.Rate, which counts the bits of symbols; D and the frozen networks that losses look through are then built too.
    """

    def __init__(self, config: config_train, *, policy: str = "float32", rate: Any = None):
        if keras.backend.backend() != "tensorflow":
            raise UserError(f"KERAS_BACKEND is {keras.backend.backend()}: this program needs tensorflow")
        self.config = config
        with seeded(config.seed), resizing_by(tf.image.resize):
            self._build(config, policy)
        if rate:
            self.rate = rate
            self.discriminator = build_discriminator(config, policy)
            self.alexnet: Any = AlexNet.load(dtype=dtype_policy(policy)) if config.uses_alexnet else None
            self.vgg16: Any = VGG16.load(dtype=dtype_policy(policy)) if config.lambda_lpips_vgg else None
            self.vgg19: Any = VGG19(config.vgg_weights) if config.use_vgg_loss else None

    def _build(self, config: config_train, policy: str) -> None:
        C = config.channel_bottleneck
        x = keras.Input((None, None, 3))
        w = keras.Input((None, None, C))
        z = keras.Input((None, None, C + config.noise_channels + config.code_channels + config.selective))
        self.quantizer = keras.Model(w, Network.quantizer(w, config))
        with precision(policy):
            self.encoder = keras.Model(x, float32(build(config, "encoder", x, C)))
            self.generator = keras.Model(z, float32(build(config, "generator", z, 3)))
            self.networks = {"encoder": self.encoder, "quantizer": self.quantizer, "generator": self.generator}
            if config.sample_noise and config.noise_mode == "dcgan":
                v = keras.Input((config.noise_dim,))
                self.noise_generator = keras.Model([v, w], float32(Network.noise_generator(v, w, config)))
                self.networks["noise_generator"] = self.noise_generator
            if config.use_conditional_GAN and config.semantic_code == "learned":
                s = keras.Input((None, None, config.label_channels))
                self.semantic_encoder = keras.Model(s, float32(build(config, "encoder", s, C)))
                self.networks["semantic_encoder"] = self.semantic_encoder
        # A graph frees what it no longer needs; for inputs of unknown size, each image goes through the same one.
        self._generate = tf.function(self.generator, input_signature=[tf.TensorSpec((None, None, None, z.shape[-1]))])

    @property
    def weights(self) -> dict[str, Any]:
        """The variables of E, q, G and what else decoding needs, by name."""
        return named_weights(self.networks)

    @property
    def centers(self) -> Any:
        """The quantizer's centers, (L,)."""
        return self.weights[CENTERS]

    def generate(self, w_hat: Any, v: Any = None, side: Sequence = (), training: bool = False) -> Any:
        """Return x_hat (B, 16h, 16w, 3) of w_hat (B, h, w, C) and noise v of `noise_shape`, unused without `sample_noise`.

        side: what else G sees, in this order: (B, h, w, code_channels) of the label map, and the heat map (B, h, w, 1).
        """
        z = [w_hat]
        if self.config.sample_noise and self.config.noise_mode != "dcgan":
            z.append(ops.convert_to_tensor(v))
        elif self.config.sample_noise:
            z.append(self.noise_generator([ops.convert_to_tensor(v), ops.convert_to_tensor(w_hat)], training=training))
        z = ops.concatenate([*z, *side], axis=-1)
        return self.generator(z, training=True) if training else self._generate(z)

    # ------------------------------------------------------------------------------------------------------------------
    # Training
    # ------------------------------------------------------------------------------------------------------------------

    def forward(self, x, labels: LabelBatch | None, step, stage: str) -> tuple[Losses, Pass]:
        """Return the losses of images x (B, H, W, 3) in [-1, 1] at a step of a stage, and the pass that they are of.

        D judges x and x_hat when the first loss of the GAN asks for it: see terms.Pass.
        """
        m, visible = self._heat_map(labels)  # (B, h, w, 1), (B, H, W, 1) of what is preserved; 1.0 for everything
        w = self._encode(x * visible)  # (B, h, w, C)
        w_hat, aux = self.quantizer(w)
        code, w_code = self._code(labels)
        side = [code] if code is not None else []
        if self.config.selective:
            side.append(m)
        x_hat = self.generate(m * self._dropped(w_hat, step), self._noise(w, step), side, training=True)  # (B, H, W, 3)
        soft, hard = aux["assignment"], tf.one_hot(aux["symbols"], self.config.L)  # (B, h, w, C, L)
        m *= tf.ones_like(w[..., :1])  # (B, h, w, 1)
        forward = Pass(self, step, stage, labels, x, visible, w, w_code, soft, hard, m, x_hat)
        return all_losses(forward), forward

    def discriminate(self, image, labels: LabelBatch | None, features: Sequence = (), training: bool = True) -> tuple:
        """Return D's logits at each scale and its intermediate maps by name.

        image: (B, H, W, 3) in [-1, 1]. features: AlexNet's of the image, if D is projected.
        """
        if self.config.use_conditional_GAN:
            assert labels is not None
            s = label_input(ops.cast(labels.classes, "int32"), labels.boundaries, self.config, ops)
            image = ops.concatenate([image, s], axis=-1)
        return self.discriminator([image, *features] if features else image, training=training)

    def _heat_map(self, labels: LabelBatch | None) -> tuple:
        if not self.config.selective:
            return 1.0, 1.0
        assert labels is not None
        m = ops.max_pool(ops.cast(labels.preserved[..., None], "float32"), STRIDE, STRIDE)
        return m, tf.repeat(tf.repeat(m, STRIDE, axis=1), STRIDE, axis=2)

    def _encode(self, x):
        """Return E's feature map of x. With the knob `recompute`, its activations are not kept for the gradient."""

        def encoder(x):
            return self.encoder(x, training=True)

        return tf.recompute_grad(encoder)(x) if self.config.recompute else encoder(x)

    def _noise(self, w, step) -> Any:
        """Return noise for feature maps w (B, h, w, C), other noise at each step."""
        batch, height, width = tf.unstack(tf.shape(w)[:3])
        shape = self.config.noise_shape(n_replicas() * batch, height, width)
        return own_share(tf.random.stateless_normal(shape, seed=(self.config.seed, step)), batch)

    def _dropped(self, w_hat, step) -> Any:
        """Return w_hat, of some images the first channels only, as the knob `channel_dropout` wants."""
        if not self.config.channel_dropout:
            return w_hat
        batch = tf.shape(w_hat)[0]
        return w_hat * own_share(channel_mask(self.config, n_replicas() * batch, step), batch)

    def _code(self, labels: LabelBatch | None) -> tuple:
        """Return what G sees of the label map, and the feature map of a learned code; None where there is none."""
        if labels is None or not self.config.code_channels:
            return None, None
        planes = ops.cast(labels.classes, "int32"), labels.boundaries
        if self.config.semantic_code == "lossless":
            return code_input(map_symbols(*planes, self.config, ops), self.config, ops), None
        w = self.semantic_encoder(label_input(*planes, self.config, ops), training=True)
        return self.quantizer(w)[0], w


def build_discriminator(config: config_train, policy: str = "float32") -> keras.Model:
    """Return D, which sees the image with the label map of a conditional GAN, and AlexNet's features if it is projected."""
    x = keras.Input((None, None, 3 + (config.label_channels if config.use_conditional_GAN else 0)))
    features = [keras.Input((None, None, channels)) for channels in AlexNet.channels] if config.is_projected else []
    with seeded(config.seed + 1):
        if not features:
            build(config, "discriminator", x, 1)  # what multiscale_discriminator puts on each scale
        with precision(policy):
            logits, maps = Network.multiscale_discriminator(x, config, features)
    if config.use_feature_matching_loss and not maps:
        raise UserError(f"knob use_feature_matching_loss: Network.{config.discriminator} returns no maps to match")
    return keras.Model([x, *features] if features else x, float32((logits, maps)))


def channel_mask(config: config_train, batch, step) -> Any:
    """Return (B, 1, 1, C) of 1 and 0: a share `channel_dropout` of the images keep only the first K < C channels."""
    C = config.channel_bottleneck
    chance, share = tf.unstack(tf.random.stateless_uniform((2, batch), seed=(config.seed + 1, step)))
    K = tf.where(chance < config.channel_dropout, 1 + tf.cast(share * (C - 1), tf.int32), C)
    return tf.sequence_mask(K, C, dtype=tf.float32)[:, None, None]


# ----------------------------------------------------------------------------------------------------------------------
# For the codec
# ----------------------------------------------------------------------------------------------------------------------


class TensorFlowRuntime:
    """Runs the networks of a checkpoint for the codec; see gcodec.runtime.Runtime."""

    def __init__(self, model: Model):
        self.model = model
        self.bytes_per_pixel = whole_image(model.config)
        self.address_space_per_pixel = 7 * 7 * 4 * model.config.width / 16  # windows of the 7x7 convolution, most of it unused
        # As a graph of unknown size, so that each image goes through the same one.
        self._encoder = tf.function(model.encoder, input_signature=[tf.TensorSpec((None, None, None, 3))])

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Build the networks of a checkpoint, with its weights."""
        model = Model(checkpoint.knobs(config_train))
        restore(model.weights, with_todays_names(checkpoint.weights, model.networks), checkpoint.folder)
        return cls(model)

    def encode(self, x: np.ndarray) -> np.ndarray:
        return self._symbols(self._encoder(x))

    def encode_labels(self, s: np.ndarray) -> np.ndarray:
        return self._symbols(self.model.semantic_encoder(s))

    def generate(self, w_hat: np.ndarray, v: np.ndarray | None, side: np.ndarray | None) -> np.ndarray:
        return self.model.generate(w_hat, v, () if side is None else (side,)).numpy()

    def _symbols(self, w: tf.Tensor) -> np.ndarray:
        check_finite(w.numpy())
        return self.model.quantizer(w)[1]["symbols"].numpy().astype(np.uint8)


# ----------------------------------------------------------------------------------------------------------------------
# Names of weights
# ----------------------------------------------------------------------------------------------------------------------


def named_weights(networks: Mapping[str, keras.Model]) -> dict[str, Any]:
    """Return variables by names that say where they are: network/layer/weight, as "generator/block3/conv1/kernel".

    A layer without a name of its own, in somebody's own architecture, is called by its kind and its number among these.
    """
    return {name: var for name, _, var in _weights(networks)}


def numbered_names(networks: Mapping[str, keras.Model]) -> dict[str, str]:
    """Return what the weights were called up to version 0.4, when all layers were numbered by kind, by today's names."""
    return {name: numbered for name, numbered, _ in _weights(networks)}


def with_todays_names(arrays: Mapping[str, Any], networks: Mapping[str, keras.Model]) -> dict[str, Any]:
    """Return a checkpoint's arrays by the names of `named_weights`, whatever version wrote it."""
    todays = {numbered: name for name, numbered in numbered_names(networks).items()}
    return {todays.get(name, name): array for name, array in arrays.items()}


def _weights(networks: Mapping[str, keras.Model]) -> Iterator[tuple[str, str, Any]]:
    """Yield each variable's name, what it was called when layers were numbered, and the variable."""
    for network, net in networks.items():
        numbers: Counter[str] = Counter()
        for layer in net.layers:
            kind = type(layer).__name__
            numbered = f"{kind}_{numbers[kind]}"
            numbers[kind] += bool(layer.weights)
            is_named = re.sub(r"_\d+$", "", layer.name).replace("_", "") != kind.lower()  # or else Keras made the name
            place = layer.name.replace(".", "/") if is_named else numbered
            for var in layer.weights:
                yield f"{network}/{place}/{var.name}", f"{network}/{numbered}/{var.name}", var
