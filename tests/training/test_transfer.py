"""What --transfer takes of a checkpoint: the layers that are the same, by name, and the parts of z that mean the same."""

import json
from pathlib import Path

import numpy as np
import pytest

from config import config_train
from gcodec.checkpoint import read_arrays, read_checkpoint, save_arrays
from model import Model, TensorFlowRuntime, named_weights, numbered_names
from training.trainer import Trainer

SUBPIXEL = {"encoder": "subpixel_encoder", "generator": "subpixel_generator", "normalization": "channel",
            "upsampling": "bilinear"}  # fmt: skip
TINY = {"width": 16, "n_residual_blocks": 1, "discriminator_width": 4, "n_scales": 1, "recompute": False, "n_classes": 3}


def save(folder: Path, **knobs) -> dict[str, np.ndarray]:
    """Write a checkpoint whose weights are all different numbers. Return them by name."""
    trainer = Trainer(config_train(**TINY | knobs))
    rng = np.random.default_rng(0)
    for var, average in zip(trainer.G_variables, trainer.averages, strict=True):
        var.assign(rng.normal(0, 0.1, var.shape))
        average.assign(var)
    trainer.save(folder)
    return {name: var.numpy() for name, var in trainer.model.weights.items()}


@pytest.mark.parametrize(("old", "new"), [(4, 6), (6, 4)])
def test_with_more_or_fewer_blocks_each_layer_takes_its_own_weights(old, new, tmp_path):
    saved = save(tmp_path / "ckpt-00000000", **SUBPIXEL, n_residual_blocks=old, n_encoder_blocks=1)
    trainer, weights = Trainer.transfer(read_checkpoint(tmp_path), {"n_residual_blocks": new})
    now = {name: var.numpy() for name, var in trainer.model.weights.items()}
    of_blocks = {name for name in saved.keys() | now.keys() if name.startswith(("generator/block5/", "generator/block6/"))}
    assert of_blocks and set(weights.afresh) == (of_blocks if new > old else set())
    assert set(weights.unused) == (of_blocks if new < old else set())
    assert weights.in_part == []
    for name in now.keys() & saved.keys():
        np.testing.assert_array_equal(now[name], saved[name], err_msg=name)
    assert now.keys() - saved.keys() == set(weights.afresh) and saved.keys() - now.keys() == set(weights.unused)


def test_a_fresh_block_starts_as_the_identity(tmp_path):
    save(tmp_path / "ckpt-00000000", **SUBPIXEL)
    w_hat = np.random.default_rng(1).integers(-2, 3, (1, 3, 4, 8)).astype("f")
    pictures = [Trainer.transfer(read_checkpoint(tmp_path), {"n_residual_blocks": n})[0].model.generate(w_hat) for n in (1, 3)]
    np.testing.assert_array_equal(*pictures)


def test_a_layer_of_another_shape_is_named_and_takes_the_channels_that_both_have(tmp_path):
    saved = save(tmp_path / "ckpt-00000000")
    trainer, weights = Trainer.transfer(read_checkpoint(tmp_path), {"channel_bottleneck": 4})
    assert set(weights.in_part) == {"encoder/last/kernel", "encoder/last/bias", "generator/first/kernel"}
    kernel = trainer.model.weights["encoder/last/kernel"].numpy()
    np.testing.assert_array_equal(kernel, saved["encoder/last/kernel"][..., :4])


@pytest.mark.parametrize(("knobs", "changes", "place"), [
    ({"upsampling": "transpose"}, {"upsampling": "nearest"}, "generator/up"),
    ({"use_conditional_GAN": True, "semantic_code": "learned"}, {"encoder": "subpixel_encoder"}, "semantic_encoder/"),
])  # fmt: skip
def test_a_kernel_of_another_kind_is_not_taken_in_part(knobs, changes, place, tmp_path):
    save(tmp_path / "ckpt-00000000", **knobs)
    _, weights = Trainer.transfer(read_checkpoint(tmp_path), changes)
    assert [name for name in weights.afresh if name.startswith(place) and name.endswith("kernel")]
    assert not [name for name in weights.in_part if name.startswith(place)]


@pytest.mark.parametrize("code", ["lossless", "learned"])
def test_each_part_of_z_finds_its_own_part_of_the_kernel(code, tmp_path):
    """z is w_hat, noise, the label map's code and the heat map; with another C, all but the first begin elsewhere."""
    parts = {"sample_noise": True, "noise_mode": "map", "use_conditional_GAN": True, "semantic_code": code, "selective": True}
    saved = save(tmp_path / "ckpt-00000000", **parts)["generator/first/kernel"]
    trainer, weights = Trainer.transfer(read_checkpoint(tmp_path), {"channel_bottleneck": 4})
    now = trainer.model.weights["generator/first/kernel"].numpy()
    assert "generator/first/kernel" in weights.in_part
    n = {"lossless": 3 * 2 * 2, "learned": 4}[code]
    np.testing.assert_array_equal(now[:, :, :4], saved[:, :, :4])  # w_hat
    np.testing.assert_array_equal(now[:, :, 4:8], saved[:, :, 8:12])  # noise
    np.testing.assert_array_equal(now[:, :, 8 : 8 + n], saved[:, :, 16 : 16 + n])  # the code
    np.testing.assert_array_equal(now[:, :, -1:], saved[:, :, -1:])  # the heat map
    assert now.shape[2] == 8 + n + 1


@pytest.mark.parametrize("changes", [{"n_classes": 4}, {"semantic_scale": 4}, {"semantic_code": "learned"}])
def test_a_code_that_means_something_else_starts_afresh(changes, tmp_path):
    saved = save(tmp_path / "ckpt-00000000", use_conditional_GAN=True)["generator/first/kernel"]
    trainer, weights = Trainer.transfer(read_checkpoint(tmp_path), changes)
    now = trainer.model.weights["generator/first/kernel"].numpy()
    fresh = Trainer(trainer.config).model.weights["generator/first/kernel"].numpy()
    assert "generator/first/kernel" in weights.in_part
    np.testing.assert_array_equal(now[:, :, :8], saved[:, :, :8])
    np.testing.assert_array_equal(now[:, :, 8:], fresh[:, :, 8:])


def with_numbers(folder: Path) -> None:
    """Rewrite a checkpoint as version 0.4 would have: layers called by their kind and its number."""
    config = read_checkpoint(folder).knobs(config_train)
    networks = {**Model(config).networks, "discriminator": Trainer(config).discriminator}
    numbered = numbered_names(networks)
    for file in ("model.npz", "training.npz"):
        arrays = read_arrays(folder / file)
        save_arrays(folder / file, {numbered.get(name, name): array for name, array in arrays.items()})
    (folder / "fingerprint.txt").unlink()
    assert "generator/Conv2D_0/kernel" in read_arrays(folder / "model.npz")


@pytest.mark.parametrize("knobs", [SUBPIXEL, {"discriminator": "dcgan_discriminator", "sample_noise": True}])
def test_a_checkpoint_whose_layers_are_numbered_is_read_resumed_and_transferred(knobs, tmp_path):
    folder = tmp_path / "ckpt-00000000"
    saved = save(folder, **knobs)
    before = {name: var.numpy() for name, var in Trainer.start_from(read_checkpoint(folder), {}).state().items()}
    with_numbers(folder)
    resumed = Trainer.start_from(read_checkpoint(folder), {})
    for name, var in resumed.state().items():
        np.testing.assert_array_equal(var.numpy(), before[name], err_msg=name)
    trainer, weights = Trainer.transfer(read_checkpoint(folder), {"n_residual_blocks": 2})
    assert weights.unused == weights.in_part == [] and all(name.startswith("generator/block2/") for name in weights.afresh)
    for name in saved:
        np.testing.assert_array_equal(trainer.model.weights[name].numpy(), saved[name], err_msg=name)
    theirs = named_weights({"discriminator": trainer.discriminator})
    assert all(np.array_equal(var.numpy(), before[name]) for name, var in theirs.items())
    assert TensorFlowRuntime.of(read_checkpoint(folder)).model.weights.keys() == saved.keys()


def test_layers_are_called_by_where_they_are(tmp_path):
    names = named_weights({"discriminator": Trainer(config_train(**TINY | {"n_scales": 2})).discriminator})
    assert {"discriminator/scale0/conv1/kernel", "discriminator/scale1/conv2/norm/gamma"} <= names.keys()
    model = Model(config_train(**TINY | SUBPIXEL | {"sample_noise": True, "noise_mode": "layers"}))
    assert {"encoder/down8/kernel", "generator/block1/conv2/norm/gamma", "generator/at4/block3/conv1/kernel",
            "generator/up8/noise/scale"} <= model.weights.keys()  # fmt: skip


def test_the_knobs_of_a_transfer_are_the_checkpoints_changed(tmp_path):
    save(tmp_path / "ckpt-00000000", **SUBPIXEL)
    written = json.loads((tmp_path / "ckpt-00000000/config.json").read_text())
    config = Trainer.transfer(read_checkpoint(tmp_path), {"lambda_rate": 7.0})[0].config
    assert {name: getattr(config, name) for name in written if name not in ("lambda_rate", "centers")} == {
        name: value for name, value in written.items() if name not in ("lambda_rate", "centers")
    }
