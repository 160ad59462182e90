"""The networks wired together.

image x ─▶ E ─▶ w ─▶ q ─▶ w_hat, symbols ──▶ (codec/: a file) ──▶ w_hat ─┐
                                                                        ├─ concat ─▶ z ─▶ G ─▶ x_hat
                          noise v ~ N(0, I) ─▶ noise generator ─────────┤
                          label map s ─▶ its code ──────────────────────┘
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from config import UserError, config_train
from network import Network, Resize, build, float32, precision, seeded

Resize.resize = staticmethod(tf.image.resize)  # which takes a size that a graph knows only when it runs


class Model:
    """E, q, G and, where the knobs want them, the noise generator and the encoder of label maps.

    Weights are random until `weights` are assigned. policy: in which precision the networks compute.
    """

    def __init__(self, config: config_train, *, policy: str = "float32"):
        if keras.backend.backend() != "tensorflow":
            raise UserError(f"KERAS_BACKEND is {keras.backend.backend()}: this program needs tensorflow")
        self.config = config
        with seeded(config.seed):
            self._build(config, policy)

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
        """The variables of all networks, by name."""
        return named_weights(self.networks)

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
