"""Whatever the knobs are, N steps, a checkpoint, and N steps from it give what 2N steps in one go give, to the bit."""

import random

import numpy as np
import pytest
import tensorflow as tf
from conftest import knobs, photo

import train as command
from config import UserError, config_train
from gcodec.checkpoint import read_arrays, read_checkpoint
from gcodec.labels import LabelBatch
from gcodec.pictures import to_float
from training.schedule import stage
from training.trainer import Trainer

N, SIDE = 2, 32
DRAWS = 60
QUICK = (0, 30)  # of the draws, two that have most of the knobs between them: these are in the gate
TINIEST = {"width": 16, "n_residual_blocks": 1, "discriminator_width": 4, "n_scales": 2, "crop_size": SIDE, "batch_size": 2,
           "channel_bottleneck": 3, "n_classes": 3, "use_conditional_GAN": True, "noise_dim": 5, "lambda_rate": 0.5,
           "ema_decay": 0.5, "lr_decay_steps": 3}  # fmt: skip
CHOICES = {
    "rate_model": ("static", "context"),
    "target_bpp": (0.0, 0.01),
    "learn_centers": (False, True),
    "optimizer": ("adam", "momentum", "rmsprop", "sgd"),
    "weight_decay": (0.0, 0.01),
    "lr_decay_rate": (1.0, 0.5),
    "mixed_precision": ("float32", "float32", "bfloat16", "float16"),
    "recompute": (False, True),
    "sample_noise": (False, True),
    "noise_mode": ("dcgan", "map", "layers"),
    "noise_norm": ("channel", "batch"),
    "channel_dropout": (0.0, 0.5),
    "bottleneck_norm": (False, True),
    "normalization": ("instance", "channel"),
    "discriminator": ("patch_discriminator", "dcgan_discriminator", "wgan_critic"),
    "multiscale": (False, True),
    "spectral_norm": (False, True),
    "gan_loss": ("lsgan", "vanilla", "hinge", "wgan", "wgan_gp"),
    "weight_clipping": (False, True),
    "n_critic_iterations": (1, 2),
    "use_conditional_GAN": (False, True),
    "use_instances": (False, True),
    "semantic_code": ("lossless", "learned", "none"),
    "selective": (False, True),
    "freeze_encoder": (False, True),
    "distortion_steps": (0, 1, 2, 3),
    "generator_steps": (0, 1, 3),
    "discriminator_warmup_steps": (0, 1),
}


def draw(seed: int) -> config_train:
    """Return knobs drawn at random. Combinations that config_train refuses are drawn again."""
    rng = random.Random(seed)
    while True:
        try:
            return config_train(**TINIEST | {name: rng.choice(values) for name, values in CHOICES.items()})
        except UserError:
            pass


def train(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    """Train on images and label maps that depend on the step alone. Return the loss terms of each step."""
    terms = []
    for _ in range(steps):
        x = tf.constant(np.stack([to_float(photo(SIDE, SIDE, 10 * trainer.step + i)) for i in range(2)]))
        planes = np.random.default_rng(trainer.step).integers(0, 2, (3, 2, SIDE, SIDE), dtype=np.uint8)
        labels = LabelBatch(*map(tf.constant, planes)) if trainer.config.use_conditional_GAN else None
        terms.append({name: float(term) for name, term in trainer.train_step(x, labels).items()})
    return terms


@pytest.mark.parametrize("seed", [*QUICK, *(pytest.param(s, marks=pytest.mark.slow) for s in range(DRAWS) if s not in QUICK)])
def test_going_on_from_a_checkpoint_is_exact_for_any_knobs(seed, eager_steps, tmp_path):
    whole = Trainer(config := draw(seed))
    train(whole, N)
    whole.save(tmp_path / "ckpt-2")
    resumed = Trainer.start_from(read_checkpoint(tmp_path), {})
    np.testing.assert_equal(train(resumed, N), train(whole, N), err_msg=str(config))
    theirs = resumed.state()
    different = [name for name, var in whole.state().items() if not np.array_equal(var.numpy(), theirs[name].numpy())]
    assert different == [] and resumed.step == 2 * N, config


def test_the_draws_try_every_value_of_every_knob_and_every_stage():
    configs = [draw(seed) for seed in range(DRAWS)]
    for name, values in CHOICES.items():
        assert {getattr(config, name) for config in configs} == set(values), name
    assert {stage(config, step)[0] for config in configs for step in range(N, 2 * N)} == {
        "generator", "distortion", "discriminator", "gan"
    }  # fmt: skip


def test_a_run_in_two_parts_gives_what_a_run_in_one_gives(photos, tmp_path, monkeypatch):
    """By the command, with graphs: batches, random numbers and stages go on where they were."""
    monkeypatch.chdir(tmp_path)
    small = {"width": 16, "n_residual_blocks": 0, "discriminator_width": 4, "n_scales": 1}
    changes = small | {"sample_noise": True, "random_flip": True, "distortion_steps": 1}

    def run(name: str, steps: int) -> int:
        return command.main(["-ds", str(photos), "--name", name, "--steps", str(steps), *knobs(**changes)])

    assert run("whole", 2) == 0 and run("parts", 1) == 0  # a step of the distortion, and one of the GAN
    assert command.main(["-ds", str(photos), "-rl", "--name", "parts", "--steps", "2"]) == 0
    for file in ("training.npz", "model.npz"):
        whole, parts = (read_arrays(tmp_path / f"checkpoints/{name}/ckpt-00000002" / file) for name in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        assert [key for key in whole if not np.array_equal(whole[key], parts[key])] == []
