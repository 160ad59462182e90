"""Fixtures: a tiny system that trains, resumes, compresses and decompresses in seconds on a CPU."""

import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))
for signum in (
    signal.SIGINT,
    signal.SIGHUP,
):  # a shell that runs the tests in the background ignores them, and so would commands
    if signal.getsignal(signum) is signal.SIG_IGN:
        signal.signal(signum, signal.SIG_DFL)

import hypothesis
import numpy as np
import pytest
from PIL import Image

# How long an example takes says more about the machine and its load than about the code.
hypothesis.settings.register_profile("project", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("project")

TINY = {
    "width": 32,
    "n_residual_blocks": 1,
    "discriminator_width": 8,
    "n_scales": 1,
    "crop_size": 64,
    "batch_size": 2,
    "diagnostic_steps": 4,
    "n_sample_images": 1,
    "recompute": False,
    "entropy_steps": 0,
    "num_epochs": 2,
}


def knobs(**changes) -> list[str]:
    """Command-line arguments that make a training run tiny."""
    return [part for name, value in (TINY | changes).items() for part in ("-k", f"{name}={value}")]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture with edges, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    picture = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    picture[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
    return picture


def label_map(height: int, width: int) -> np.ndarray:
    """Three classes: 0 above, 1 below, and a rectangle of 2 in it; (height, width) uint8."""
    s = np.zeros((height, width), np.uint8)
    s[height // 2 :] = 1
    s[height // 2 : 3 * height // 4, width // 4 : width // 2] = 2
    return s


def model_arrays(
    channels: int, levels: int, hidden: int = 7, spread: int = 300, seed: int = 0, one_hot: bool = False
) -> dict[str, np.ndarray]:
    """A context model with arbitrary weights; a large `spread` makes it very sure of itself. one_hot: as those of classes."""
    from gcodec.context_model import NEIGHBOURS, SHAPES

    rng = np.random.default_rng(seed)
    sizes = {"N": len(NEIGHBOURS) * ((levels if one_hot else channels) + 1), "C": channels, "H": hidden, "L": levels}
    return {
        name: rng.integers(-spread, spread + 1, [sizes[i] for i in letters]).astype("i4" if "bias" in name else "i2")
        for name, letters in SHAPES.items()
    }


def to_x(image: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 as networks see it: (1, H, W, 3) in [-1, 1]."""
    return image[None].astype(np.float32) / 127.5 - 1


def random_arrays(network: type, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of the shapes of a frozen network's; activations stay of about the same size from layer to layer."""
    import keras

    blank = network.__new__(network)
    blank.dtype, blank._layers = "float32", []
    blank._build(keras.Input((None, None, 3)))
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in blank._shapes().items():
        fan = np.prod(shape[:2]) if shape[-1] == 1 else np.prod(shape[:-1])  # depthwise kernels end in 1
        scale = np.sqrt(2 / fan) if "kernel" in name else 0.1
        arrays[name] = (scale * rng.standard_normal(shape)).astype(np.float32)
    return arrays | {name: np.abs(array) for name, array in arrays.items() if name.startswith("lin_")}


@pytest.fixture(scope="session", autouse=True)
def quick_graphs():
    """Without TensorFlow's graph optimizer, which takes longer than the few tiny steps that it would speed up."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(scope="session", autouse=True)
def no_pretrained_weights(tmp_path_factory):
    """Hide the cache of pretrained weights: tests give the same result with and without them, and stay quick."""
    os.environ["GENERATIVE_COMPRESSION_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def make_steps_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make training steps without a graph, whose tracing takes longer than a few steps. test_resuming.py trains with graphs."""
    from training.trainer import Trainer

    build = Trainer.__init__

    def build_eager(trainer: Trainer, config) -> None:
        build(trainer, config)
        trainer._compiled_step = trainer._step_of_all

    monkeypatch.setattr(Trainer, "__init__", build_eager)


@pytest.fixture
def eager_steps(monkeypatch):
    make_steps_eager(monkeypatch)


@pytest.fixture
def tiny_config():
    from config import config_train

    return lambda **changes: config_train(**(TINY | changes))


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder of five photos."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(5):
        Image.fromarray(photo(80, 96, seed=i)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def checkpoint(photos, tmp_path_factory) -> Path:
    """A run's folder that train.py wrote, with noise and both kinds of stages."""
    import train

    folder = tmp_path_factory.mktemp("checkpoint")
    where = [f"{name}={folder / name}" for name in ("checkpoints", "samples", "tensorboard")]
    arguments = [part for assignment in where for part in ("-k", assignment)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_steps_eager(monkeypatch)
        stages = knobs(sample_noise=True, distortion_steps=2, discriminator_warmup_steps=1)
        assert train.main(["-ds", str(photos), "-name", "tiny", "--steps", "5", *stages, *arguments]) == 0
    return folder / "checkpoints" / "tiny"
