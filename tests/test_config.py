"""The knobs: overriding, validation, JSON, and that each one is read by something."""

import dataclasses
import re

import pytest
from conftest import PROJECT

from config import UserError, config_test, config_train, directories


def test_a_knob_is_overridden_with_its_own_type():
    config = config_train().override(["width=192", "lambda_X=10", "sample_noise=true", "centers=-1,0,1", "optimizer=sgd"])
    assert (config.width, config.lambda_X, config.sample_noise, config.centers) == (192, 10.0, True, (-1.0, 0.0, 1.0))
    assert (config.L, config.optimizer) == (3, "sgd")


@pytest.mark.parametrize(
    ("assignment", "named"),
    [
        ("wdith=192", "wdith"),
        ("width=many", "width"),
        ("width=100", "width"),
        ("width=0", "width"),
        ("width", "NAME=VALUE"),
        ("lambda_X=-1", "lambda_X"),
        ("lambda_X=nan", "lambda_X"),
        ("upsampling=bicubic", "transpose4"),
        ("sample_noise=maybe", "sample_noise"),
        ("centers=1,0", "centers"),
        ("centers=0", "centers"),
        ("centers=a,b", "centers"),
        ("centers=0,nan", "centers"),
        ("crop_size=16", "crop_size"),
        ("crop_size=100", "crop_size"),
        ("seed=1.5", "seed"),
    ],
)
def test_a_bad_knob_is_an_error_that_names_it(assignment, named):
    with pytest.raises(UserError, match=re.escape(named)):
        config_train().override([assignment])


@pytest.mark.parametrize(
    ("assignments", "named"),
    [
        (["use_vanilla_GAN=true", "gan_loss=hinge"], "use_vanilla_GAN"),
        (["gan_loss=wgan"], "weight_clipping or spectral_norm"),
        (["gan_loss=wgan_gp", "weight_clipping=true"], "weight_clipping"),
        (["spectral_norm=true", "weight_clipping=true"], "weight_clipping"),
        (["spectral_norm=true", "discriminator=dcgan_discriminator"], "batch norm"),
        (["gan_loss=wgan_gp", "discriminator=dcgan_discriminator"], "batch norm"),
    ],
)
def test_knobs_that_contradict_each_other_are_refused_with_the_reason(assignments, named):
    with pytest.raises(UserError, match=named):
        config_train().override(assignments)


def test_the_seeds_name_of_the_vanilla_gan_still_works():
    assert config_train(use_vanilla_GAN=True).adversarial_loss == config_train(gan_loss="vanilla").adversarial_loss == "vanilla"
    assert config_train(gan_loss="wgan_gp").adversarial_loss == "wgan"


def test_json_gives_the_same_knobs_back():
    config = config_train(centers=(-1.5, 0.0, 2.0), width=32, multiscale=False)
    assert config_train.from_json(config.to_json()) == config


def test_json_with_an_unknown_knob_is_an_error():
    with pytest.raises(UserError, match="frobnicate"):
        config_train.from_json('{"frobnicate": 1}')


def test_every_knob_is_read_by_something():
    sources = [p.read_text() for p in PROJECT.glob("*.py") if p.name != "config.py"]
    sources.append(re.sub(r".*: \w+ = knob\(.*", "", (PROJECT / "config.py").read_text()))
    code = "\n".join(sources)
    for knobs in (config_train, config_test, directories):
        for field in dataclasses.fields(knobs):
            by_name = f'build(config, "{field.name}"' in code or (
                knobs is directories and field.name.endswith(("_train", "_val", "_classes"))
            )
            read = rf"\b(config|where|knobs|self|config_train\(\)|directories\(\))\.{field.name}\b"
            assert by_name or re.search(read, code), f"{field.name} is read by nothing"


def test_a_knob_stands_once():
    names = re.findall(r"^    (\w+): \w+ = knob", (PROJECT / "config.py").read_text(), re.MULTILINE)
    assert len(names) == len(set(names))
