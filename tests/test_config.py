"""The knobs: overriding, validation, JSON and presets."""

import json
import re

import pytest
from conftest import PROJECT

from config import UserError, config_train
from training.schedule import stage
from training.transfer import knobs_of


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
        ("lambda_X=inf", "lambda_X: inf is not finite"),
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
        (["target_bpp=0.08"], "target_bpp: 0.08 is more than 8 channels of 5 values can take, 0.0726"),
        (["target_bpp=0.03", "rate_model=static"], "rate_model: 'static' does not count the bits of the files"),
        (["gan_loss=wgan"], "weight_clipping or spectral_norm"),
        (["gan_loss=wgan_gp", "weight_clipping=true"], "weight_clipping"),
        (["spectral_norm=true", "weight_clipping=true"], "weight_clipping"),
        (["spectral_norm=true", "discriminator=dcgan_discriminator"], "batch norm"),
        (["gan_loss=wgan_gp", "discriminator=dcgan_discriminator"], "gradient of one image"),
        (["gan_loss=wgan_gp", "discriminator=projected_discriminator"], "gradient of one image"),
    ],
)
def test_knobs_that_contradict_each_other_are_refused_with_the_reason(assignments, named):
    with pytest.raises(UserError, match=named):
        config_train().override(assignments)


def test_a_mistyped_knob_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"^knob distorsion_steps: there is no such knob; is it distortion_steps\?$"):
        config_train().override(["distorsion_steps=3"])
    with pytest.raises(UserError, match=r"^knob x: there is no such knob; config\.py has them all$"):
        config_train().override(["x=3"])


def test_the_seeds_name_of_the_vanilla_gan_still_works():
    assert config_train(use_vanilla_GAN=True).adversarial_loss == config_train(gan_loss="vanilla").adversarial_loss == "vanilla"
    assert config_train(gan_loss="wgan_gp").adversarial_loss == "wgan"


def test_json_gives_the_same_knobs_back():
    config = config_train(centers=(-1.5, 0.0, 2.0), width=32, multiscale=False)
    assert config_train.from_written(json.loads(config.to_json())) == config


def test_json_with_an_unknown_knob_is_an_error():
    with pytest.raises(UserError, match="frobnicate"):
        config_train.from_written({"frobnicate": 1})


def test_a_file_gives_any_of_the_knobs_with_their_own_types(tmp_path):
    (tmp_path / "a.json").write_text('{"width": 192, "centers": [-1, 0, 1], "lambda_X": 10, "sample_noise": true}')
    config = config_train().replace(config_train.read(tmp_path / "a.json"))
    assert (config.width, config.centers, config.lambda_X, config.sample_noise) == (192, (-1, 0, 1), 10, True)
    assert config.n_residual_blocks == config_train().n_residual_blocks
    (tmp_path / "a.toml").write_text("width = 192  # suits a CPU\ncenters = [-1, 0, 1]\nlambda_X = 10\nsample_noise = true")
    assert config_train().replace(config_train.read(tmp_path / "a.toml")) == config


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"wdith": 192}', "knob wdith"),
        ('{"width": "192"}', "knob width: '192' is not a value of type int"),
        ('{"width": 1.5}', "knob width"),
        ('{"width": null}', "knob width"),
        ('{"sample_noise": 1}', "knob sample_noise"),
        ('{"lambda_X": -1}', "knob lambda_X"),
        ('{"upsampling": "bicubic"}', "knob upsampling"),
        ('{"centers": ["a"]}', "knob centers"),
        ('{"width": [1, 2]}', "knob width"),
        ("[1]", "not a JSON object"),
        ('{"width": 192', "not JSON"),
        (None, "no such file"),
        ("wdith = 192", "knob wdith"),
        ("width = ", "not TOML"),
        ("[photo]\nwidth = 192", "knob photo"),
    ],
)
def test_a_bad_file_of_knobs_is_one_line_that_names_file_and_knob(text, named, tmp_path):
    file = tmp_path / ("a.json" if text is None or (text[0] in "[{" and "=" not in text) else "a.toml")
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError) as error:
        config_train.read(file)
    assert str(error.value).startswith(f"{file}: ") and named in str(error.value)
    assert "\n" not in str(error.value)


PRESETS = sorted([*PROJECT.glob("presets/*.toml"), *PROJECT.glob("cGAN/*.json")])


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_each_preset_gives_valid_knobs_that_differ_from_the_defaults(preset):
    changes = config_train.read(preset)
    assert config_train().replace(changes) != config_train()


def test_a_later_stage_has_all_that_the_weights_depend_on_and_changes_only_what_it_says():
    weights = knobs_of("network", "state")
    files = (config_train.read(PROJECT / f"presets/photo_{stage}.toml") for stage in ("structure", "rate", "gan"))
    structure, rate, gan = ({name: value for name, value in changes.items() if name in weights} for changes in files)
    sizes = {name: rate[name] for name in ("channel_bottleneck", "target_bpp")}
    assert rate == {**structure, **sizes, "n_encoder_blocks": 2 * structure["n_encoder_blocks"]}
    assert {**gan, **sizes} == rate
    assert not sizes.keys() & gan.keys()  # they come with the checkpoint


@pytest.mark.parametrize("preset", ["photo_structure", "photo_rate"])
def test_stages_before_the_last_never_turn_into_the_gan(preset):
    config = config_train().replace(config_train.read(PROJECT / f"presets/{preset}.toml"))
    assert stage(config, 10 * 60_000)[0] == "distortion"
