"""Padding and pixels."""

import numpy as np
import pytest
from conftest import photo

from gcodec.pictures import pad, padded_size, to_float, to_uint8


@pytest.mark.parametrize(("size", "expected"), [((1, 1), (32, 32)), ((32, 33), (32, 48)), ((512, 768), (512, 768))])
def test_padding_reaches_multiples_of_16_and_keeps_the_image(size, expected):
    image = photo(*size)
    assert padded_size(*size) == expected
    assert pad(image).shape[:2] == expected
    np.testing.assert_array_equal(pad(image)[: size[0], : size[1]], image)
    assert pad(image[..., 0]).shape == expected


def test_bytes_survive_the_way_to_floats_and_back():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    assert to_float(image).min() == -1 and to_float(image).max() == 1
    np.testing.assert_array_equal(to_uint8(to_float(image)), image)
