"""Training of a model: losses, optimizers, averages, and the step that updates them.

(x, x_hat) ─▶ multiscale D ─▶ adversarial and feature-matching losses
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import losses
from cGAN.labels import LabelBatch
from codec import Codec
from codec.checkpoint import (
    CENTERS,
    Arrays,
    read_checkpoint,
    read_training_state,
    resolve_checkpoint,
    restore,
    unsaved_checkpoint,
    write_checkpoint,
)
from codec.entropy import integer_frequencies
from codec.pictures import STRIDE
from config import UserError, config_train
from model import Model, named_weights
from network import (
    Network,
    build,
    code_channels,
    dtype_policy,
    float32,
    label_channels,
    map_symbols,
    precision,
    seeded,
)
from pretrained.networks import VGG19, AlexNet, lpips
from tensorflow_runtime import TensorFlowRuntime
from training.context_network import ContextNetwork
from training.devices import training_precision
from training.knob_roles import check_changes
from training.schedule import WITHOUT_D, learning_rates, stage
from utils import Utils

HISTOGRAM_DECAY = 0.999  # a step; of the symbols' running histogram, which becomes the entropy coder's tables
CONTEXT_LEARNING_RATE = 2e-3  # of the context model that learns along (knob rate_model), by Adam
MAX_SHIFT = 7  # px, of both images before AlexNet sees them


class Trainer:
    """A model, and all that training adds to it. `step`: how many steps were trained."""

    def __init__(self, config: config_train):
        if config.recompute:
            Utils.return_freed_memory()
        self.config = config
        self.step = 0
        self.precision = training_precision(config.mixed_precision)
        self.model = Model(config, policy=self.precision)
        with seeded(config.seed + 1):
            self.discriminator = _discriminator(config, self.precision)
        self.alexnet = AlexNet.load(dtype=dtype_policy(self.precision)) if config.uses_alexnet else None
        self.vgg19 = VGG19(config.vgg_weights) if config.use_vgg_loss else None
        self.G_variables = [v for net in self.model.networks.values() for v in net.trainable_variables]
        self.E_variables = [v for net in self._encoders() for v in net.trainable_variables]
        self.D_variables = self.discriminator.trainable_variables
        self.G_optimizer = _optimizer(config, self.G_variables)
        self.D_optimizer = _optimizer(config, self.D_variables)
        self.strategy = tf.distribute.get_strategy()
        first, mean = tf.VariableAggregation.ONLY_FIRST_REPLICA, tf.VariableAggregation.MEAN
        # tf.train.ExponentialMovingAverage has the same formula, but averages variables only, and the histogram is of symbols.
        self.averages = [tf.Variable(v, trainable=False, aggregation=first) for v in self.G_variables]
        uniform = tf.fill((config.channel_bottleneck, config.L), 1 / config.L)
        self.histogram = tf.Variable(uniform, trainable=False, aggregation=mean)
        self.context_network = None
        if config.rate_model == "context":
            with seeded(config.seed + 2):
                self.context_network = ContextNetwork(config.channel_bottleneck, config.L)
            self.context_optimizer = keras.optimizers.Adam(CONTEXT_LEARNING_RATE)
            self.context_optimizer.build(self.context_network.trainable_variables)
        self._compiled_step = tf.function(  # reduce_retracing: of images of many sizes, two traces
            self._distributed_step, reduce_retracing=True, jit_compile=config.jit_compile
        )

    def _encoders(self) -> list[keras.Model]:
        """The networks that make the file. The knob freeze_encoder freezes them together."""
        networks = self.model.networks
        return [networks[name] for name in ("encoder", "quantizer", "semantic_encoder") if name in networks]

    def state(self) -> dict[str, Any]:
        """Return all variables that training changes, by name. With `step`, this is the whole state."""
        state = named_weights({**self.model.networks, "discriminator": self.discriminator}) | {"histogram": self.histogram}
        numbered = {
            "average": self.averages,
            "G_optimizer": self.G_optimizer.variables,
            "D_optimizer": self.D_optimizer.variables,
        }
        if self.context_network:
            numbered["context_network"] = self.context_network.variables
            numbered["context_optimizer"] = self.context_optimizer.variables
        for name, variables in numbered.items():
            state |= {f"{name}/{i:03d}": var for i, var in enumerate(variables)}
        return state

    # ------------------------------------------------------------------------------------------------------------------
    # Checkpoints
    # ------------------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write a checkpoint to a new folder, which appears whole or not at all. Raises UserError for broken weights."""
        state: Arrays = {name: var.numpy() for name, var in self.state().items()}
        state["step"] = np.array(self.step)
        write_checkpoint(folder, self.config, self._averaged_weights(), self._frequencies(), state)

    @classmethod
    def start_from(cls, path: str | Path, changes: Mapping[str, Any]) -> Self:
        """Go on from a checkpoint, its knobs changed. One without training.npz gives its weights, at step 0."""
        folder = resolve_checkpoint(path)
        checkpoint, state = read_checkpoint(folder), read_training_state(folder)
        config = checkpoint.config.replace(changes)
        check_changes(checkpoint.config, config, folder, with_state=state is not None)
        trainer = cls(config)
        restore(trainer.model.weights, checkpoint.weights, folder)
        _assign(trainer.averages, trainer.G_variables)
        if state is not None:
            trainer.load_state(state, folder)
        return trainer

    def load_state(self, state: Arrays, folder: Path) -> None:
        """Take the state that `save` wrote to a checkpoint. Raises UserError for another one."""
        step = state.get("step", np.array(-1))
        if step.shape != () or step.dtype.kind not in "iu" or not 0 <= step < 2**31:
            raise UserError(f"checkpoint {folder}: training.npz has no step")
        restore(self.state(), {name: array for name, array in state.items() if name != "step"}, folder)
        self.step = int(step)

    @classmethod
    def transfer(cls, path: str | Path, changes: Mapping[str, Any]) -> tuple[Self, list[str]]:
        """Start at step 0 from a checkpoint's knobs, changed, and from its weights as far as they fit.

        Of a kernel with another number of channels, the first ones, which both have, are taken; w_hat is the first of what G
        sees. Of a network of another kind (knobs encoder, generator, discriminator), weights of equal shape alone are taken.
        Centers that are among the changes are set, whatever the checkpoint's are. The discriminator's weights are taken if
        there is a training.npz. Returns the trainer, and the names of the weights that start afresh, in whole or in part.
        """
        folder = resolve_checkpoint(path)
        checkpoint = read_checkpoint(folder)
        trainer = cls(checkpoint.config.replace(changes))
        arrays, networks = checkpoint.weights, dict(trainer.model.networks)
        if "centers" in changes and not np.array_equal(checkpoint.centers, np.float32(changes["centers"])):
            del arrays[CENTERS]
        if (state := read_training_state(folder)) is not None:
            arrays |= {name: array for name, array in state.items() if name.startswith("discriminator/")}
            networks["discriminator"] = trainer.discriminator
        weights = named_weights(networks)
        kinds = ("encoder", "generator", "discriminator")
        other_kind = tuple(f"{kind}/" for kind in kinds if getattr(trainer.config, kind) != getattr(checkpoint.config, kind))
        fresh = [name for name, var in weights.items() if name not in arrays or arrays[name].shape != tuple(var.shape)]
        for name, var in weights.items():
            if name in fresh and name.startswith(other_kind):
                continue
            if name in arrays and arrays[name].ndim == len(var.shape):
                common = tuple(slice(min(sides)) for sides in zip(arrays[name].shape, var.shape, strict=True))
                values = var.numpy()
                values[common] = arrays[name][common]
                var.assign(values)
        _assign(trainer.averages, trainer.G_variables)
        return trainer, fresh

    @contextmanager
    def averaged_codec(self) -> Iterator[Codec]:
        """Yield a codec with the averaged weights, those that compress.py will use. The networks have them meanwhile."""
        raw = [var.numpy() for var in self.G_variables]
        _assign(self.G_variables, self.averages)
        try:
            checkpoint = unsaved_checkpoint(self.config, self._averaged_weights(), self._frequencies())
            yield Codec(checkpoint, TensorFlowRuntime(self.model))
        finally:
            _assign(self.G_variables, raw)

    def _averaged_weights(self) -> Arrays:
        averages = {id(var): average for var, average in zip(self.G_variables, self.averages, strict=True)}
        return {name: averages.get(id(var), var).numpy() for name, var in self.model.weights.items()}

    def _frequencies(self) -> np.ndarray:
        return integer_frequencies(self.histogram.numpy())

    # ------------------------------------------------------------------------------------------------------------------
    # The train step
    # ------------------------------------------------------------------------------------------------------------------

    def train_step(self, x: tf.Tensor, labels: LabelBatch | None = None) -> dict[str, tf.Tensor]:
        """Update all that the present stage trains, once, on images x (B, H, W, 3) in [-1, 1]. Return the loss terms.

        With several devices, these share the images of this process, and all train on those of all processes.
        """
        if self.step == self.config.distortion_steps:  # from here on the averaged weights are trained further: they are
            _assign(self.G_variables, self.averages)  # better, and a frozen encoder then makes the files that it will make
        self.G_optimizer.learning_rate, self.D_optimizer.learning_rate = learning_rates(self.config, self.step)
        x, labels = self._per_replica(x), labels and LabelBatch(*map(self._per_replica, labels))
        terms = self._compiled_step(x, labels, tf.constant(self.step), stage(self.config, self.step)[0])
        self.step += 1
        return terms

    def _per_replica(self, batch: tf.Tensor) -> Any:
        """Divide images or labels of this process among its devices."""
        if self.strategy.num_replicas_in_sync == 1:
            return batch
        shares = iter(tf.split(batch, len(self.strategy.extended.worker_devices)))
        return self.strategy.experimental_distribute_values_from_function(lambda _: next(shares))

    def _distributed_step(self, x, labels, step, stage: str) -> dict[str, tf.Tensor]:
        """Make the train step on all devices, and return the mean of their loss terms."""
        terms = self.strategy.run(self._train_step, args=(x, labels, step, stage))
        terms = {name: self.strategy.reduce(tf.distribute.ReduceOp.MEAN, term, axis=None) for name, term in terms.items()}
        terms["PSNR"] = 10 * tf.math.log(4 / tf.maximum(terms["distortion"], 1e-10)) / np.log(10)
        return terms

    def _train_step(self, x, labels: LabelBatch | None, step, stage: str) -> dict[str, tf.Tensor]:
        """One forward pass of G, and one of D on real and reconstructed images, serve both updates."""
        with tf.GradientTape(persistent=True) as tape:
            G_loss, D_loss, terms, symbols, coded = self._forward(x, labels, step, stage)
        if stage != "discriminator":
            frozen = stage == "generator" or (stage == "gan" and self.config.freeze_encoder)
            kept = {id(var) for var in self.E_variables} if frozen else ()
            self._update(self.G_optimizer, tape, G_loss, [var for var in self.G_variables if id(var) not in kept])
            share = 1 - _warm(self.config.ema_decay, step)
            for average, var in zip(self.averages, self.G_variables, strict=True):
                average.assign_sub(share * (average - var))
        if self.context_network:
            self._update(self.context_optimizer, tape, terms["bpp"], self.context_network.trainable_variables)
        if stage not in WITHOUT_D:
            self._update(self.D_optimizer, tape, D_loss, self.D_variables)
            if self.config.weight_clipping:
                for var in self.D_variables:
                    var.assign(ops.clip(var, -self.config.max_c, self.config.max_c))
        self._count(symbols, coded, step)
        return terms

    def _forward(self, x, labels: LabelBatch | None, step, stage: str) -> tuple:
        """Return the losses of G and of D, the terms by name, the one-hot symbols and where they are coded."""
        config = self.config
        m = visible = 1.0  # the heat map, and the same at the image's size
        if config.selective:
            assert labels is not None
            m = ops.max_pool(ops.cast(labels.preserved[..., None], "float32"), STRIDE, STRIDE)
            visible = tf.repeat(tf.repeat(m, STRIDE, axis=1), STRIDE, axis=2)
        w = self._encode(x * visible)
        w_hat, aux = self.model.quantizer(w)
        symbols = tf.one_hot(aux["symbols"], config.L)  # (B, h, w, C, L)
        coded = m * tf.ones_like(w[..., :1])  # (B, h, w, 1)
        x_hat, code_penalty = self._decode(w_hat, m, labels, step)

        preserved = tf.reduce_sum(visible * tf.ones_like(x))
        terms = {"distortion": losses.distortion(x, x_hat, visible) * self._weight_of_replica(preserved)}
        G_loss = config.lambda_X * terms["distortion"]
        G_loss += config.lambda_range * (self._range_penalty(w) + code_penalty)
        terms["bpp"] = self._rate(aux["assignment"], symbols, coded)
        G_loss += config.lambda_rate * terms["bpp"]
        if self.vgg19 and stage != "discriminator":
            terms["vgg"] = losses.perceptual(self.vgg19(x), self.vgg19(x_hat))
            G_loss += config.lambda_vgg * terms["vgg"]
        features, features_hat = self._features(x, x_hat, step, stage)
        if self.alexnet and config.lambda_lpips and stage != "discriminator":
            terms["lpips"] = tf.reduce_mean(lpips(features, features_hat, self.alexnet.lin))
            G_loss += config.lambda_lpips * terms["lpips"]
        if stage in WITHOUT_D:
            return G_loss, None, terms, symbols, coded
        adversarial, D_loss, gan_terms = self._gan_losses((x, features), (x_hat, features_hat), labels, step)
        return G_loss + adversarial, D_loss, terms | gan_terms, symbols, coded

    def _encode(self, x):
        """E's feature map of x. With the knob `recompute`, its activations are not kept for the gradient."""

        def encoder(x):
            return self.model.encoder(x, training=True)

        return tf.recompute_grad(encoder)(x) if self.config.recompute else encoder(x)

    def _decode(self, w_hat, m, labels: LabelBatch | None, step) -> tuple:
        """Return x_hat, of noise, label map and heat map too where the knobs want them, and a learned code's range penalty."""
        config = self.config
        batch, h, w = tf.unstack(tf.shape(w_hat)[:3])
        n = self.strategy.num_replicas_in_sync
        v = self._own_share(tf.random.stateless_normal(config.noise_shape(n * batch, h, w), seed=(config.seed, step)), batch)
        if config.channel_dropout:
            w_hat *= self._own_share(self._channel_mask(n * batch, step), batch)
        side, penalty = self._code(labels) if labels and config.code_channels else ([], 0.0)
        if config.selective:
            w_hat *= m
            side.append(m)
        return self.model.generate(w_hat, v, side, training=True), penalty

    def _code(self, labels: LabelBatch) -> tuple[list, Any]:
        """Return what G sees of the label map, and the range penalty of a learned code."""
        if self.config.semantic_code == "lossless":
            return [code_channels(map_symbols(labels.classes, labels.boundaries, self.config), self.config)], 0.0
        w = self.model.semantic_encoder(label_channels(labels.classes, labels.boundaries, self.config), training=True)
        return [self.model.quantizer(w)[0]], self._range_penalty(w)

    def _range_penalty(self, w):
        """Return losses.range_penalty for the centers as they are now, learned or not; they get no gradient from it."""
        centers = tf.stop_gradient(ops.convert_to_tensor(self.model.weights[CENTERS]))
        return losses.range_penalty(w, ops.min(centers), ops.max(centers))

    def _rate(self, soft, one_hot, coded):
        """Bits per pixel of the symbols (B, h, w, C, L), as a file would have them; the gradient is the soft assignment's."""
        assignment = soft + tf.stop_gradient(one_hot - soft)
        if not self.context_network:
            return losses.rate(assignment, self.histogram, coded)
        symbols = tf.reduce_sum(assignment * tf.range(self.config.L, dtype=tf.float32), axis=-1)
        return losses.rate(assignment, self.context_network.probabilities(symbols, coded), coded)

    def _features(self, x, x_hat, step, stage: str) -> tuple[list, list]:
        """Return AlexNet's features of both images, for all losses of this stage that want them; else two empty lists.

        Both images are shifted alike by 0 to 7 px, differently at each step: the network's first stride is 4 px, and without
        the shift it would not see a grid of that size.
        """
        judged = self.config.discriminator == "projected_discriminator" and stage not in WITHOUT_D
        compared = self.config.lambda_lpips and stage != "discriminator"
        if not self.alexnet or not (judged or compared):
            return [], []
        height, width = tf.unstack(tf.shape(x)[1:3])
        room = tf.minimum(MAX_SHIFT, tf.minimum(height, width) - AlexNet.min_side)
        seed = (self.config.seed + 3, step)
        top, left = tf.unstack(tf.random.stateless_uniform((2,), seed, maxval=room + 1, dtype=tf.int32))
        rows, columns = slice(top, height - room + top), slice(left, width - room + left)
        return self.alexnet(x[:, rows, columns]), self.alexnet(x_hat[:, rows, columns])

    def _gan_losses(self, real: tuple[Any, list], fake: tuple[Any, list], labels: LabelBatch | None, step) -> tuple:
        """Return the weighted loss that D adds to G's, D's own, and the terms by name.

        real, fake: x and x_hat, each with its features, which the projected discriminator alone looks at.
        """
        config = self.config
        s = []
        if config.use_conditional_GAN:
            assert labels is not None
            s = [label_channels(labels.classes, labels.boundaries, config)]

        def discriminate(image, features=(), training=not config.spectral_norm):
            image = ops.concatenate([image, *s], axis=-1)
            projected = config.discriminator == "projected_discriminator"
            return self.discriminator([image, *features] if projected else image, training=training)

        real_logits, real_maps = discriminate(*real, training=True)  # spectral_norm: normalizes the kernels, once a step, so
        fake_logits, fake_maps = discriminate(*fake)  # that x and x_hat are judged by the same ones
        kind = config.adversarial_loss
        terms = {
            "adversarial": getattr(losses, f"{kind}_generator")(fake_logits),
            "discriminator": getattr(losses, f"{kind}_discriminator")(real_logits, fake_logits),
            "D_real": sum(map(tf.reduce_mean, real_logits)) / len(real_logits),
            "D_fake": sum(map(tf.reduce_mean, fake_logits)) / len(fake_logits),
        }
        D_loss = terms["discriminator"]
        if config.gan_loss == "wgan_gp":
            x, x_hat = real[0], fake[0]
            batch = tf.shape(x)[0]
            n = self.strategy.num_replicas_in_sync
            shares = tf.random.stateless_uniform((n * batch, 1, 1, 1), seed=(config.seed + 2, step))
            terms["gradient_penalty"] = gradient_penalty(
                lambda image: discriminate(image)[0], x, x_hat, self._own_share(shares, batch)
            )
            D_loss += config.lambda_gp * terms["gradient_penalty"]
        G_loss = config.lambda_adversarial * terms["adversarial"]
        if config.use_feature_matching_loss:
            terms["feature_matching"] = losses.feature_matching(real_maps, fake_maps, len(real_logits))
            G_loss += config.lambda_feature_matching * terms["feature_matching"]
        return G_loss, D_loss, terms

    def _weight_of_replica(self, amount):
        """Return what makes a mean over `amount` values here, in a mean over replicas, a mean over all their values.

        It is 1 where all replicas have as many values, as those of models that preserve the whole picture do.
        """
        n = self.strategy.num_replicas_in_sync
        if n == 1 or not self.config.selective:
            return 1.0
        return n * tf.maximum(amount, 1.0) / tf.maximum(self._sum_over_replicas(amount), 1.0)

    def _sum_over_replicas(self, value):
        if self.strategy.num_replicas_in_sync == 1:
            return value
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)

    def _own_share(self, values, batch):
        """Of random values for the images of all replicas, return those of this one: the same images get the same values."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return values[replica * batch : (replica + 1) * batch]

    def _channel_mask(self, batch, step):
        """Return (B, 1, 1, C) of 1 and 0: a share `channel_dropout` of the images keep the first K < C channels only."""
        C = self.config.channel_bottleneck
        chance, share = tf.unstack(tf.random.stateless_uniform((2, batch), seed=(self.config.seed + 1, step)))
        K = tf.where(chance < self.config.channel_dropout, 1 + tf.cast(share * (C - 1), tf.int32), C)
        return tf.sequence_mask(K, C, dtype=tf.float32)[:, None, None]

    def _update(self, optimizer, tape: tf.GradientTape, loss, variables: list) -> None:
        """Descend the gradient of a loss, a mean over this replica's images. The optimizer adds up those of all replicas."""
        upstream = optimizer.scale_loss(tf.ones_like(loss)) / self.strategy.num_replicas_in_sync
        optimizer.apply(tape.gradient(loss, variables, output_gradients=upstream), variables)

    def _count(self, symbols, coded, step) -> None:
        """Move the running histogram towards the one-hot symbols (B, h, w, C, L) that are coded."""
        counts = self._sum_over_replicas(tf.reduce_sum(coded[..., None] * symbols, axis=(0, 1, 2)))  # (C, L)
        frequencies = counts / tf.maximum(self._sum_over_replicas(tf.reduce_sum(coded)), 1.0)
        frequencies += (1.0 - tf.reduce_sum(frequencies, axis=-1, keepdims=True)) * self.histogram  # where nothing is coded
        self.histogram.assign_sub((1 - _warm(HISTOGRAM_DECAY, step)) * (self.histogram - frequencies))


# ----------------------------------------------------------------------------------------------------------------------
# Helpers
# ----------------------------------------------------------------------------------------------------------------------


def _warm(decay: float, step):
    """Return an average's decay, which is smaller in the first steps, so that the average follows faster."""
    return tf.minimum(decay, (1.0 + tf.cast(step, tf.float32)) / (10.0 + tf.cast(step, tf.float32)))


def _assign(variables: list, values: list) -> None:
    for var, value in zip(variables, values, strict=True):
        var.assign(value)


def gradient_penalty(critic: Callable, x, x_hat, shares):
    """Return losses.gradient_penalty of a critic between real and reconstructed images, at shares * x + (1 - shares) * x_hat.

    critic: images (B, H, W, 3) -> logits at each scale; an image's score is the sum over scales of their means, as in the loss.
    shares: (B, 1, 1, 1) in [0, 1]. Call it within a tape: the gradient by D's weights is of the second order.
    """
    between = tf.stop_gradient(shares * x + (1 - shares) * x_hat)
    with tf.GradientTape() as tape:
        tape.watch(between)
        scores = sum(tf.reduce_mean(tf.reshape(logits, (tf.shape(x)[0], -1)), axis=1) for logits in critic(between))
        total = tf.reduce_sum(scores)  # images do not see each other, so that its gradient is each score's own
    return losses.gradient_penalty(tape.gradient(total, between))


def _discriminator(config: config_train, policy: str) -> keras.Model:
    """Return D, which sees the image with the label map of a conditional GAN, and AlexNet's features if it is projected."""
    x = keras.Input((None, None, 3 + (config.label_channels if config.use_conditional_GAN else 0)))
    features = []
    if config.discriminator == "projected_discriminator":
        features = [keras.Input((None, None, channels)) for channels in AlexNet.channels]
    else:
        build(config, "discriminator", x, 1)  # what multiscale_discriminator puts on each scale
    with precision(policy):
        logits, maps = Network.multiscale_discriminator(x, config, features)
    if config.use_feature_matching_loss and not maps:
        raise UserError(f"knob use_feature_matching_loss: Network.{config.discriminator} returns no maps to match")
    return keras.Model([x, *features] if features else x, float32((logits, maps)))


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
