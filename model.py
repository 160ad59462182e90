"""The system: networks, losses and optimizers wired into a train step, and into compressing and decompressing of symbols.

image x ─▶ E ─▶ w ─▶ q ─▶ w_hat, symbols ──▶ (codec.py: a file) ──▶ w_hat ─┐
                                                                          ├─ concat ─▶ z ─▶ G ─▶ x_hat
                          noise v ~ N(0, I) ─▶ noise generator ───────────┘
(x, x_hat) ─▶ multiscale D ─▶ adversarial and feature-matching losses
"""

import json
from collections.abc import Sequence
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
from network import Network, code_channels, label_channels, map_symbols
from semantic import heat_map
from utils import STRIDE, Utils, pad, to_float, to_uint8

HISTOGRAM_DECAY = 0.999  # a step; of the symbols' running histogram, which becomes the entropy coder's tables


class Model:
    """E, q, G, noise generator, and for training D, with their optimizers.

    Attributes, which a loaded checkpoint has: `entropy_models`, what codes the "symbols", and where there is one the "code" of
    the label map and the heat map ("mask"): context models, or else tables, such as `static_tables`, those of the symbols;
    and `fingerprint`, 4 bytes that tell whether a file was made by this model. `step`: how many were trained.
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
        self.entropy_models: dict[str, EntropyModel] = {}
        self.fingerprint: bytes | None = None

        C = config.channel_bottleneck
        x = keras.Input((None, None, 3))
        w = keras.Input((None, None, C))
        v = keras.Input((config.noise_dim,))
        z = keras.Input((None, None, C + config.noise_channels + config.code_channels + config.selective))
        self.encoder = keras.Model(x, _build(config, "encoder", x, C))
        self.quantizer = keras.Model(w, Network.quantizer(w, config))
        self.generator = keras.Model(z, _build(config, "generator", z, 3))
        self.networks = {"encoder": self.encoder, "quantizer": self.quantizer, "generator": self.generator}
        if config.sample_noise and config.noise_mode == "dcgan":
            self.noise_generator = keras.Model([v, w], Network.noise_generator(v, w, config))
            self.networks["noise_generator"] = self.noise_generator
        if config.use_conditional_GAN and config.semantic_code == "learned":
            s = keras.Input((None, None, config.label_channels))
            self.semantic_encoder = keras.Model(s, _build(config, "encoder", s, C))
            self.networks["semantic_encoder"] = self.semantic_encoder
        # As graphs, which free what they no longer need; of unknown size, so that each image goes through the same one
        self._encode = tf.function(self.encoder, input_signature=[tf.TensorSpec((None, None, None, 3))])
        self._generate = tf.function(self.generator, input_signature=[tf.TensorSpec((None, None, None, z.shape[-1]))])
        if training:
            if config.use_conditional_GAN:  # D sees image and label map
                x = keras.Input((None, None, 3 + config.label_channels))
            _build(config, "discriminator", x, 1)  # what multiscale_discriminator puts on each scale
            self.discriminator = keras.Model(x, Network.multiscale_discriminator(x, config))
            self._init_training()

    @property
    def entropy_model(self) -> EntropyModel:
        """What codes the symbols."""
        return self.entropy_models["symbols"]

    # ------------------------------------------------------------------------------------------------------------------
    # Compress and decompress
    # ------------------------------------------------------------------------------------------------------------------

    def compress(self, image: np.ndarray, m: np.ndarray | None = None) -> np.ndarray:
        """Image (H, W, 3) uint8 -> symbols (ceil(H/16), ceil(W/16), C) uint8 in 0..L-1; a short side counts as 32 px.

        With a heat map m (ceil(H/16), ceil(W/16)) bool, E sees gray where it is 0, and the symbols there mean nothing.
        """
        x = to_float(pad(image))
        if m is not None:
            x *= np.kron(m, np.ones((STRIDE, STRIDE), np.float32))[..., None]
        w = self._encode(x[None])
        return self.quantizer(w)[1]["symbols"][0].numpy().astype(np.uint8)

    def decompress(
        self,
        symbols: np.ndarray,
        height: int,
        width: int,
        noise_seed: tuple = (0,),
        code: np.ndarray | None = None,
        m: np.ndarray | None = None,
    ) -> np.ndarray:
        """Inverse of compress: symbols -> image (height, width, 3) uint8. The same symbols and seed: the same image.

        Symbols of the first K channels do; G sees the others as 0. code, m: what `encode_labels` made of the label map, and
        the heat map, for a model that wants them.
        """
        w_hat = self.quantizer.weights[0].numpy()[symbols]
        w_hat = np.pad(w_hat, ((0, 0), (0, 0), (0, self.config.channel_bottleneck - symbols.shape[2])))
        v = np.random.default_rng(noise_seed).standard_normal(self.config.noise_shape(1, *symbols.shape[:2]))
        side = [] if code is None else [self._code_channels(ops.convert_to_tensor(code.astype(np.int32))[None])]
        if m is not None:
            w_hat = w_hat * m[..., None]
            side.append(tf.constant(m[None, ..., None].astype(np.float32)))
        x_hat = self.generate(w_hat[None], v.astype(np.float32), side)
        return to_uint8(x_hat[0].numpy())[:height, :width]

    def reconstruct(self, image: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """Image (H, W, 3) uint8, and labels (H, W, 3) as for training -> what comes back of it, without a file."""
        m = heat_map(pad(labels[..., 2:])[..., 0] != 0) if self.config.selective else None
        code = None if labels is None else self.encode_labels(labels)
        return self.decompress(self.compress(image, m), *image.shape[:2], code=code, m=m)

    def encode_labels(self, labels: np.ndarray) -> np.ndarray | None:
        """Labels (H, W, 2 or more) -> the symbols that stand for them in the file, uint8; None where there are none.

        semantic_code lossless: (H/scale, W/scale, 1), of the padded size; learned: (ceil(H/16), ceil(W/16), C).
        """
        if not self.config.code_channels:
            return None
        padded = tf.constant(pad(labels)[None, ..., :2].astype(np.int32))
        if self.config.semantic_code == "lossless":
            symbols = map_symbols(padded, self.config)
        else:
            symbols = self.quantizer(self.semantic_encoder(label_channels(padded, self.config)))[1]["symbols"]
        return symbols[0].numpy().astype(np.uint8)

    def code_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """The shape of what `encode_labels` returns for an image of this padded size."""
        side = self.config.semantic_scale if self.config.semantic_code == "lossless" else STRIDE
        return height // side, width // side, self.config.coded["code"][0]

    def _code_channels(self, code):
        """What G sees of the symbols of `encode_labels` (B, ..., ...)."""
        if self.config.semantic_code == "lossless":
            return code_channels(code, self.config)
        return ops.take(self.quantizer.weights[0], code)

    def generate(self, w_hat, v, side: Sequence = (), training: bool = False):
        """w_hat (B, h, w, C) and noise v of `noise_shape`, unused without `sample_noise` -> x_hat (B, 16h, 16w, 3).

        side: what else G sees, in order: (B, h, w, code_channels) of the label map, and the heat map (B, h, w, 1).
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

    def _init_training(self):
        config = self.config
        self.G_variables = [v for net in self.networks.values() for v in net.trainable_variables]
        self.E_variables = {id(v) for net in self._encoders() for v in net.trainable_variables}
        self.D_variables = self.discriminator.trainable_variables
        self.G_optimizer = _optimizer(config, self.G_variables)
        self.D_optimizer = _optimizer(config, self.D_variables)
        self.averages = [tf.Variable(v, trainable=False) for v in self.G_variables]
        self.histogram = tf.Variable(tf.fill((config.channel_bottleneck, config.L), 1 / config.L), trainable=False)
        self._compiled_step = tf.function(self._train_step, reduce_retracing=True)  # of images of many sizes, two traces

    def _encoders(self) -> list:
        """What makes the file: frozen together, by freeze_encoder."""
        return [self.networks[name] for name in ("encoder", "quantizer", "semantic_encoder") if name in self.networks]

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

    def train_step(self, x: tf.Tensor, labels: tf.Tensor | None = None) -> dict[str, float]:
        """One update of all that the present stage trains, on images x (B, H, W, 3) in [-1, 1]. Returns the loss terms.

        labels: (B, H, W, 3) class, boundary of an instance, 1 where the picture is preserved; see data.py.
        """
        if self.step == self.config.distortion_steps:  # from here on the averaged weights are trained further: they are
            _assign(self.G_variables, self.averages)  # better, and a frozen encoder then makes the files that it will make
        self.G_optimizer.learning_rate, self.D_optimizer.learning_rate = self.learning_rates(self.step)
        terms = self._compiled_step(x, labels, tf.constant(self.step), self.stage(self.step)[0])
        self.step += 1
        return {name: float(value) for name, value in terms.items()}

    def _train_step(self, x, labels, step, stage: str) -> dict:
        """One forward pass of G, and one of D on real and reconstructed images, serve both updates."""
        config = self.config
        m = visible = 1.0  # the heat map, and the same at the image's size
        if config.selective:
            m = ops.max_pool(ops.cast(labels[..., 2:], "float32"), STRIDE, STRIDE)
            visible = tf.repeat(tf.repeat(m, STRIDE, axis=1), STRIDE, axis=2)
        batch, height, width = tf.unstack(tf.shape(x)[:3])
        noise_shape = config.noise_shape(batch, height // STRIDE, width // STRIDE)
        v = tf.random.stateless_normal(noise_shape, seed=(config.seed, step))
        with tf.GradientTape(persistent=True) as tape:
            w = self._encode_for_training(x * visible)
            w_hat, aux = self.quantizer(w)
            if config.channel_dropout:
                w_hat *= self._channel_mask(tf.shape(x)[0], step)
            side, code_penalty = self._code_for_training(labels) if config.code_channels else ([], 0.0)
            if config.selective:
                w_hat *= m
                side.append(m)
            x_hat = self.generate(w_hat, v, side, training=True)
            terms = {"distortion": losses.distortion(x, x_hat, visible)}
            G_loss = config.lambda_X * terms["distortion"]
            G_loss += config.lambda_range * (losses.range_penalty(w, config.centers[0], config.centers[-1]) + code_penalty)
            G_loss += config.lambda_rate * losses.rate(aux["assignment"], self.histogram, m)
            if stage != "distortion":
                adversarial, discriminator = self._gan_losses(x, x_hat, labels, terms)
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
        terms["bpp"] = losses.rate(one_hot, self.histogram, m)
        coded = (m * tf.ones_like(one_hot[..., 0, :1]))[..., None]  # (B, h, w, 1, 1)
        frequencies = tf.reduce_sum(coded * one_hot, axis=(0, 1, 2)) / tf.maximum(tf.reduce_sum(coded), 1.0)  # (C, L)
        frequencies += (1.0 - tf.reduce_sum(frequencies, axis=-1, keepdims=True)) * self.histogram  # where nothing is coded
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

    def _code_for_training(self, labels) -> tuple:
        """What G sees of the label map, and the range penalty of a learned code."""
        if self.config.semantic_code == "lossless":
            return [code_channels(map_symbols(labels, self.config), self.config)], 0.0
        w = self.semantic_encoder(label_channels(labels, self.config), training=True)
        return [self.quantizer(w)[0]], losses.range_penalty(w, self.config.centers[0], self.config.centers[-1])

    def _gan_losses(self, x, x_hat, labels, terms: dict) -> tuple:
        """The weighted loss that D adds to G's, and D's own. Adds their terms to `terms`."""
        config = self.config
        if config.use_conditional_GAN:
            s = label_channels(labels, config)
            x, x_hat = ops.concatenate([x, s], axis=-1), ops.concatenate([x_hat, s], axis=-1)
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
        with checkpoint.new_folder(folder) as partial:
            (partial / "config.json").write_text(self.config.to_json())
            np.savez(partial / "model.npz", frequencies=frequencies, **inference)
            np.savez(partial / "training.npz", step=self.step, **state)

    @classmethod
    def load(cls, path: str | Path, *, training: bool = False, overrides: list[str] | None = None) -> "Model":
        """Rebuild a model from a checkpoint's own knobs, with the averaged weights; `overrides` change knobs."""
        folder = checkpoint.resolve_checkpoint(path)
        config = checkpoint.read_knobs(folder).override(overrides or [])
        model = cls(config, training=training)
        arrays = checkpoint.read_arrays(folder / "model.npz")
        files = {of: folder / name for of, name in checkpoint.CONTEXT_FILES.items()}
        contexts = {of: checkpoint.read_arrays(file) for of, file in files.items() if file.exists()}
        knobs = json.loads((folder / "config.json").read_text())  # as written, whatever knobs came later
        model.fingerprint = checkpoint.fingerprint(knobs, arrays, *contexts.values())
        frequencies = {"symbols": arrays.pop("frequencies", None)}
        for of, shape in config.coded.items():
            model.entropy_models[of] = checkpoint.static_tables(shape, frequencies.get(of), folder / "model.npz")
            if of == "symbols":
                model.static_tables = model.entropy_models[of]
            if of in contexts:
                model.entropy_models[of] = checkpoint.context_model(contexts[of], shape, files[of])
        checkpoint.restore(model._weights(model.networks), arrays, folder)
        if training:  # a checkpoint that ships has no more than this to start from
            _assign(model.averages, model.G_variables)
        return model

    @classmethod
    def transfer(cls, path: str | Path, overrides: list[str]) -> tuple["Model", list[str]]:
        """A model to train from step 0: a checkpoint's knobs, changed by `overrides`, and its weights as far as they fit.

        Of a kernel with more or fewer channels than there, those that both have are taken: the first ones, and w_hat is the
        first of what G sees. Returns the model, and the names of the weights that start afresh, in whole or in part.
        """
        folder = checkpoint.resolve_checkpoint(path)
        model = cls(checkpoint.read_knobs(folder).override(overrides), training=True)
        arrays = checkpoint.read_arrays(folder / "model.npz")
        weights = model._weights(model.networks)
        fresh = [name for name, var in weights.items() if name not in arrays or arrays[name].shape != tuple(var.shape)]
        for name, var in weights.items():
            if name in arrays and arrays[name].ndim == len(var.shape):
                common = tuple(slice(min(sides)) for sides in zip(arrays[name].shape, var.shape, strict=True))
                values = var.numpy()
                values[common] = arrays[name][common]
                var.assign(values)
        _assign(model.averages, model.G_variables)
        return model, fresh

    @classmethod
    def resume(cls, path: str | Path, overrides: list[str] | None = None) -> "Model":
        """Load a checkpoint and all that training had beside it. Without training.npz: its weights, at step 0."""
        folder = checkpoint.resolve_checkpoint(path)
        model = cls.load(folder, training=True, overrides=overrides)
        if (folder / "training.npz").exists():
            saved = checkpoint.read_knobs(folder).optimizer
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
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias", "centers", "scale"])
    optimizer.build(variables)
    return optimizer


def _assign(variables: list, values: list) -> None:
    for var, value in zip(variables, values, strict=True):
        var.assign(value)
