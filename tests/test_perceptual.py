"""LPIPS, FID and KID, by random weights of the shapes of the real ones."""

import json

import numpy as np
import pytest
from conftest import knobs, photo
from PIL import Image

import evaluate
import losses
import perceptual
import train
from config import UserError
from model import Model


def weights(network: str, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    backbone = perceptual._backbone(network)
    arrays = {}
    for i, var in enumerate(backbone.weights):
        fan = np.prod(var.shape[:-1])
        scale = np.sqrt(2 / fan) if i % 2 == 0 else 0.1
        arrays[f"{('kernel', 'bias')[i % 2]}_{i // 2}"] = (scale * rng.standard_normal(var.shape)).astype(np.float32)
    return arrays | {f"lin_{i}": rng.random(tap.shape[-1]).astype(np.float32) for i, tap in enumerate(backbone.outputs)}


@pytest.mark.parametrize(("network", "taps"), [
    ("alex", [(64, 15), (192, 7), (384, 3), (256, 3), (256, 3)]),
    ("vgg", [(64, 64), (128, 32), (256, 16), (512, 8), (512, 4)]),
])  # fmt: skip
def test_the_backbones_are_those_of_lpips(network, taps):
    shapes = [tuple(tap.shape) for tap in perceptual._backbone(network)(np.zeros((1, 64, 64, 3), np.float32))]
    assert shapes == [(1, side, side, channels) for channels, side in taps]
    assert len(perceptual._backbone(network).weights) == 2 * {"alex": 5, "vgg": 13}[network]


def test_lpips_is_the_weighted_distance_of_normalized_features():
    """The definition (Zhang et al. 2018, eq. 1), position by position, for AlexNet's first tap and no other."""
    arrays = weights("alex")
    for i in range(1, 5):
        arrays[f"lin_{i}"] = np.zeros_like(arrays[f"lin_{i}"])
    a, b = photo(40, 40), photo(40, 40, seed=1)
    padded = [np.pad((x / 127.5 - 1 - perceptual.SHIFT) / perceptual.SCALE, ((2, 2), (2, 2), (0, 0))) for x in (a, b)]
    distances = []
    for top in range(0, 44 - 10, 4):
        for left in range(0, 44 - 10, 4):
            y = [
                np.maximum(0, np.tensordot(x[top : top + 11, left : left + 11], arrays["kernel_0"], 3) + arrays["bias_0"])
                for x in padded
            ]
            y = [f / np.sqrt((f**2).sum()) for f in y]
            distances.append((arrays["lin_0"] * (y[0] - y[1]) ** 2).sum())
    assert perceptual.LPIPS(arrays)(a, b) == pytest.approx(np.mean(distances), rel=1e-4)


def test_lpips_of_equal_pictures_is_0_and_grows_with_the_damage():
    metric = perceptual.LPIPS(weights("vgg"))
    image = photo(64, 64)
    noise = np.random.default_rng(0).normal(size=image.shape)
    values = [metric(image, np.clip(image + sigma * noise, 0, 255).astype(np.uint8)) for sigma in (0, 10, 40)]
    assert values[0] == pytest.approx(0, abs=1e-9) and values[0] < values[1] < values[2]
    assert metric(image[:20], image[:20]) is None


def test_weights_of_pytorch_are_brought_into_order():
    arrays = weights("vgg")
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]  # of the convolutions in torchvision's vgg16.features
    slices = [1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]
    state = {}
    for i in reversed(range(13)):
        name = f"net.slice{slices[i]}.{numbers[i]}"
        state[f"{name}.weight"] = arrays[f"kernel_{i}"].transpose(3, 2, 0, 1)
        state[f"{name}.bias"] = arrays[f"bias_{i}"]
    for i in range(5):
        state[f"lin{i}.model.1.weight"] = state[f"lins.{i}.model.1.weight"] = arrays[f"lin_{i}"].reshape(1, -1, 1, 1)
    converted = perceptual.from_torch(state | {"scaling_layer.shift": np.zeros(3)}, "vgg")
    assert converted.keys() == arrays.keys()
    assert all(np.array_equal(converted[name], arrays[name]) for name in arrays)


def test_fid_is_that_of_the_gaussians():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(500, 3)), rng.normal(size=(400, 3)) @ np.diag([1, 2, 3]) + 1
    A, B = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values = np.linalg.eigvals(A @ B)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(A + B) - 2 * np.sqrt(values.real).sum()
    assert perceptual.fid(a, b) == pytest.approx(expected)
    assert perceptual.fid(a, a) == pytest.approx(0, abs=1e-9)
    assert perceptual.fid(a, a + np.array([3, 0, 4])) == pytest.approx(25)
    few = rng.normal(size=(5, 40))  # fewer than dimensions
    assert perceptual.fid(few, few + 1) == pytest.approx(40)


def test_kid_by_hand_and_of_equal_distributions():
    a, b = np.array([[1.0], [2.0]]), np.array([[0.0], [1.0]])
    # (xy + 1)^3: off the diagonals 27 and 1; across 1, 8, 1, 27, mean 37 / 4
    assert perceptual.kid(a, b) == pytest.approx(27 + 1 - 2 * 37 / 4)
    rng = np.random.default_rng(0)
    same = perceptual.kid(rng.normal(size=(800, 8)), rng.normal(size=(800, 8)))
    assert abs(same) < 0.05 < perceptual.kid(rng.normal(size=(800, 8)), 1 + rng.normal(size=(800, 8)))


def test_patches_lie_side_by_side_and_half_a_patch_off():
    image = np.arange(512 * 768).reshape(512, 768, 1)
    corners = [patch[0, 0, 0] for patch in perceptual.patches_of(image)]
    assert [divmod(int(c), 768) for c in corners] == [
        (0, 0), (0, 256), (0, 512), (256, 0), (256, 256), (256, 512), (128, 128), (128, 384),
    ]  # fmt: skip
    assert perceptual.patches_of(image[:255]) == []


def test_evaluate_measures_by_weights_and_says_how_to_get_missing_ones(checkpoint, tmp_path, monkeypatch, capfd):
    (tmp_path / "images").mkdir()
    Image.fromarray(photo(260, 530)).save(tmp_path / "images/0.png")
    np.savez(tmp_path / "alex.npz", **weights("alex"))
    arguments = ["-r", str(checkpoint), "-i", str(tmp_path / "images"), "-o", str(tmp_path / "r")]
    assert evaluate.main([*arguments, "--lpips", str(tmp_path / "none.npz"), "--fid", str(tmp_path / "none.h5")]) == 2
    error = capfd.readouterr().err
    assert "python3 perceptual.py vgg" in error and "inception_v3_weights" in error
    assert "psnr" in (tmp_path / "r/results.csv").read_text()  # the rest is computed
    inception = perceptual.Inception
    monkeypatch.setattr(evaluate, "Inception", lambda path: inception(None))
    assert evaluate.main([*arguments, "--lpips", str(tmp_path / "alex.npz"), "--fid"]) == 0
    result = json.loads((tmp_path / "r/results/tiny.json").read_text())
    assert result["mean"]["lpips"] == result["images"]["0"]["lpips"] > 0
    assert result["mean"]["patches"] == 2
    assert "LPIPS" in (tmp_path / "r/index.html").read_text()


def test_other_arrays_are_no_weights(tmp_path):
    np.savez(tmp_path / "w.npz", kernel_0=np.zeros(3))
    with pytest.raises(UserError, match=r"w\.npz"):
        perceptual.LPIPS.load(tmp_path / "w.npz")


@pytest.fixture(scope="module")
def vgg_weights(tmp_path_factory) -> str:
    """A file of random weights, of the shapes of the real ones."""
    import keras

    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg19.weights.h5"
    keras.applications.VGG19(include_top=False, weights=None).save_weights(path)
    return str(path)


def test_the_features_of_vgg19_are_of_images_as_its_weights_want_them(vgg_weights):
    vgg = perceptual.VGG19(vgg_weights)
    image = photo(32, 48)
    maps = vgg((image / 127.5 - 1)[None].astype("f"))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (32 // k, 48 // k, n) for k, n in [(1, 64), (2, 128), (4, 256), (8, 512), (16, 512)]
    ]
    kernel, bias = (var.numpy() for var in vgg.network.get_layer("block1_conv1").weights)
    patch = image[4:7, 6:9, ::-1] - np.array([103.939, 116.779, 123.68])  # around (5, 7)
    np.testing.assert_allclose(maps[0][0, 5, 7], np.maximum(0, np.tensordot(patch, kernel, 3) + bias), rtol=1e-3, atol=1e-3)
    assert not vgg.network.trainable_variables


def test_the_perceptual_loss_teaches_the_generator_and_is_not_saved(vgg_weights, tiny_config, tmp_path):
    import tensorflow as tf

    changes = {"use_vgg_loss": True, "vgg_weights": vgg_weights, "width": 16, "distortion_steps": 1, "lambda_X": 0}
    model = Model(tiny_config(**changes, lambda_range=0), training=True)
    x = tf.constant(photo(64, 64)[None] / 127.5 - 1, tf.float32)
    x_hat = model.generator(model.quantizer(model.encoder(x))[0])
    before = model.generator.trainable_variables[0].numpy()
    terms = model.train_step(x)
    assert terms["vgg"] == pytest.approx(float(losses.perceptual(model.vgg19(x), model.vgg19(x_hat))), rel=1e-3)
    assert np.abs(model.generator.trainable_variables[0].numpy() - before).max() > 0  # of this loss alone
    model.save(tmp_path / "ckpt-1")
    assert sum(file.stat().st_size for file in (tmp_path / "ckpt-1").iterdir()) < 5e6


def test_missing_weights_of_vgg19_stop_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train.main(["--steps", "1", *knobs(use_vgg_loss=True, vgg_weights="nowhere.h5")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "nowhere.h5" in error and "notop.h5" in error and not list(tmp_path.iterdir())
