"""The file: container, and what happens to damaged ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import UserError
from gcodec.container import MAX_SCALE, MAX_SIDE, SCALES, Header, coded_size, join, pack, read_header, split, unpack
from gcodec.entropy import FREQUENCY_SUM, MOST_BITS_BEYOND, RangeDecoder, StaticTables, integer_frequencies, weights_of

TABLES = StaticTables(integer_frequencies(np.array([[1, 2, 4, 2, 1], [1, 1, 90, 4, 4], [1e-9, 0, 1, 0, 0]])))
FINGERPRINT = b"\x01\x02\x03\x04"
HEADER = Header(40, 33, 0, 0, FINGERPRINT)
GOLDEN = "67802821010203040280559ed61f127b69491c05b6777800137cf3ffd90653bd31e18d"


def symbols(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 5, (height, width, 3), dtype=np.uint8)


def small_file() -> bytes:
    return pack(HEADER, TABLES.encode(symbols(3, 3)))


def test_golden_file():
    """The bytes of a file of format version 3: if this fails, every file out there has become unreadable."""
    field = (np.arange(3 * 3 * 3) * 7 % 11 % 5).astype(np.uint8).reshape(3, 3, 3)
    data = pack(HEADER, TABLES.encode(field))
    assert data.hex() == GOLDEN
    file = unpack(bytes.fromhex(GOLDEN))
    np.testing.assert_array_equal(TABLES.decode(file.payload, (3, 3, 3)), field)


@given(
    st.integers(1, MAX_SIDE), st.integers(1, MAX_SIDE), st.integers(0, MAX_SCALE), st.integers(0, 255), st.binary(max_size=9)
)
def test_the_container_gives_back_what_went_in(width, height, scale, channels, payload):
    header = Header(width, height, scale, channels, FINGERPRINT)
    assert unpack(pack(header, payload))[:2] == (header, payload)


def test_a_photo_takes_14_bytes_beside_the_payload_at_any_scale():
    for width, height, scale in ((768, 512, 0), (512, 768, 9), (12_000, 16_383, 63)):
        assert len(pack(Header(width, height, scale, 0, FINGERPRINT), b"payload")) == 14 + len(b"payload")


def test_the_coded_size_is_halved_by_every_eighth_scale():
    assert SCALES == 8 and [coded_size(512, 768, 8 * k) for k in range(3)] == [(512, 768), (256, 384), (128, 192)]
    assert coded_size(1, MAX_SIDE, MAX_SCALE) == (1, 279)  # 2^(-63/8) is 0.004261


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3))
def test_sections_come_back(sections):
    names = ["code", "mask", "symbols"][-len(sections) :]
    assert split(join(sections), names) == dict(zip(names, sections, strict=True))


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_any_symbols_survive_any_tables(height, width, channels, levels, seed):
    rng = np.random.default_rng(seed)
    tables = StaticTables(integer_frequencies(rng.dirichlet(np.full(levels, 0.2), channels)))
    field = rng.integers(0, levels, (height, width, channels), dtype=np.uint8)
    np.testing.assert_array_equal(tables.decode(tables.encode(field), field.shape), field)


@settings(max_examples=100)
@given(st.integers(0, 300), st.floats(0.001, 0.999), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_symbols_have_at_most_32_bits_of_information_beyond_their_payload(n, first, levels, seed):
    rng = np.random.default_rng(seed)
    tables = StaticTables(integer_frequencies(np.array([[first, *(1 - first) * rng.dirichlet(np.ones(levels - 1))]])))
    field = rng.integers(0, levels, (n, 1, 1), dtype=np.uint8) * (rng.random((n, 1, 1)) < 0.1)
    payload = tables.encode(field)
    assert tables.information(field).sum() <= 8 * len(payload) + MOST_BITS_BEYOND
    decoder = RangeDecoder(payload)
    weights = weights_of(tables.frequencies)
    decoder.account(weights[0, field.ravel()])  # raises nothing


def test_what_has_more_information_than_its_payload_is_refused():
    halves = StaticTables(np.array([[2**15, 2**15]]))
    assert halves.encode(np.zeros((31, 1, 1), np.uint8)) == b""  # so that no smaller limit would do
    weights = weights_of(halves.frequencies)[0, :1]
    for payload in (b"", b"\0\0\0\0"):
        decoder = RangeDecoder(payload)
        decoder.account(np.repeat(weights, 8 * len(payload) + 32))
        with pytest.raises(UserError, match="too short"):
            decoder.account(weights)


def test_the_payload_is_as_short_as_the_tables_allow():
    rng = np.random.default_rng(0)
    shares = TABLES.frequencies / FREQUENCY_SUM
    field = np.stack([rng.choice(5, (32, 48), p=row) for row in shares], axis=-1).astype(np.uint8)
    ideal = -sum(np.log2(shares[c, s]) for c in range(3) for s in field[:, :, c].ravel()) / 8
    assert ideal - 1 <= len(TABLES.encode(field)) <= 1.01 * ideal + 4


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
        (b"", "empty"),
        (small_file()[:9], "cut short"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a .gc file"),
        (b"gc\x01\x00" + bytes(20), "version 1"),
        (b"gc\x02\x08" + bytes(20), "version 2"),
    ],
)
def test_what_is_no_file_of_ours_is_named(data, named):
    with pytest.raises(UserError, match=named):
        unpack(data)


@pytest.mark.parametrize(
    ("start", "named"),
    [
        (b"g\x80\x00\x05" + FINGERPRINT, "0x5"),
        (b"g\xc0\x05\x05\x00" + FINGERPRINT, "0 channels"),
        (b"g\x80\x85\x00\x05" + FINGERPRINT, "too long"),  # 5, in two bytes
        (b"g\x80\xff\xff\xff\xff\x05" + FINGERPRINT, "too long"),
        (b"g\x80\xff\xff\x7f\x05" + FINGERPRINT, "2097151x5"),
        (b"g\x80\x05\x05" + FINGERPRINT[:3] + b"", "cut short|header"),
        (b"g\xc0\x85\x01\x05\x07" + FINGERPRINT[:3], "header"),
    ],
)
def test_a_header_that_no_encoder_writes_is_an_error(start, named):
    import zlib

    with pytest.raises(UserError, match=named):
        unpack(start + zlib.crc32(start).to_bytes(4, "little"))


@pytest.mark.parametrize("body", [b"", b"g", b"g\x80", b"g\x80\x05"])
def test_a_header_that_is_cut_anywhere_is_an_error(body):
    with pytest.raises(UserError, match="it ends within"):
        read_header(body)
