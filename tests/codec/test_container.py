"""The file: container, and what happens to damaged ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.container import HEADER, VERSION, pack, unpack
from codec.entropy import FREQUENCY_SUM, StaticTables, integer_frequencies
from config import UserError

TABLES = StaticTables(integer_frequencies(np.array([[1, 2, 4, 2, 1], [1, 1, 90, 4, 4], [1e-9, 0, 1, 0, 0]])))
FINGERPRINT = b"\x01\x02\x03\x04"
GOLDEN = "6763020328002100010203049e5580027b121fd6051c4969007877b6fff37c13775206d915813b30"


def symbols(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 5, (height, width, 3), dtype=np.uint8)


def small_file() -> bytes:
    return pack(40, 33, 3, FINGERPRINT, TABLES.encode(symbols(3, 3)))


def test_golden_file():
    """The bytes of a file of format version 2: if this fails, every file out there has become unreadable."""
    field = (np.arange(3 * 3 * 3) * 7 % 11 % 5).astype(np.uint8).reshape(3, 3, 3)
    data = pack(40, 33, 3, FINGERPRINT, TABLES.encode(field))
    assert data.hex() == GOLDEN
    file = unpack(bytes.fromhex(GOLDEN))
    np.testing.assert_array_equal(TABLES.decode(file.payload, (3, 3, 3)), field)


def test_the_container_gives_back_what_went_in_at_a_fixed_cost_of_16_bytes():
    payload = TABLES.encode(symbols(3, 3))
    file = unpack(pack(40, 33, 3, FINGERPRINT, payload))
    assert file[:5] == (40, 33, 3, FINGERPRINT, payload)
    assert len(pack(40, 33, 3, FINGERPRINT, payload)) - len(payload) == 16


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_any_symbols_survive_any_tables(height, width, channels, levels, seed):
    rng = np.random.default_rng(seed)
    tables = StaticTables(integer_frequencies(rng.dirichlet(np.full(levels, 0.2), channels)))
    field = rng.integers(0, levels, (height, width, channels), dtype=np.uint8)
    np.testing.assert_array_equal(tables.decode(tables.encode(field), field.shape), field)


def test_the_payload_is_as_short_as_the_tables_allow():
    rng = np.random.default_rng(0)
    shares = TABLES.frequencies / FREQUENCY_SUM
    field = np.stack([rng.choice(5, (32, 48), p=row) for row in shares], axis=-1).astype(np.uint8)
    ideal = -sum(np.log2(shares[c, s]) for c in range(3) for s in field[:, :, c].ravel()) / 8
    assert ideal <= len(TABLES.encode(field)) <= 1.01 * ideal + 8


def test_frequencies_are_positive_and_have_the_exact_sum():
    rng = np.random.default_rng(0)
    for levels in (2, 5, 9, 255):
        frequencies = integer_frequencies(rng.dirichlet(np.full(levels, 0.05), 20))
        assert frequencies.min() >= 1 and (frequencies.sum(axis=1) == FREQUENCY_SUM).all()


def test_tables_with_a_wrong_sum_are_refused():
    with pytest.raises(UserError, match="sum"):
        StaticTables(np.array([[1, 2, 3]]))
    with pytest.raises(UserError, match="whole"):
        StaticTables(np.array([[0.5, 65535.5]]))


def test_every_flipped_bit_is_an_error():
    data = small_file()
    for i in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[i // 8] ^= 1 << i % 8
        with pytest.raises(UserError):
            unpack(bytes(damaged))


def test_every_truncation_is_an_error():
    data = small_file()
    for n in range(len(data)):
        with pytest.raises(UserError):
            unpack(data[:n])


@pytest.mark.parametrize("extra", [b"\0", b"\0\0\0\0", b"more"])
def test_an_extended_file_is_an_error(extra):
    with pytest.raises(UserError):
        unpack(small_file() + extra)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "cut short"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a .gc file"),
        (b"gc\x01\x00" + bytes(20), "version 1"),
        (pack(1, 1, 3, FINGERPRINT, b"")[:2] + b"\x09" + bytes(20), "version 9"),
    ],
)
def test_what_is_no_file_of_ours_is_named(data, named):
    with pytest.raises(UserError, match=named):
        unpack(data)


def test_an_image_without_pixels_is_an_error():
    import zlib

    body = HEADER.pack(b"gc", VERSION, 3, 0, 5, FINGERPRINT)
    with pytest.raises(UserError, match="0x5"):
        unpack(body + zlib.crc32(body).to_bytes(4, "little"))


def test_a_payload_of_another_size_is_an_error():
    payload = TABLES.encode(symbols(3, 3))
    for other in [payload + bytes(4), payload[:-4], payload[:-1], b""]:
        with pytest.raises(UserError, match="damaged"):
            TABLES.decode(other, (3, 3, 3))
    with pytest.raises(UserError, match="damaged"):
        TABLES.decode(payload, (5, 5, 3))


def test_an_image_too_large_for_the_format_is_an_error():
    with pytest.raises(UserError, match="65535"):
        pack(2**16, 1, 3, FINGERPRINT, b"")
