"""Label maps, heat maps, the conditional GAN and selective compression."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import PROJECT, knobs, photo
from PIL import Image

import compress
import decompress
import losses
import semantic
import train
from codec.container import join, split, unpack
from codec.context_model import ContextModel
from config import UserError, config_test, config_train, directories
from context_network import fit
from data import Data
from model import Model
from network import code_channels, label_channels, map_symbols
from semantic import Classes, Selection

CLASSES = Classes.of(["Sky", "Road", "Car"], [[0, 0, 255], [128, 64, 128], [255, 0, 0]], "test")  # and void


def label_map(height: int, width: int) -> np.ndarray:
    s = np.zeros((height, width), np.uint8)
    s[height // 2 :] = 1
    s[height // 2 : 3 * height // 4, width // 4 : width // 2] = 2
    return s


# ----------------------------------------------------------------------------------------------------------------------
# Maps
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB", "RGBA"])
def test_a_label_map_is_read_in_each_of_its_forms(mode, tmp_path):
    s = label_map(8, 12)
    picture = Image.fromarray(s.astype(np.uint16) if mode == "I;16" else s)
    if mode == "P":
        picture.putpalette([7, 7, 7] * 256)
    if mode.startswith("RGB"):
        picture = Image.fromarray(CLASSES.colours[s]).convert(mode)
    picture.save(tmp_path / "s.png")
    np.testing.assert_array_equal(semantic.read_map(tmp_path / "s.png", CLASSES, s.shape), s)


def test_unknown_ids_and_colours_become_void(tmp_path):
    s = np.array([[0, 1, 2], [3, 4, 255]], np.uint8)
    Image.fromarray(s).save(tmp_path / "s.png")
    np.testing.assert_array_equal(semantic.read_map(tmp_path / "s.png", CLASSES, (2, 3)), [[0, 1, 2], [3, 3, 3]])
    colours = np.array([[[0, 0, 255], [255, 0, 0], [1, 2, 3]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "s.png")
    np.testing.assert_array_equal(semantic.read_map(tmp_path / "s.png", CLASSES, (1, 3)), [[0, 2, 3]])


def test_what_is_no_label_map_is_an_error_that_names_it(tmp_path):
    Image.fromarray(photo(40, 50)).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match=r"photo.png.*none of the 3 classes"):
        semantic.read_map(tmp_path / "photo.png", CLASSES, (40, 50))
    with pytest.raises(UserError, match=r"none.png"):
        semantic.read_map(tmp_path / "none.png", CLASSES, (40, 50))
    Image.fromarray(label_map(8, 8)).save(tmp_path / "s.png")
    with pytest.raises(UserError, match=r"s.png: 8x8 px, where its image is 9x8"):
        semantic.read_labels(tmp_path / "s.png", None, CLASSES, (8, 9))


def test_classes_survive_the_knob_and_have_void_last(tmp_path):
    (tmp_path / "c.csv").write_text("index,name,R,G,B\n0,Sky,1,2,3\n1,Sign Symbol,4,5,6\n")
    classes = Classes.read(tmp_path / "c.csv")
    again = Classes.parse(str(classes), 3)
    assert again.names == ("Sky", "Sign Symbol", "Void") and (again.colours == classes.colours).all()
    assert again.indices("sign symbol,0") == [1, 0]
    with pytest.raises(UserError, match=r"'Tree'.*Sky"):
        classes.indices("Sky,Tree")
    with pytest.raises(UserError, match="n_classes"):
        Classes.parse(str(classes), 4)
    assert len(Classes.parse("", 5)) == 5


@pytest.mark.parametrize(
    "text",
    [
        'index,name,R,G,B\n0,"a,b",0,0,0\n',
        "index,name,R,G,B\n0,Void,0,0,0\n1,a,0,0,0\n",
        "index,name\n0,a\n",
        "index,name,R,G,B\n1,a,0,0,0\n",
        "index,name,R,G,B\n0,a,0,0,300\n",
    ],
)
def test_a_bad_class_file_is_an_error_that_names_it(text, tmp_path):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(UserError, match=r"c\.csv"):
        Classes.read(tmp_path / "c.csv")


def test_boundaries_by_hand():
    instances = np.array([[1, 1, 2], [1, 1, 2], [1, 1, 1]])
    np.testing.assert_array_equal(semantic.boundaries(instances), [[0, 1, 1], [0, 1, 1], [0, 0, 1]])


def test_connected_regions_by_hand():
    regions = semantic.connected_regions(np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0]]))
    assert len(np.unique(regions)) == 4  # 0 at the left, 0 at the right and below, 1 above, 1 at the corner
    assert regions[0, 0] == regions[1, 0] != regions[0, 2] == regions[2, 1]
    assert regions[0, 1] == regions[1, 1] != regions[2, 0]


def test_a_heat_map_has_each_block_of_which_anything_is_preserved():
    m = np.zeros((33, 48), bool)
    m[15, 16] = m[32, 0] = True
    np.testing.assert_array_equal(semantic.heat_map(m), [[0, 1, 0], [0, 0, 0], [1, 0, 0]])


def test_a_quarter_of_the_instances_is_synthesized():
    instances = np.repeat(np.arange(8), 4).reshape(8, 4)
    m = semantic.random_regions(instances, np.random.default_rng(0), semantic.SYNTHESIZED_INSTANCES)
    assert (m.all(axis=1) | ~m.any(axis=1)).all() and (~m.any(axis=1)).sum() == 2


def test_half_of_the_classes_are_synthesized_whole(street, tmp_path):
    changes = {"use_conditional_GAN": True, "n_classes": 4, "selective": True, "selective_regions": "classes"}
    config = config_train().override(knobs(**changes, crop_size=0, batch_size=1)[1::2])
    pairs = {str(street / f"{i}.png"): str(street / f"{i}_s.png") for i in range(4)}
    data = Data(list(pairs), config, maps=pairs)
    for index in range(4):
        planes = data.sample(index)
        kept = {c: planes[planes[..., 3] == c, 5] for c in np.unique(planes[..., 3])}
        assert all(len(np.unique(m)) == 1 for m in kept.values())
        assert sum(m[0] == 0 for m in kept.values()) == max(1, round(len(kept) / 2))


def test_selections_by_hand(tmp_path):
    s = np.array([[0, 1], [2, 3]], np.uint8)
    Image.fromarray(np.array([[0, 255], [0, 0]], np.uint8)).save(tmp_path / "m.png")
    for selection, expected in [
        (Selection(), [[1, 1], [1, 1]]),
        (Selection(preserve="car,Sky"), [[1, 0], [1, 0]]),
        (Selection(synthesize="car"), [[1, 1], [0, 1]]),
        (Selection(box="1,0,1,2"), [[0, 1], [0, 1]]),
        (Selection(preserve="car", mask=str(tmp_path / "m.png")), [[0, 1], [1, 0]]),
    ]:
        np.testing.assert_array_equal(selection.preserved(s, CLASSES), expected)
    for selection, named in [
        (Selection(preserve="Sky", synthesize="Car"), "--preserve and --synthesize"),
        (Selection(box="1,0,2,2"), "--box"),
        (Selection(box="a"), "--box"),
        (Selection(mask="none.png"), "none.png"),
        (Selection(preserve="Tree"), "Tree"),
    ]:
        with pytest.raises(UserError, match=named):
            selection.preserved(s, CLASSES)


# ----------------------------------------------------------------------------------------------------------------------
# What the networks see
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_the_generator_sees_the_classes_that_the_file_has(scale):
    config = config_train(use_conditional_GAN=True, n_classes=4, use_instances=True, semantic_scale=scale)
    rng = np.random.default_rng(0)
    labels = np.stack([rng.integers(0, 4, (32, 48)), rng.integers(0, 2, (32, 48))], axis=-1)[None].astype(np.uint8)
    symbols = map_symbols(tf.constant(labels), config).numpy()
    assert symbols.shape == (1, 32 // scale, 48 // scale, 1)
    assert symbols[0, 1, 2, 0] % 4 == labels[0, scale + scale // 2, 2 * scale + scale // 2, 0]
    assert symbols[0, 1, 2, 0] // 4 == labels[0, scale : 2 * scale, 2 * scale : 3 * scale, 1].max()
    channels = code_channels(tf.constant(symbols), config).numpy()
    assert channels.shape == (1, 2, 3, config.code_channels)
    k = 16 // scale
    block = channels[0, 1, 2].reshape(k, k, 5)
    for y in range(k):
        for x in range(k):
            symbol = symbols[0, k + y, 2 * k + x, 0]
            np.testing.assert_array_equal(block[y, x], [*np.eye(4)[symbol % 4], symbol // 4])
    full = label_channels(tf.constant(labels), config).numpy()
    np.testing.assert_array_equal(full[..., :4].argmax(-1), labels[..., 0])
    np.testing.assert_array_equal(full[..., 4], labels[..., 1])


def test_distortion_is_of_what_is_preserved():
    x, x_hat = np.zeros((1, 2, 2, 3), np.float32), np.zeros((1, 2, 2, 3), np.float32)
    x_hat[0, 0, 0], x_hat[0, 1, 1] = 1, 0.5
    m = np.array([[1, 1], [0, 0]], np.float32)[None, ..., None]
    assert float(losses.distortion(x, x_hat, m)) == pytest.approx(0.5)
    assert float(losses.distortion(x, x_hat)) == pytest.approx(1.25 / 4)
    assert float(losses.distortion(x, x_hat, 0 * m)) == 0


def test_boundaries_are_of_the_instances_as_they_are_trained_on(street):
    """Of resized ones: a boundary that is resized itself is torn."""
    config = config_train().override(knobs(use_conditional_GAN=True, use_instances=True, n_classes=4, crop_size=0)[1::2])
    dataset = Data.dataset(str(street / "street.csv"), directories())
    data = Data(dataset.train, config, "512x1024", maps=dataset.maps, instances=dataset.instances)
    planes = data._planes(dataset.train[0], crop_size=0)
    assert planes.shape == (512, 1024, 6)
    np.testing.assert_array_equal(planes[..., 4], semantic.boundaries(planes[..., 5]))


def test_a_fit_to_too_much_takes_a_part(monkeypatch):
    import context_network

    symbols = [np.random.default_rng(i).integers(0, 5, (20, 20, 2), dtype=np.uint8) for i in range(10)]
    row = context_network.network_inputs(symbols[0], 5)[0].nbytes
    monkeypatch.setattr(context_network, "MAX_INPUT_BYTES", 1000 * row)
    pairs = [(image, None) for image in symbols]
    inputs, targets = context_network._rows(pairs, 5, False, np.random.default_rng(0))
    assert 850 < len(inputs) == len(targets) < 1150
    assert len({row.tobytes() for row in np.concatenate([inputs.reshape(len(inputs), -1), targets], axis=1)}) > 700


def test_sections_come_back():
    sections = [b"abcd" * 5, b"", b"wxyz"]
    assert split(join(sections), 3) == sections
    with pytest.raises(UserError, match="section"):
        split(join(sections)[:10], 3)


def test_classes_and_masked_symbols_survive_the_context_model():
    maps = [np.roll(label_map(24, 30), i, axis=1)[..., None] for i in range(6)]
    _, model = fit(maps, 4, 60, one_hot=True)
    assert model.one_hot
    np.testing.assert_array_equal(model.decode(model.encode(maps[0]), maps[0].shape), maps[0])
    rng = np.random.default_rng(0)
    symbols, mask = rng.integers(0, 5, (9, 14, 3), dtype=np.uint8), rng.integers(0, 2, (9, 14))
    _, model = fit([symbols], 5, 5, masks=[mask])
    changed = np.where(mask[..., None], symbols, 4 - symbols).astype(np.uint8)
    payload = model.encode(symbols, mask)
    assert payload == model.encode(changed, mask) and len(payload) < 0.8 * len(model.encode(symbols))
    np.testing.assert_array_equal(model.decode(payload, symbols.shape, mask), symbols * (mask[..., None] != 0))
    assert isinstance(model, ContextModel)


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
    (folder / "classes.csv").write_text("index,name,R,G,B\n0,Sky,0,0,255\n1,Road,128,64,128\n2,Car,255,0,0\n")
    return folder


def run_training(street, tmp_path, *arguments, **changes) -> int:
    where = [part for name in ("checkpoints", "samples", "tensorboard") for part in ("-k", f"{name}={tmp_path / name}")]
    tables = ["-ds", str(street / "street.csv"), "--classes", str(street / "classes.csv")]
    return train.main([*tables, "-name", "a", *where, *knobs(use_conditional_GAN=True, **changes), *arguments])


@pytest.mark.parametrize("changes", [
    {"semantic_code": "lossless", "selective": True, "entropy_steps": 3},
    {"semantic_code": "lossless", "use_instances": True, "semantic_scale": 16, "entropy_steps": 3, "sample_noise": True},
    {"semantic_code": "learned", "selective": True, "selective_regions": "boxes", "entropy_steps": 3},
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
    parts = decompress.sections(Model.load(ckpt), unpack(out.with_suffix(".gc").read_bytes()))
    extra = 3 * (len(parts) - 1)  # bytes, of the sections' lengths
    assert sum(map(len, parts.values())) + extra + 16 == out.with_suffix(".gc").stat().st_size
    assert decompress.main(["-r", ckpt, "-i", str(out.with_suffix(".gc")), "-o", str(tmp_path / "back.png")]) == 0
    back = Data.read_image(tmp_path / "back.png", 10**6)
    panels = 2 + bool(maps) + bool(changes.get("selective"))
    shown = Data.read_image(out, 10**7)
    assert shown.shape[1] == panels * 248 - 8
    left = (panels - 1) * 248 + (240 - 96) // 2
    np.testing.assert_array_equal(shown[:80, left : left + 96], back)


def tiny_model(tmp_path, **changes) -> Model:
    config = config_train().override(knobs(use_conditional_GAN=True, n_classes=4, **changes)[1::2])
    Model(config, training=True).save(tmp_path / "ckpt-0")
    return Model.load(tmp_path)


def test_what_is_not_preserved_does_not_change_the_file(tmp_path):
    model = tiny_model(tmp_path, selective=True)
    labels = np.stack([label_map(80, 96), np.zeros((80, 96))], axis=-1).astype(np.int32)
    image, preserved = photo(80, 96), np.zeros((80, 96), bool)
    preserved[16:48, 16:64] = True
    changed = np.where(preserved[..., None], image, 255 - image)
    data = compress.encode(model, image, labels=labels, preserved=preserved)
    assert data == compress.encode(model, changed, labels=labels, preserved=preserved)
    assert data != compress.encode(model, 255 - image, labels=labels, preserved=preserved)
    assert len(data) < 0.6 * len(compress.encode(model, image, labels=labels))
    assert decompress.decode(model, data, config_test()).shape == image.shape


def test_every_trainable_gets_a_gradient_in_a_conditional_step(tmp_path):
    changes = {"semantic_code": "learned", "selective": True, "sample_noise": True, "optimizer": "sgd"}
    rates = {"G_learning_rate": 1, "D_learning_rate": 1}
    config = config_train().override(knobs(use_conditional_GAN=True, n_classes=4, **changes, **rates)[1::2])
    model = Model(config, training=True)
    before = [v.numpy() for v in model.G_variables + model.D_variables]
    labels = np.stack([label_map(64, 64), np.zeros((64, 64)), np.ones((64, 64))], axis=-1)[None].astype(np.uint8)
    labels[:, :32, :, 2] = 0
    model.train_step(tf.constant(photo(64, 64)[None] / 127.5 - 1, tf.float32), tf.constant(labels))
    for var, old in zip(model.G_variables + model.D_variables, before, strict=True):
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
def test_a_mistake_is_one_line_and_status_2(changes, arguments, named, street, tmp_path, monkeypatch, capfd):
    tiny_model(tmp_path, classes=str(Classes.read(street / "classes.csv")), **changes)
    monkeypatch.chdir(street)
    Image.fromarray(label_map(40, 40)).save("small.png")
    assert compress.main(["-r", str(tmp_path), "-i", "0.png", "-o", str(tmp_path / "o.png"), *arguments]) == 2
    error = capfd.readouterr().err
    assert named in error and error.count("\n") == 1 and not (tmp_path / "o.gc").exists()


def test_maps_for_a_model_that_needs_none_are_a_warning(street, tmp_path, capfd):
    tiny_model(tmp_path, semantic_code="none")
    maps = ["-sm", str(street / "0_s.png"), "--instances", str(street / "0_i.png")]
    assert compress.main(["-r", str(tmp_path), "-i", str(street / "0.png"), "-o", str(tmp_path / "o.png"), *maps]) == 0
    error = capfd.readouterr().err
    assert "warning: -sm is ignored" in error and "warning: --instances is ignored" in error and error.count("\n") == 2


@pytest.mark.parametrize(("light", "told"), [(0, "nothing is preserved"), (255, "all of it is preserved")])
def test_a_mask_of_nothing_or_all_is_a_warning_and_the_right_result(light, told, street, tmp_path, capfd):
    model = tiny_model(tmp_path, selective=True)
    Image.fromarray(np.full((80, 96), light, np.uint8)).save(tmp_path / "m.png")
    arguments = ["-r", str(tmp_path), "-i", str(street / "0.png"), "-sm", str(street / "0_s.png"), "-o", str(tmp_path / "o.gc")]
    assert compress.main([*arguments, "--mask", str(tmp_path / "m.png")]) == 0
    captured = capfd.readouterr()
    assert f"warning: 0.png: {told}" in captured.err and f"preserved:       {light / 255:.1%}" in captured.out
    parts = decompress.sections(model, unpack((tmp_path / "o.gc").read_bytes()))
    assert bool(parts["symbols"]) == bool(light)


def test_a_folder_of_images_has_a_folder_of_maps_with_the_same_names(tmp_path, capfd):
    for folder in ("a", "b"):
        for below, picture in [("photos", photo(48, 48)), ("maps", label_map(48, 48))]:
            (tmp_path / below / folder).mkdir(parents=True)
            Image.fromarray(picture).save(tmp_path / below / folder / "0.png")
    tiny_model(tmp_path / "ckpt", selective=True)
    arguments = ["-r", str(tmp_path / "ckpt"), "-i", str(tmp_path / "photos"), "-o", str(tmp_path / "out")]
    assert compress.main([*arguments, "-sm", str(tmp_path / "maps"), "--preserve", "1"]) == 0
    rows = (tmp_path / "out/results.csv").read_text().splitlines()
    assert rows[1].startswith("a/0.png") and rows[2].startswith("b/0.png") and "preserved_psnr" in rows[0]
    for mistake in (["--preserve", "7"], ["--box", "1"]):  # said once, not for each image
        capfd.readouterr()
        assert compress.main([*arguments, "-sm", str(tmp_path / "maps"), *mistake]) == 2
        error = capfd.readouterr().err
        assert mistake[1] in error and error.count("\n") == 1
    assert compress.main([*arguments, "-sm", str(tmp_path / "maps/a/0.png")]) == 2
    assert "must be in one too" in capfd.readouterr().err


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
    model = Model(config_train().override(knobs(**changes)[1::2]), training=True)
    makers = [v for name in ("encoder", "semantic_encoder") for v in model.networks[name].trainable_variables]
    before = [v.numpy() for v in makers]
    labels = np.stack([label_map(64, 64), np.zeros((64, 64)), np.ones((64, 64))], axis=-1)[None].astype(np.uint8)
    model.train_step(tf.constant(photo(64, 64)[None] / 127.5 - 1, tf.float32), tf.constant(labels))
    assert all(np.array_equal(v.numpy(), old) for v, old in zip(makers, before, strict=True))


def test_a_table_without_maps_is_named(photos, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert train.main(["-ds", str(photos), *knobs(use_conditional_GAN=True), "--steps", "1"]) == 2
    assert "semantic_map_paths" in capfd.readouterr().err


def cgan_main(argv: list[str]) -> int:
    import importlib.util

    spec = importlib.util.spec_from_file_location("cGAN_train", PROJECT / "cGAN" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(argv)


def test_the_cgan_entry_point_trains_with_its_own_knobs(street, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tables = ["-ds", str(street / "street.csv"), "--classes", str(street / "classes.csv")]
    assert cgan_main([*tables, "-name", "c", *knobs(), "--steps", "1"]) == 0
    config = Model.load(tmp_path / "checkpoints/c").config
    assert config.use_conditional_GAN and config.channel_bottleneck == 16 and config.n_classes == 4


def test_the_cgan_entry_point_does_not_go_on_from_another_kind_of_model(street, checkpoint, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    arguments = ["-ds", str(street / "street.csv"), "-name", "c", "-r", str(checkpoint), "--steps", "9"]
    assert cgan_main([*arguments]) == 2
    error = capfd.readouterr().err
    assert str(checkpoint) in error and error.count("\n") == 1
