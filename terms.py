"""The losses of training. Each is one function of a forward pass, with the knob that weighs it and the stages it acts in.

To add a loss, write it as a pure function in losses.py, and as a term here; its weight is a knob in config.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf
from keras import ops

import losses
from config import config_train
from pretrained import networks

if TYPE_CHECKING:
    from gcodec.labels import LabelBatch

WITHOUT_D = ("generator", "distortion")  # the stages in which there is no discriminator
WITH_D = ("discriminator", "gan")
TRAINING_G = ("generator", "distortion", "gan")
ALL = (*WITHOUT_D, *WITH_D)
MAX_SHIFT = 7  # px, of both images before AlexNet sees them


@dataclass
class Pass:
    """One forward pass, and what the losses look at. What only some of them need is computed when the first one asks.

    model: model.Model, with the networks.  x, x_hat: images (B, H, W, 3) in [-1, 1].  visible: (B, H, W, 1), 1 where the image
    is preserved.  w: (B, h, w, C).  w_code: the feature map of a learned code of the label map, or None.  soft, hard:
    assignments of w to the centers, (B, h, w, C, L), the latter one-hot.  m: (B, h, w, 1), 1 where symbols are coded.
    """

    model: Any
    step: Any
    stage: str
    labels: "LabelBatch | None"
    x: Any
    visible: Any
    w: Any
    w_code: Any
    soft: Any
    hard: Any
    m: Any
    x_hat: Any

    @property
    def config(self) -> config_train:
        return self.model.config

    @cached_property
    def features(self) -> tuple[list, list]:
        """AlexNet's features of x and of x_hat."""
        x, x_hat = (window(image, self.step, self.config) for image in (self.x, self.x_hat))
        return self.model.alexnet(x), self.model.alexnet(x_hat)

    @cached_property
    def judged(self) -> "Judgement":
        """What D says of x and of x_hat."""
        features, features_hat = self.features if self.config.is_projected else ((), ())
        # spectral_norm normalizes the kernels in the first call, once a step, so that both are judged by the same ones
        real = self.model.discriminate(self.x, self.labels, features)
        fake = self.model.discriminate(self.x_hat, self.labels, features_hat, training=not self.config.spectral_norm)
        return Judgement(*real, *fake)


class Judgement(NamedTuple):
    """Logits, a list with an entry for each scale, and D's intermediate maps by name."""

    real_logits: list
    real_maps: dict
    fake_logits: list
    fake_maps: dict


class Losses(NamedTuple):
    """G, D: the weighted sums that E and G, and D, minimize; D's is None in a stage without it.  terms: all losses by name."""

    G: Any
    D: Any
    terms: dict[str, Any]


@dataclass(frozen=True)
class Term:
    """A loss of a forward pass; the arguments of `term` say what the other fields are."""

    value: Callable[[Pass], Any]
    weight: str | Callable[[Pass], Any] | float
    trains: str
    stages: tuple[str, ...]
    when: Callable[[config_train], Any] | None

    def acts(self, p: Pass) -> bool:
        """Whether the stage and the knobs want this loss."""
        if p.stage not in self.stages:
            return False
        if self.when is not None:
            return bool(self.when(p.config))
        return not isinstance(self.weight, str) or getattr(p.config, self.weight) > 0

    def weighted(self, value, p: Pass) -> Any:
        if isinstance(self.weight, str):
            return value * getattr(p.config, self.weight)
        return value * (self.weight(p) if callable(self.weight) else self.weight)


TERMS: dict[str, Term] = {}


def term(
    weight: str | Callable[[Pass], Any] | float,  #          the knob that weighs it, or a function of the pass, or a number
    *,
    trains: str = "G",  #                                    "G" (with E and q), "D", or "" for what is only shown
    stages: tuple[str, ...] = TRAINING_G,  #                 in which it acts
    when: Callable[[config_train], Any] | None = None,  #    whether the knobs want it; default: if its knob is not 0
) -> Callable:
    """Register a function of a forward pass as the loss of its name."""

    def register(function: Callable[[Pass], Any]) -> Callable[[Pass], Any]:
        TERMS[function.__name__] = Term(function, weight, trains, stages, when)
        return function

    return register


def always(config: config_train) -> bool:
    return True


def all_losses(p: Pass) -> Losses:
    """Return the losses that the knobs and the stage want, by name, and their weighted sums."""
    terms, sums = {}, {"G": 0.0, "D": 0.0, "": 0.0}
    for name, each in TERMS.items():
        if each.acts(p):
            terms[name] = each.value(p)
            sums[each.trains] += each.weighted(terms[name], p)
    return Losses(sums["G"], sums["D"] if p.stage in WITH_D else None, terms)


# ----------------------------------------------------------------------------------------------------------------------
# The autoencoder
# ----------------------------------------------------------------------------------------------------------------------


@term("lambda_X", stages=ALL, when=always)
def distortion(p: Pass):
    """MSE over what is preserved."""
    return of_preserved(losses.distortion, p)


@term("lambda_structure")
def structure(p: Pass):
    """MSE at a quarter of the size, where texture is averaged away."""
    return of_preserved(losses.structure, p)


def of_preserved(error: Callable, p: Pass) -> Any:
    """Return an error over what is preserved. With heat maps, an image's preserved part counts by its size."""
    mse = error(p.x, p.x_hat, p.visible)
    return mse * weight_of_mean(tf.reduce_sum(p.visible * tf.ones_like(p.x))) if p.config.selective else mse


@term(lambda p: p.model.rate.weight, stages=ALL)
def bpp(p: Pass):
    """Bits per pixel of the symbols."""
    return p.model.rate.bpp(p.soft, p.hard, p.m)


@term("lambda_range")
def range_penalty(p: Pass):
    """Penalty on w outside the range of the centers, which get no gradient from it."""
    centers = tf.stop_gradient(ops.convert_to_tensor(p.model.centers))
    maps = [p.w] if p.w_code is None else [p.w, p.w_code]
    return sum(losses.range_penalty(w, ops.min(centers), ops.max(centers)) for w in maps)


# ----------------------------------------------------------------------------------------------------------------------
# Perceptual losses
# ----------------------------------------------------------------------------------------------------------------------


@term("lambda_vgg", when=lambda config: config.use_vgg_loss)
def vgg(p: Pass):
    return losses.perceptual(p.model.vgg19(p.x), p.model.vgg19(p.x_hat))


@term("lambda_lpips")
def lpips(p: Pass):
    return tf.reduce_mean(networks.lpips(*p.features, p.model.alexnet.lin))


@term("lambda_lpips_vgg")
def lpips_vgg(p: Pass):
    real, fake = (p.model.vgg16(quarter(image, p.step, p.config)) for image in (p.x, p.x_hat))
    return tf.reduce_mean(networks.lpips(real, fake, p.model.vgg16.lin))


# ----------------------------------------------------------------------------------------------------------------------
# The GAN
# ----------------------------------------------------------------------------------------------------------------------


@term("lambda_adversarial", stages=WITH_D, when=always)
def adversarial(p: Pass):
    return getattr(losses, f"{p.config.adversarial_loss}_generator")(p.judged.fake_logits)


@term("lambda_feature_matching", stages=WITH_D, when=lambda config: config.use_feature_matching_loss)
def feature_matching(p: Pass):
    return losses.feature_matching(p.judged.real_maps, p.judged.fake_maps, len(p.judged.real_logits))


@term(1.0, trains="D", stages=WITH_D)
def discriminator(p: Pass):
    return getattr(losses, f"{p.config.adversarial_loss}_discriminator")(p.judged.real_logits, p.judged.fake_logits)


@term("lambda_gp", trains="D", stages=WITH_D, when=lambda config: config.gan_loss == "wgan_gp")
def gradient_penalty(p: Pass):
    batch = tf.shape(p.x)[0]
    shares = tf.random.stateless_uniform((n_replicas() * batch, 1, 1, 1), seed=(p.config.seed + 2, p.step))
    return penalty_between(lambda image: p.model.discriminate(image, p.labels)[0], p.x, p.x_hat, own_share(shares, batch))


@term(0.0, trains="", stages=WITH_D)
def D_real(p: Pass):
    """The mean logit of x: no loss, but what shows whether D tells anything apart."""
    return sum(map(tf.reduce_mean, p.judged.real_logits)) / len(p.judged.real_logits)


@term(0.0, trains="", stages=WITH_D)
def D_fake(p: Pass):
    return sum(map(tf.reduce_mean, p.judged.fake_logits)) / len(p.judged.fake_logits)


def penalty_between(critic: Callable, x, x_hat, shares) -> Any:
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


# ----------------------------------------------------------------------------------------------------------------------
# What frozen networks see of an image: another part at each step, of both images the same
# ----------------------------------------------------------------------------------------------------------------------


def window(image, step, config: config_train) -> Any:
    """Return what AlexNet sees of images (B, H, W, 3): nearly all, or a smaller part, enlarged to (B, H, W, 3).

    AlexNet's first stride is 4 px. It would not see a grid of that size, so the window is shifted by 0 to 7 px. It takes
    stripes of 2.67 px for texture of 8 px, so the knob perceptual_zoom has it see a smaller window, enlarged.
    """
    size = tf.shape(image)[1:3]
    top_left = tf.random.stateless_uniform((2,), (config.seed + 3, step))  # as shares of the room that there is
    if config.perceptual_zoom == 1:
        return crop(image, size - tf.minimum(MAX_SHIFT, tf.reduce_min(size) - networks.AlexNet.min_side), top_left)
    zoom = tf.random.stateless_uniform((), (config.seed + 4, step), 1, config.perceptual_zoom)
    top_left *= 1 - 1 / zoom
    batch = tf.shape(image)[0]
    boxes = tf.tile(tf.concat([top_left, top_left + 1 / zoom], axis=0)[None], (batch, 1))  # as shares of the image
    return tf.image.crop_and_resize(image, boxes, tf.range(batch), size)


def quarter(image, step, config: config_train) -> Any:
    """Return what VGG16 sees of images (B, H, W, 3), (B, H/2, W/2, 3).

    It computes at full size, so that a whole image would take longer than all the rest of the step.
    """
    return crop(image, tf.shape(image)[1:3] // 2, tf.random.stateless_uniform((2,), (config.seed + 5, step)))


def crop(image, size, top_left) -> Any:
    """Return a part of `size`, (2,), of images (B, H, W, 3); top_left: (2,) in [0, 1), as shares of the room that there is."""
    room = tf.shape(image)[1:3] - size
    top, left = tf.unstack(tf.cast(top_left * tf.cast(room + 1, tf.float32), tf.int32))
    height, width = tf.unstack(size)
    return image[:, top : top + height, left : left + width]


# ----------------------------------------------------------------------------------------------------------------------
# Arithmetic over the replicas, the devices that share a batch; one device alone is a single replica
# ----------------------------------------------------------------------------------------------------------------------


def n_replicas() -> int:
    """Return how many devices share a batch."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def total(value: Any) -> Any:
    """Return the sum of a value over all replicas. Each of them has to ask."""
    return value if n_replicas() == 1 else tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def own_share(values: Any, batch: Any) -> Any:
    """Return this replica's `batch` rows of values that were drawn for the images of all replicas.

    All replicas draw the same values, so an image gets the same ones on any number of devices.
    """
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return values[replica * batch : (replica + 1) * batch]


def weight_of_mean(amount: Any) -> Any:
    """Return the factor that turns a mean over `amount` values of each replica into a mean over the values of all of them.

    The mean over the replicas is taken later. The factor is 1 where all replicas have the same amount.
    """
    if n_replicas() == 1:
        return 1.0
    return n_replicas() * tf.maximum(amount, 1.0) / tf.maximum(total(amount), 1.0)
