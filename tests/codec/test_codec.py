"""An image becomes bytes and an image again; what the codec needs for it."""

import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import PROJECT, photo

from commands.loading import load_codec
from config import UserError, config_train
from gcodec import Codec, packets
from gcodec.budget import best_file
from gcodec.checkpoint import read_checkpoint, unsaved_checkpoint
from gcodec.codec import Contents
from gcodec.container import coded_size, pack, unpack
from gcodec.entropy import integer_frequencies
from gcodec.labels import LabelMap
from gcodec.pictures import padded_size
from gcodec.runtime import Runtime

IMPORTS = """
import sys
import gcodec, commands.options, commands.loading, compress, decompress
assert not {"tensorflow", "keras", "pandas", "scipy", "tqdm", "matplotlib", "h5py"} & set(sys.modules), sorted(sys.modules)
"""


def test_codec_and_its_commands_import_no_training_framework():
    subprocess.run([sys.executable, "-c", IMPORTS], cwd=PROJECT, check=True)


class Gray:
    """A runtime without networks: each symbol is the brightness of a block; the picture is w_hat, plus noise and side."""

    bytes_per_pixel, address_space_per_pixel = 100.0, 0.0

    def encode(self, x: np.ndarray) -> np.ndarray:
        blocks = x.reshape(1, x.shape[1] // 16, 16, x.shape[2] // 16, 16, 3).mean(axis=(2, 4, 5))
        return np.repeat(np.digitize(blocks, (-0.6, -0.2, 0.2, 0.6))[..., None], 2, axis=-1).astype(np.uint8)

    def encode_labels(self, s: np.ndarray) -> np.ndarray:
        return self.encode(s[..., :3])

    def generate(self, w_hat: np.ndarray, v: np.ndarray | None, side: np.ndarray | None) -> np.ndarray:
        self.seen = w_hat, v, side
        image = w_hat[..., :1] / 2 + (0 if v is None else 0.1 * v[..., :1])
        return np.clip(image.repeat(16, axis=1).repeat(16, axis=2).repeat(3, axis=3), -1, 1)


def gray_codec(options: dict[str, int] | None = None, **changes) -> tuple[Codec, Gray]:
    config = config_train(channel_bottleneck=2, **changes)
    weights = {"quantizer/Quantizer_0/centers": np.array(config.centers, np.float32)}
    runtime: Runtime = Gray()
    return Codec(unsaved_checkpoint(config, weights, integer_frequencies(np.ones((2, 5)))), runtime, **(options or {})), runtime


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (33, 2), (16, 16), (47, 65), (160, 161), (40, 300)])
def test_any_size_and_aspect_comes_back_in_its_own_size(size):
    codec, _ = gray_codec()
    assert codec.decode(codec.encode(photo(*size))).shape == (*size, 3)


def test_what_comes_back_is_what_the_networks_made_of_the_symbols():
    codec, runtime = gray_codec()
    image = np.full((40, 50, 3), 255, np.uint8)
    image[:16, :16] = 0
    back = codec.decode(codec.encode(image))
    assert (back[16:] == 255).all() and (back[:16, :16] == 0).all()
    w_hat, v, side = runtime.seen
    assert w_hat.shape == (1, 3, 4, 2) and w_hat.dtype == np.float32 and v is None and side is None
    np.testing.assert_array_equal(codec.reconstruct(image), back)


def test_the_noise_comes_from_the_files_checksum_and_the_knob():
    knobs = {"sample_noise": True, "noise_mode": "map"}
    codec, runtime = gray_codec(**knobs)
    data = codec.encode(photo(50, 60))
    first, again = codec.decode(data), codec.decode(data)
    np.testing.assert_array_equal(first, again)
    assert runtime.seen[1].shape == (1, 4, 4, 2)
    assert (gray_codec({"noise_seed": 1}, **knobs)[0].decode(data) != first).any()
    other = pack(*unpack(codec.encode(photo(50, 60, seed=1)))[:2])
    assert (codec.decode(other) != first).any()


def test_channels_that_were_not_sent_are_zeros_for_the_generator():
    codec, runtime = gray_codec({"channels": 1})
    data = codec.encode(photo(64, 48))
    assert unpack(data).header.channels == 1
    codec.decode(data)
    w_hat = runtime.seen[0]
    assert w_hat.shape[3] == 2 and (w_hat[..., 1] == 0).all() and (w_hat[..., 0] != 0).any()
    with pytest.raises(UserError, match="channels 3: the model has 2"):
        gray_codec({"channels": 3})


def test_where_nothing_is_preserved_the_encoder_sees_gray_and_the_generator_zeros():
    codec, runtime = gray_codec(use_conditional_GAN=True, n_classes=4, selective=True)
    preserved = np.zeros((40, 50), bool)
    preserved[:16, :16] = True
    labels = LabelMap(np.full((40, 50), 2, np.uint8), np.zeros((40, 50), bool), preserved=preserved)
    image = photo(40, 50)
    data = codec.encode(image, labels)
    assert list(codec.sections(data)) == ["code", "mask", "symbols"]
    changed = image.copy()
    changed[20:] = 255 - changed[20:]
    assert codec.encode(changed, labels) == data
    codec.decode(data)
    w_hat, _, side = runtime.seen
    assert (w_hat[0, 1:] == 0).all() and side.shape == (1, 3, 4, codec.config.code_channels + 1)
    assert side[0, :, :, -1].sum() == 1 and (side[0, :, :, 2] == 1).all()  # the heat map, and class 2 in each first block
    with pytest.raises(UserError, match="label map"):
        codec.encode(image)


def said(file, **changes):
    """Return an unpacked file whose header says something else."""
    return file._replace(header=file.header._replace(**changes))


@pytest.mark.parametrize("scale", [1, 8, 20, 63])
def test_an_image_that_is_coded_smaller_comes_back_at_its_size(scale):
    codec, runtime = gray_codec()
    image = photo(150, 200)
    data = codec.encode(image, scale=scale)
    assert unpack(data).header.coded_size == coded_size(150, 200, scale)
    assert codec.decode(data).shape == image.shape
    assert runtime.seen[0].shape[1:3] == tuple(side // 16 for side in padded_size(*coded_size(150, 200, scale)))
    assert len(data) < len(codec.encode(image))


def test_a_label_map_does_not_go_with_a_scale():
    codec, _ = gray_codec(use_conditional_GAN=True, n_classes=4)
    with pytest.raises(UserError, match="its own size only"):
        codec.encode(photo(40, 50), LabelMap(np.zeros((40, 50), np.uint8), np.zeros((40, 50), bool)), scale=1)


@pytest.mark.parametrize(
    ("forge", "named"),
    [
        (lambda file: said(file, fingerprint=b"else"), "another checkpoint"),
        (lambda file: said(file, channels=3), "damaged"),
        (lambda file: said(file, channels=2), "damaged"),  # all of them, which the header of a whole file does not say
        (lambda file: said(file, width=65535, height=65535), "max_pixels"),
        (lambda file: file._replace(payload=file.payload + bytes(9)), "damaged"),
        (lambda file: said(file, width=file.header.width + 400), "damaged"),
        (lambda file: said(file, scale=9), "damaged"),
    ],
)
def test_a_forged_file_is_a_clear_error(forge, named):
    codec, _ = gray_codec()
    data = codec.encode(photo(60, 70))
    with pytest.raises(UserError, match=named):
        codec.decode(pack(*forge(unpack(data))[:2]))


@pytest.mark.parametrize(("image", "kind", "named"), [
    (np.zeros((40, 50, 3)), TypeError, "uint8 in 0..255, not of float64"),
    (np.zeros((40, 50, 3), bool), TypeError, "not of bool"),
    (np.zeros((40, 50, 3), np.uint16), TypeError, "not of uint16"),
    ([[1, 2, 3]], TypeError, "not list"),
    (np.zeros((40, 50, 4), np.uint8), ValueError, r"shape \(H, W, 3\).*, not \(40, 50, 4\)"),
    (np.zeros((40, 50), np.uint8), ValueError, r"not \(40, 50\)"),
    (np.zeros((0, 50, 3), np.uint8), ValueError, r"not \(0, 50, 3\)"),
])  # fmt: skip
def test_what_is_no_image_is_an_error_that_says_what_one_is(image, kind, named):
    codec, _ = gray_codec()
    fitted, sent = (lambda x: best_file(x, [codec], 99)), (lambda x: packets.encode(codec, x, 99))
    for take in (codec.encode, codec.contents, codec.reconstruct, fitted, sent):
        with pytest.raises(kind, match=named) as error:
            take(image)
        assert isinstance(error.value, UserError)


@pytest.mark.parametrize("scale", [-1, 64, 1.0, "1", None])
def test_a_scale_is_a_whole_number_from_0_to_63(scale):
    with pytest.raises(ValueError, match="a whole number from 0 to 63"):
        gray_codec()[0].encode(photo(20, 30), scale=scale)


@pytest.mark.parametrize(("labels", "named"), [
    (LabelMap(np.zeros((40, 50), np.uint8)), r"\(20, 30\), not \(40, 50\)"),
    (LabelMap(np.full((20, 30), 4, np.uint8)), r"whole numbers in 0..3"),
    (LabelMap(np.zeros((20, 30))), r"whole numbers in 0..3"),
    (LabelMap(np.zeros((20, 30), np.uint8), preserved=np.zeros((30, 20), bool)), r"not \(30, 20\)"),
])  # fmt: skip
def test_a_label_map_is_of_the_images_size_and_the_models_classes(labels, named):
    codec, _ = gray_codec(use_conditional_GAN=True, n_classes=4)
    with pytest.raises(ValueError, match=named):
        codec.encode(photo(20, 30), labels)
    with pytest.raises(TypeError, match="not ndarray"):
        codec.encode(photo(20, 30), labels.classes)


def test_a_picture_that_is_not_finite_is_an_error():
    codec, runtime = gray_codec()
    data = codec.encode(photo(40, 50))
    runtime.generate = lambda w_hat, v, side: np.full((1, 48, 64, 3), np.nan, np.float32)
    with pytest.raises(UserError, match="not finite"):
        codec.decode(data)


def test_a_codec_is_pickled_as_its_folder_and_loaded_again(tmp_path, monkeypatch):
    folder = shutil.copytree(PROJECT / "checkpoints/photo_c4", tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    codec = Codec.load("m", channels=3, max_pixels=10_000, noise_seed=5)
    data = codec.encode(photo(40, 50))
    pickled = pickle.dumps(codec)
    monkeypatch.chdir(PROJECT)
    again = pickle.loads(pickled)
    assert len(pickled) < 1000 and (again.channels, again.max_pixels, again.noise_seed) == (3, 10_000, 5)
    assert again.encode(photo(40, 50)) == data
    np.testing.assert_array_equal(again.decode(data), codec.decode(data))
    for name in ("config.json", "model.npz", "context.npz", "graphs.json", "encoder.onnx", "generator.onnx", "fingerprint.txt"):
        shutil.copy(PROJECT / "checkpoints/photo_c8" / name, folder)
    with pytest.raises(UserError, match="has changed since it was pickled"):
        pickle.loads(pickled)


def test_contents_and_a_checkpoint_on_disk_code_alike(checkpoint):
    codec = load_codec(checkpoint)
    contents = codec.contents(photo(50, 60))
    assert isinstance(contents, Contents) and contents.symbols.shape == (4, 4, 8)
    assert unpack(codec.encode(photo(50, 60))).header.fingerprint == read_checkpoint(checkpoint).fingerprint
