"""The networks wired together: roles, noise, names of weights."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import photo

from config import UserError
from gcodec.pictures import to_float
from model import Model
from network import Network, conv_block, ops, reflect_conv, upsample_block
from training.trainer import Trainer


def image() -> np.ndarray:
    return to_float(photo(64, 64))[None]


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("generator", "my_generator"),
        ("generator", "encoder"),
        ("encoder", "mro"),
        ("encoder", "noise_generator"),
        ("encoder", "quantizer"),
        ("discriminator", "multiscale_discriminator"),
        ("discriminator", "encoder"),
        ("discriminator", "quantizer"),
    ],
)
def test_a_network_that_does_not_exist_or_has_another_role_is_an_error(role, name, tiny_config):
    with pytest.raises(UserError, match=f"knob {role}"):
        Trainer(tiny_config(**{role: name}))


def test_a_users_own_generator_is_a_static_method_and_a_knob(tiny_config, monkeypatch):
    def my_generator(z, config):
        h = conv_block(z, config.width, "first", kernel=3, config=config)
        for i in (2, 4, 8, 16):
            h = upsample_block(h, config.width // i, f"up{16 // i}", config)
        return ops.tanh(reflect_conv(h, 3, "last", kernel=7))

    monkeypatch.setattr(Network, "my_generator", staticmethod(my_generator), raising=False)
    trainer = Trainer(tiny_config(generator="my_generator", batch_size=1))
    assert np.isfinite(float(trainer.train_step(image())["distortion"]))
    seeds_signature = staticmethod(lambda z, **kwargs: my_generator(z, kwargs["config"]))
    monkeypatch.setattr(Network, "my_generator", seeds_signature)
    assert Model(tiny_config(generator="my_generator")).generator.output.shape[-1] == 3
    monkeypatch.setattr(Network, "my_generator", staticmethod(lambda z: z))
    with pytest.raises(UserError, match=r"my_generator\(z\) cannot be called as my_generator\(x, config=config\)"):
        Model(tiny_config(generator="my_generator"))


@pytest.mark.parametrize("error", [TypeError("my own mistake"), ValueError("my own mistake")])
def test_a_network_of_a_users_own_that_raises_shows_its_own_error(error, tiny_config, monkeypatch):
    def broken(z, config):
        raise error

    monkeypatch.setattr(Network, "broken", staticmethod(broken), raising=False)
    with pytest.raises(type(error), match="my own mistake"):
        Model(tiny_config(generator="broken"))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", ["dcgan", "map", "layers"])
def test_two_noises_give_two_reconstructions_at_batch_size_one(mode, training, tiny_config):
    model = Model(tiny_config(sample_noise=True, noise_mode=mode))
    for scale in (var for var in model.generator.weights if var.name == "scale"):
        scale.assign(np.ones(scale.shape))  # learned, from 0
    w_hat = model.quantizer(model.encoder(image()))[0]
    shape = model.config.noise_shape(*w_hat.shape[:3])
    a, b = (model.generate(w_hat, np.random.default_rng(i).normal(size=shape).astype("f"), training=training) for i in range(2))
    assert np.abs(a - b).max() > 1e-3


def test_with_the_seeds_batch_norm_the_noise_has_no_influence_at_batch_size_one(tiny_config):
    model = Model(tiny_config(sample_noise=True, noise_norm="batch"))
    w_hat = model.quantizer(model.encoder(image()))[0]
    v = [np.random.default_rng(i).normal(size=(1, 128)).astype("f") for i in range(2)]
    np.testing.assert_allclose(
        model.generate(w_hat, v[0], training=True), model.generate(w_hat, v[1], training=True), atol=1e-5
    )


def test_names_of_weights_do_not_depend_on_what_else_was_built(tiny_config):
    first, second = (Model(tiny_config(sample_noise=True)).weights for _ in range(2))
    assert list(first) == list(second) and "encoder/first/kernel" in first and "quantizer/Quantizer_0/centers" in first
    assert all(np.array_equal(first[name], second[name]) for name in first)  # random, from the knob seed


def test_building_a_model_changes_no_random_generator(tiny_config):
    def draws() -> list:
        return [random.random(), np.random.random(), float(tf.random.uniform(())), float(keras.random.uniform(()))]

    keras.utils.set_random_seed(5)
    expected = [draws(), draws()]
    keras.utils.set_random_seed(5)
    found = [draws()]
    first, second = (Trainer(tiny_config(width=16, sample_noise=True, rate_model="context")) for _ in range(2))
    found.append(draws())
    assert found == expected
    for name, var in first.state().items():  # and yet the weights follow from the seed
        np.testing.assert_array_equal(var, second.state()[name], err_msg=name)
    other = Trainer(tiny_config(width=16, sample_noise=True, rate_model="context", seed=1)).state()
    assert np.abs(other["encoder/first/kernel"] - first.state()["encoder/first/kernel"].numpy()).max() > 0
    names = [name for name in other if name.partition("/")[0] == "discriminator" and name.endswith("kernel")]
    assert all(np.abs(other[name] - first.state()[name].numpy()).max() > 0 for name in names)
