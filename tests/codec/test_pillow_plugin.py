"""Pillow opens and saves .gc files."""

import io

import numpy as np
import pytest
from conftest import PROJECT, photo
from PIL import Image, UnidentifiedImageError

from gcodec import Codec, pillow_plugin
from gcodec.container import Header, pack


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load("photo_c8")


@pytest.fixture(scope="module")
def data(codec) -> bytes:
    return codec.encode(photo(50, 70))


def test_a_file_is_opened_by_its_header_and_decoded_when_its_pixels_are_needed(codec, data, tmp_path, monkeypatch):
    (tmp_path / "a.gc").write_bytes(data)
    decoded, codecs = [], pillow_plugin._codecs()
    monkeypatch.setattr(pillow_plugin, "_codecs", lambda: decoded.append(1) or codecs)
    with Image.open(tmp_path / "a.gc") as image:
        assert (image.format, image.size, image.mode, image.get_format_mimetype()) == ("GC", (70, 50), "RGB", "image/x-gc")
        assert not decoded
        for _ in range(2):
            np.testing.assert_array_equal(np.asarray(image), codec.decode(data))
        assert decoded == [1]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), codec.decode(data))


def test_an_image_is_saved_by_the_default_model_another_one_or_within_a_budget(codec, tmp_path):
    image = Image.fromarray(photo(200, 300)).convert("RGBA")
    image.save(tmp_path / "a.gc")
    assert (tmp_path / "a.gc").read_bytes() == codec.encode(photo(200, 300))
    image.save(tmp_path / "b.gc", model=PROJECT / "checkpoints/photo_c4", max_bytes=150)
    assert (tmp_path / "b.gc").stat().st_size <= 150 < (tmp_path / "a.gc").stat().st_size
    with Image.open(tmp_path / "b.gc") as small:
        assert small.resize((8, 8)).getextrema() != ((0, 0),) * 3
    for options, reason in (({"max_bytes": 5}, "does not fit into 5 bytes"), ({"model": "nowhere"}, "nowhere"),
                            ({"model": "camvid_sc_c8"}, "label map")):  # fmt: skip
        with pytest.raises(OSError, match=reason):
            image.save(tmp_path / "c.gc", **options)
        assert not (tmp_path / "c.gc").exists()


@pytest.mark.parametrize(("spoil", "reason"), [
    (lambda data: data[:5], "cut short"),
    (lambda data: data[:2] + b"\0\0" + data[4:], "not a valid .gc file"),
    (lambda data: b"gc\1" + data[3:], "format version 1; this program reads version 3"),
])  # fmt: skip
def test_a_file_whose_header_is_damaged_is_not_opened(data, spoil, reason):
    with pytest.raises(UnidentifiedImageError, match=reason) as error:
        Image.open(io.BytesIO(spoil(data)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("spoil", "reason"), [
    (lambda data: data[:-1], "damaged"),
    (lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:], "damaged"),
    (lambda data: pack(Header(70, 50, 0, 0, b"else"), data[8:-4]), "its model, of fingerprint 656c7365, is not here"),
    (lambda data: pack(Header(6000, 5000, 0, 0, data[4:8]), data[8:-4]), "max_pixels"),
])  # fmt: skip
def test_a_file_whose_payload_is_damaged_or_whose_model_is_not_here_is_an_error_when_it_is_decoded(data, spoil, reason):
    image = Image.open(io.BytesIO(spoil(data)))
    for _ in range(2):
        with pytest.raises(OSError, match=reason) as error:
            image.load()
        assert "\n" not in str(error.value)


def test_other_formats_are_opened_as_before(tmp_path):
    Image.fromarray(photo(20, 30)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UnidentifiedImageError, match="cannot identify image file"):
        Image.open(tmp_path / "a.txt")
