"""The choice of model and coded size for a budget of bytes."""

import numpy as np
import pytest
from conftest import PROJECT, photo
from hypothesis import given, settings
from hypothesis import strategies as st

from config import UserError
from evaluation.metrics import psnr
from gcodec import Codec
from gcodec.budget import _smallest_scale, best_file
from gcodec.container import MAX_SCALE, unpack

SIZES = st.lists(st.integers(1, 4000), min_size=MAX_SCALE + 1, max_size=MAX_SCALE + 1).map(lambda s: sorted(s, reverse=True))


@given(SIZES, st.integers(15, 4100), st.integers(0, MAX_SCALE))
def test_the_search_finds_the_largest_coded_size_that_fits(sizes, max_bytes, guess):
    asked = []

    def encode(scale):
        asked.append(scale)
        return bytes(sizes[scale])

    fitting = [scale for scale, size in enumerate(sizes) if size <= max_bytes]
    assert _smallest_scale(encode, max_bytes, guess) == (min(fitting) if fitting else None)
    assert len(asked) == len(set(asked))


@pytest.fixture(scope="module")
def codecs():
    return [Codec.load(PROJECT / f"checkpoints/photo_c{C}") for C in (4, 8)]


@settings(max_examples=12)
@given(st.integers(1, 260), st.integers(1, 260), st.integers(64, 300), st.integers(0, 2**32 - 1))
def test_every_budget_is_kept_and_every_file_decodes_to_the_images_size(codecs, height, width, max_bytes, seed):
    rng = np.random.default_rng(seed)
    image = [photo(height, width, seed=seed % 100), rng.integers(0, 256, (height, width, 3), dtype=np.uint8)][seed % 2]
    codec, data, picture = best_file(image, codecs, max_bytes, psnr)
    assert len(data) <= max_bytes
    np.testing.assert_array_equal(codec.decode(data), picture)
    assert picture.shape == image.shape


def test_the_better_model_is_taken(codecs):
    image = photo(120, 160)
    files = [best_file(image, [codec], 200, psnr) for codec in codecs]
    best = best_file(image, codecs, 200, psnr)
    assert psnr(image, best.picture) == max(psnr(image, file.picture) for file in files)
    assert unpack(best.data).header.fingerprint == best.codec.checkpoint.fingerprint


def test_a_budget_for_all_takes_the_better_model_at_the_images_own_size(codecs):
    image = photo(120, 160)
    files = [codec.encode(image) for codec in codecs]
    best = max(
        files, key=lambda data: psnr(image, next(c for c, d in zip(codecs, files, strict=True) if d == data).decode(data))
    )
    assert best_file(image, codecs, 10**6, psnr).data == best


@pytest.mark.parametrize("max_bytes", [1, 14, 15])
def test_a_budget_that_cannot_be_met_names_one_that_can(codecs, max_bytes):
    image = photo(300, 300)
    with pytest.raises(UserError, match=rf"does not fit into {max_bytes} bytes; (\d+) are enough$") as error:
        best_file(image, codecs, max_bytes, psnr)
    enough = int(str(error.value).split()[-3])
    assert enough == min(len(codec.encode(image, scale=MAX_SCALE)) for codec in codecs)
    assert max_bytes < len(best_file(image, codecs, enough, psnr).data) <= enough
