"""The system: networks, losses and optimizers wired into a train step, and into compressing and decompressing of symbols.

image x ─▶ E ─▶ w ─▶ q ─▶ w_hat, symbols ──▶ (codec.py: a file) ──▶ w_hat ─┐
                                                                          ├─ concat ─▶ z ─▶ G ─▶ x_hat
                          noise v ~ N(0, I) ─▶ noise generator ───────────┘
(x, x_hat) ─▶ multiscale D ─▶ adversarial and feature-matching losses
"""

from collections.abc import Sequence
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import losses
from checkpoint import Checkpointed, assign
from config import UserError, config_train
from entropy import EntropyModel, StaticTables
from features import VGG19
from fit_entropy import ContextNetwork
from network import Network, build, code_channels, float32, label_channels, map_symbols, precision
from semantic import heat_map
from utils import STRIDE, Utils, pad, to_float, to_uint8

HISTOGRAM_DECAY = 0.999  # a step; of the symbols' running histogram, which becomes the entropy coder's tables
CONTEXT_LEARNING_RATE = 2e-3  # of the context model that learns along (knob rate_model), by Adam


class Model(Checkpointed):
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
        self.quantizer = keras.Model(w, Network.quantizer(w, config))
        with precision(config.mixed_precision if training else "float32"):
            self.encoder = keras.Model(x, float32(build(config, "encoder", x, C)))
            self.generator = keras.Model(z, float32(build(config, "generator", z, 3)))
            self.networks = {"encoder": self.encoder, "quantizer": self.quantizer, "generator": self.generator}
            if config.sample_noise and config.noise_mode == "dcgan":
                self.noise_generator = keras.Model([v, w], float32(Network.noise_generator(v, w, config)))
                self.networks["noise_generator"] = self.noise_generator
            if config.use_conditional_GAN and config.semantic_code == "learned":
                s = keras.Input((None, None, config.label_channels))
                self.semantic_encoder = keras.Model(s, float32(build(config, "encoder", s, C)))
                self.networks["semantic_encoder"] = self.semantic_encoder
        # As graphs, which free what they no longer need; of unknown size, so that each image goes through the same one
        self._encode = tf.function(self.encoder, input_signature=[tf.TensorSpec((None, None, None, 3))])
        self._generate = tf.function(self.generator, input_signature=[tf.TensorSpec((None, None, None, z.shape[-1]))])
        if training:
            if config.use_conditional_GAN:  # D sees image and label map
                x = keras.Input((None, None, 3 + config.label_channels))
            build(config, "discriminator", x, 1)  # what multiscale_discriminator puts on each scale
            with precision(config.mixed_precision):
                logits, maps = Network.multiscale_discriminator(x, config)
            if config.use_feature_matching_loss and not maps:
                raise UserError(f"knob use_feature_matching_loss: Network.{config.discriminator} returns no maps to match")
            self.discriminator = keras.Model(x, float32((logits, maps)))
            if config.use_vgg_loss:
                self.vgg19 = VGG19(config.vgg_weights)
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
        self.strategy = tf.distribute.get_strategy()
        first, mean = tf.VariableAggregation.ONLY_FIRST_REPLICA, tf.VariableAggregation.MEAN
        self.averages = [tf.Variable(v, trainable=False, aggregation=first) for v in self.G_variables]
        uniform = tf.fill((config.channel_bottleneck, config.L), 1 / config.L)
        self.histogram = tf.Variable(uniform, trainable=False, aggregation=mean)
        self.context_network = None
        if config.rate_model == "context":
            self.context_network = ContextNetwork(config.channel_bottleneck, config.L)
            self.context_optimizer = keras.optimizers.Adam(CONTEXT_LEARNING_RATE)
            self.context_optimizer.build(self.context_network.trainable_variables)
        self._compiled_step = tf.function(  # reduce_retracing: of images of many sizes, two traces
            self._distributed_step, reduce_retracing=True, jit_compile=config.jit_compile
        )

    def _encoders(self) -> list:
        """What makes the file: frozen together, by freeze_encoder."""
        return [self.networks[name] for name in ("encoder", "quantizer", "semantic_encoder") if name in self.networks]

    def stage(self, step: int) -> tuple[str, int]:
        """What a step trains: "distortion", "discriminator" (alone) or "gan" (both), and the first step of its stage.

        In the GAN stage, D is alone in all but every n_critic_iterations-th step.
        """
        distortion_end = self.config.distortion_steps
        gan_start = distortion_end + self.config.discriminator_warmup_steps
        if step < distortion_end:
            return "distortion", 0
        if step < gan_start:
            return "discriminator", distortion_end
        turn_of_G = (step - gan_start + 1) % self.config.n_critic_iterations == 0
        return "gan" if turn_of_G else "discriminator", gan_start

    def learning_rates(self, step: int) -> tuple[float, float]:
        """Of E and G, and of D, at a step: exponential decay that starts anew with each stage."""
        config = self.config
        stage, start = self.stage(step)
        decay = config.lr_decay_rate ** ((step - start) / config.lr_decay_steps)
        G_rate = config.distortion_learning_rate if stage == "distortion" else config.G_learning_rate
        return G_rate * decay, config.D_learning_rate * decay

    def train_step(self, x: tf.Tensor, labels: tf.Tensor | None = None) -> dict[str, float]:
        """One update of all that the present stage trains, on images x (B, H, W, 3) in [-1, 1]. Returns the loss terms.

        labels: (B, H, W, 3) class, boundary of an instance, 1 where the picture is preserved; see data.py. With several
        devices, they share the images of this process among themselves, and train on those of all processes.
        """
        if self.step == self.config.distortion_steps:  # from here on the averaged weights are trained further: they are
            assign(self.G_variables, self.averages)  # better, and a frozen encoder then makes the files that it will make
        self.G_optimizer.learning_rate, self.D_optimizer.learning_rate = self.learning_rates(self.step)
        x, labels = self._per_replica(x), self._per_replica(labels)
        terms = self._compiled_step(x, labels, tf.constant(self.step), self.stage(self.step)[0])
        self.step += 1
        return {name: float(value) for name, value in terms.items()}

    def _per_replica(self, batch):
        """Images or labels of this process -> those of each of its devices."""
        if batch is None or self.strategy.num_replicas_in_sync == 1:
            return batch
        shares = iter(tf.split(batch, len(self.strategy.extended.worker_devices)))
        return self.strategy.experimental_distribute_values_from_function(lambda _: next(shares))

    def _distributed_step(self, x, labels, step, stage: str) -> dict:
        """The train step on all devices, and the mean of their loss terms."""
        terms = self.strategy.run(self._train_step, args=(x, labels, step, stage))
        terms = {name: self.strategy.reduce(tf.distribute.ReduceOp.MEAN, term, axis=None) for name, term in terms.items()}
        terms["PSNR"] = 10 * tf.math.log(4 / tf.maximum(terms["distortion"], 1e-10)) / np.log(10)
        return terms

    def _update(self, optimizer, tape: tf.GradientTape, loss, variables: list) -> None:
        """Descend the gradient of a loss, a mean over this replica's images. The optimizer adds up those of all replicas."""
        upstream = optimizer.scale_loss(tf.ones_like(loss)) / self.strategy.num_replicas_in_sync
        optimizer.apply(tape.gradient(loss, variables, output_gradients=upstream), variables)

    def _own_share(self, values, batch):
        """Of random values for the images of all replicas, those of this one: the same images get the same values."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return values[replica * batch : (replica + 1) * batch]

    def _train_step(self, x, labels, step, stage: str) -> dict:
        """One forward pass of G, and one of D on real and reconstructed images, serve both updates."""
        config = self.config
        m = visible = 1.0  # the heat map, and the same at the image's size
        if config.selective:
            m = ops.max_pool(ops.cast(labels[..., 2:], "float32"), STRIDE, STRIDE)
            visible = tf.repeat(tf.repeat(m, STRIDE, axis=1), STRIDE, axis=2)
        batch, height, width = tf.unstack(tf.shape(x)[:3])
        n = self.strategy.num_replicas_in_sync
        noise_shape = config.noise_shape(n * batch, height // STRIDE, width // STRIDE)
        v = self._own_share(tf.random.stateless_normal(noise_shape, seed=(config.seed, step)), batch)
        with tf.GradientTape(persistent=True) as tape:
            w = self._encode_for_training(x * visible)
            w_hat, aux = self.quantizer(w)
            if config.channel_dropout:
                w_hat *= self._own_share(self._channel_mask(n * batch, step), batch)
            side, code_penalty = self._code_for_training(labels) if config.code_channels else ([], 0.0)
            if config.selective:
                w_hat *= m
                side.append(m)
            x_hat = self.generate(w_hat, v, side, training=True)
            terms = {"distortion": losses.distortion(x, x_hat, visible)}
            G_loss = config.lambda_X * terms["distortion"]
            G_loss += config.lambda_range * (losses.range_penalty(w, config.centers[0], config.centers[-1]) + code_penalty)
            one_hot = tf.one_hot(aux["symbols"], config.L)  # (B, h, w, C, L)
            coded = m * tf.ones_like(w[..., :1])  # (B, h, w, 1)
            terms["bpp"] = self._rate(aux["assignment"], one_hot, coded)
            G_loss += config.lambda_rate * terms["bpp"]
            if config.use_vgg_loss and stage != "discriminator":
                terms["vgg"] = losses.perceptual(self.vgg19(x), self.vgg19(x_hat))
                G_loss += config.lambda_vgg * terms["vgg"]
            if stage != "distortion":
                adversarial, discriminator = self._gan_losses(x, x_hat, labels, step, terms)
                G_loss += adversarial

        def warm(decay: float):  # at first, averages follow faster
            return tf.minimum(decay, (1.0 + tf.cast(step, tf.float32)) / (10.0 + tf.cast(step, tf.float32)))

        if stage != "discriminator":
            frozen = self.E_variables if stage == "gan" and config.freeze_encoder else ()
            G_variables = [var for var in self.G_variables if id(var) not in frozen]
            self._update(self.G_optimizer, tape, G_loss, G_variables)
            for average, var in zip(self.averages, self.G_variables, strict=True):
                average.assign_sub((1 - warm(config.ema_decay)) * (average - var))
        if self.context_network:
            self._update(self.context_optimizer, tape, terms["bpp"], self.context_network.trainable_variables)
        if stage != "distortion":
            self._update(self.D_optimizer, tape, discriminator, self.D_variables)
            if config.weight_clipping:
                for var in self.D_variables:
                    var.assign(ops.clip(var, -config.max_c, config.max_c))

        counts = tf.reduce_sum(coded[..., None] * one_hot, axis=(0, 1, 2))  # (C, L)
        frequencies = counts / tf.maximum(tf.reduce_sum(coded), 1.0)
        frequencies += (1.0 - tf.reduce_sum(frequencies, axis=-1, keepdims=True)) * self.histogram  # where nothing is coded
        self.histogram.assign_sub((1 - warm(HISTOGRAM_DECAY)) * (self.histogram - frequencies))
        return terms

    def _encode_for_training(self, x):
        """E's feature map of x; with the knob `recompute`, its activations are not kept for the gradient."""

        def encoder(x):
            return self.encoder(x, training=True)

        return tf.recompute_grad(encoder)(x) if self.config.recompute else encoder(x)

    def _rate(self, soft, one_hot, coded):
        """Bits per pixel of the symbols (B, h, w, C, L), as a file would have them; the gradient is the soft assignment's."""
        assignment = soft + tf.stop_gradient(one_hot - soft)
        if not self.context_network:
            return losses.rate(assignment, self.histogram, coded)
        symbols = tf.reduce_sum(assignment * tf.range(self.config.L, dtype=tf.float32), axis=-1)
        return losses.rate(assignment, self.context_network.probabilities(symbols, coded), coded)

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

    def _gan_losses(self, x, x_hat, labels, step, terms: dict) -> tuple:
        """The weighted loss that D adds to G's, and D's own. Adds their terms to `terms`."""
        config = self.config
        s = [label_channels(labels, config)] if config.use_conditional_GAN else []

        def discriminate(image, training=not config.spectral_norm):
            return self.discriminator(ops.concatenate([image, *s], axis=-1), training=training)

        real_logits, real_maps = discriminate(x, training=True)  # spectral_norm: normalizes the kernels, once a step, so that
        fake_logits, fake_maps = discriminate(x_hat)  # x and x_hat are judged by the same ones
        kind = config.adversarial_loss
        terms["adversarial"] = getattr(losses, f"{kind}_generator")(fake_logits)
        terms["discriminator"] = getattr(losses, f"{kind}_discriminator")(real_logits, fake_logits)
        D_loss = terms["discriminator"]
        if config.gan_loss == "wgan_gp":
            batch = tf.shape(x)[0]
            shares = tf.random.stateless_uniform(
                (self.strategy.num_replicas_in_sync * batch, 1, 1, 1), seed=(config.seed + 2, step)
            )
            terms["gradient_penalty"] = gradient_penalty(
                lambda image: discriminate(image)[0], x, x_hat, self._own_share(shares, batch)
            )
            D_loss += config.lambda_gp * terms["gradient_penalty"]
        terms["D_real"] = sum(map(tf.reduce_mean, real_logits)) / len(real_logits)
        terms["D_fake"] = sum(map(tf.reduce_mean, fake_logits)) / len(fake_logits)
        G_loss = config.lambda_adversarial * terms["adversarial"]
        if config.use_feature_matching_loss:
            terms["feature_matching"] = losses.feature_matching(real_maps, fake_maps, len(real_logits))
            G_loss += config.lambda_feature_matching * terms["feature_matching"]
        return G_loss, D_loss

    @contextmanager
    def averaged_weights(self):
        """Within this context the networks have the averaged weights, those that compress.py will use."""
        raw = [var.numpy() for var in self.G_variables]
        assign(self.G_variables, self.averages)
        try:
            yield
        finally:
            assign(self.G_variables, raw)


# ----------------------------------------------------------------------------------------------------------------------
# Helpers
# ----------------------------------------------------------------------------------------------------------------------


def gradient_penalty(critic, x, x_hat, shares):
    """losses.gradient_penalty of a critic between real and reconstructed images, at shares * x + (1 - shares) * x_hat.

    critic: images (B, H, W, 3) -> logits at each scale; an image's score is the sum over scales of their means, as in the loss.
    shares: (B, 1, 1, 1) in [0, 1]. To be called within a tape: the gradient by D's weights is of the second order.
    """
    between = tf.stop_gradient(shares * x + (1 - shares) * x_hat)
    with tf.GradientTape() as tape:
        tape.watch(between)
        scores = sum(tf.reduce_mean(tf.reshape(logits, (tf.shape(x)[0], -1)), axis=1) for logits in critic(between))
        total = tf.reduce_sum(scores)  # images do not see each other, so that its gradient is each score's own
    return losses.gradient_penalty(tape.gradient(total, between))


def _optimizer(config: config_train, variables: list) -> keras.optimizers.Optimizer:
    decay = {"weight_decay": config.weight_decay or None}
    optimizer = {
        "adam": lambda: keras.optimizers.Adam(beta_1=config.beta_1, **decay),
        "momentum": lambda: keras.optimizers.SGD(momentum=config.momentum, **decay),
        "rmsprop": lambda: keras.optimizers.RMSprop(**decay),
        "sgd": lambda: keras.optimizers.SGD(**decay),
    }[config.optimizer]()
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias", "centers", "scale"])
    if config.mixed_precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer
