"""What each step of a run trains, and how fast: distortion alone, then the discriminator alone, then the GAN."""

from config import config_train
from terms import WITHOUT_D


def stage(config: config_train, step: int) -> tuple[str, int]:
    """Return the stage of a step and that stage's first step.

    "generator" trains G for the distortion, "distortion" E and G, "discriminator" D alone, and "gan" all of them.

    In the GAN stage, D is alone in all but every n_critic_iterations-th step.
    """
    gan_start = config.distortion_steps + config.discriminator_warmup_steps
    if step < config.distortion_steps:
        alone = min(config.generator_steps, config.distortion_steps)
        return ("generator", 0) if step < alone else ("distortion", alone)
    if step < gan_start:
        return "discriminator", config.distortion_steps
    turn_of_G = (step - gan_start + 1) % config.n_critic_iterations == 0
    return "gan" if turn_of_G else "discriminator", gan_start


def learning_rates(config: config_train, step: int) -> tuple[float, float]:
    """Return the rate of E and G, and that of D, at a step: exponential decay that starts anew with each stage."""
    name, start = stage(config, step)
    decay = config.lr_decay_rate ** ((step - start) / config.lr_decay_steps)
    G_rate = config.distortion_learning_rate if name in WITHOUT_D else config.G_learning_rate
    return G_rate * decay, config.D_learning_rate * decay
