"""LPIPS, DISTS and the distances of sets, by random weights of the shapes of the real ones."""

import json

import keras
import numpy as np
import pytest
from conftest import photo, random_arrays, to_x
from PIL import Image

import evaluate
import pretrained.weights
from config import UserError
from evaluation import perceptual
from pretrained import networks


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=image.shape)
    return np.clip(image + sigma * noise, 0, 255).astype(np.uint8)


# ----------------------------------------------------------------------------------------------------------------------
# Pairs
# ----------------------------------------------------------------------------------------------------------------------


def distance(measure: perceptual.PairMeasure, original: np.ndarray, picture: np.ndarray) -> float | None:
    records: dict = {"codec": {}}
    measure.add(original, {"codec": picture}, records)
    return records["codec"][measure.name]


def test_lpips_of_pictures_is_the_formula_of_the_networks_maps():
    network = networks.AlexNet(random_arrays(networks.AlexNet))
    measure = perceptual.lpips(network, "lpips_alex")
    image = photo(64, 80)
    values = [distance(measure, image, noisy(image, sigma)) for sigma in (0, 10, 40)]
    assert values[0] == pytest.approx(0, abs=1e-6) and values[0] < values[1] < values[2]
    expected = networks.lpips(network(to_x(image)), network(to_x(noisy(image, 40))), network.lin)
    assert values[2] == pytest.approx(float(expected[0]), rel=1e-4)
    assert distance(measure, image[:30], image[:30]) is None  # AlexNet needs 31 px


def test_dists_of_pictures_and_images_that_are_too_large(monkeypatch):
    weights = {name: np.full(1475, 0.5, np.float32) for name in ("alpha", "beta")}
    network = networks.DISTSNetwork(random_arrays(networks.DISTSNetwork))
    measure = perceptual.dists(network, weights)
    image = photo(32, 48)
    values = [distance(measure, image, noisy(image, sigma)) for sigma in (0, 10, 40)]
    assert values[0] == pytest.approx(0, abs=1e-5) and values[0] < values[1] < values[2] < 1
    with pytest.raises(UserError, match="not the weights of DISTS"):
        perceptual.dists(network, weights | {"alpha": np.ones(3)})
    monkeypatch.setattr(perceptual, "MAX_PIXELS", 1000)
    assert distance(measure, image, image) is None


class Brightness(networks.FrozenNetwork):
    """A network without weights, whose maps are the image and its double."""

    min_side = 2

    def _build(self, x):
        return [x + 0.0, 2 * x]


def test_the_features_of_an_original_serve_for_all_codecs_and_known_values_stay():
    measure = perceptual.PairMeasure(
        "distance", Brightness({}), lambda real, fake: keras.ops.mean((real[0] - fake[0]) ** 2, (1, 2, 3))
    )
    asked = []
    of_original = measure.features
    measure.features = lambda image: asked.append(image) or of_original(image)
    original, pictures = (
        np.zeros((4, 4, 3), np.uint8),
        {"a": np.full((4, 4, 3), 255, np.uint8), "b": np.zeros((4, 4, 3), np.uint8)},
    )
    records = {"a": {}, "b": {}}
    measure.add(original, pictures, records)
    assert records == {"a": {"distance": pytest.approx(4)}, "b": {"distance": 0}} and len(asked) == 1
    records = {"a": {"distance": 7}, "b": {"distance": 8}}
    measure.add(original, pictures, records)
    assert records == {"a": {"distance": 7}, "b": {"distance": 8}} and len(asked) == 1
    records = {"a": {}, "b": {}}
    tiny = {codec: picture[:1] for codec, picture in pictures.items()}
    measure.add(original[:1], tiny, records)
    assert records == {"a": {"distance": None}, "b": {"distance": None}}


# ----------------------------------------------------------------------------------------------------------------------
# Sets
# ----------------------------------------------------------------------------------------------------------------------


def test_the_frechet_distance_is_that_of_the_gaussians():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(500, 3)), rng.normal(size=(400, 3)) @ np.diag([1, 2, 3]) + 1
    A, B = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values = np.linalg.eigvals(A @ B)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(A + B) - 2 * np.sqrt(values.real).sum()
    assert perceptual.frechet(a, b) == pytest.approx(expected)
    assert perceptual.frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert perceptual.frechet(a, a + np.array([3, 0, 4])) == pytest.approx(25)
    few = rng.normal(size=(5, 40))  # fewer than dimensions
    assert perceptual.frechet(few, few + 1) == pytest.approx(40)


def test_the_kernel_distance_by_hand_and_of_equal_distributions():
    a, b = np.array([[1.0], [2.0]]), np.array([[0.0], [1.0]])
    # (xy + 1)^3: off the diagonals 27 and 1; across 1, 8, 1, 27, mean 37 / 4
    assert perceptual.kernel(a, b) == pytest.approx(27 + 1 - 2 * 37 / 4)
    rng = np.random.default_rng(0)
    same = perceptual.kernel(rng.normal(size=(800, 8)), rng.normal(size=(800, 8)))
    assert abs(same) < 0.05 < perceptual.kernel(rng.normal(size=(800, 8)), 1 + rng.normal(size=(800, 8)))


def test_patches_lie_side_by_side_and_half_a_patch_off():
    image = np.arange(512 * 768).reshape(512, 768, 1)
    corners = [patch[0, 0, 0] for patch in perceptual.patches_of(image)]
    assert [divmod(int(c), 768) for c in corners] == [
        (0, 0), (0, 256), (0, 512), (256, 0), (256, 256), (256, 512), (128, 128), (128, 384),
    ]  # fmt: skip
    assert perceptual.patches_of(image[:255]) == []


def test_a_set_is_compared_over_all_its_patches():
    shapes = []

    def mean_colour(batch):
        shapes.append(batch.shape)
        return batch.mean(axis=(1, 2))

    measure = perceptual.SetMeasure("frechet", "kernel", mean_colour)
    rng = np.random.default_rng(0)
    originals = [rng.integers(0, 100, (512, 2400, 3), dtype=np.uint8), np.zeros((255, 300, 3), np.uint8)]
    for image in originals:
        measure.add(image, {"same": image, "brighter": image + 51})
    assert measure.distances("same") == {
        "frechet": pytest.approx(0, abs=1e-6),
        "kernel": pytest.approx(0, abs=0.1),
        "patches": 26,
    }
    assert measure.distances("brighter")["frechet"] == pytest.approx(3 * 0.4**2, rel=1e-3)
    assert shapes[0] == (16, 256, 256, 3) and shapes[1] == (10, 256, 256, 3)
    assert measure.distances("another") == {}


# ----------------------------------------------------------------------------------------------------------------------
# evaluate.py
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def arguments(checkpoint, tmp_path) -> list[str]:
    (tmp_path / "images").mkdir()
    Image.fromarray(photo(260, 530)).save(tmp_path / "images/0.png")
    return ["-r", str(checkpoint), "-i", str(tmp_path / "images"), "-o", str(tmp_path / "r")]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with random weights of AlexNet and EfficientNet-Lite0, and damaged ones of VGG16."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for network in (networks.AlexNet, networks.EfficientNetLite0):
        np.savez(folder / f"{network.weights}.npz", **random_arrays(network))
    (folder / "vgg16.npz").write_bytes(b"PK")
    monkeypatch.setenv(pretrained.weights.CACHE_VARIABLE, str(folder))
    return folder


def test_evaluate_measures_by_the_weights_in_the_cache(arguments, cache, tmp_path, capfd):
    assert evaluate.main(arguments) == 0
    error = capfd.readouterr().err
    assert "not measured: DISTS; their weights come with python3 tools/get_weights.py" in error
    assert f"not measured: LPIPS by VGG16: {cache / 'vgg16.npz'}: cannot be read" in error
    result = json.loads((tmp_path / "r/results/tiny.json").read_text())
    assert result["mean"]["lpips_alex"] == result["images"]["0"]["lpips_alex"] > 0
    assert result["mean"]["patches"] == 2 and result["mean"]["frechet_lite0"] > 0 and "kernel_lite0" in result["mean"]
    assert "lpips_vgg" not in result["mean"] and "fid" not in result["mean"]
    page = (tmp_path / "r/index.html").read_text()
    assert "LPIPS (AlexNet)" in page and "Fréchet (EfficientNet-Lite0)" in page


def test_evaluate_without_weights_says_how_to_get_them_and_measures_the_rest(arguments, tmp_path, capfd):
    assert evaluate.main([*arguments, "--fid", str(tmp_path / "none.h5")]) == 2
    error = capfd.readouterr().err
    assert "come with python3 tools/get_weights.py" in error
    assert "inception_v3_weights" in error
    assert "psnr" in (tmp_path / "r/results.csv").read_text()


def test_evaluate_measures_fid_by_inception(arguments, tmp_path, monkeypatch):
    inception = perceptual.inception
    monkeypatch.setattr(perceptual, "inception", lambda path: inception(None))  # random weights
    assert evaluate.main([*arguments, "--fid"]) == 0
    mean = json.loads((tmp_path / "r/results/tiny.json").read_text())["mean"]
    assert mean["patches"] == 2 and {"fid", "kid"} < set(mean)
