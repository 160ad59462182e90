"""Which part of a picture is preserved."""

import numpy as np
import pytest
from PIL import Image

from config import UserError
from gcodec.labels import Classes
from gcodec.selection import SYNTHESIZED_INSTANCES, Selection, heat_map, random_box, random_regions

CLASSES = Classes.of(["Sky", "Road", "Car"], [[0, 0, 255], [128, 64, 128], [255, 0, 0]], "test")  # and void


def test_a_heat_map_has_each_block_of_which_anything_is_preserved():
    m = np.zeros((33, 48), bool)
    m[15, 16] = m[32, 0] = True
    np.testing.assert_array_equal(heat_map(m), [[0, 1, 0], [0, 0, 0], [1, 0, 0]])


def test_a_quarter_of_the_instances_is_synthesized():
    instances = np.repeat(np.arange(8), 4).reshape(8, 4)
    m = random_regions(instances, np.random.default_rng(0), SYNTHESIZED_INSTANCES)
    assert (m.all(axis=1) | ~m.any(axis=1)).all() and (~m.any(axis=1)).sum() == 2


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


def test_a_random_box_is_a_box_and_never_empty():
    for seed in range(50):
        m = random_box((3, 5), np.random.default_rng(seed))
        rows, columns = m.any(axis=1), m.any(axis=0)
        assert m.any() and (m == rows[:, None] & columns).all()
        assert all(np.abs(np.diff(np.pad(side.astype(int), 1))).sum() == 2 for side in (rows, columns))
