"""Which knobs may change when training goes on from a checkpoint.

Every knob of config_train has exactly one role. A change that contradicts what is loaded is refused, and --transfer, which
starts at step 0 and takes the weights that still fit, obeys it:

CODEC     decides the shape, the value or the meaning of a weight in model.npz: refused for every checkpoint
TRAINING  decides which variables training.npz has: refused for a checkpoint that has this file
FREE      decides neither: obeyed from the next step on
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from config import UserError, config_train

CODEC = frozenset({
    "encoder", "generator", "width", "n_residual_blocks", "n_encoder_blocks", "channel_bottleneck", "centers",
    "bottleneck_norm", "normalization", "upsampling", "sample_noise", "noise_mode", "noise_finest", "noise_dim", "noise_norm",
    "use_conditional_GAN", "n_classes", "classes", "use_instances", "semantic_code", "semantic_scale", "selective",
})  # fmt: skip
TRAINING = frozenset({
    "discriminator", "multiscale", "n_scales", "spectral_norm", "discriminator_width", "learn_centers", "rate_model",
    "optimizer", "momentum", "mixed_precision", "target_bpp",
})  # fmt: skip
FREE = frozenset({
    "max_pixels", "quantizer_distance", "quantizer_temperature", "channel_dropout", "selective_regions", "lambda_X",
    "lambda_range", "lambda_rate", "lambda_adversarial", "gan_loss", "use_vanilla_GAN", "lambda_gp", "n_critic_iterations",
    "weight_clipping", "max_c", "use_feature_matching_loss", "lambda_feature_matching", "lambda_lpips", "use_vgg_loss",
    "lambda_vgg", "vgg_weights", "distortion_steps", "discriminator_warmup_steps", "entropy_steps", "freeze_encoder",
    "generator_steps", "perceptual_zoom", "lambda_lpips_vgg",
    "distortion_learning_rate", "G_learning_rate", "D_learning_rate", "lr_decay_rate", "lr_decay_steps", "beta_1",
    "weight_decay", "ema_decay", "batch_size", "recompute", "jit_compile", "num_epochs", "seed", "crop_size", "random_flip",
    "random_scale", "diagnostic_steps", "checkpoint_epochs", "keep_checkpoints", "n_sample_images",
})  # fmt: skip

_MATTERS: dict[str, Callable[[config_train], Any]] = {  # what of a knob's value decides which variables there are
    "momentum": lambda config: config.optimizer == "momentum" and config.momentum > 0,
    "mixed_precision": lambda config: config.mixed_precision == "float16",  # scales losses, by a factor that it learns
    "target_bpp": lambda config: config.target_bpp > 0,  # the weight that it steers is part of the state
}


def contradictions(old: config_train, new: config_train, *, with_state: bool) -> list[str]:
    """Return the knobs whose change contradicts a checkpoint's weights or, `with_state`, its training state."""
    fixed = CODEC | TRAINING if with_state else CODEC
    return [name for name in vars(new) if name in fixed and _what_matters(old, name) != _what_matters(new, name)]


def check_changes(old: config_train, new: config_train, folder: Path, *, with_state: bool) -> None:
    """Raise UserError for the first knob that contradicts a checkpoint, whose knobs are `old`."""
    for name in contradictions(old, new, with_state=with_state):
        what = "weights" if name in CODEC else "training state"
        raise UserError(
            f"knob {name}: the {what} of {folder} were made with {getattr(old, name)}, not {getattr(new, name)}; leave "
            f"the knob out to go on, or start at step 0 from the weights that still fit, with --transfer"
        )


def _what_matters(config: config_train, name: str) -> Any:
    return _MATTERS.get(name, lambda config: getattr(config, name))(config)
