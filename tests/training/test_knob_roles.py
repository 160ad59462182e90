"""What a change of each knob does to a checkpoint: obeyed, or refused."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from config import UserError, config_train
from gcodec.checkpoint import CENTERS, read_checkpoint
from terms import range_penalty
from training.trainer import Trainer
from training.transfer import check_changes, contradictions, knobs_of

FREE = knobs_of("")

EVERY_FREE_KNOB = {  # a value for each that is not the tiny configuration's
    "max_pixels": 10**6, "quantizer_distance": "absolute", "quantizer_temperature": 0.5, "channel_dropout": 0.1,
    "selective_regions": "boxes", "lambda_X": 1.0, "lambda_structure": 1.0, "lambda_range": 0.1, "lambda_rate": 0.1,
    "lambda_adversarial": 0.1,
    "gan_loss": "wgan", "use_vanilla_GAN": False, "lambda_gp": 1.0, "n_critic_iterations": 2, "weight_clipping": True,
    "max_c": 0.1, "use_feature_matching_loss": False, "lambda_feature_matching": 1.0, "lambda_lpips": 0.0,
    "perceptual_zoom": 2.0, "lambda_lpips_vgg": 0.0,
    "use_vgg_loss": False, "lambda_vgg": 0.2, "vgg_weights": "elsewhere", "distortion_steps": 7,
    "discriminator_warmup_steps": 7, "entropy_steps": 7, "generator_steps": 7, "freeze_encoder": True,
    "distortion_learning_rate": 0.1,
    "G_learning_rate": 0.1, "D_learning_rate": 0.1, "lr_decay_rate": 0.5, "lr_decay_steps": 7, "beta_1": 0.8,
    "weight_decay": 0.1, "ema_decay": 0.5, "batch_size": 4, "recompute": True, "jit_compile": True, "num_epochs": 7, "seed": 7,
    "crop_size": 96, "random_flip": True, "random_scale": 0.5, "diagnostic_steps": 7, "checkpoint_epochs": 7,
    "keep_checkpoints": 7, "n_sample_images": 2,
}  # fmt: skip
# or does not go with the others; a loss alone
NEEDS_WEIGHTS = {"use_vanilla_GAN", "lambda_lpips", "lambda_lpips_vgg", "use_vgg_loss"}


def shapes(trainer: Trainer) -> dict[str, tuple]:
    return {name: tuple(var.shape) for name, var in trainer.state().items()}


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_no_free_knob_changes_which_variables_a_checkpoint_has(optimizer, tiny_config):
    assert EVERY_FREE_KNOB.keys() == FREE
    changed = tiny_config(width=16, optimizer=optimizer, **EVERY_FREE_KNOB)
    plain = tiny_config(width=16, optimizer=optimizer)
    same = {name for name in FREE if getattr(changed, name) == getattr(plain, name)}
    assert same == NEEDS_WEIGHTS
    assert contradictions(plain, changed, with_state=True) == []
    assert shapes(Trainer(changed)) == shapes(Trainer(plain))


@pytest.mark.parametrize(("name", "value"), [
    ("centers", (-1.0, 0.0, 1.0, 2.0, 3.0)),
    ("width", 48),
    ("upsampling", "nearest"),
    ("classes", "a 0 0 0, b 1 1 1"),
    ("learn_centers", True),
    ("mixed_precision", "float16"),
    ("spectral_norm", True),
    ("optimizer", "momentum"),
    ("rate_model", "context"),
])  # fmt: skip
def test_a_contradiction_is_one_line_that_names_the_knob_and_the_way_out(name, value, tmp_path):
    old = config_train()
    with pytest.raises(UserError, match=rf"^knob {name}: .*--transfer$"):
        check_changes(old, old.replace({name: value}), tmp_path, with_state=True)
    if name in knobs_of("state"):
        check_changes(old, old.replace({name: value}), tmp_path, with_state=False)


def test_what_does_not_matter_is_no_contradiction():
    old = config_train()
    for same in ({"mixed_precision": "bfloat16"}, {"mixed_precision": "auto"}, {"momentum": 0.0}, {"width": old.width}):
        assert contradictions(old, old.replace(same), with_state=True) == []
    momentum = config_train(optimizer="momentum")
    assert contradictions(momentum, momentum.replace({"momentum": 0.0}), with_state=True) == ["momentum"]
    assert contradictions(momentum, momentum.replace({"momentum": 0.5}), with_state=True) == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "ckpt-00000000"
    trainer = Trainer(config_train(width=16, n_residual_blocks=1, discriminator_width=8, n_scales=2, recompute=False))
    trainer.save(folder)
    return folder


@pytest.mark.parametrize("centers", [(-1.0, 0.0, 1.0), (-4.0, -1.0, 0.0, 1.0, 4.0), (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0)])
def test_centers_that_are_given_with_a_transfer_are_set(centers, saved):
    trainer, weights = Trainer.transfer(read_checkpoint(saved), {"centers": centers})
    np.testing.assert_array_equal(trainer.model.weights[CENTERS], np.float32(centers))
    assert CENTERS in weights.afresh and trainer.rate.histogram.shape == (8, len(centers))
    with pytest.raises(UserError, match="knob centers"):
        Trainer.start_from(read_checkpoint(saved), {"centers": centers})


def test_a_transfer_without_centers_keeps_those_that_were_learned(saved, tmp_path):
    trainer = Trainer.start_from(read_checkpoint(saved), {})
    learned = np.array([-2.5, -1.5, 0.1, 1.5, 2.5], np.float32)
    trainer.model.weights[CENTERS].assign(learned)
    trainer.save(tmp_path / "ckpt-00000001")
    relearned = read_checkpoint(tmp_path)
    np.testing.assert_array_equal(Trainer.transfer(relearned, {})[0].model.weights[CENTERS], learned)
    given = {"centers": config_train().centers}  # the knob's value before, and not that of the weights
    np.testing.assert_array_equal(Trainer.transfer(relearned, given)[0].model.weights[CENTERS], given["centers"])


def test_the_range_penalty_follows_learned_centers(saved):
    trainer = Trainer.start_from(read_checkpoint(saved), {})
    beyond = SimpleNamespace(model=trainer.model, w=np.full((1, 2, 2, 8), 4.0, np.float32), w_code=None)
    assert float(range_penalty(beyond)) == pytest.approx((4 - 2) ** 2)
    trainer.model.weights[CENTERS].assign([-2.0, 3.5, -1.0, 0.0, 1.0])  # in the course of learning, their order may change
    assert float(range_penalty(beyond)) == pytest.approx((4 - 3.5) ** 2)
