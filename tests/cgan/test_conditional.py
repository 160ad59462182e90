"""The conditional GAN and selective compression, from what the networks see to the commands."""

import dataclasses
import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import PROJECT, knobs, label_map, photo
from keras import ops
from PIL import Image

import compress
import decompress
import losses
import train
from cGAN import train as cgan_command
from commands.loading import load_codec
from config import config_train, directories
from data import Data, Dataset
from gcodec.checkpoint import read_knobs, resolve_checkpoint
from gcodec.container import join, unpack
from gcodec.label_code import code_input, label_input, map_symbols
from gcodec.labels import LabelBatch, LabelMap, boundaries
from gcodec.pictures import read_image
from training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("eager_steps")

CLASSES = "Sky 0 0 255, Road 128 64 128, Car 255 0 0, Void 0 0 0"
CLASSES_FILE = "index,name,R,G,B\n0,Sky,0,0,255\n1,Road,128,64,128\n2,Car,255,0,0\n"


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_the_generator_sees_the_classes_that_the_file_has(scale):
    config = config_train(use_conditional_GAN=True, n_classes=4, use_instances=True, semantic_scale=scale)
    rng = np.random.default_rng(0)
    classes, edges = (rng.integers(0, n, (1, 32, 48), np.uint8) for n in (4, 2))
    symbols = map_symbols(classes, edges, config)
    assert symbols.shape == (1, 32 // scale, 48 // scale, 1)
    assert symbols[0, 1, 2, 0] % 4 == classes[0, scale + scale // 2, 2 * scale + scale // 2]
    assert symbols[0, 1, 2, 0] // 4 == edges[0, scale : 2 * scale, 2 * scale : 3 * scale].max()
    channels = code_input(symbols, config)
    assert channels.shape == (1, 2, 3, config.code_channels)
    k = 16 // scale
    block = channels[0, 1, 2].reshape(k, k, 5)
    for y in range(k):
        for x in range(k):
            symbol = symbols[0, k + y, 2 * k + x, 0]
            np.testing.assert_array_equal(block[y, x], [*np.eye(4)[symbol % 4], symbol // 4])
    full = label_input(classes, edges, config)
    planes = tf.constant(classes, tf.int32), tf.constant(edges)  # training has the same as tensors
    np.testing.assert_array_equal(map_symbols(*planes, config, ops), symbols)
    np.testing.assert_array_equal(code_input(map_symbols(*planes, config, ops), config, ops), channels)
    np.testing.assert_array_equal(label_input(*planes, config, ops), full)
    np.testing.assert_array_equal(full[..., :4].argmax(-1), classes)
    np.testing.assert_array_equal(full[..., 4], edges)


def test_distortion_is_of_what_is_preserved():
    x, x_hat = np.zeros((1, 2, 2, 3), np.float32), np.zeros((1, 2, 2, 3), np.float32)
    x_hat[0, 0, 0], x_hat[0, 1, 1] = 1, 0.5
    m = np.array([[1, 1], [0, 0]], np.float32)[None, ..., None]
    assert float(losses.distortion(x, x_hat, m)) == pytest.approx(0.5)
    assert float(losses.distortion(x, x_hat)) == pytest.approx(1.25 / 4)
    assert float(losses.distortion(x, x_hat, 0 * m)) == 0


def test_boundaries_are_of_the_instances_as_they_are_trained_on(street):
    """They are computed after resizing: a boundary that is resized itself is torn."""
    config = config_train().override(knobs(use_conditional_GAN=True, use_instances=True, n_classes=4, crop_size=0)[1::2])
    dataset = Data.dataset(str(street / "street.csv"), directories())
    data = Data(dataclasses.replace(dataset, sizing="512x1024"), config)
    image, labels = data.held_out(dataset.train[0])
    assert image.shape == (512, 1024, 3)
    np.testing.assert_array_equal(labels.boundaries, boundaries(labels.instances))


# ----------------------------------------------------------------------------------------------------------------------
# End to end
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """A folder with a path table of images and label maps."""
    import pandas as pd

    folder = tmp_path_factory.mktemp("street")
    for i in range(4):
        Image.fromarray(photo(80, 96, seed=i)).save(folder / f"{i}.png")
        Image.fromarray(np.roll(label_map(80, 96), 7 * i, axis=1)).save(folder / f"{i}_s.png")
        Image.fromarray(label_map(80, 96).astype(np.uint16) * 1000).save(folder / f"{i}_i.png")
    columns = {"path": "", "semantic_map_paths": "_s", "instance_map_paths": "_i"}
    frame = pd.DataFrame({name: [f"{i}{end}.png" for i in range(4)] for name, end in columns.items()})
    frame.to_csv(folder / "street.csv", index=False)
    (folder / "classes.csv").write_text(CLASSES_FILE)
    return folder


def test_half_of_the_classes_are_synthesized_whole(street):
    changes = {"use_conditional_GAN": True, "n_classes": 4, "selective": True, "selective_regions": "classes"}
    config = config_train().override(knobs(**changes, crop_size=0, batch_size=1)[1::2])
    pairs = {str(street / f"{i}.png"): str(street / f"{i}_s.png") for i in range(4)}
    data = Data(Dataset(list(pairs), maps=pairs), config)
    for index in range(4):
        _, labels = data.sample(index)
        kept = {c: labels.preserved[labels.classes == c] for c in np.unique(labels.classes)}
        assert all(len(np.unique(m)) == 1 for m in kept.values())
        assert sum(m[0] == 0 for m in kept.values()) == max(1, round(len(kept) / 2))


def run_training(street, tmp_path, *arguments, **changes) -> int:
    where = [part for name in ("checkpoints", "samples", "tensorboard") for part in ("-k", f"{name}={tmp_path / name}")]
    own = {"-ds": street / "street.csv", "--classes": street / "classes.csv"}
    tables = [part for option, file in own.items() if option not in arguments for part in (option, str(file))]
    return train.main([*tables, "-name", "a", *where, *knobs(use_conditional_GAN=True, **changes), *arguments])


@pytest.mark.parametrize("changes", [
    {"semantic_code": "lossless", "selective": True, "entropy_steps": 3, "distortion_steps": 9},
    pytest.param(
        {"semantic_code": "lossless", "use_instances": True, "semantic_scale": 16, "entropy_steps": 3, "sample_noise": True},
        marks=pytest.mark.slow,
    ),
    pytest.param(
        {"semantic_code": "learned", "selective": True, "selective_regions": "boxes", "entropy_steps": 3},
        marks=pytest.mark.slow,
    ),
    {"semantic_code": "none"},
], ids=lambda changes: "-".join(map(str, changes.values())))  # fmt: skip
def test_train_resume_compress_decompress(changes, street, tmp_path, capsys):
    assert run_training(street, tmp_path, "--steps", "1", **changes) == 0
    if changes.get("selective"):
        assert run_training(street, tmp_path, "--steps", "2", "-rl", **changes) == 0
        assert run_training(street, tmp_path / "whole", "--steps", "2", **changes) == 0
        with (
            np.load(tmp_path / "checkpoints/a/ckpt-00000002/training.npz") as parts,
            np.load(tmp_path / "whole/checkpoints/a/ckpt-00000002/training.npz") as whole,
        ):
            assert [name for name in whole if not np.array_equal(whole[name], parts[name])] == []
    capsys.readouterr()
    ckpt = str(tmp_path / "checkpoints/a")
    maps = [] if changes["semantic_code"] == "none" else ["-sm", str(street / "0_s.png")]
    maps += ["--instances", str(street / "0_i.png")] if changes.get("use_instances") else []
    maps += ["--preserve", "Car"] if changes.get("selective") else []
    out = tmp_path / "out.png"
    assert compress.main(["-r", ckpt, "-i", str(street / "0.png"), "-o", str(out), *maps]) == 0
    report = capsys.readouterr().out
    assert ("label map:" in report) == (changes["semantic_code"] != "none")
    assert ("preserved:" in report) == bool(changes.get("selective"))
    data = out.with_suffix(".gc").read_bytes()
    parts = load_codec(ckpt).sections(data)
    assert list(parts) == [
        name for name in ("code", "mask", "symbols") if name in read_knobs(resolve_checkpoint(ckpt)).sections
    ]
    assert join(list(parts.values())) == unpack(data).payload
    assert decompress.main(["-r", ckpt, "-i", str(out.with_suffix(".gc")), "-o", str(tmp_path / "back.png")]) == 0
    back = read_image(tmp_path / "back.png", 10**6)
    panels = 2 + bool(maps) + bool(changes.get("selective"))
    shown = read_image(out, 10**7)
    assert shown.shape[1] == panels * 248 - 8
    left = (panels - 1) * 248 + (240 - 96) // 2
    np.testing.assert_array_equal(shown[:80, left : left + 96], back)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return the folder of an untrained model with these knobs, which is built once. Tests only read it."""

    @functools.cache
    def build(**changes) -> Path:
        folder = tmp_path_factory.mktemp("tiny")
        given = knobs(use_conditional_GAN=True, n_classes=4, classes=CLASSES, **changes)
        Trainer(config_train().override(given[1::2])).save(folder / "ckpt-0")
        return folder

    return build


def batch(preserved=None) -> tuple:
    """Return an image as a batch, and its label map."""
    x = tf.constant(photo(64, 64)[None] / 127.5 - 1, tf.float32)
    planes = [label_map(64, 64), np.zeros((64, 64)), np.ones((64, 64)) if preserved is None else preserved]
    return x, LabelBatch(*(tf.constant(plane[None].astype(np.uint8)) for plane in planes))


def test_what_is_not_preserved_does_not_change_the_file(tiny):
    codec = load_codec(tiny(selective=True))
    preserved = np.zeros((80, 96), bool)
    preserved[16:48, 16:64] = True
    labels = LabelMap(label_map(80, 96), np.zeros((80, 96), bool), preserved=preserved)
    image = photo(80, 96)
    changed = np.where(preserved[..., None], image, 255 - image)
    data = codec.encode(image, labels)
    assert data == codec.encode(changed, labels)
    assert data != codec.encode(255 - image, labels)
    assert len(data) < 0.6 * len(codec.encode(image, dataclasses.replace(labels, preserved=None)))
    assert codec.decode(data).shape == image.shape


def test_every_trainable_gets_a_gradient_in_a_conditional_step(tmp_path):
    changes = {"semantic_code": "learned", "selective": True, "sample_noise": True, "optimizer": "sgd"}
    rates = {"G_learning_rate": 1, "D_learning_rate": 1}
    config = config_train().override(knobs(use_conditional_GAN=True, n_classes=4, **changes, **rates)[1::2])
    trainer = Trainer(config)
    variables = [*trainer.G_variables, *trainer.D_variables]
    before = [v.numpy() for v in variables]
    trainer.train_step(*batch(preserved=np.arange(64)[:, None] * np.ones(64) >= 32))
    for var, old in zip(variables, before, strict=True):
        assert np.abs(var.numpy() - old).max() > 1e-8, f"{var.path} has no gradient"


@pytest.mark.parametrize(("changes", "arguments", "named"), [
    ({}, [], "-sm"),
    ({}, ["-sm", "0_s.png", "--preserve", "Car"], "selective"),
    ({"selective": True}, ["-sm", "0_s.png", "--preserve", "Tree"], "Tree"),
    ({"selective": True}, ["-sm", "0.png"], "0.png"),
    ({"selective": True}, ["-sm", "small.png"], "small.png"),
    ({"selective": True}, ["-sm", "0_s.png", "--box", "90,0,20,20"], "--box"),
    ({"use_instances": True}, ["-sm", "0_s.png"], "--instances"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_status_2(changes, arguments, named, tiny, street, tmp_path, monkeypatch, capfd):
    ckpt = str(tiny(**changes))
    monkeypatch.chdir(street)
    Image.fromarray(label_map(40, 40)).save("small.png")
    assert compress.main(["-r", ckpt, "-i", "0.png", "-o", str(tmp_path / "o.png"), *arguments]) == 2
    error = capfd.readouterr().err
    assert named in error and error.count("\n") == 1 and not (tmp_path / "o.gc").exists()


def test_maps_for_a_model_that_needs_none_are_a_warning(tiny, street, tmp_path, capfd):
    ckpt = str(tiny(semantic_code="none"))
    maps = ["-sm", str(street / "0_s.png"), "--instances", str(street / "0_i.png")]
    assert compress.main(["-r", ckpt, "-i", str(street / "0.png"), "-o", str(tmp_path / "o.png"), *maps]) == 0
    error = capfd.readouterr().err
    assert "warning: -sm is ignored" in error and "warning: --instances is ignored" in error
    assert error.count("warning:") == 3 and "no context model" in error  # the third is about the tiny model


@pytest.mark.parametrize(("light", "told"), [(0, "nothing is preserved"), (255, "all of it is preserved")])
def test_a_mask_of_nothing_or_all_is_a_warning_and_the_right_result(light, told, tiny, street, tmp_path, capfd):
    ckpt = str(tiny(selective=True))
    Image.fromarray(np.full((80, 96), light, np.uint8)).save(tmp_path / "m.png")
    arguments = ["-r", ckpt, "-i", str(street / "0.png"), "-sm", str(street / "0_s.png"), "-o", str(tmp_path / "o.gc")]
    assert compress.main([*arguments, "--mask", str(tmp_path / "m.png")]) == 0
    captured = capfd.readouterr()
    assert f"warning: 0.png: {told}" in captured.err and f"preserved:       {light / 255:.1%}" in captured.out
    parts = load_codec(ckpt).sections((tmp_path / "o.gc").read_bytes())
    assert bool(parts["symbols"]) == bool(light)


def test_a_mask_that_has_changed_is_another_run(tiny, street, tmp_path, capsys):
    mask, out = tmp_path / "m.png", tmp_path / "out"
    (tmp_path / "maps").mkdir()
    shutil.copy(street / "0_s.png", tmp_path / "maps/0.png")
    images = ["-i", str(street / "0.png"), "-sm", str(tmp_path / "maps")]
    arguments = ["-r", str(tiny(selective=True)), *images, "-o", f"{out}/", "--files-only"]
    Image.fromarray(np.full((80, 96), 255, np.uint8)).save(mask)
    assert [compress.main([*arguments, "--mask", str(mask)]) for _ in range(2)] == [0, 0]
    assert "kept: 1 images" in capsys.readouterr().out
    Image.fromarray(np.zeros((80, 96), np.uint8)).save(mask)
    assert compress.main([*arguments, "--mask", str(mask)]) == 2
    assert "made from another file or with other settings" in capsys.readouterr().err


def test_a_folder_of_images_has_a_folder_of_maps_with_the_same_names(tiny, tmp_path, capfd):
    for folder in ("a", "b"):
        for below, picture in [("photos", photo(48, 48)), ("maps", label_map(48, 48))]:
            (tmp_path / below / folder).mkdir(parents=True)
            Image.fromarray(picture).save(tmp_path / below / folder / "0.png")
    arguments = ["-r", str(tiny(selective=True)), "-i", str(tmp_path / "photos"), "-o", str(tmp_path / "out")]
    assert compress.main([*arguments, "-sm", str(tmp_path / "maps"), "--preserve", "Road"]) == 0
    rows = (tmp_path / "out/results.csv").read_text().splitlines()
    assert rows[1].startswith("a/0.png") and rows[2].startswith("b/0.png") and "preserved_psnr" in rows[0]
    for mistake in (["--preserve", "7"], ["--box", "1"]):  # said once, not for each image
        capfd.readouterr()
        assert compress.main([*arguments, "-sm", str(tmp_path / "maps"), *mistake]) == 2
        error = capfd.readouterr().err
        assert mistake[1] in error and error.count("\n") == 1
    assert compress.main([*arguments, "-sm", str(tmp_path / "maps/a/0.png")]) == 2
    assert "must be in a folder" in capfd.readouterr().err


def test_images_that_preserve_nothing_do_not_disturb_the_fit(tmp_path, street):
    for i in range(4):  # one region each: it is the one that is synthesized
        Image.fromarray(np.zeros((80, 96), np.uint8)).save(street / f"{i}_one.png")
    table = (street / "street.csv").read_text().replace("_s.png", "_one.png")
    (street / "one.csv").write_text(table)
    arguments = ["-ds", str(street / "one.csv"), "-k", "n_classes=4", "--steps", "1", "-name", "a"]
    where = [part for name in ("checkpoints", "samples", "tensorboard") for part in ("-k", f"{name}={tmp_path / name}")]
    own = knobs(use_conditional_GAN=True, selective=True, entropy_steps=2, crop_size=0, batch_size=1)
    assert train.main([*arguments, *where, *own]) == 0
    written = {p.name for p in (tmp_path / "checkpoints/a/ckpt-00000001").glob("context*")}
    assert written == {"context_code.npz", "context_mask.npz"}


def test_maps_that_are_missing_matter_only_to_a_conditional_gan(street, tmp_path, capfd):
    (street / "gone.csv").write_text((street / "street.csv").read_text().replace("_s.png", "_gone.png"))
    assert run_training(street, tmp_path, "-ds", str(street / "gone.csv"), "--steps", "1") == 2
    assert "_gone.png" in capfd.readouterr().err
    where = [part for name in ("checkpoints", "samples", "tensorboard") for part in ("-k", f"{name}={tmp_path / name}")]
    assert train.main(["-ds", str(street / "gone.csv"), "--steps", "1", "-name", "b", *where, *knobs()]) == 0


def test_what_is_wrong_with_the_maps_is_told_before_training(street, tmp_path, photos, capfd):
    (street / "sky.csv").write_text("index,name,R,G,B\n0,Sky,0,0,255\n")  # and void, 1: the 2 of label_map is unknown
    assert run_training(street, tmp_path, "--classes", str(street / "sky.csv"), "--val", str(photos), "--steps", "1") == 2
    error = capfd.readouterr().err
    assert "no label map of it" in error  # the held-out photos have none
    share = np.mean([(np.asarray(Image.open(street / f"{i}_s.png")) == 2).mean() for i in range(4)])
    assert f"warning: {share:.0%} of the label maps' pixels are none of the 2 classes" in error


def test_freezing_the_encoder_freezes_all_that_makes_the_file(tmp_path):
    changes = {"semantic_code": "learned", "freeze_encoder": True, "use_conditional_GAN": True, "n_classes": 4}
    trainer = Trainer(config_train().override(knobs(**changes)[1::2]))
    makers = [v for name in ("encoder", "semantic_encoder") for v in trainer.model.networks[name].trainable_variables]
    before = [v.numpy() for v in makers]
    trainer.train_step(*batch())
    assert all(np.array_equal(v.numpy(), old) for v, old in zip(makers, before, strict=True))


def test_a_table_without_maps_is_named(photos, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert train.main(["-ds", str(photos), *knobs(use_conditional_GAN=True), "--steps", "1"]) == 2
    assert "semantic_map_paths" in capfd.readouterr().err


def test_the_cgan_command_trains_with_its_preset_and_goes_on_with_the_runs_knobs(
    street, checkpoint, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    tables = ["-ds", str(street / "street.csv"), "--classes", str(street / "classes.csv"), "-name", "c"]
    assert train.main(cgan_command.arguments([*tables, *knobs(semantic_scale=16), "--steps", "1"])) == 0
    config = read_knobs(resolve_checkpoint(tmp_path / "checkpoints/c"))
    assert config.use_conditional_GAN and config.channel_bottleneck == 16 and config.n_classes == 4
    assert train.main(cgan_command.arguments([*tables[:2], "-name", "d", "-r", str(checkpoint), "--steps", "9"])) == 2
    assert str(checkpoint) in capfd.readouterr().err.splitlines()[-1]  # it is no conditional GAN


@pytest.mark.parametrize(("given", "passed"), [
    (["-ds", "t.csv"], ["-c", str(PROJECT / "cGAN/camvid.json"), "-ds", "t.csv"]),
    (["-rl", "-name", "a"], ["-k", "use_conditional_GAN=true", "-rl", "-name", "a"]),
    (["-r", "x", "-k", "seed=1"], ["-k", "use_conditional_GAN=true", "-r", "x", "-k", "seed=1"]),
    (["--fit-entropy", "-r", "x"], ["--fit-entropy", "-r", "x"]),
])  # fmt: skip
def test_a_run_that_goes_on_keeps_its_knobs(given, passed):
    assert cgan_command.arguments(given) == passed
