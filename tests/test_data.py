"""Reading images and path tables, and the training batches."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import PROJECT, photo
from PIL import Image

from config import UserError, directories
from data import Data, Dataset, augment, connected_regions, to_size
from gcodec.labels import Classes, LabelMap
from gcodec.pictures import read_image
from path_tables import read_table

CAP = 10**6


# ----------------------------------------------------------------------------------------------------------------------
# Images
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "jpg"])
def test_each_format_is_read_as_rgb(suffix, tmp_path):
    image = photo(20, 30)
    Image.fromarray(image).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    read = read_image(tmp_path / f"a.{suffix}", CAP)
    assert read.shape == (20, 30, 3) and read.dtype == np.uint8
    if suffix != "jpg":
        np.testing.assert_array_equal(read, image)


def test_gray_palette_and_16_bit_images_become_rgb(tmp_path):
    gray = photo(20, 30)[:, :, 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    Image.fromarray(gray).convert("P").save(tmp_path / "palette.png")
    for name in ("gray", "sixteen", "palette"):
        read = read_image(tmp_path / f"{name}.png", CAP)
        np.testing.assert_array_equal(read, gray[:, :, None].repeat(3, axis=2), err_msg=name)


def test_transparency_is_laid_over_white(tmp_path):
    image = np.zeros((2, 2, 4), np.uint8)
    image[0, 0] = (10, 20, 30, 255)
    Image.fromarray(image).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png", CAP)
    assert read[0, 0].tolist() == [10, 20, 30] and read[1, 1].tolist() == [255, 255, 255]


def test_the_cameras_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(photo(20, 30)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg", CAP).shape == (30, 20, 3)


def bad_images(folder) -> dict[str, str]:
    """Files that are no images, and a word of the complaint about each."""
    Image.fromarray(photo(60, 60)).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:700])
    (folder / "text.png").write_text("This is not a picture.")
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()
    return {"cut.jpg": "decoded", "text.png": "decoded", "empty.png": "empty", "folder.png": "folder", "none.png": "no such"}


def test_a_file_that_is_no_image_is_an_error_that_names_it(tmp_path):
    for name, complaint in bad_images(tmp_path).items():
        with pytest.raises(UserError, match=f"{name}.*{complaint}"):
            read_image(tmp_path / name, CAP)


def test_an_image_over_the_cap_is_refused_before_it_is_decoded(tmp_path):
    Image.fromarray(photo(60, 60)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="max_pixels"):
        read_image(tmp_path / "a.png", 3599)


# ----------------------------------------------------------------------------------------------------------------------
# Tables
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """tmp_path/images/{a,b}.png, with tmp_path as the working directory."""
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.fromarray(photo(40, 40)).save(tmp_path / "images" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("suffix", ["h5", "csv"])
def test_relative_paths_resolve_against_the_table_or_the_working_directory(suffix, folder):
    (folder / "tables").mkdir()
    frame = pd.DataFrame({"path": ["images/a.png", "../images/b.png"]})
    table = folder / "tables" / f"t.{suffix}"
    frame.to_csv(table, index=False) if suffix == "csv" else frame.to_hdf(table, key="df")
    paths = read_table(table).images
    assert [read_image(path, CAP).shape for path in paths] == [(40, 40, 3)] * 2


def test_a_missing_image_is_an_error_that_says_what_was_tried(folder):
    (folder / "tables").mkdir()
    pd.DataFrame({"path": ["images/c.png"]}).to_csv(folder / "tables" / "t.csv")
    with pytest.raises(UserError, match=r"tried .*tables/images/c\.png and images/c\.png"):
        read_table(folder / "tables" / "t.csv")


@pytest.mark.parametrize("column", ["semantic_map_paths", "semantic_map_path"])
def test_both_spellings_of_the_column_of_maps_are_read(column, folder):
    pd.DataFrame({"path": ["images/a.png"], column: ["images/b.png"]}).to_hdf(folder / "t.h5", key="df")
    assert list(read_table("t.h5").maps.values()) == ["images/b.png"]


@pytest.mark.parametrize(
    ("write", "complaint"),
    [
        (lambda p: pd.DataFrame({"image": ["a"]}).to_csv(p), "no column 'path'"),
        (lambda p: pd.DataFrame({"path": []}).to_csv(p), "empty"),
        (lambda p: p.touch(), "empty"),
        (lambda p: pd.DataFrame({"path": ["x" * 5000]}).to_csv(p), "t.csv: image not found"),
        (lambda p: p.write_bytes(b"\xff\xfe\x00\x01" * 9), "t.csv"),
        (lambda p: p.with_suffix(".h5").write_text("text"), "no such path table"),
    ],
)
def test_a_table_of_no_use_is_an_error_that_names_it(write, complaint, folder):
    write(folder / "t.csv")
    with pytest.raises(UserError, match=complaint):
        read_table("t.csv")


def test_a_damaged_hdf5_table_is_an_error(folder):
    (folder / "t.h5").write_text("text")
    with pytest.raises(UserError, match=r"t\.h5"):
        read_table("t.h5")


def test_a_folder_is_a_table(folder):
    assert read_table("images").images == ["images/a.png", "images/b.png"]
    (folder / "none").mkdir()
    with pytest.raises(UserError, match="no images"):
        read_table("none")


def test_datasets_by_name(folder):
    sample = Data.dataset("sample", directories())
    assert len(sample.train) >= 4 and len(sample.val) >= 2 and not set(sample.train) & set(sample.val)
    for name, fit in (("cityscapes", "512x1024"), ("ADE20k", "width512"), ("camvid", "native")):
        tables = {f"{name}_{split}": str(folder / f"{split}.csv") for split in ("train", "val")}
        for table in tables.values():
            pd.DataFrame({"path": ["images/a.png"]}).to_csv(table)
        dataset = Data.dataset(name, directories(**tables))
        assert dataset.sizing == fit
        listed = {"cityscapes": 35, "camvid": 12}.get(name)  # classes, with void
        assert (dataset.classes and len(Classes.read(dataset.classes))) == listed
    with pytest.raises(UserError, match="cityscapes"):
        Data.dataset("cityscapes", directories())


def test_an_image_without_a_path_is_named_by_its_row(folder):
    pd.DataFrame({"path": ["images/a.png", None, "images/b.png"]}).to_csv("t.csv", index=False)
    with pytest.raises(UserError, match=r"t\.csv: row 2 has no path"):
        read_table("t.csv")


def test_an_image_that_is_named_twice_counts_once(folder, capfd):
    rows = ["images/a.png", "images/b.png", "./images/../images/a.png"]
    pd.DataFrame({"path": rows, "semantic_map_paths": ["s0", "s1", "s2"]}).to_csv("t.csv", index=False)
    pd.DataFrame({"path": ["images/b.png"]}).to_csv("v.csv", index=False)
    dataset = Data.dataset("t.csv", directories(), "v.csv")
    assert [path.rpartition("/")[2] for path in dataset.train] == ["a.png", "b.png"]
    lines = capfd.readouterr().err.splitlines()
    assert "t.csv: 1 of its rows name an image that another row names too" in lines[0]
    assert "1 of the 1 held-out images are trained on too, because both tables name them" in lines[1]


@pytest.mark.parametrize(("n", "warned"), [(4, True), (5, False)])
def test_held_out_images_that_are_trained_on_are_told(n, warned, tmp_path, capfd):
    for i in range(n):
        Image.fromarray(photo(40, 40)).save(tmp_path / f"{i}.png")
    dataset = Data.dataset(str(tmp_path), directories())
    assert set(dataset.train) & set(dataset.val) == (set(dataset.train) if warned else set())
    assert ("fewer than five images" in capfd.readouterr().err) == warned


def test_held_out_images_come_from_the_sibling_table_or_the_end(folder):
    for split, name in (("train", "a"), ("val", "b")):
        pd.DataFrame({"path": [f"images/{name}.png"]}).to_csv(folder / f"x_{split}.csv")
    assert Data.dataset("x_train.csv", directories()).val[0].endswith("b.png")
    for name in "cde":
        Image.fromarray(photo(40, 40)).save(f"images/{name}.png")
    held_out = Data.dataset("images", directories())
    assert (len(held_out.train), held_out.val) == (4, ["images/e.png"])


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("images/training", "images/Validation"), ("", "valid")])
def test_folders_in_a_folder_are_what_they_are_called(train, val, tmp_path, capsys):
    def names(paths: list[str]) -> list[str]:
        return [path.removeprefix(f"{tmp_path}/") for path in paths]

    for folder, n in ((train, 6), (val, 2), ("test", 3)):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.fromarray(photo(40, 40)).save(tmp_path / folder / f"{i}.png")
    dataset = Data.dataset(str(tmp_path), directories())
    assert names(dataset.train) == [str(Path(train, f"{i}.png")) for i in range(6)]
    assert names(dataset.val) == [f"{val}/0.png", f"{val}/1.png"]
    assert "trains on 6 images" in (said := capsys.readouterr().out) and "leaves out 3 others" in said
    dataset = Data.dataset(str(tmp_path), directories(), tmp_path / "test")  # named by --val, it is held out
    assert len(dataset.train) == 6 and names(dataset.val) == [f"test/{i}.png" for i in range(3)]


def test_a_folder_within_another_that_is_held_out_is_not_trained_on(tmp_path, capfd):
    for i in range(6):
        (tmp_path / f"{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(photo(40, 40)).save(tmp_path / f"{i % 2}/{i}.png")
    dataset = Data.dataset(str(tmp_path), directories(), tmp_path / "1")
    assert [len(dataset.train), len(dataset.val)] == [3, 3] and not set(dataset.train) & set(dataset.val)
    assert capfd.readouterr() == ("", "")
    Data.dataset(str(tmp_path / "1"), directories(), tmp_path / "1")
    assert "because both tables name them" in capfd.readouterr().err


def test_label_maps_of_other_classes_are_told_with_what_to_give(tmp_path, tiny_config):
    Image.fromarray(photo(40, 40)).save(tmp_path / "a.png")
    maps = {str(tmp_path / "a.png"): str(tmp_path / "s.png")}

    def advice(*values: int) -> str:
        Image.fromarray(np.resize(np.uint8(values), (40, 40))).save(tmp_path / "s.png")
        return Data(Dataset(list(maps), maps=maps), tiny_config(use_conditional_GAN=True, n_classes=4)).advice_on_classes()

    assert "cityscapes_classes.csv" in advice(7, 11, 33) and "camvid_classes.csv" not in advice(7, 33)
    assert "_classes.csv" not in advice(7, 200) and "--classes" in advice(7, 200)


# ----------------------------------------------------------------------------------------------------------------------
# Bringing to size
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fit", "crop", "size", "expected"),
    [
        ("512x1024", 0, (100, 150), (512, 1024)),
        ("width512", 0, (600, 800), (384, 512)),
        ("width512", 0, (333, 500), (336, 512)),
        ("native", 0, (100, 150), (96, 144)),
        ("native", 0, (10, 20), (32, 64)),
        ("native", 64, (40, 100), (64, 160)),
        ("native", 64, (100, 70), (100, 70)),
    ],
)
def test_images_are_brought_to_size(fit, crop, size, expected):
    assert to_size(photo(*size), fit, crop).shape[:2] == expected


def test_connected_regions_by_hand():
    regions = connected_regions(np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0]]))
    assert len(np.unique(regions)) == 4  # 0 at the left, 0 at the right and below, 1 above, 1 at the corner
    assert regions[0, 0] == regions[1, 0] != regions[0, 2] == regions[2, 1]
    assert regions[0, 1] == regions[1, 1] != regions[2, 0]


# ----------------------------------------------------------------------------------------------------------------------
# Batches
# ----------------------------------------------------------------------------------------------------------------------


def take(data: Data, n: int, first_step: int = 0) -> list[np.ndarray]:
    batches = data.batches(first_step)
    return [next(batches)[0].numpy() for _ in range(n)]


def test_batches_are_in_range_and_resume_where_they_stopped(photos, tiny_config):
    config = tiny_config(random_flip=True)
    whole = take(Data(Dataset(read_table(photos).images), config), 8)
    rest = take(Data(Dataset(read_table(photos).images), config), 4, first_step=4)
    assert whole[0].shape == (2, 64, 64, 3) and -1 <= whole[0].min() < whole[0].max() <= 1
    np.testing.assert_array_equal(whole[4:], rest)


def test_each_epoch_sees_the_whole_table_in_a_new_order(photos, tiny_config):
    data = Data(Dataset(read_table(photos).images), tiny_config(crop_size=0, batch_size=1))
    orders = [data._epoch_order(epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(5)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    seen = {image.tobytes() for image in take(data, 5)}
    assert len(seen) == 5


def test_crops_and_flips_are_cut_from_the_image(tmp_path, tiny_config):
    ramp = np.zeros((64, 200, 3), np.uint8)
    ramp[:] = np.arange(200)[None, :, None]
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    data = Data(Dataset([str(tmp_path / "ramp.png")]), tiny_config(random_flip=True))
    rows = [data.sample(i)[0][0, :, 0].astype(int) for i in range(20)]
    slopes = {row[1] - row[0] for row in rows}
    assert slopes == {1, -1} and len({row[0] for row in rows}) > 5
    assert all(abs(row[-1] - row[0]) == 63 for row in rows)


def test_random_scales_show_an_image_at_several_sizes_with_its_label_map(tiny_config):
    ramp = np.zeros((128, 256, 3), np.uint8)
    ramp[:] = np.arange(256)[None, :, None]
    labels = LabelMap(ramp[..., 0] // 64)
    config = tiny_config(random_scale=0.5)
    slopes = []
    for seed in range(20):
        image, cut = augment(ramp, labels, config, np.random.default_rng(seed))
        assert image.shape == (64, 64, 3) and cut.classes.shape == (64, 64)
        row = image[0, :, 0].astype(int)
        slopes.append((row[-1] - row[0]) / 63)  # levels a pixel: 1 at full size, 2 at half
        inner = np.abs(row % 64 - 32) < 28  # away from the borders of classes
        assert np.array_equal(cut.classes[0][inner], row[inner] // 64)
    assert 0.95 < min(slopes) < 1.3 and 1.7 < max(slopes) < 2.1


def test_a_scale_of_1_draws_nothing_and_changes_nothing(tiny_config):
    ramp = np.arange(128 * 96 * 3, dtype=np.uint8).reshape(128, 96, 3)
    rng, same = np.random.default_rng(3), np.random.default_rng(3)
    image, labels = augment(ramp, None, tiny_config(), rng)
    top, left = (same.integers(side - 64 + 1) for side in (128, 96))
    assert labels is None and np.array_equal(image, ramp[top : top + 64, left : left + 64])


def test_names_of_photos_do_not_command_the_terminal(tmp_path, tiny_config, capsys):
    name = tmp_path / "a\x1b[31m\u202e.png"
    name.write_text("junk")
    with pytest.raises(UserError):
        Data(Dataset([str(name)]), tiny_config()).sample(0)
    assert "skipped: " in (said := capsys.readouterr().err) and not {"\x1b", "\u202e"} & set(said)


def test_unreadable_images_are_named_skipped_and_counted(photos, tiny_config, tmp_path):
    (tmp_path / "bad.png").write_text("text")
    paths = read_table(photos).images * 40 + [str(tmp_path / "bad.png")]  # 1 of 201
    lines = []
    data = Data(Dataset(paths), tiny_config(batch_size=1), report=lines.append)
    assert all(np.isfinite(batch).all() for batch in take(data, 201))
    assert len(data.bad) == 1 and len(lines) == 1 and "bad.png" in lines[0]


def test_a_run_with_too_many_unreadable_images_stops(photos, tiny_config, tmp_path):
    (tmp_path / "bad.png").write_text("text")
    data = Data(Dataset([*read_table(photos).images, str(tmp_path / "bad.png")]), tiny_config(), report=lambda line: None)
    with pytest.raises(UserError, match=r"1 of 6 .*over 1%"):
        take(data, 10)


def test_a_label_map_is_cut_and_flipped_with_its_image(tmp_path, tiny_config):
    """The classes are those of the image's columns, in each plane; batches have the same planes by the same names."""
    columns = np.tile(np.arange(120, dtype=np.uint8), (80, 1))
    Image.fromarray(np.stack([columns] * 3, axis=-1)).save(tmp_path / "a.png")
    Image.fromarray(columns // 40).save(tmp_path / "s.png")
    config = tiny_config(use_conditional_GAN=True, n_classes=4, random_flip=True, selective=True, batch_size=1)
    maps = {str(tmp_path / "a.png"): str(tmp_path / "s.png")}
    data = Data(Dataset(list(maps), maps=maps), config)
    batches = data.batches()
    for i in range(6):
        image, labels = data.sample(i)
        np.testing.assert_array_equal(labels.classes, image[..., 0] // 40)
        assert labels.boundaries.any() and labels.boundaries.shape == labels.preserved.shape == (64, 64)
        x, batch = next(batches)
        np.testing.assert_allclose(x[0], image / 127.5 - 1, atol=1e-6)
        for name in batch._fields:
            np.testing.assert_array_equal(getattr(batch, name)[0], getattr(labels, name), err_msg=name)


def test_label_maps_that_are_jpegs_are_refused_before_training(tmp_path, tiny_config):
    Image.fromarray(photo(80, 80)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((80, 80), np.uint8)).save(tmp_path / "s.jpg")
    maps = {str(tmp_path / "a.png"): str(tmp_path / "s.jpg")}
    with pytest.raises(UserError, match=r"s\.jpg: is a JPEG"):
        Data(Dataset(list(maps), maps=maps), tiny_config(use_conditional_GAN=True))


def test_batches_of_images_of_several_sizes_are_refused(photos, tiny_config):
    with pytest.raises(UserError, match="crop_size"):
        Data(Dataset(read_table(photos).images), tiny_config(crop_size=0))


# ----------------------------------------------------------------------------------------------------------------------
# Scripts in data/
# ----------------------------------------------------------------------------------------------------------------------


def script(name: str):
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, PROJECT / "data" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("suffix", ["h5", "csv"])
def test_make_paths_writes_a_table_that_can_be_moved_with_its_images(suffix, folder):
    assert script("make_paths").main(["images", "-o", f"t.{suffix}"]) == 0
    (folder / "elsewhere").mkdir()
    for name in ("images", f"t.{suffix}"):
        (folder / name).rename(folder / "elsewhere" / name)
    assert len(read_table(folder / "elsewhere" / f"t.{suffix}").images) == 2


def test_make_paths_splits_with_a_seed(photos, tmp_path):
    make = script("make_paths").main
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert make([str(photos), "-o", f"{tmp_path}/{name}.csv", "--split", "0.4", "0.4", "0.2", "--seed", seed]) == 0
    tables = {n: [read_table(f"{tmp_path}/{n}_{s}.csv").images for s in ("train", "val", "test")] for n in "abc"}
    assert [len(part) for part in tables["a"]] == [2, 2, 1]
    assert sorted(path for part in tables["a"] for path in part) == read_table(photos).images
    assert tables["a"] == tables["b"] != tables["c"]


def test_make_paths_leaves_no_table_of_a_former_split(photos, tmp_path, capsys):
    arguments = [str(photos), "-o", f"{tmp_path}/t.csv", "--split"]
    make = script("make_paths").main
    assert make([*arguments, "0.6", "0.4", "0"]) == 0
    assert make([*arguments, "1", "0", "0"]) == 2  # t_val.csv is there
    assert "t_train.csv" in capsys.readouterr().err and (tmp_path / "t_val.csv").exists()
    assert make([*arguments, "1", "0", "0", "--overwrite"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["t_train.csv"]


def test_make_paths_says_once_what_it_leaves_out(tmp_path, capfd):
    for end in ("photo", "labels", "instances"):
        Image.fromarray(photo(8, 8)).save(tmp_path / f"1_{end}.png")
    (tmp_path / "notes.txt").touch()
    folder = str(tmp_path)
    maps = ["--maps", folder, "--map-suffix", "_labels", "--instances", folder, "--instance-suffix", "_instances"]
    assert script("make_paths").main([folder, "-o", f"{folder}/t.csv", "--image-suffix", "_photo", *maps]) == 0
    assert capfd.readouterr().err.count("left out") == 1


def test_make_paths_matches_label_maps_by_name(tmp_path):
    for city, frame in (("aachen", "1"), ("bonn", "2")):
        for kind, ends in (("image", ["leftImg8bit"]), ("maps", ["gtFine_labelIds", "gtFine_color"])):
            for end in ends:
                (tmp_path / kind / city).mkdir(parents=True, exist_ok=True)
                Image.fromarray(photo(8, 8)).save(tmp_path / kind / city / f"{frame}_{end}.png")
    arguments = [f"{tmp_path}/image", "-o", f"{tmp_path}/t.h5", "--maps", f"{tmp_path}/maps", "--image-suffix", "_leftImg8bit"]
    assert script("make_paths").main([*arguments, "--map-suffix", "_gtFine_labelIds"]) == 0
    maps = read_table(tmp_path / "t.h5").maps.values()
    assert [m.removeprefix(f"{tmp_path}/maps/") for m in maps] == [
        "aachen/1_gtFine_labelIds.png",
        "bonn/2_gtFine_labelIds.png",
    ]
    assert script("make_paths").main([*arguments, "--map-suffix", "_nothing"]) == 2


def test_make_paths_finds_maps_and_instances_among_the_images_of_one_folder(tmp_path):
    for end in ("leftImg8bit", "gtFine_labelIds", "gtFine_instanceIds"):
        Image.fromarray(photo(8, 8)).save(tmp_path / f"1_{end}.png")
    folder = str(tmp_path)
    arguments = [folder, "-o", f"{folder}/t.h5", "--maps", folder, "--instances", folder]
    suffixes = ["--map-suffix", "_gtFine_labelIds", "--instance-suffix", "_gtFine_instanceIds"]
    assert script("make_paths").main([*arguments, *suffixes, "--image-suffix", "_leftImg8bit"]) == 0
    assert read_table(tmp_path / "t.h5").maps == {f"{folder}/1_leftImg8bit.png": f"{folder}/1_gtFine_labelIds.png"}
    dataset = Data.dataset(f"{folder}/t.h5", directories())
    assert list(dataset.instances.values()) == [f"{folder}/1_gtFine_instanceIds.png"]
    assert script("make_paths").main([*arguments, *suffixes, "--image-suffix", "_none"]) == 2


def test_resampling_writes_the_trained_size_and_never_in_place(folder):
    assert script("resample").main(["images", "small", "--fit", "width512"]) == 0
    assert read_image("small/a.png", CAP).shape == (512, 512, 3)
    assert script("resample").main(["images", "images"]) == 2
    assert script("resample").main(["images", "images/below"]) == 2
