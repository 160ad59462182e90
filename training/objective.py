"""What a step minimizes: one forward pass of G, and one of D on real and reconstructed images, serve both updates.

x ─▶ E ─▶ q ─┬─▶ G ─▶ x_hat ─▶ distortion, LPIPS, VGG19
             └─▶ rate ─▶ bits per pixel
(x, x_hat) ─▶ multiscale D ─▶ adversarial and feature-matching losses
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

import losses
from cGAN.labels import LabelBatch
from codec.checkpoint import CENTERS
from codec.pictures import STRIDE
from config import UserError, config_train
from model import Model
from network import Network, build, code_channels, dtype_policy, float32, label_channels, map_symbols, precision, seeded
from pretrained.networks import VGG16, VGG19, AlexNet, lpips
from training.rate import Rate
from training.replicas import n_replicas, own_share, weight_of_mean
from training.schedule import WITHOUT_D

MAX_SHIFT = 7  # px, of both images before AlexNet sees them


class Losses(NamedTuple):
    """What one forward pass returns.

    G, D: the losses that E and G, and D, minimize; D's is None in a stage without it.  terms: the parts of both, by name.
    symbols: (B, h, w, C, L) one-hot.  coded: (B, h, w, 1), 1 where they are coded.
    """

    G: Any
    D: Any
    terms: dict[str, Any]
    symbols: Any
    coded: Any


class Objective:
    """The losses of a model, with the networks that only training needs: D, AlexNet, VGG16, VGG19 and the rate's."""

    def __init__(self, model: Model, policy: str):
        self.model, self.config = model, model.config
        config = self.config
        with seeded(config.seed + 1):
            self.discriminator = build_discriminator(config, policy)
        self.alexnet = AlexNet.load(dtype=dtype_policy(policy)) if config.uses_alexnet else None
        self.vgg16 = VGG16.load(dtype=dtype_policy(policy)) if config.lambda_lpips_vgg else None
        self.vgg19 = VGG19(config.vgg_weights) if config.use_vgg_loss else None
        self.rate = Rate(config)

    def forward(self, x, labels: LabelBatch | None, step, stage: str) -> Losses:
        """Return the losses of images x (B, H, W, 3) in [-1, 1]."""
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

        terms = {"distortion": losses.distortion(x, x_hat, visible)}
        if config.selective:  # an image's preserved part counts by its size
            terms["distortion"] *= weight_of_mean(tf.reduce_sum(visible * tf.ones_like(x)))
        G_loss = config.lambda_X * terms["distortion"]
        G_loss += config.lambda_range * (self.range_penalty(w) + code_penalty)
        terms["bpp"] = self.rate.bpp(aux["assignment"], symbols, coded)
        G_loss += self.rate.weight * terms["bpp"]
        if self.vgg19 and stage != "discriminator":
            terms["vgg"] = losses.perceptual(self.vgg19(x), self.vgg19(x_hat))
            G_loss += config.lambda_vgg * terms["vgg"]
        features, features_hat = self.features(x, x_hat, step, stage)
        if self.alexnet and config.lambda_lpips and stage != "discriminator":
            terms["lpips"] = tf.reduce_mean(lpips(features, features_hat, self.alexnet.lin))
            G_loss += config.lambda_lpips * terms["lpips"]
        if self.vgg16 and stage != "discriminator":
            quarter, quarter_hat = self._quarter(x, step), self._quarter(x_hat, step)
            terms["lpips_vgg"] = tf.reduce_mean(lpips(self.vgg16(quarter), self.vgg16(quarter_hat), self.vgg16.lin))
            G_loss += config.lambda_lpips_vgg * terms["lpips_vgg"]
        if stage in WITHOUT_D:
            return Losses(G_loss, None, terms, symbols, coded)
        adversarial, D_loss, gan_terms = self._gan_losses((x, features), (x_hat, features_hat), labels, step)
        return Losses(G_loss + adversarial, D_loss, terms | gan_terms, symbols, coded)

    def _encode(self, x):
        """Return E's feature map of x. With the knob `recompute`, its activations are not kept for the gradient."""

        def encoder(x):
            return self.model.encoder(x, training=True)

        return tf.recompute_grad(encoder)(x) if self.config.recompute else encoder(x)

    def _decode(self, w_hat, m, labels: LabelBatch | None, step) -> tuple:
        """Return x_hat and a learned code's range penalty. G sees noise, label map and heat map where the knobs want them."""
        config = self.config
        batch, h, w = tf.unstack(tf.shape(w_hat)[:3])
        n = n_replicas()
        v = own_share(tf.random.stateless_normal(config.noise_shape(n * batch, h, w), seed=(config.seed, step)), batch)
        if config.channel_dropout:
            w_hat *= own_share(channel_mask(config, n * batch, step), batch)
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
        return [self.model.quantizer(w)[0]], self.range_penalty(w)

    def range_penalty(self, w) -> Any:
        """Return losses.range_penalty for the centers as they are now, learned or not; they get no gradient from it."""
        centers = tf.stop_gradient(ops.convert_to_tensor(self.model.weights[CENTERS]))
        return losses.range_penalty(w, ops.min(centers), ops.max(centers))

    def features(self, x, x_hat, step, stage: str) -> tuple[list, list]:
        """Return AlexNet's features of both images if any loss of this stage needs them, else two empty lists."""
        judged = self.config.discriminator == "projected_discriminator" and stage not in WITHOUT_D
        compared = self.config.lambda_lpips and stage != "discriminator"
        if not self.alexnet or not (judged or compared):
            return [], []
        return self.alexnet(self._window(x, step)), self.alexnet(self._window(x_hat, step))

    def _window(self, image, step):
        """Return what AlexNet sees of images (B, H, W, 3): another window at each step, of all images the same.

        Its first stride is 4 px. It would not see a grid of that size, so the window is shifted by 0 to 7 px. It takes stripes
        of 2.67 px for texture of 8 px, so the knob perceptual_zoom has it see a smaller window, enlarged to (B, H, W, 3).
        """
        size = tf.shape(image)[1:3]
        top_left = tf.random.stateless_uniform((2,), (self.config.seed + 3, step))  # as shares of the room that there is
        if self.config.perceptual_zoom == 1:
            return crop(image, size - tf.minimum(MAX_SHIFT, tf.reduce_min(size) - AlexNet.min_side), top_left)
        zoom = tf.random.stateless_uniform((), (self.config.seed + 4, step), 1, self.config.perceptual_zoom)
        top_left *= 1 - 1 / zoom
        batch = tf.shape(image)[0]
        boxes = tf.tile(tf.concat([top_left, top_left + 1 / zoom], axis=0)[None], (batch, 1))  # as shares of the image
        return tf.image.crop_and_resize(image, boxes, tf.range(batch), size)

    def _quarter(self, image, step):
        """Return what VGG16 sees of images (B, H, W, 3), (B, H/2, W/2, 3): another part at each step, of all images the same.

        It computes at full size, so that a whole image would take longer than all the rest of the step.
        """
        return crop(image, tf.shape(image)[1:3] // 2, tf.random.stateless_uniform((2,), (self.config.seed + 5, step)))

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
            batch = tf.shape(real[0])[0]
            shares = tf.random.stateless_uniform((n_replicas() * batch, 1, 1, 1), seed=(config.seed + 2, step))
            terms["gradient_penalty"] = gradient_penalty(
                lambda image: discriminate(image)[0], real[0], fake[0], own_share(shares, batch)
            )
            D_loss += config.lambda_gp * terms["gradient_penalty"]
        G_loss = config.lambda_adversarial * terms["adversarial"]
        if config.use_feature_matching_loss:
            terms["feature_matching"] = losses.feature_matching(real_maps, fake_maps, len(real_logits))
            G_loss += config.lambda_feature_matching * terms["feature_matching"]
        return G_loss, D_loss, terms


def crop(image, size, top_left) -> Any:
    """Return a part of `size`, (2,), of images (B, H, W, 3); top_left: (2,) in [0, 1), as shares of the room that there is."""
    room = tf.shape(image)[1:3] - size
    top, left = tf.unstack(tf.cast(top_left * tf.cast(room + 1, tf.float32), tf.int32))
    height, width = tf.unstack(size)
    return image[:, top : top + height, left : left + width]


def channel_mask(config: config_train, batch, step) -> Any:
    """Return (B, 1, 1, C) of 1 and 0: a share `channel_dropout` of the images keep only the first K < C channels."""
    C = config.channel_bottleneck
    chance, share = tf.unstack(tf.random.stateless_uniform((2, batch), seed=(config.seed + 1, step)))
    K = tf.where(chance < config.channel_dropout, 1 + tf.cast(share * (C - 1), tf.int32), C)
    return tf.sequence_mask(K, C, dtype=tf.float32)[:, None, None]


def gradient_penalty(critic: Callable, x, x_hat, shares) -> Any:
    """Return losses.gradient_penalty of a critic between real and reconstructed images, at shares * x + (1 - shares) * x_hat.

    critic: images (B, H, W, 3) -> logits at each scale; an image's score is the sum over scales of their means, as in the loss.
    shares: (B, 1, 1, 1) in [0, 1]. Call it within a tape: the gradient by D's weights is of the second order.
    """
    between = tf.stop_gradient(shares * x + (1 - shares) * x_hat)
    with tf.GradientTape() as tape:
        tape.watch(between)
        scores = sum(tf.reduce_mean(tf.reshape(logits, (tf.shape(x)[0], -1)), axis=1) for logits in critic(between))
        score = tf.reduce_sum(scores)  # images do not see each other, so that its gradient is each score's own
    return losses.gradient_penalty(tape.gradient(score, between))


def build_discriminator(config: config_train, policy: str = "float32") -> keras.Model:
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
