"""The segmentation network and the mIoU by it."""

import json

import numpy as np
import pytest
from conftest import PROJECT, photo
from PIL import Image

import evaluate
from config import UserError
from evaluation.segmentation import Segmenter, iou, miou
from gcodec.labels import Classes
from gcodec.pictures import read_image
from tools import train_segmenter

CLASSES = Classes.of(["Dark", "Light"], [[0, 0, 0], [255, 255, 255]], "test")  # and void


def test_iou_by_hand():
    confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    np.testing.assert_allclose(iou(confusion), [3 / 6, 4 / 7])
    assert miou(confusion) == pytest.approx((3 / 6 + 4 / 7) / 2)
    nowhere = np.zeros((4, 4), int)
    nowhere[:3, :3] = [[3, 1, 0], [2, 4, 0], [0, 0, 0]]  # class 2 is nowhere: it does not count
    assert miou(nowhere) == pytest.approx((3 / 6 + 4 / 7) / 2)


def test_void_pixels_do_not_count():
    class Fixed(Segmenter):
        def segment(self, image):
            return np.array([[0, 1, 1], [1, 0, 0]], np.uint8)

    s = np.array([[0, 0, 1], [1, 2, 2]], np.uint8)
    np.testing.assert_array_equal(Fixed(None, CLASSES).confusion(None, s), [[1, 1, 0], [0, 2, 0], [0, 0, 0]])


SHIPPED_COUNTS = [156624, 68345, 667, 33888, 26990, 69246, 7692, 3412, 26344, 5, 3]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Pictures whose labels are whether a pixel is light, and a path table."""
    folder = tmp_path_factory.mktemp("scenes")
    for i in range(4):
        image = photo(72, 90, seed=i)
        s = (image.mean(axis=-1) > 128).astype(np.uint8)
        s[:4] = 2
        for below, picture in [("photos", image), ("maps", s)]:
            (folder / below).mkdir(exist_ok=True)
            Image.fromarray(picture).save(folder / below / f"{i}.png")
    rows = [f"photos/{i}.png,maps/{i}.png" for i in range(4)]
    (folder / "train.csv").write_text("\n".join(["path,semantic_map_paths", *rows]))
    (folder / "classes.csv").write_text("index,name,R,G,B\n0,Dark,0,0,0\n1,Light,255,255,255\n")
    return folder


def test_a_network_learns_and_evaluate_measures_by_it(scenes, checkpoint, tmp_path, capfd):
    tables = ["-ds", str(scenes / "train.csv"), "--val", str(scenes / "train.csv"), "--classes", str(scenes / "classes.csv")]
    unet = tmp_path / "unet"
    assert train_segmenter.main([*tables, "-o", str(unet), "--steps", "40", "--batch-size", "2", "--crop-size", "64"]) == 0
    assert float(capfd.readouterr().out.split("held-out images:")[1].split()[0]) > 0.5  # by chance: a third
    assert sum(file.stat().st_size for file in unet.iterdir()) < 5e6
    arguments = ["-r", str(checkpoint), "-i", str(scenes / "photos"), "-o", str(tmp_path / "r"), "--miou", str(unet)]
    assert evaluate.main([*arguments, "-sm", str(scenes / "maps")]) == 0
    mean = json.loads((tmp_path / "r/results/tiny.json").read_text())["mean"]
    assert 0 < mean["miou"] < mean["miou_of_originals"] <= 1  # the tiny model's pictures are next to gray
    page = (tmp_path / "r/index.html").read_text()
    assert f"{mean['miou']:.4f}" in page and f"{mean['miou_of_originals']:.4f}" in page
    for mistake, named in [(["-sm", str(tmp_path)], "no label map"), ([], "-sm")]:
        capfd.readouterr()
        assert evaluate.main([*arguments, *mistake]) == 2
        assert named in capfd.readouterr().err.splitlines()[-1]


def test_an_existing_network_is_not_replaced(tmp_path, scenes, capfd):
    (tmp_path / "unet.npz").write_text("weeks of work")
    arguments = ["-ds", str(scenes / "train.csv"), "--classes", str(scenes / "classes.csv"), "-o", str(tmp_path)]
    assert train_segmenter.main([*arguments, "--steps", "1"]) == 2
    assert "unet.npz: is there already" in capfd.readouterr().err
    assert (tmp_path / "unet.npz").read_text() == "weeks of work"


def test_what_was_saved_segments_alike_whatever_the_size(tmp_path):
    segmenter = Segmenter.new(CLASSES)
    segmenter.save(tmp_path)
    again = Segmenter.load(tmp_path)
    assert again.classes.names == CLASSES.names
    for size in ((40, 56), (33, 70), (64, 64)):
        np.testing.assert_array_equal(segmenter.segment(photo(*size)), again.segment(photo(*size)))


def test_the_shipped_network_sees_what_it_saw_when_it_was_trained():
    """Its predictions, counted by class, before its weights were moved from a .keras archive to unet.npz."""
    segmenter = Segmenter.load(PROJECT / "checkpoints/camvid_unet")
    counts = np.bincount(segmenter.segment(read_image(PROJECT / "images/kodim21.png", 10**6)).ravel(), minlength=11)
    np.testing.assert_allclose(counts, SHIPPED_COUNTS, atol=40)  # of 393,216 pixels; another processor rounds otherwise


def test_weights_that_are_pickled_are_not_loaded(tmp_path):
    (tmp_path / "classes.txt").write_text(str(CLASSES))
    np.savez(tmp_path / "unet.npz", **{"000": np.array([object()], object)})
    with pytest.raises(UserError, match="no network"):
        Segmenter.load(tmp_path)


def test_what_is_no_network_is_an_error_that_names_it(tmp_path, checkpoint, scenes, capfd):
    (tmp_path / "unet.npz").write_text("nothing")
    (tmp_path / "classes.txt").write_text("Dark 0 0 0")
    arguments = ["-r", str(checkpoint), "-i", str(scenes / "photos"), "-o", str(tmp_path / "r"), "-sm", str(scenes / "maps")]
    for folder in (tmp_path, tmp_path / "none"):
        assert evaluate.main([*arguments, "--miou", str(folder)]) == 2
        error = capfd.readouterr().err
        assert str(folder) in error and error.count("\n") == 1
