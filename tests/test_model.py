"""The train step, the optimizers, and checkpoints."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import model_arrays, photo

from codec.context_model import ContextModel
from codec.entropy import StaticTables
from config import UserError
from model import Model, gradient_penalty
from network import Network
from utils import pad, padded_size, to_float, to_uint8


@pytest.fixture(scope="module", autouse=True)
def eager():
    """These tests make one step each, and a graph for it would take ten times as long; test_train.py trains by graphs."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def batch(n: int = 2, side: int = 64) -> tf.Tensor:
    return tf.constant(np.stack([to_float(photo(side, side, seed)) for seed in range(n)]))


def state(model: Model) -> dict[str, np.ndarray]:
    return {name: var.numpy().copy() for name, var in model._state().items()}


def differing(a: dict, b: dict) -> list[str]:
    return [name for name in a if not np.array_equal(a[name], b[name])]


# ----------------------------------------------------------------------------------------------------------------------
# One step
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["instance", "channel"])
def test_one_step_moves_every_trainable_variable(normalization, tiny_config):
    config = tiny_config(
        normalization=normalization,
        sample_noise=True,
        learn_centers=True,
        batch_size=1,
        optimizer="sgd",  # with a rate of 1, a variable moves by its gradient
        G_learning_rate=1,
        D_learning_rate=1,
    )
    model = Model(config, training=True)
    before = [v.numpy() for v in model.G_variables + model.D_variables]
    model.train_step(batch(1))
    for var, old in zip(model.G_variables + model.D_variables, before, strict=True):
        assert np.abs(var.numpy() - old).max() > 1e-7, f"{var.path} has no gradient"


def test_the_optimizers_together_train_exactly_the_trainables(tiny_config):
    model = Model(tiny_config(sample_noise=True, learn_centers=True), training=True)
    trained = [id(v) for v in model.G_variables + model.D_variables]
    networks = [*model.networks.values(), model.discriminator]
    assert sorted(trained) == sorted(id(v) for net in networks for v in net.trainable_variables)
    assert len(set(trained)) == len(trained)


COMBINATIONS = list(itertools.product([False, True], repeat=4))


@pytest.mark.parametrize(("noise", "multiscale", "vanilla", "matching"), COMBINATIONS)
def test_any_combination_of_the_seeds_knobs_trains(noise, multiscale, vanilla, matching, tiny_config):
    config = tiny_config(
        width=16,
        sample_noise=noise,
        multiscale=multiscale,
        use_vanilla_GAN=vanilla,
        use_feature_matching_loss=matching,
        channel_bottleneck=2 + 2 * (noise + multiscale + vanilla + matching),
    )
    model = Model(config, training=True)
    terms = model.train_step(batch())
    assert all(np.isfinite(value) for value in terms.values())
    assert ("feature_matching" in terms) == matching
    symbols = model.compress(photo(40, 70))
    assert symbols.shape == (3, 5, config.channel_bottleneck)
    assert model.decompress(symbols, 40, 70).shape == (40, 70, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"discriminator": "dcgan_discriminator"},
        {"discriminator": "wgan_critic"},
        {"normalization": "channel", "upsampling": "bilinear"},
        {"upsampling": "transpose4", "quantizer_distance": "absolute", "lambda_rate": 1.0},
        {"noise_norm": "batch", "sample_noise": True, "bottleneck_norm": True},
        {"centers": (-1.0, 0.0, 1.0), "learn_centers": True, "weight_decay": 0.01},
        {"lambda_rate": 1.0, "rate_model": "context", "channel_dropout": 0.5},
    ],
)
def test_other_architectures_train(changes, tiny_config):
    terms = Model(tiny_config(width=16, **changes), training=True).train_step(batch())
    assert all(np.isfinite(value) for value in terms.values())


@pytest.mark.parametrize("changes", [{"mixed_precision": "float16"}, {"mixed_precision": "bfloat16"}, {"jit_compile": True}])
def test_half_precision_and_compilation_train_as_without(changes, tiny_config, tmp_path):
    plain, other = (Model(tiny_config(**knobs), training=True) for knobs in ({}, changes))
    before = [var.numpy() for var in other.G_variables + other.D_variables]
    tolerance = 1e-4 if "jit_compile" in changes else 0.05  # symbols near a tie become others
    assert other.train_step(batch()) == pytest.approx(plain.train_step(batch()), rel=tolerance, abs=tolerance)
    for _ in range(5):  # float16 looks for the scale of its losses first
        other.train_step(batch())
    variables = other.G_variables + other.D_variables
    assert all(var.dtype == "float32" for var in variables)
    assert all(np.abs(var.numpy() - old).max() > 0 for var, old in zip(variables, before, strict=True))
    other.save(tmp_path / "ckpt-6")
    assert Model.resume(tmp_path).step == 6
    image = np.zeros((64, 64, 3), np.uint8)
    assert (Model.load(tmp_path).compress(image) == Model.load(tmp_path).compress(image)).all()
    assert keras.config.dtype_policy().name == "float32"


GAN_LOSSES = [
    {"gan_loss": "hinge", "spectral_norm": True},
    {"gan_loss": "wgan", "weight_clipping": True, "discriminator": "wgan_critic"},
    {"gan_loss": "wgan", "spectral_norm": True},
    {"gan_loss": "wgan_gp"},
    {"gan_loss": "wgan_gp", "discriminator": "wgan_critic", "multiscale": False, "use_conditional_GAN": True, "n_classes": 3},
]


@pytest.mark.parametrize("changes", GAN_LOSSES, ids=lambda changes: "-".join(map(str, changes.values())))
def test_every_gan_loss_moves_both_networks(changes, tiny_config):
    model = Model(tiny_config(width=16, **changes), training=True)
    labels = tf.constant(np.random.default_rng(0).integers(0, 2, (2, 64, 64, 3)), tf.uint8) if "n_classes" in changes else None
    before = state(model)
    terms = model.train_step(batch(), labels)
    assert {"encoder", "generator", "discriminator"} <= {name.partition("/")[0] for name in differing(before, state(model))}
    assert all(map(np.isfinite, terms.values()))
    if model.config.adversarial_loss == "wgan":  # both are means of the same scores over scales
        n = model.config.n_scales if model.config.multiscale else 1
        assert terms["discriminator"] == pytest.approx(n * (terms["D_fake"] - terms["D_real"]), rel=1e-3, abs=1e-5)
        assert terms["adversarial"] == pytest.approx(-n * terms["D_fake"], rel=1e-3, abs=1e-5)


def test_the_gradient_penalty_of_a_linear_critic_is_that_of_its_weights():
    rng = np.random.default_rng(0)
    weights = tf.Variable(rng.normal(size=(8, 8, 3)).astype("f"))
    x, x_hat = (tf.constant(rng.normal(size=(4, 8, 8, 3)).astype("f")) for _ in range(2))

    def critic(image):  # two scales, of one logit each: the score is their sum, 3 times the weights
        score = tf.reduce_sum(weights * image, axis=(1, 2, 3))[:, None]
        return [score, 2 * score]

    with tf.GradientTape() as tape:
        penalty = gradient_penalty(critic, x, x_hat, rng.random((4, 1, 1, 1)).astype("f"))
    norm = 3 * np.linalg.norm(weights.numpy())
    assert float(penalty) == pytest.approx((norm - 1) ** 2, rel=1e-4)
    # d (3 |w| - 1)^2 / dw = 2 (3 |w| - 1) 3 w / |w|: a gradient of the second order
    np.testing.assert_allclose(tape.gradient(penalty, weights), 18 * (norm - 1) * weights.numpy() / norm, rtol=1e-3)


def test_the_gradient_penalty_is_between_the_images_and_of_each_by_itself():
    x, x_hat = tf.fill((2, 4, 4, 3), 1.0), tf.fill((2, 4, 4, 3), 3.0)
    seen = []

    def critic(image):
        seen.append(image.numpy()[:, 0, 0, 0])
        return [tf.reduce_sum(image**2, axis=(1, 2, 3))[:, None]]  # gradient 2 image: norm 2 value sqrt(48)

    penalty = gradient_penalty(critic, x, x_hat, np.array([0.25, 1.0], "f").reshape(2, 1, 1, 1))
    assert seen[0].tolist() == [2.5, 1.0]
    norms = 2 * seen[0] * np.sqrt(48)
    assert float(penalty) == pytest.approx(((norms - 1) ** 2).mean(), rel=1e-4)


def test_after_a_few_steps_each_normalized_kernel_has_the_largest_singular_value_1(tiny_config):
    config = tiny_config(width=16, discriminator_width=4, spectral_norm=True, D_learning_rate=1e-4)
    model = Model(config, training=True)
    for _ in range(12):
        model.train_step(batch())
    model.discriminator(batch(), training=True)  # normalizes what the last step made of them
    kernels = [var.numpy() for var in model.D_variables if var.name == "kernel"]
    assert len(kernels) == 2 * 5
    for kernel in kernels:
        largest = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
        assert largest == pytest.approx(1, abs=0.01)


def test_spectral_norm_normalizes_once_a_step_and_judges_both_images_alike(tiny_config):
    config = tiny_config(width=16, discriminator="wgan_critic", spectral_norm=True, D_learning_rate=0)
    model = Model(config, training=True)  # no other norm makes up for the kernels' scale
    x = batch()
    x_hat = model.generator(model.quantizer(model.encoder(x))[0])
    terms = model.train_step(x)  # D stays as the normalization left it
    for name, image in (("D_real", x), ("D_fake", x_hat)):
        logits, _ = model.discriminator(image)
        expected = np.mean([scale.numpy().mean() for scale in logits])
        assert terms[name] == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", ["patch_discriminator", "wgan_critic"])
def test_no_other_norm_undoes_the_spectral_norm(name, tiny_config):
    model = Model(tiny_config(width=16, discriminator=name, spectral_norm=True, multiscale=False), training=True)
    logits = model.discriminator(batch())[0][0].numpy()
    for kernel in [var for var in model.D_variables if var.name == "kernel"]:
        kernel.assign(0.5 * kernel)
        smaller = model.discriminator(batch())[0][0].numpy()
        np.testing.assert_allclose(smaller, logits / 2, rtol=1e-4, atol=1e-7)  # biases are 0
        kernel.assign(2 * kernel)


def test_half_precision_does_not_round_the_kernels_that_spectral_norm_writes(tiny_config):
    model = Model(tiny_config(width=16, spectral_norm=True, mixed_precision="bfloat16"), training=True)
    model.discriminator(batch(), training=True)
    for kernel in (var for var in model.D_variables if var.name == "kernel"):
        assert (tf.cast(tf.cast(kernel.value, tf.bfloat16), tf.float32).numpy() != kernel.numpy()).any()


def test_resuming_with_spectral_norm_is_exact(tiny_config, tmp_path):
    model = Model(tiny_config(width=16, spectral_norm=True), training=True)
    model.train_step(batch())
    model.save(tmp_path / "ckpt-1")
    resumed = Model.resume(tmp_path)
    assert differing(state(model), state(resumed)) == []
    assert model.train_step(batch()) == resumed.train_step(batch())
    assert differing(state(model), state(resumed)) == []


def test_weight_clipping_keeps_the_critic_in_its_box(tiny_config):
    model = Model(tiny_config(width=16, gan_loss="wgan", weight_clipping=True, max_c=0.02), training=True)
    model.train_step(batch())
    assert max(np.abs(var.numpy()).max() for var in model.D_variables) == np.float32(0.02)


def test_the_critic_trains_alone_in_all_but_every_nth_step(tiny_config):
    model = Model(tiny_config(width=16, discriminator_warmup_steps=1, n_critic_iterations=3), training=True)
    cycle = [("discriminator", 1), ("discriminator", 1), ("gan", 1)]
    assert [model.stage(step) for step in range(7)] == [("discriminator", 0), *cycle, *cycle]
    model.step, moved = 1, []
    for _ in range(3):
        before = state(model)
        model.train_step(batch())
        changed = {name.partition("/")[0] for name in differing(before, state(model))}
        moved.append(changed & {"encoder", "discriminator"})
    assert moved == [{"discriminator"}, {"discriminator"}, {"encoder", "discriminator"}]


def test_matching_features_of_a_discriminator_without_any_is_refused(tiny_config, monkeypatch):
    def bare(x, config):
        return Network.patch_discriminator(x, config)[0], {}

    monkeypatch.setattr(Network, "bare", staticmethod(bare), raising=False)
    with pytest.raises(UserError, match="use_feature_matching_loss"):
        Model(tiny_config(discriminator="bare"), training=True)
    Model(tiny_config(width=16, discriminator="bare", use_feature_matching_loss=False), training=True).train_step(batch())


def test_the_two_updates_see_the_losses_of_the_same_forward_pass(tiny_config):
    model = Model(tiny_config(), training=True)
    x = batch()
    x_hat = model.generator(model.quantizer(model.encoder(x))[0])
    real, _ = model.discriminator(x)
    fake, _ = model.discriminator(x_hat)
    terms = model.train_step(x)
    real, fake = ([logits.numpy() for logits in group] for group in (real, fake))
    d_loss = sum(np.mean((r - 1) ** 2) / 2 + np.mean(f**2) / 2 for r, f in zip(real, fake, strict=True))
    assert terms["discriminator"] == pytest.approx(d_loss, rel=1e-4)
    assert terms["adversarial"] == pytest.approx(sum(np.mean((f - 1) ** 2) for f in fake), rel=1e-4)
    assert terms["distortion"] == pytest.approx(np.mean((x - x_hat) ** 2), rel=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", ["dcgan", "map", "layers"])
def test_two_noises_give_two_reconstructions_at_batch_size_one(mode, training, tiny_config):
    model = Model(tiny_config(sample_noise=True, noise_mode=mode))
    for scale in (var for var in model.generator.weights if var.name == "scale"):
        scale.assign(np.ones(scale.shape))  # learned, from 0
    w_hat = model.quantizer(model.encoder(batch(1)))[0]
    shape = model.config.noise_shape(*w_hat.shape[:3])
    a, b = (model.generate(w_hat, np.random.default_rng(i).normal(size=shape).astype("f"), training=training) for i in range(2))
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("mode", ["map", "layers"])
def test_noise_without_a_network_comes_from_the_file_and_is_trained_with(mode, tiny_config):
    model = Model(tiny_config(sample_noise=True, noise_mode=mode), training=True)
    assert "noise_generator" not in model.networks
    model.train_step(batch(2))
    scales = [var for var in model.generator.weights if var.name == "scale"]
    assert len(scales) == {"map": 0, "layers": 2 + 4}[mode] and all(np.abs(scale.numpy()).min() > 0 for scale in scales)
    symbols = np.zeros((5, 6, 8), np.uint8)
    first, again, other = (model.decompress(symbols, 80, 96, noise_seed=(seed,)) for seed in (7, 7, 8))
    assert (first == again).all() and (first != other).any()


def test_with_the_seeds_batch_norm_the_noise_has_no_influence_at_batch_size_one(tiny_config):
    model = Model(tiny_config(sample_noise=True, noise_norm="batch"))
    w_hat = model.quantizer(model.encoder(batch(1)))[0]
    v = [np.random.default_rng(i).normal(size=(1, 128)).astype("f") for i in range(2)]
    np.testing.assert_allclose(
        model.generate(w_hat, v[0], training=True), model.generate(w_hat, v[1], training=True), atol=1e-5
    )


# ----------------------------------------------------------------------------------------------------------------------
# Stages, learning rates, optimizers, averages
# ----------------------------------------------------------------------------------------------------------------------


def test_each_stage_trains_its_own_variables(tiny_config):
    model = Model(tiny_config(distortion_steps=1, discriminator_warmup_steps=1, freeze_encoder=True), training=True)
    moved = []
    for _ in range(3):
        before = state(model)
        model.train_step(batch())
        names = differing(before, state(model))
        moved.append({part for part in ("encoder", "generator", "discriminator") if any(n.startswith(part) for n in names)})
    # step 1 starts from the averaged weights, so E and G move there too, but not by an update
    assert moved[0] == {"encoder", "generator"}
    assert "discriminator" in moved[1]
    assert moved[2] == {"generator", "discriminator"}


def test_learning_rates_decay_anew_in_each_stage(tiny_config):
    config = tiny_config(
        distortion_steps=10, distortion_learning_rate=1.0, G_learning_rate=0.5, lr_decay_rate=0.1, lr_decay_steps=10
    )
    model = Model(config, training=True)
    assert model.learning_rates(0)[0] == 1
    assert model.learning_rates(5)[0] == pytest.approx(0.1**0.5)
    assert model.learning_rates(10)[0] == 0.5
    assert model.learning_rates(20) == pytest.approx((0.05, 2e-5))


def test_sgd_with_weight_decay_is_what_the_formula_says(tiny_config):
    plain, decayed = (
        Model(tiny_config(optimizer="sgd", G_learning_rate=0.1, weight_decay=wd), training=True) for wd in (0.0, 0.5)
    )
    kernel = next(v for v in plain.G_variables if v.name == "kernel").numpy()
    for model in (plain, decayed):
        model.train_step(batch())
    after = [next(v for v in m.G_variables if v.name == "kernel").numpy() for m in (plain, decayed)]
    np.testing.assert_allclose(after[0] - after[1], 0.1 * 0.5 * kernel, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "momentum", "rmsprop", "sgd"])
def test_every_optimizer_lowers_the_distortion(optimizer, tiny_config):
    rate = {"adam": 2e-3, "rmsprop": 2e-3, "momentum": 0.01, "sgd": 0.05}[optimizer]
    model = Model(tiny_config(optimizer=optimizer, distortion_steps=99, distortion_learning_rate=rate), training=True)
    x = batch()
    first, *_, last = [model.train_step(x)["distortion"] for _ in range(12)]
    assert last < 0.9 * first


@pytest.mark.parametrize("weight", ["lambda_X", "lambda_range", "lambda_rate", "lambda_adversarial", "lambda_feature_matching"])
def test_each_weight_of_a_loss_changes_what_the_encoder_learns(weight, tiny_config):
    kernels = []
    for value in (0.0, 1.0):
        model = Model(tiny_config(optimizer="sgd", G_learning_rate=0.1, **{weight: value}), training=True)
        projection = model.encoder.trainable_variables[-2]
        projection.assign(3 * projection)  # some of w is out of range
        for _ in range(2):  # at first the histogram is uniform, and the rate has no gradient
            model.train_step(batch())
        kernels.append(model.encoder.trainable_variables[0].numpy())
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-6


@pytest.mark.parametrize("rate_model", ["static", "context"])
def test_a_rate_loss_makes_symbols_that_take_fewer_bits(rate_model, tiny_config):
    bpp = []
    for weight in (0.0, 20.0):
        rates = {"distortion_learning_rate": 3e-3, "lambda_rate": weight, "rate_model": rate_model}
        model = Model(tiny_config(distortion_steps=99, **rates), training=True)
        for _ in range(20):
            terms = model.train_step(batch())
        bpp.append(terms["bpp"])
    assert bpp[1] < 0.9 * bpp[0]


def test_averages_follow_the_weights_by_the_formula(tiny_config):
    model = Model(tiny_config(ema_decay=0.5), training=True)
    expected = model.averages[0].numpy()
    for step in range(12):
        model.train_step(batch())
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.G_variables[0].numpy()
    np.testing.assert_allclose(model.averages[0].numpy(), expected, rtol=1e-4, atol=1e-6)


# ----------------------------------------------------------------------------------------------------------------------
# Checkpoints
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_saving_and_resuming_restores_everything_exactly(optimizer, tiny_config, tmp_path):
    knobs = {"sample_noise": True, "noise_norm": "batch", "lambda_rate": 1.0, "rate_model": "context"}
    model = Model(tiny_config(optimizer=optimizer, **knobs), training=True)
    for _ in range(2):
        model.train_step(batch())
    model.save(tmp_path / "ckpt-2")
    other = Model.resume(tmp_path / "ckpt-2")
    assert other.step == 2
    assert differing(state(model), state(other)) == []
    for m in (model, other):
        m.train_step(batch())
    assert differing(state(model), state(other)) == []


def test_a_loaded_model_has_the_averaged_weights(tiny_config, tmp_path):
    model = Model(tiny_config(), training=True)
    model.train_step(batch())
    model.save(tmp_path / "ckpt-1")
    loaded = Model.load(tmp_path)
    np.testing.assert_array_equal(loaded.encoder.trainable_variables[0], model.averages[0])
    assert (loaded.entropy_model.frequencies.sum(axis=1) == 2**16).all()


def test_a_checkpoint_without_training_state_is_a_start_for_training(tiny_config, tmp_path):
    model = Model(tiny_config(), training=True)
    model.train_step(batch())
    model.save(tmp_path / "ckpt-1")
    (tmp_path / "ckpt-1" / "training.npz").unlink()
    started = Model.resume(tmp_path / "ckpt-1")
    assert started.step == 0
    np.testing.assert_array_equal(started.G_variables[0], model.averages[0])
    np.testing.assert_array_equal(started.averages[0], model.averages[0])


def test_the_fingerprint_follows_knobs_and_weights(tiny_config, tmp_path):
    model = Model(tiny_config(), training=True)
    model.save(tmp_path / "a" / "ckpt-0")
    model.save(tmp_path / "b" / "ckpt-0")
    first = Model.load(tmp_path / "a").fingerprint
    assert Model.load(tmp_path / "b").fingerprint == first
    model.train_step(batch())
    model.save(tmp_path / "c" / "ckpt-1")
    assert Model.load(tmp_path / "c").fingerprint != first


def add_context_model(folder, channels=8, levels=5):
    np.savez(folder / "context.npz", **model_arrays(channels, levels))


def test_a_context_model_takes_over_from_the_tables_and_changes_the_fingerprint(tiny_config, tmp_path):
    Model(tiny_config(), training=True).save(tmp_path / "ckpt-0")
    before = Model.load(tmp_path)
    add_context_model(tmp_path / "ckpt-0")
    after = Model.load(tmp_path)
    assert (type(before.entropy_model), type(after.entropy_model)) == (StaticTables, ContextModel)
    assert before.fingerprint != after.fingerprint
    np.testing.assert_array_equal(before.static_tables.frequencies, after.static_tables.frequencies)


def test_without_context_model_and_frequencies_all_symbols_are_alike(tiny_config, tmp_path):
    Model(tiny_config(), training=True).save(tmp_path / "ckpt-0")
    with np.load(tmp_path / "ckpt-0" / "model.npz") as arrays:
        np.savez(tmp_path / "ckpt-0" / "model.npz", **{name: a for name, a in arrays.items() if name != "frequencies"})
    frequencies = Model.load(tmp_path).entropy_model.frequencies
    assert frequencies.shape == (8, 5) and np.ptp(frequencies) <= 1


def test_learned_centers_are_the_decoders_and_the_file_has_their_number(tiny_config, tmp_path):
    centers = (-1.5, -0.5, 0.5, 1.5)
    changes = {"width": 16, "centers": centers, "learn_centers": True, "ema_decay": 0.0, "distortion_learning_rate": 0.01}
    model = Model(tiny_config(**changes, distortion_steps=3), training=True)
    for _ in range(3):
        model.train_step(batch())
    model.save(tmp_path / "ckpt-3")
    loaded = Model.load(tmp_path)
    learned = loaded.quantizer.weights[0].numpy()
    assert learned.shape == (4,) and np.abs(learned - centers).min() > 0
    symbols = loaded.compress(photo(48, 64))
    assert symbols.max() <= 3
    back = loaded.entropy_model.decode(loaded.entropy_model.encode(symbols), symbols.shape)
    assert (back == symbols).all()
    picture = loaded.decompress(back, 48, 64)
    loaded.quantizer.weights[0].assign(centers)
    assert (loaded.decompress(back, 48, 64) != picture).any()


def test_channels_that_were_not_sent_are_zeros_for_the_generator(tiny_config):
    model = Model(tiny_config())
    symbols = model.compress(photo(64, 48))
    rest = symbols.copy()
    rest[:, :, 3:] = 2  # the center 0.0
    np.testing.assert_array_equal(model.decompress(symbols[:, :, :3], 64, 48), model.decompress(rest, 64, 48))


def test_channel_dropout_hides_the_last_channels_of_a_share_of_the_images(tiny_config):
    model = Model(tiny_config(channel_dropout=0.5), training=True)
    masks = model._channel_mask(2000, 3)[:, 0, 0].numpy()
    K = masks.sum(axis=1)
    assert set(K) == set(range(1, 9)) and 0.45 < (K < 8).mean() < 0.55
    np.testing.assert_array_equal(masks, np.arange(8) < K[:, None])  # always the first K


def test_with_channel_dropout_the_generator_sees_fewer_channels(tiny_config, monkeypatch):
    kept, dropped = (Model(tiny_config(channel_dropout=share), training=True) for share in (0.0, 1.0))
    x = batch()
    w_hat = dropped.quantizer(dropped.encoder(x))[0] * dropped._channel_mask(2, 0)
    expected = tf.reduce_mean(tf.square(x - dropped.generator(w_hat))).numpy()
    terms = [model.train_step(x)["distortion"] for model in (kept, dropped)]
    assert terms[1] == pytest.approx(expected, rel=1e-4) and terms[0] != pytest.approx(expected, rel=1e-4)


def damage_knobs(folder):
    knobs = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(knobs | {"width": 48}))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda f: (f / "config.json").unlink(), "no checkpoint in it"),
        (lambda f: (f / "config.json").write_text("{"), "config.json"),
        (lambda f: (f / "config.json").write_text('{"width": "wide"}'), "width"),
        (lambda f: (f / "model.npz").unlink(), "model.npz"),
        (lambda f: (f / "model.npz").write_bytes((f / "model.npz").read_bytes()[:5000]), "model.npz"),
        (lambda f: (f / "model.npz").write_text("text"), "model.npz"),
        (damage_knobs, "the knobs want"),
        (lambda f: (f / "context.npz").write_text("text"), "context.npz"),
        (lambda f: add_context_model(f, channels=4), "context.npz.*4 channels"),
        (lambda f: np.savez(f / "context.npz", hidden=np.zeros(3)), "context.npz.*neighbours"),
        (lambda f: np.savez(f / "context.npz"), "context.npz"),
    ],
)
def test_a_damaged_checkpoint_is_an_error_that_names_it(damage, named, tiny_config, tmp_path):
    folder = tmp_path / "ckpt-0"
    Model(tiny_config(), training=True).save(folder)
    damage(folder)
    with pytest.raises(UserError, match=named):
        Model.load(folder)


def test_a_missing_checkpoint_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        Model.load(tmp_path / "nowhere")


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
        Model(tiny_config(**{role: name}), training=True)


def test_a_users_own_generator_is_a_static_method_and_a_knob(tiny_config, monkeypatch):
    from network import Network, conv_block, ops, reflect_conv, upsample_block

    def my_generator(z, config):
        h = conv_block(z, config.width, kernel=3, config=config)
        for i in (2, 4, 8, 16):
            h = upsample_block(h, config.width // i, config)
        return ops.tanh(reflect_conv(h, 3, kernel=7))

    monkeypatch.setattr(Network, "my_generator", staticmethod(my_generator), raising=False)
    model = Model(tiny_config(generator="my_generator"), training=True)
    assert np.isfinite(model.train_step(batch())["distortion"])


def test_weights_that_are_not_finite_are_not_saved(tiny_config, tmp_path):
    model = Model(tiny_config(), training=True)
    model.G_variables[0].assign(model.G_variables[0] * np.nan)
    with pytest.raises(UserError, match="encoder/Conv2D_0/kernel is not finite"):
        model.save(tmp_path / "ckpt-0")
    assert list(tmp_path.iterdir()) == []


def test_recomputing_activations_changes_nothing_but_memory(tiny_config):
    kept, recomputed = (Model(tiny_config(recompute=flag), training=True) for flag in (False, True))
    for model in (kept, recomputed):
        model.train_step(batch())
    for a, b in zip(kept.G_variables + kept.D_variables, recomputed.G_variables + recomputed.D_variables, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_perfect_reconstruction_has_a_finite_psnr(tiny_config):
    model = Model(tiny_config(distortion_steps=9), training=True)
    bias = model.generator.trainable_variables[-1]
    bias.assign(np.full(3, 1e4))  # tanh saturates: all white
    assert np.isfinite(model.train_step(tf.ones((2, 64, 64, 3)))["PSNR"])


# ----------------------------------------------------------------------------------------------------------------------
# Images
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "expected"), [((1, 1), (32, 32)), ((32, 33), (32, 48)), ((512, 768), (512, 768))])
def test_padding_reaches_multiples_of_16_and_keeps_the_image(size, expected):
    image = photo(*size)
    assert padded_size(*size) == expected
    assert pad(image).shape[:2] == expected
    np.testing.assert_array_equal(pad(image)[: size[0], : size[1]], image)


def test_bytes_survive_the_way_to_floats_and_back():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    assert to_float(image).min() == -1 and to_float(image).max() == 1
    np.testing.assert_array_equal(to_uint8(to_float(image)), image)
