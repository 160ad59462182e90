"""The train step, the optimizers, and the trainer's state."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import photo

from commands.loading import load_codec
from config import UserError
from gcodec.checkpoint import CENTERS, read_checkpoint
from gcodec.labels import LabelBatch
from gcodec.pictures import to_float
from model import channel_mask
from network import Network
from terms import penalty_between
from training.schedule import learning_rates, stage
from training.trainer import Trainer


@pytest.fixture(scope="module", autouse=True)
def eager():
    """These tests make one step each, and a graph for it would take ten times as long; test_train.py trains by graphs."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def batch(n: int = 2, side: int = 64) -> tf.Tensor:
    return tf.constant(np.stack([to_float(photo(side, side, seed)) for seed in range(n)]))


SMALL = {"width": 16, "n_residual_blocks": 0, "discriminator_width": 4}  # where residual blocks are not the point
QUICK = SMALL | {"optimizer": "sgd"}  # where a single step is looked at, whose longest part is the update by Adam


def train_step(trainer: Trainer, x: tf.Tensor, labels: LabelBatch | None = None) -> dict[str, float]:
    return {name: float(term) for name, term in trainer.train_step(x, labels).items()}


def state(trainer: Trainer) -> dict[str, np.ndarray]:
    return {name: var.numpy().copy() for name, var in trainer.state().items()}


def differing(a: dict, b: dict) -> list[str]:
    return [name for name in a if not np.array_equal(a[name], b[name])]


# ----------------------------------------------------------------------------------------------------------------------
# One step
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["instance", "channel"])
def test_one_step_moves_every_trainable_variable(normalization, tiny_config):
    config = tiny_config(
        n_scales=2,
        normalization=normalization,
        sample_noise=True,
        learn_centers=True,
        batch_size=1,
        optimizer="sgd",  # with a rate of 1, a variable moves by its gradient
        G_learning_rate=1,
        D_learning_rate=1,
    )
    trainer = Trainer(config)
    for var, average in zip(trainer.G_variables, trainer.averages, strict=True):
        if var.path.endswith("conv2.norm/gamma"):  # of a block that starts as the identity, behind which nothing has a gradient
            var.assign(np.ones(var.shape))
            average.assign(var)
    before = [v.numpy() for v in trainer.G_variables + trainer.D_variables]
    train_step(trainer, batch(1))
    for var, old in zip(trainer.G_variables + trainer.D_variables, before, strict=True):
        assert np.abs(var.numpy() - old).max() > 1e-7, f"{var.path} has no gradient"


def test_the_optimizers_together_train_exactly_the_trainables(tiny_config):
    trainer = Trainer(tiny_config(sample_noise=True, learn_centers=True))
    trained = [id(v) for v in trainer.G_variables + trainer.D_variables]
    networks = [*trainer.model.networks.values(), trainer.discriminator]
    assert sorted(trained) == sorted(id(v) for net in networks for v in net.trainable_variables)
    assert len(set(trained)) == len(trained)


# Five of all combinations, in which any two knobs take all four values.
COMBINATIONS = [flags for flags in itertools.product([False, True], repeat=4) if sum(flags) in (0, 3)]


@pytest.mark.parametrize(("noise", "multiscale", "vanilla", "matching"), COMBINATIONS)
def test_the_seeds_knobs_go_together(noise, multiscale, vanilla, matching, tiny_config):
    config = tiny_config(
        **QUICK | {"n_scales": 2},
        sample_noise=noise,
        multiscale=multiscale,
        use_vanilla_GAN=vanilla,
        use_feature_matching_loss=matching,
        channel_bottleneck=2 + 2 * (noise + multiscale + vanilla + matching),
    )
    trainer = Trainer(config)
    terms = train_step(trainer, batch())
    assert all(np.isfinite(value) for value in terms.values())
    assert ("feature_matching" in terms) == matching
    with trainer.averaged_codec() as codec:
        assert codec.contents(photo(40, 70)).symbols.shape == (3, 5, config.channel_bottleneck)
        assert codec.decode(codec.encode(photo(40, 70))).shape == (40, 70, 3)


def test_looking_at_the_weights_again_and_again_traces_no_graph_anew(tiny_config):
    """Each trace would stay in memory, a third of a megabyte for a tiny network."""
    trainer = Trainer(tiny_config(**QUICK))
    runtimes, pictures = [], []
    for _ in range(2):
        with trainer.averaged_codec() as codec:
            runtimes.append(codec.runtime)
            pictures.append(codec.reconstruct(photo(32, 48)))
        for average in trainer.averages:
            average.assign(-average)
    assert runtimes[0] is runtimes[1]
    assert not np.array_equal(*pictures)  # the weights are those of now


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
    terms = Trainer(tiny_config(**QUICK, **changes)).train_step(batch())
    assert all(np.isfinite(value) for value in terms.values())


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_trains_as_float32_does(precision, tiny_config, tmp_path):
    plain, other = (Trainer(tiny_config(**SMALL, mixed_precision=name)) for name in ("float32", precision))
    before = [var.numpy() for var in other.G_variables + other.D_variables]
    assert train_step(other, batch()) == pytest.approx(train_step(plain, batch()), rel=0.05, abs=0.05)  # ties fall otherwise
    for _ in range(5 if precision == "float16" else 0):  # it looks for the scale of its losses first
        train_step(other, batch())
    variables = other.G_variables + other.D_variables
    assert all(var.dtype == "float32" for var in variables)
    assert all(np.abs(var.numpy() - old).max() > 0 for var, old in zip(variables, before, strict=True))
    other.save(tmp_path / "ckpt-6")
    assert Trainer.start_from(read_checkpoint(tmp_path), {}).step == other.step
    image = np.zeros((64, 64, 3), np.uint8)
    assert load_codec(tmp_path).encode(image) == load_codec(tmp_path).encode(image)
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.slow
def test_a_compiled_step_is_the_same_step(tiny_config):
    tf.config.run_functions_eagerly(False)  # XLA compiles graphs only
    try:
        plain, compiled = (Trainer(tiny_config(**SMALL, distortion_steps=9, jit_compile=flag)) for flag in (False, True))
        assert train_step(compiled, batch()) == pytest.approx(train_step(plain, batch()), rel=1e-4, abs=1e-4)
    finally:
        tf.config.run_functions_eagerly(True)


GAN_LOSSES = [
    {"gan_loss": "hinge", "spectral_norm": True},
    {"gan_loss": "wgan", "weight_clipping": True, "discriminator": "wgan_critic"},
    {"gan_loss": "wgan", "spectral_norm": True},
    {"gan_loss": "wgan_gp"},
    {"gan_loss": "wgan_gp", "discriminator": "wgan_critic", "multiscale": False, "use_conditional_GAN": True, "n_classes": 3},
]


@pytest.mark.parametrize("changes", GAN_LOSSES, ids=lambda changes: "-".join(map(str, changes.values())))
def test_every_gan_loss_moves_both_networks(changes, tiny_config):
    trainer = Trainer(tiny_config(**QUICK, n_scales=2, **changes))
    planes = tf.constant(np.random.default_rng(0).integers(0, 2, (3, 2, 64, 64)), tf.uint8)
    labels = LabelBatch(*planes) if "n_classes" in changes else None
    before = state(trainer)
    terms = train_step(trainer, batch(), labels)
    assert {"encoder", "generator", "discriminator"} <= {name.partition("/")[0] for name in differing(before, state(trainer))}
    assert all(map(np.isfinite, terms.values()))
    if trainer.config.adversarial_loss == "wgan":  # both are means of the same scores over scales
        n = trainer.config.n_scales if trainer.config.multiscale else 1
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
        penalty = penalty_between(critic, x, x_hat, rng.random((4, 1, 1, 1)).astype("f"))
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

    penalty = penalty_between(critic, x, x_hat, np.array([0.25, 1.0], "f").reshape(2, 1, 1, 1))
    assert seen[0].tolist() == [2.5, 1.0]
    norms = 2 * seen[0] * np.sqrt(48)
    assert float(penalty) == pytest.approx(((norms - 1) ** 2).mean(), rel=1e-4)


def test_after_a_few_passes_each_normalized_kernel_has_the_largest_singular_value_1(tiny_config):
    config = tiny_config(**QUICK, n_scales=2, spectral_norm=True, D_learning_rate=1e-4)
    trainer = Trainer(config)
    train_step(trainer, batch())
    for _ in range(12):
        trainer.discriminator(batch(), training=True)  # normalizes what the step made of them, a little more each time
    kernels = [var.numpy() for var in trainer.D_variables if var.name == "kernel"]
    assert len(kernels) == 2 * 5
    for kernel in kernels:
        largest = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
        assert largest == pytest.approx(1, abs=0.01)


def test_spectral_norm_normalizes_once_a_step_and_judges_both_images_alike(tiny_config):
    config = tiny_config(**QUICK, n_scales=2, discriminator="wgan_critic", spectral_norm=True, D_learning_rate=0)
    trainer = Trainer(config)  # no other norm makes up for the kernels' scale
    x = batch()
    x_hat = trainer.model.generator(trainer.model.quantizer(trainer.model.encoder(x))[0])
    terms = train_step(trainer, x)  # D stays as the normalization left it
    for name, image in (("D_real", x), ("D_fake", x_hat)):
        logits, _ = trainer.discriminator(image)
        expected = np.mean([scale.numpy().mean() for scale in logits])
        assert terms[name] == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", ["patch_discriminator", "wgan_critic"])
def test_no_other_norm_undoes_the_spectral_norm(name, tiny_config):
    trainer = Trainer(tiny_config(**QUICK, discriminator=name, spectral_norm=True))
    logits = trainer.discriminator(batch())[0][0].numpy()
    for kernel in [var for var in trainer.D_variables if var.name == "kernel"]:
        kernel.assign(0.5 * kernel)
        smaller = trainer.discriminator(batch())[0][0].numpy()
        np.testing.assert_allclose(smaller, logits / 2, rtol=1e-4, atol=1e-7)  # biases are 0
        kernel.assign(2 * kernel)


def test_half_precision_does_not_round_the_kernels_that_spectral_norm_writes(tiny_config):
    trainer = Trainer(tiny_config(**QUICK, spectral_norm=True, mixed_precision="bfloat16"))
    trainer.discriminator(batch(), training=True)
    for kernel in (var for var in trainer.D_variables if var.name == "kernel"):
        assert (tf.cast(tf.cast(kernel.value, tf.bfloat16), tf.float32).numpy() != kernel.numpy()).any()


def test_weight_clipping_keeps_the_critic_in_its_box(tiny_config):
    trainer = Trainer(tiny_config(**SMALL, gan_loss="wgan", weight_clipping=True, max_c=0.02))
    train_step(trainer, batch())
    assert max(np.abs(var.numpy()).max() for var in trainer.D_variables) == np.float32(0.02)


def test_the_critic_trains_alone_in_all_but_every_nth_step(tiny_config):
    trainer = Trainer(tiny_config(**SMALL, discriminator_warmup_steps=1, n_critic_iterations=3))
    cycle = [("discriminator", 1), ("discriminator", 1), ("gan", 1)]
    assert [stage(trainer.config, step) for step in range(7)] == [("discriminator", 0), *cycle, *cycle]
    trainer.step, moved = 1, []
    for _ in range(3):
        before = state(trainer)
        train_step(trainer, batch())
        changed = {name.partition("/")[0] for name in differing(before, state(trainer))}
        moved.append(changed & {"encoder", "discriminator"})
    assert moved == [{"discriminator"}, {"discriminator"}, {"encoder", "discriminator"}]


def test_matching_features_of_a_discriminator_without_any_is_refused(tiny_config, monkeypatch):
    def bare(x, config):
        return Network.patch_discriminator(x, config)[0], {}

    monkeypatch.setattr(Network, "bare", staticmethod(bare), raising=False)
    with pytest.raises(UserError, match="use_feature_matching_loss"):
        Trainer(tiny_config(discriminator="bare"))
    Trainer(tiny_config(**QUICK, discriminator="bare", use_feature_matching_loss=False)).train_step(batch())


def test_the_two_updates_see_the_losses_of_the_same_forward_pass(tiny_config):
    trainer = Trainer(tiny_config(**QUICK, n_scales=2))
    x = batch()
    x_hat = trainer.model.generator(trainer.model.quantizer(trainer.model.encoder(x))[0])
    real, _ = trainer.discriminator(x)
    fake, _ = trainer.discriminator(x_hat)
    terms = train_step(trainer, x)
    real, fake = ([logits.numpy() for logits in group] for group in (real, fake))
    d_loss = sum(np.mean((r - 1) ** 2) / 2 + np.mean(f**2) / 2 for r, f in zip(real, fake, strict=True))
    assert terms["discriminator"] == pytest.approx(d_loss, rel=1e-4)
    assert terms["adversarial"] == pytest.approx(sum(np.mean((f - 1) ** 2) for f in fake), rel=1e-4)
    assert terms["distortion"] == pytest.approx(np.mean((x - x_hat) ** 2), rel=1e-4)


# ----------------------------------------------------------------------------------------------------------------------
# Stages, learning rates, optimizers, averages
# ----------------------------------------------------------------------------------------------------------------------


def test_each_stage_trains_its_own_variables(tiny_config):
    trainer = Trainer(tiny_config(**SMALL, distortion_steps=1, discriminator_warmup_steps=1, freeze_encoder=True))
    moved = []
    for _ in range(3):
        before = state(trainer)
        train_step(trainer, batch())
        names = differing(before, state(trainer))
        moved.append({part for part in ("encoder", "generator", "discriminator") if any(n.startswith(part) for n in names)})
    # step 1 starts from the averaged weights, so E and G move there too, but not by an update
    assert moved[0] == {"encoder", "generator"}
    assert "discriminator" in moved[1]
    assert moved[2] == {"generator", "discriminator"}


def test_a_new_generator_can_be_trained_before_the_encoder(tiny_config):
    config = tiny_config(**SMALL, distortion_steps=3, generator_steps=1, discriminator_warmup_steps=1)
    assert [stage(config, step) for step in range(5)] == [
        ("generator", 0), ("distortion", 1), ("distortion", 1), ("discriminator", 3), ("gan", 4)
    ]  # fmt: skip
    trainer = Trainer(config)
    for trained in ({"generator"}, {"encoder", "generator"}):
        before = state(trainer)
        train_step(trainer, batch())
        names = differing(before, state(trainer))
        assert trained == {part for part in ("encoder", "generator", "discriminator") if any(n.startswith(part) for n in names)}


def test_learning_rates_decay_anew_in_each_stage(tiny_config):
    config = tiny_config(
        distortion_steps=10, distortion_learning_rate=1.0, G_learning_rate=0.5, lr_decay_rate=0.1, lr_decay_steps=10
    )
    assert learning_rates(config, 0)[0] == 1
    assert learning_rates(config, 5)[0] == pytest.approx(0.1**0.5)
    assert learning_rates(config, 10)[0] == 0.5
    assert learning_rates(config, 20) == pytest.approx((0.05, 2e-5))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_optimizer_starts_anew_with_the_gan(precision, tiny_config):
    trainer = Trainer(tiny_config(**SMALL, distortion_steps=2, freeze_encoder=True, mixed_precision=precision))

    def moments_of_the_encoder() -> float:
        moments = [var.numpy() for var in trainer.G_optimizer.variables if var.path.endswith("velocity")]
        encoder = {id(var) for var in trainer.G_variables} - {id(var) for var in trainer.without_E}
        return max(moment.max() for var, moment in zip(trainer.G_variables, moments, strict=True) if id(var) in encoder)

    for _ in range(2):
        train_step(trainer, batch())
    assert moments_of_the_encoder() > 0
    train_step(trainer, batch())  # the first one of the GAN; nothing trains the encoder in it
    assert moments_of_the_encoder() == 0 and trainer.G_optimizer.iterations.numpy() <= 1
    if precision == "float16":
        assert trainer.G_optimizer.dynamic_scale.numpy() > 0


def test_sgd_with_weight_decay_is_what_the_formula_says(tiny_config):
    knobs = SMALL | {"optimizer": "sgd", "distortion_steps": 9, "distortion_learning_rate": 0.1}
    plain, decayed = (Trainer(tiny_config(**knobs, weight_decay=wd)) for wd in (0.0, 0.5))
    kernel = next(v for v in plain.G_variables if v.name == "kernel").numpy()
    for trainer in (plain, decayed):
        train_step(trainer, batch())
    after = [next(v for v in m.G_variables if v.name == "kernel").numpy() for m in (plain, decayed)]
    np.testing.assert_allclose(after[0] - after[1], 0.1 * 0.5 * kernel, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "momentum", "rmsprop", "sgd"])
def test_every_optimizer_lowers_the_distortion(optimizer, tiny_config):
    rate = {"adam": 1e-2, "rmsprop": 1e-2, "momentum": 0.05, "sgd": 0.05}[optimizer]
    trainer = Trainer(tiny_config(**SMALL, optimizer=optimizer, distortion_steps=99, distortion_learning_rate=rate))
    x = batch(1, 32)
    first, *_, last = [train_step(trainer, x)["distortion"] for _ in range(6)]
    assert last < 0.9 * first


def test_each_weight_of_a_loss_changes_what_the_encoder_learns(tiny_config):
    """The kernels after a step in which one weight is another differ from those after a step with the default ones."""

    def kernel(**changes) -> np.ndarray:
        trainer = Trainer(tiny_config(**SMALL, optimizer="sgd", G_learning_rate=0.1, lambda_rate=1.0, **changes))
        projection = trainer.model.encoder.trainable_variables[-2]
        projection.assign(3 * projection)  # some of w is out of range
        uneven = np.tile(np.array([0.1, 0.2, 0.4, 0.2, 0.1], np.float32), (8, 1))
        trainer.rate.histogram.assign(uneven)  # a uniform one, as at first, has no gradient
        train_step(trainer, batch(1))
        return trainer.model.encoder.trainable_variables[0].numpy()

    whole = kernel()
    assert (whole == kernel()).all()
    changes = dict.fromkeys(("lambda_X", "lambda_range", "lambda_adversarial", "lambda_feature_matching"), 0.0)
    for weight, value in {**changes, "lambda_structure": 10.0}.items():
        assert np.abs(kernel(**{weight: value}) - whole).max() > 1e-6, weight


@pytest.mark.parametrize("rate_model", ["static", "context"])
def test_a_rate_loss_alone_makes_symbols_that_take_fewer_bits(rate_model, tiny_config):
    only = {"lambda_X": 0.0, "lambda_range": 0.0, "lambda_rate": 20.0, "distortion_steps": 99, "distortion_learning_rate": 3e-3}
    trainer = Trainer(tiny_config(**SMALL, **only, rate_model=rate_model))
    bits = []
    for _ in range(10):
        w_hat = trainer.model.quantizer(trainer.model.encoder(batch()))[0].numpy().reshape(-1, 8)
        shares = np.stack([(w_hat == center).mean(axis=0) for center in trainer.config.centers])
        bits.append(-(shares * np.log2(shares + 1e-9)).sum())  # their entropy, whatever the rate model says
        train_step(trainer, batch())
    assert bits[-1] < 0.9 * bits[0]


def test_averages_follow_the_weights_by_the_formula(tiny_config):
    trainer = Trainer(tiny_config(**SMALL, distortion_steps=9, distortion_learning_rate=0.01, ema_decay=0.2))
    expected = trainer.averages[0].numpy()
    for step in range(4):  # the decay is less than 0.2 in the first two
        train_step(trainer, batch(1))
        decay = min(0.2, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * trainer.G_variables[0].numpy()
        np.testing.assert_allclose(trainer.averages[0].numpy(), expected, rtol=1e-4, atol=1e-6)


# ----------------------------------------------------------------------------------------------------------------------
# Checkpoints
# ----------------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_has_the_averaged_weights_and_without_training_state_is_a_start(tiny_config, tmp_path):
    trainer = Trainer(tiny_config(**SMALL, distortion_steps=9))
    train_step(trainer, batch(1))
    trainer.save(tmp_path / "ckpt-1")
    loaded = read_checkpoint(tmp_path)
    np.testing.assert_array_equal(loaded.weights["encoder/first/kernel"], trainer.averages[0])
    assert (loaded.static_tables.frequencies.sum(axis=1) == 2**16).all()
    (tmp_path / "ckpt-1" / "training.npz").unlink()
    started = Trainer.start_from(read_checkpoint(tmp_path / "ckpt-1"), {})
    assert started.step == 0
    np.testing.assert_array_equal(started.G_variables[0], trainer.averages[0])
    np.testing.assert_array_equal(started.averages[0], trainer.averages[0])


def test_channel_dropout_hides_the_last_channels_of_a_share_of_the_images(tiny_config):
    masks = channel_mask(tiny_config(channel_dropout=0.5), 2000, 3)[:, 0, 0].numpy()
    K = masks.sum(axis=1)
    assert set(K) == set(range(1, 9)) and 0.45 < (K < 8).mean() < 0.55
    np.testing.assert_array_equal(masks, np.arange(8) < K[:, None])  # always the first K


def test_with_channel_dropout_the_generator_sees_fewer_channels(tiny_config, monkeypatch):
    kept, dropped = (Trainer(tiny_config(**QUICK, distortion_steps=9, channel_dropout=share)) for share in (0.0, 1.0))
    x = batch()
    w_hat = dropped.model.quantizer(dropped.model.encoder(x))[0] * channel_mask(dropped.config, 2, 0)
    expected = tf.reduce_mean(tf.square(x - dropped.model.generator(w_hat))).numpy()
    terms = [train_step(trainer, x)["distortion"] for trainer in (kept, dropped)]
    assert terms[1] == pytest.approx(expected, rel=1e-4) and terms[0] != pytest.approx(expected, rel=1e-4)


def test_weights_that_are_not_finite_are_not_saved(tiny_config, tmp_path):
    trainer = Trainer(tiny_config(**SMALL))
    trainer.G_variables[0].assign(trainer.G_variables[0] * np.nan)
    with pytest.raises(UserError, match="encoder/first/kernel is not finite"):
        trainer.save(tmp_path / "ckpt-0")
    assert list(tmp_path.iterdir()) == []


def test_recomputing_activations_changes_nothing_but_memory(tiny_config):
    sgd = {"optimizer": "sgd", "G_learning_rate": 0.1, "D_learning_rate": 0.1}
    kept, recomputed = (Trainer(tiny_config(width=16, **sgd, recompute=flag)) for flag in (False, True))
    for trainer in (kept, recomputed):
        train_step(trainer, batch())
    for a, b in zip(kept.G_variables + kept.D_variables, recomputed.G_variables + recomputed.D_variables, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_perfect_reconstruction_has_a_finite_psnr(tiny_config):
    trainer = Trainer(tiny_config(**QUICK, distortion_steps=9))
    bias = trainer.model.generator.trainable_variables[-1]
    bias.assign(np.full(3, 1e4))  # tanh saturates: all white
    assert np.isfinite(train_step(trainer, tf.ones((2, 64, 64, 3)))["PSNR"])


@pytest.mark.parametrize("mode", ["map", "layers"])
def test_noise_without_a_network_is_trained_with(mode, tiny_config):
    trainer = Trainer(tiny_config(**SMALL, distortion_steps=9, sample_noise=True, noise_mode=mode))
    assert "noise_generator" not in trainer.model.networks
    train_step(trainer, batch(2))
    scales = [var for var in trainer.model.generator.weights if var.name == "scale"]
    assert len(scales) == {"map": 0, "layers": 1 + 4}[mode] and all(np.abs(scale.numpy()).min() > 0 for scale in scales)


def test_learned_centers_are_the_decoders_and_the_file_has_their_number(tiny_config, tmp_path):
    centers = (-1.5, -0.5, 0.5, 1.5)
    changes = SMALL | {"centers": centers, "learn_centers": True, "ema_decay": 0.0, "distortion_learning_rate": 0.01}
    trainer = Trainer(tiny_config(**changes, distortion_steps=3))
    for _ in range(3):
        train_step(trainer, batch())
    trainer.save(tmp_path / "ckpt-3")
    codec = load_codec(tmp_path)
    learned = codec.checkpoint.centers
    assert learned.shape == (4,) and np.abs(learned - centers).min() > 0
    data = codec.encode(photo(48, 64))
    assert codec.contents(photo(48, 64)).symbols.max() <= 3
    picture = codec.decode(data)
    np.testing.assert_array_equal(codec.reconstruct(photo(48, 64)), picture)
    codec.checkpoint.weights[CENTERS][:] = centers
    assert (codec.decode(data) != picture).any()
