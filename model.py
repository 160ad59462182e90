"""The system: networks, losses and optimizers wired into a train step, and into compressing and decompressing of symbols.

image x ─▶ E ─▶ w ─▶ q ─▶ w_hat, symbols ──▶ (codec.py: a file) ──▶ w_hat ─┐
                                                                          ├─ concat ─▶ z ─▶ G ─▶ x_hat
                          noise v ~ N(0, I) ─▶ noise generator ───────────┘
(x, x_hat) ─▶ multiscale D ─▶ adversarial and feature-matching losses
"""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import checkpoint
import losses
from config import UserError, config_train
from entropy import EntropyModel, StaticTables, integer_frequencies
from network import Network
from utils import Utils

STRIDE = 16  # pixels a side of one position of the feature map
MIN_SIDE = 32  # pixels; the reflection padding of a feature map needs 2 x 2 positions
HISTOGRAM_DECAY = 0.999  # a step; of the symbols' running histogram, which becomes the entropy coder's tables


class Model:
    """E, q, G, noise generator, and for training D, with their optimizers.

    Attributes: `entropy_model`, which codes the symbols: the checkpoint's context model, or else its `static_tables`; and
    `fingerprint`, 4 bytes that tell whether a file was made by this model; all None until a checkpoint is loaded. `step`, how
    many were trained.
    """

    def __init__(self, config: config_train, *, training: bool = False):
        if keras.backend.backend() != "tensorflow":
            raise UserError(f"KERAS_BACKEND is {keras.backend.backend()}: this program needs tensorflow")
        if training and config.recompute:
            Utils.return_freed_memory()
        keras.utils.set_random_seed(config.seed)
        self.config = config
        self.step = 0
        self.static_tables: StaticTables | None = None
        self.entropy_model: EntropyModel | None = None
        self.fingerprint: bytes | None = None

        C = config.channel_bottleneck
        x = keras.Input((None, None, 3))
        w = keras.Input((None, None, C))
        v = keras.Input((config.noise_dim,))
        z = keras.Input((None, None, 2 * C if config.sample_noise else C))
        self.encoder = keras.Model(x, _build(config, "encoder", x, C))
        self.quantizer = keras.Model(w, Network.quantizer(w, config))
        self.generator = keras.Model(z, _build(config, "generator", z, 3))
        self.networks = {"encoder": self.encoder, "quantizer": self.quantizer, "generator": self.generator}
        if config.sample_noise:
            self.noise_generator = keras.Model([v, w], Network.noise_generator(v, w, config))
            self.networks["noise_generator"] = self.noise_generator
        # As graphs, which free what they no longer need; of unknown size, so that each image goes through the same one
        self._encode = tf.function(self.encoder, input_signature=[tf.TensorSpec((None, None, None, 3))])
        self._generate = tf.function(self.generator, input_signature=[tf.TensorSpec((None, None, None, z.shape[-1]))])
        if training:
            _build(config, "discriminator", x, 1)  # what multiscale_discriminator puts on each scale
            self.discriminator = keras.Model(x, Network.multiscale_discriminator(x, config))
            self._init_training()

    # ------------------------------------------------------------------------------------------------------------------
    # Compress and decompress
    # ------------------------------------------------------------------------------------------------------------------

    def compress(self, image: np.ndarray) -> np.ndarray:
        """Image (H, W, 3) uint8 -> symbols (ceil(H/16), ceil(W/16), C) uint8 in 0..L-1; a short side counts as 32 px."""
        w = self._encode(to_float(pad(image))[None])
        return self.quantizer(w)[1]["symbols"][0].numpy().astype(np.uint8)

    def decompress(self, symbols: np.ndarray, height: int, width: int, noise_seed: tuple = (0,)) -> np.ndarray:
        """Inverse of compress: symbols -> image (height, width, 3) uint8. The same symbols and seed: the same image.

        Symbols of the first K channels do; G sees the others as 0.
        """
        w_hat = self.quantizer.weights[0].numpy()[symbols]
        w_hat = np.pad(w_hat, ((0, 0), (0, 0), (0, self.config.channel_bottleneck - symbols.shape[2])))
        v = np.random.default_rng(noise_seed).standard_normal((1, self.config.noise_dim))
        x_hat = self.generate(w_hat[None], v.astype(np.float32))
        return to_uint8(x_hat[0].numpy())[:height, :width]

    def generate(self, w_hat, v, training: bool = False):
        """w_hat (B, h, w, C) and noise v (B, noise_dim), unused without `sample_noise` -> x_hat (B, 16h, 16w, 3)."""
        if self.config.sample_noise:
            noise = self.noise_generator([ops.convert_to_tensor(v), ops.convert_to_tensor(w_hat)], training=training)
            w_hat = ops.concatenate([w_hat, noise], axis=-1)
        return self.generator(w_hat, training=True) if training else self._generate(w_hat)

    # ------------------------------------------------------------------------------------------------------------------
    # Training
    # ------------------------------------------------------------------------------------------------------------------

    def _init_training(self):
        config = self.config
        self.G_variables = [v for net in self.networks.values() for v in net.trainable_variables]
        self.E_variables = {id(v) for net in (self.encoder, self.quantizer) for v in net.trainable_variables}
        self.D_variables = self.discriminator.trainable_variables
        self.G_optimizer = _optimizer(config, self.G_variables)
        self.D_optimizer = _optimizer(config, self.D_variables)
        self.averages = [tf.Variable(v, trainable=False) for v in self.G_variables]
        self.histogram = tf.Variable(tf.fill((config.channel_bottleneck, config.L), 1 / config.L), trainable=False)
        self._compiled_step = tf.function(self._train_step, reduce_retracing=True)  # of images of many sizes, two traces

    def stage(self, step: int) -> tuple[str, int]:
        """The stage that a step belongs to, "distortion", "discriminator" or "gan", and the stage's first step."""
        distortion_end = self.config.distortion_steps
        gan_start = distortion_end + self.config.discriminator_warmup_steps
        if step < distortion_end:
            return "distortion", 0
        return ("discriminator", distortion_end) if step < gan_start else ("gan", gan_start)

    def learning_rates(self, step: int) -> tuple[float, float]:
        """Of E and G, and of D, at a step: exponential decay that starts anew with each stage."""
        config = self.config
        stage, start = self.stage(step)
        decay = config.lr_decay_rate ** ((step - start) / config.lr_decay_steps)
        G_rate = config.distortion_learning_rate if stage == "distortion" else config.G_learning_rate
        return G_rate * decay, config.D_learning_rate * decay

    def train_step(self, x: tf.Tensor) -> dict[str, float]:
        """One update of all that the present stage trains, on images x (B, H, W, 3) in [-1, 1]. Returns the loss terms."""
        if self.step == self.config.distortion_steps:  # from here on the averaged weights are trained further: they are
            _assign(self.G_variables, self.averages)  # better, and a frozen encoder then makes the files that it will make
        self.G_optimizer.learning_rate, self.D_optimizer.learning_rate = self.learning_rates(self.step)
        terms = self._compiled_step(x, tf.constant(self.step), self.stage(self.step)[0])
        self.step += 1
        return {name: float(value) for name, value in terms.items()}

    def _train_step(self, x, step, stage: str) -> dict:
        """One forward pass of G, and one of D on real and reconstructed images, serve both updates."""
        config = self.config
        v = tf.random.stateless_normal((tf.shape(x)[0], config.noise_dim), seed=(config.seed, step))
        with tf.GradientTape(persistent=True) as tape:
            w = self._encode_for_training(x)
            w_hat, aux = self.quantizer(w)
            if config.channel_dropout:
                w_hat *= self._channel_mask(tf.shape(x)[0], step)
            x_hat = self.generate(w_hat, v, training=True)
            terms = {"distortion": losses.distortion(x, x_hat)}
            G_loss = config.lambda_X * terms["distortion"]
            G_loss += config.lambda_range * losses.range_penalty(w, config.centers[0], config.centers[-1])
            G_loss += config.lambda_rate * losses.rate(aux["assignment"], self.histogram)
            if stage != "distortion":
                adversarial, discriminator = self._gan_losses(x, x_hat, terms)
                G_loss += adversarial

        def warm(decay: float):  # at first, averages follow faster
            return tf.minimum(decay, (1.0 + tf.cast(step, tf.float32)) / (10.0 + tf.cast(step, tf.float32)))

        if stage != "discriminator":
            frozen = self.E_variables if stage == "gan" and config.freeze_encoder else ()
            G_variables = [var for var in self.G_variables if id(var) not in frozen]
            self.G_optimizer.apply(tape.gradient(G_loss, G_variables), G_variables)
            for average, var in zip(self.averages, self.G_variables, strict=True):
                average.assign_sub((1 - warm(config.ema_decay)) * (average - var))
        if stage != "distortion":
            self.D_optimizer.apply(tape.gradient(discriminator, self.D_variables), self.D_variables)

        one_hot = tf.one_hot(aux["symbols"], config.L)  # (B, h, w, C, L)
        terms["bpp"] = losses.rate(one_hot, self.histogram)
        frequencies = tf.reduce_mean(one_hot, axis=(0, 1, 2))  # (C, L)
        self.histogram.assign_sub((1 - warm(HISTOGRAM_DECAY)) * (self.histogram - frequencies))
        terms["PSNR"] = 10 * tf.math.log(4 / tf.maximum(terms["distortion"], 1e-10)) / np.log(10)
        return terms

    def _encode_for_training(self, x):
        """E's feature map of x; with the knob `recompute`, its activations are not kept for the gradient."""

        def encoder(x):
            return self.encoder(x, training=True)

        return tf.recompute_grad(encoder)(x) if self.config.recompute else encoder(x)

    def _channel_mask(self, batch, step):
        """(B, 1, 1, C) of 1 and 0: a share `channel_dropout` of the images keep the first K < C channels only."""
        C = self.config.channel_bottleneck
        chance, share = tf.unstack(tf.random.stateless_uniform((2, batch), seed=(self.config.seed + 1, step)))
        K = tf.where(chance < self.config.channel_dropout, 1 + tf.cast(share * (C - 1), tf.int32), C)
        return tf.sequence_mask(K, C, dtype=tf.float32)[:, None, None]

    def _gan_losses(self, x, x_hat, terms: dict) -> tuple:
        """The weighted loss that D adds to G's, and D's own. Adds their terms to `terms`."""
        config = self.config
        real_logits, real_maps = self.discriminator(x, training=True)
        fake_logits, fake_maps = self.discriminator(x_hat, training=True)
        kind = "vanilla" if config.use_vanilla_GAN else "lsgan"
        terms["adversarial"] = getattr(losses, f"{kind}_generator")(fake_logits)
        terms["discriminator"] = getattr(losses, f"{kind}_discriminator")(real_logits, fake_logits)
        terms["D_real"] = sum(map(tf.reduce_mean, real_logits)) / len(real_logits)
        terms["D_fake"] = sum(map(tf.reduce_mean, fake_logits)) / len(fake_logits)
        G_loss = config.lambda_adversarial * terms["adversarial"]
        if config.use_feature_matching_loss:
            terms["feature_matching"] = losses.feature_matching(real_maps, fake_maps, len(real_logits))
            G_loss += config.lambda_feature_matching * terms["feature_matching"]
        return G_loss, terms["discriminator"]

    @contextmanager
    def averaged_weights(self):
        """Within this context the networks have the averaged weights, those that compress.py will use."""
        raw = [var.numpy() for var in self.G_variables]
        _assign(self.G_variables, self.averages)
        try:
            yield
        finally:
            _assign(self.G_variables, raw)

    # ------------------------------------------------------------------------------------------------------------------
    # Checkpoints
    # ------------------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write a checkpoint to a new folder. It appears whole or not at all. Raises UserError, also for broken weights."""
        with self.averaged_weights():
            inference = {name: var.numpy() for name, var in self._weights(self.networks).items()}
        state = {name: var.numpy() for name, var in self._state().items()}
        for name, array in [*state.items(), *inference.items()]:
            if not np.isfinite(array).all():
                raise UserError(f"step {self.step}: {name} is not finite; nothing was saved; lower the learning rate")
        frequencies = integer_frequencies(self.histogram.numpy())
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            (partial / "config.json").write_text(self.config.to_json())
            np.savez(partial / "model.npz", frequencies=frequencies, **inference)
            np.savez(partial / "training.npz", step=self.step, **state)
            partial.rename(folder)
        except OSError as error:
            raise UserError(f"{folder}: cannot write the checkpoint: {error.strerror or error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @classmethod
    def load(cls, path: str | Path, *, training: bool = False, overrides: list[str] | None = None) -> "Model":
        """Rebuild a model from a checkpoint's own knobs, with the averaged weights; `overrides` change knobs."""
        folder = checkpoint.resolve_checkpoint(path)
        knobs = checkpoint.read(folder / "config.json", lambda file: file.read_text())
        config = checkpoint.read(folder / "config.json", lambda file: config_train.from_json(knobs)).override(overrides or [])
        model = cls(config, training=training)
        arrays = checkpoint.read_arrays(folder / "model.npz")
        context_file = folder / checkpoint.CONTEXT_FILE
        context = checkpoint.read_arrays(context_file) if context_file.exists() else None
        model.fingerprint = checkpoint.fingerprint(json.loads(knobs), arrays, context or {})
        model.static_tables = checkpoint.static_tables(config, arrays.pop("frequencies", None), folder / "model.npz")
        model.entropy_model = model.static_tables
        if context is not None:
            model.entropy_model = checkpoint.context_model(config, context, context_file)
        checkpoint.restore(model._weights(model.networks), arrays, folder)
        if training:  # a checkpoint that ships has no more than this to start from
            _assign(model.averages, model.G_variables)
        return model

    @classmethod
    def resume(cls, path: str | Path, overrides: list[str] | None = None) -> "Model":
        """Load a checkpoint and all that training had beside it. Without training.npz: its weights, at step 0."""
        folder = checkpoint.resolve_checkpoint(path)
        model = cls.load(folder, training=True, overrides=overrides)
        if (folder / "training.npz").exists():
            saved = config_train.from_json((folder / "config.json").read_text()).optimizer
            if saved != model.config.optimizer:
                raise UserError(f"knob optimizer: {folder} has the state of {saved}, not of {model.config.optimizer}")
            arrays = checkpoint.read_arrays(folder / "training.npz")
            model.step = int(arrays.pop("step"))
            checkpoint.restore(model._state(), arrays, folder)
        return model

    def _weights(self, networks: dict) -> dict:
        """Variables by names that do not depend on what else was built in this process: network/layer_k/weight."""
        named = {}
        for name, net in networks.items():
            seen: dict[str, int] = {}
            for layer in net.layers:
                kind = type(layer).__name__
                for var in layer.weights:
                    named[f"{name}/{kind}_{seen.get(kind, 0)}/{var.name}"] = var
                seen[kind] = seen.get(kind, 0) + bool(layer.weights)
        return named

    def _state(self) -> dict:
        """All that changes in training, by name."""
        state = self._weights({**self.networks, "discriminator": self.discriminator}) | {"histogram": self.histogram}
        for name, variables in {
            "average": self.averages,
            "G_optimizer": self.G_optimizer.variables,
            "D_optimizer": self.D_optimizer.variables,
        }.items():
            state |= {f"{name}/{i:03d}": var for i, var in enumerate(variables)}
        return state


# ----------------------------------------------------------------------------------------------------------------------
# Images and tensors
# ----------------------------------------------------------------------------------------------------------------------


def to_float(image: np.ndarray) -> np.ndarray:
    """uint8 in [0, 255] -> float32 in [-1, 1]."""
    return image.astype(np.float32) / 127.5 - 1


def to_uint8(x: np.ndarray) -> np.ndarray:
    """float in [-1, 1] -> uint8, rounded."""
    return np.clip(np.rint((x + 1) * 127.5), 0, 255).astype(np.uint8)


def padded_size(height: int, width: int) -> tuple[int, int]:
    """Each side rounded up to a multiple of 16 px, and to at least 32 px."""
    return tuple(max(MIN_SIDE, -(-side // STRIDE) * STRIDE) for side in (height, width))


def pad(image: np.ndarray) -> np.ndarray:
    """Repeat the last row and column up to the padded size; the inverse is image[:height, :width]."""
    height, width = image.shape[:2]
    padded_height, padded_width = padded_size(height, width)
    return np.pad(image, ((0, padded_height - height), (0, padded_width - width), (0, 0)), mode="edge")


# ----------------------------------------------------------------------------------------------------------------------
# Helpers
# ----------------------------------------------------------------------------------------------------------------------


def _build(config: config_train, role: str, x: keras.KerasTensor, channels: int):
    """What the static method of Network that the knob `role` names makes of x; raises UserError if it has another role."""
    name = getattr(config, role)
    methods = [key for key, value in vars(Network).items() if isinstance(value, staticmethod) and key[0] != "_"]
    if name not in methods:
        raise UserError(f"knob {role}: Network has no method {name!r}; it has {', '.join(methods)}")
    misfit = UserError(f"knob {role}: Network.{name} does not make {channels} channels of {x.shape[-1]}, as this role needs")
    try:
        output = getattr(Network, name)(x, config)
    except (TypeError, RecursionError):
        raise misfit from None
    tensor = output[0] if role == "discriminator" and isinstance(output, tuple) else output
    if isinstance(output, tuple) != (role == "discriminator") or getattr(tensor, "shape", (None,))[-1] != channels:
        raise misfit
    return output


def _optimizer(config: config_train, variables: list) -> keras.optimizers.Optimizer:
    decay = {"weight_decay": config.weight_decay or None}
    optimizer = {
        "adam": lambda: keras.optimizers.Adam(beta_1=config.beta_1, **decay),
        "momentum": lambda: keras.optimizers.SGD(momentum=config.momentum, **decay),
        "rmsprop": lambda: keras.optimizers.RMSprop(**decay),
        "sgd": lambda: keras.optimizers.SGD(**decay),
    }[config.optimizer]()
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias", "centers"])
    optimizer.build(variables)
    return optimizer


def _assign(variables: list, values: list) -> None:
    for var, value in zip(variables, values, strict=True):
        var.assign(value)
