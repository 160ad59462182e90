"""Label maps: read in each of their forms, checked, and their planes."""

import numpy as np
import pytest
from conftest import label_map, photo
from PIL import Image

from config import UserError
from gcodec.labels import (
    Classes,
    LabelMap,
    boundaries,
    read_classes,
    read_instances,
    with_boundaries,
)

CLASSES = Classes.of(["Sky", "Road", "Car"], [[0, 0, 255], [128, 64, 128], [255, 0, 0]], "test")  # and void


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB", "RGBA"])
def test_a_label_map_is_read_in_each_of_its_forms(mode, tmp_path):
    s = label_map(8, 12)
    picture = Image.fromarray(s.astype(np.uint16) if mode == "I;16" else s)
    if mode == "P":
        picture.putpalette([7, 7, 7] * 256)
    if mode.startswith("RGB"):
        picture = Image.fromarray(CLASSES.colours[s]).convert(mode)
    picture.save(tmp_path / "s.png")
    np.testing.assert_array_equal(read_classes(tmp_path / "s.png", CLASSES, s.shape), s)


def test_unknown_ids_and_colours_become_void(tmp_path):
    s = np.array([[0, 1, 2], [3, 4, 255]], np.uint8)
    Image.fromarray(s).save(tmp_path / "s.png")
    np.testing.assert_array_equal(read_classes(tmp_path / "s.png", CLASSES, (2, 3)), [[0, 1, 2], [3, 3, 3]])
    colours = np.array([[[0, 0, 255], [255, 0, 0], [1, 2, 3]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "s.png")
    np.testing.assert_array_equal(read_classes(tmp_path / "s.png", CLASSES, (1, 3)), [[0, 2, 3]])


def test_what_is_no_label_map_is_an_error_that_names_it(tmp_path):
    Image.fromarray(photo(40, 50)).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match=r"photo.png.*none of the 3 classes"):
        read_classes(tmp_path / "photo.png", CLASSES, (40, 50))
    with pytest.raises(UserError, match=r"none.png"):
        read_classes(tmp_path / "none.png", CLASSES, (40, 50))
    Image.fromarray(label_map(8, 8)).save(tmp_path / "s.png")
    with pytest.raises(UserError, match=r"s.png: 8x8 px, but its image is 9x8"):
        read_classes(tmp_path / "s.png", CLASSES, (8, 9))


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


def test_a_class_file_that_excel_wrote_is_read(tmp_path):
    (tmp_path / "c.csv").write_bytes(b"\xef\xbb\xbfindex,name,R,G,B\r\n0,Sky,1,2,3\r\n")
    assert Classes.read(tmp_path / "c.csv").names == ("Sky", "Void")


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
    np.testing.assert_array_equal(boundaries(instances), [[0, 1, 1], [0, 1, 1], [0, 0, 1]])


def test_the_planes_of_a_label_map_change_together():
    labels = with_boundaries(LabelMap(label_map(8, 12), instances=label_map(8, 12).astype(np.int32)))
    cut = labels.map(lambda plane: plane[2:4, ::-1])
    for plane, whole in [(cut.classes, labels.classes), (cut.boundaries, labels.boundaries), (cut.instances, labels.instances)]:
        np.testing.assert_array_equal(plane, whole[2:4, ::-1])
    assert cut.preserved is None
    with pytest.raises(ValueError, match="instances"):
        with_boundaries(LabelMap(labels.classes))


def test_a_jpeg_is_no_map(tmp_path):
    Image.fromarray(label_map(8, 12)).save(tmp_path / "s.png", format="JPEG")  # whatever it is called
    for read in (
        lambda: read_classes(tmp_path / "s.png", CLASSES, (8, 12)),
        lambda: read_instances(tmp_path / "s.png", (8, 12)),
    ):
        with pytest.raises(UserError, match=r"s\.png: is a lossy JPEG, whose noise"):
            read()


@pytest.mark.parametrize(("suffix", "options", "lossy"), [
    (".webp", {}, True), (".webp", {"lossless": True}, False), (".avif", {}, True), (".gif", {}, False),
    (".tif", {}, False), (".tif", {"compression": "jpeg"}, True),
])  # fmt: skip
def test_maps_of_lossy_formats_are_refused(suffix, options, lossy, tmp_path):
    indices = label_map(16, 24)
    Image.fromarray(CLASSES.colours[indices]).save(tmp_path / f"s{suffix}", **options)
    if lossy:
        with pytest.raises(UserError, match=rf"s\{suffix}: is a lossy \w+, whose noise"):
            read_classes(tmp_path / f"s{suffix}", CLASSES, (16, 24))
    else:
        np.testing.assert_array_equal(read_classes(tmp_path / f"s{suffix}", CLASSES, (16, 24)), indices)


def palette_png(path, indices: np.ndarray, colours: np.ndarray) -> None:
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette(colours.astype(np.uint8).tobytes())
    image.save(path)


def test_of_a_palette_of_the_classes_colours_the_colours_decide_and_of_another_the_indices(tmp_path):
    indices, order = label_map(16, 24), np.array([2, 0, 1])
    palette_png(tmp_path / "own.png", indices, CLASSES.colours)
    palette_png(tmp_path / "other_order.png", np.argsort(order)[indices], CLASSES.colours[order])
    palette_png(tmp_path / "other_colours.png", indices, np.array([[9, 9, 9], [1, 2, 3], [7, 7, 0]]))
    palette_png(tmp_path / "other_grays.png", np.argsort(order)[indices], order[:, None].repeat(3, axis=1))
    palette_png(tmp_path / "black.png", indices, np.zeros((256, 3)))
    palette_png(tmp_path / "grays.png", np.ones_like(indices), np.arange(256)[:, None].repeat(3, axis=1))
    for name in ("own", "other_order", "other_colours", "other_grays", "black"):
        np.testing.assert_array_equal(read_classes(tmp_path / f"{name}.png", CLASSES, (16, 24)), indices, name)
    assert (read_classes(tmp_path / "grays.png", CLASSES, (16, 24)) == 1).all()


def test_a_list_of_classes_as_excel_writes_it_is_read(tmp_path):
    (tmp_path / "c.csv").write_bytes("\ufeffindex,name,R,G,B\r\n0,Sky,1,2,3\r\n".encode())
    assert str(Classes.read(tmp_path / "c.csv")) == "Sky 1 2 3, Void 0 0 0"
