"""The losses: pure functions of tensors, on any Keras backend.

`logits` are lists, an entry a scale; `maps` are the discriminator's intermediate maps by name. Losses are summed over scales
and meaned over everything else, so that they do not depend on the size of the image or of the batch.
"""

from keras import ops


def distortion(x, x_hat, m=1.0):
    """Mean squared error over images in [-1, 1]: mean (x - x_hat)^2. Up to 4; a quarter of that in [0, 1].

    With a heat map m (B, H, W, 1): sum m (x - x_hat)^2 / sum m, over what is preserved; 0 where nothing is.
    """
    m = m * ops.ones_like(x)
    return ops.sum(m * ops.square(x - x_hat)) / ops.maximum(ops.sum(m), 1.0)


def structure(x, x_hat, m=1.0):
    """The distortion of images averaged over 4x4 pixels: where things are, whatever the texture. H and W are multiples of 4."""
    return distortion(*(ops.average_pool(image, 4) for image in (x, x_hat, m * ops.ones_like(x))))


def range_penalty(w, low: float, high: float):
    """Mean squared distance of the feature map from the range of the centers: mean (w - clip(w, low, high))^2.

    Zero within the range. Beyond it the soft assignment saturates, so that nothing else would bring w back.
    """
    return ops.mean(ops.square(w - ops.clip(w, low, high)))


def rate(assignment, frequencies, m=1.0):
    """Bits per pixel that a table costs: -1/256 mean m sum_c sum_l a_cl log2 f_cl, at one position for 16 x 16 pixels.

    assignment a: (B, h, w, C, L), hard (one-hot) or soft; frequencies f: (C, L), each row with the sum 1;
    m: (B, h, w, 1), 1 where symbols are coded.
    """
    bits = -ops.sum(assignment * ops.log2(frequencies + 1e-9), axis=(-2, -1))  # (B, h, w)
    return ops.mean(m * bits[..., None]) / 256


def lsgan_discriminator(real_logits: list, fake_logits: list):
    """Least squares (Mao et al. 2017): 1/2 sum_scales [mean (D(x) - 1)^2 + mean D(x_hat)^2]."""
    return 0.5 * sum(
        ops.mean(ops.square(real - 1)) + ops.mean(ops.square(fake)) for real, fake in zip(real_logits, fake_logits, strict=True)
    )


def lsgan_generator(fake_logits: list):
    """Least squares: sum_scales mean (D(x_hat) - 1)^2."""
    return sum(ops.mean(ops.square(fake - 1)) for fake in fake_logits)


def vanilla_discriminator(real_logits: list, fake_logits: list):
    """Cross-entropy (Goodfellow et al. 2014): -sum_scales [mean log s(D(x)) + mean log(1 - s(D(x_hat)))], s the sigmoid."""
    return sum(
        ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake))
        for real, fake in zip(real_logits, fake_logits, strict=True)
    )


def vanilla_generator(fake_logits: list):
    """Cross-entropy, non-saturating: -sum_scales mean log s(D(x_hat)), s the sigmoid."""
    return sum(ops.mean(ops.softplus(-fake)) for fake in fake_logits)


def feature_matching(real_maps: dict, fake_maps: dict, n_scales: int):
    """Wang et al. 2018: 1/n_scales sum_maps mean |D_k(x) - D_k(x_hat)|; no gradient flows into the real side."""
    return sum(ops.mean(ops.abs(ops.stop_gradient(real_maps[k]) - fake_maps[k])) for k in real_maps) / n_scales


def hinge_discriminator(real_logits: list, fake_logits: list):
    """Hinge (Lim and Ye 2017): sum_scales [mean max(0, 1 - D(x)) + mean max(0, 1 + D(x_hat))]."""
    return sum(
        ops.mean(ops.relu(1 - real)) + ops.mean(ops.relu(1 + fake)) for real, fake in zip(real_logits, fake_logits, strict=True)
    )


def hinge_generator(fake_logits: list):
    """-sum_scales mean D(x_hat)."""
    return -sum(ops.mean(fake) for fake in fake_logits)


def wgan_discriminator(real_logits: list, fake_logits: list):
    """Wasserstein (Arjovsky et al. 2017): sum_scales [mean D(x_hat) - mean D(x)], for a critic that is bounded otherwise."""
    return sum(ops.mean(fake) - ops.mean(real) for real, fake in zip(real_logits, fake_logits, strict=True))


def wgan_generator(fake_logits: list):
    """-sum_scales mean D(x_hat)."""
    return hinge_generator(fake_logits)


def gradient_penalty(gradient):
    """Gulrajani et al. 2017: mean over images (|g| - 1)^2, |g| the Euclidean norm of an image's gradient (B, H, W, 3)."""
    norm = ops.sqrt(ops.sum(ops.square(gradient), axis=(1, 2, 3)) + 1e-12)  # the root has no gradient at 0
    return ops.mean(ops.square(norm - 1))


def perceptual(real_maps: list, fake_maps: list):
    """Features of VGG19, from relu1_1 to relu5_1 (Wang et al. 2018): sum_k w_k mean |f_k(x) - f_k(x_hat)|.

    w = 1/32, 1/16, 1/8, 1/4, 1; no gradient flows into the real side.
    """
    return sum(
        weight * ops.mean(ops.abs(ops.stop_gradient(real) - fake))
        for weight, real, fake in zip((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), real_maps, fake_maps, strict=True)
    )
