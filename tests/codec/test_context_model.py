"""Entropy models: the context model's integers, its round trips, and its fitting."""

import hashlib

import numpy as np
import pytest
from conftest import model_arrays
from hypothesis import example, given, settings
from hypothesis import strategies as st

from config import UserError
from gcodec import context_model, entropy
from gcodec.context_model import NEIGHBOURS, POWERS, SHAPES, ContextModel, Field
from gcodec.entropy import FREQUENCY_SUM, StaticTables, frequencies_of


def symbol_field(kind: str, shape: tuple, levels: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x, c = np.indices(shape)
    return {
        "noise": rng.integers(0, levels, shape),
        "lowest": np.zeros(shape),
        "highest": np.full(shape, levels - 1),
        "alternating": (x + y + c) % 2 * (levels - 1),
        "blocks": rng.integers(0, levels, (shape[0] // 5 + 1, shape[1] // 5 + 1, shape[2]))[y // 5, x // 5, c],
        "one of its kind": np.where((y == shape[0] // 2) & (x == shape[1] // 2), levels - 1, 0),
    }[kind].astype(np.uint8)


KINDS = ["noise", "lowest", "highest", "alternating", "blocks", "one of its kind"]


@settings(max_examples=30)
@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(1, 12),
    st.integers(2, 9),
    st.sampled_from(KINDS),
    st.sampled_from([0, 30, 300, 3000]),
    st.integers(0, 2**32 - 1),
)
@example(150, 150, 2, 5, "noise", 300, 0)
@example(1, 1, 1, 2, "highest", 3000, 0)
@example(300, 1, 8, 5, "alternating", 3000, 0)
@example(1, 300, 8, 5, "alternating", 3000, 0)
def test_any_symbols_survive_any_context_model(height, width, channels, levels, kind, spread, seed):
    channels = max(1, min(channels, 30_000 // (height * width)))  # to keep the time of a large map in bounds
    model = ContextModel(model_arrays(channels, levels, spread=spread, seed=seed))
    sent = 1 + seed % channels
    symbols = symbol_field(kind, (height, width, channels), levels, seed)[:, :, :sent]
    payload = model.encode(symbols)
    assert payload == model.encode(symbols)
    np.testing.assert_array_equal(model.decode(payload, symbols.shape), symbols)
    ideal = model.information(symbols).sum() / 8
    assert ideal - 8 <= len(payload) <= 1.01 * ideal + 8


GOLDEN = "1ac601cc16264ea3ec058845e6ca2fe55c80"

GOLDEN_TABLES = "1cef24d9e3a20bf0"


def test_golden_payload():
    """If this fails, every file out there has become unreadable."""
    sizes = {"N": len(NEIGHBOURS) * 4, "C": 3, "H": 6, "L": 5}
    arrays = {}
    for k, (name, letters) in enumerate(SHAPES.items()):
        shape = [sizes[i] for i in letters]
        ramp = (np.arange(np.prod(shape)) * (97 + 2 * k) % 1031 - 515).reshape(shape)
        arrays[name] = ramp.astype("i4" if "bias" in name else "i2")
    symbols = (np.arange(4 * 5 * 3) * 7 % 11 % 5).astype(np.uint8).reshape(4, 5, 3)
    payload = ContextModel(arrays).encode(symbols)
    assert payload.hex() == GOLDEN
    np.testing.assert_array_equal(ContextModel(arrays).decode(payload, symbols.shape), symbols)
    field = (np.arange(40 * 50 * 3) * 7 % 11 % 5).astype(np.uint8).reshape(40, 50, 3)  # a short payload hides an off-by-one
    tables = [frequencies_of(chunk).astype("<i8").tobytes() for _, _, chunk in ContextModel(arrays)._tables(field, None)]
    assert hashlib.sha256(b"".join(tables)).hexdigest()[:16] == GOLDEN_TABLES


def test_tables_are_positive_and_have_the_exact_sum():
    for spread in (0, 300, 3000, 30000 // 8):
        model = ContextModel(model_arrays(4, 9, spread=spread))
        for _, coded, tables in model._tables(symbol_field("noise", (9, 70, 4), 9, 0), None):
            frequencies = frequencies_of(tables)
            assert frequencies.min() >= 1 and (frequencies.sum(axis=1) == FREQUENCY_SUM).all()
            assert (frequencies == np.floor(frequencies)).all() and len(coded) == len(frequencies)


@pytest.mark.parametrize("symbol", range(5))
def test_the_range_coder_uses_exactly_the_integer_frequencies(symbol):
    tables = StaticTables(np.array([[1, 65531, 1, 1, 2]]))
    symbols = np.full((200, 500, 1), symbol, np.uint8)
    assert 0 <= 8 * len(tables.encode(symbols)) - tables.information(symbols)[0] <= 64  # of up to 1.6 million bits


def test_powers_are_the_integer_parts_of_powers_of_two():
    from fractions import Fraction

    assert POWERS[0] == 2**16 and POWERS[32] == 2**15 and POWERS[-1] == 0
    for d, power in enumerate(POWERS[:-1].tolist()):  # p <= 2^(16 - d/32) < p + 1, to the 32nd power
        assert Fraction(power) ** 32 <= Fraction(2) ** (512 - d) < Fraction(power + 1) ** 32


def test_diagonals_hold_each_position_once_after_all_that_it_sees():
    for height, width in [(1, 1), (7, 1), (1, 7), (5, 9), (9, 4)]:
        field = Field((height, width, 1), 1, 5)
        seen = set()
        for positions in field.diagonals():
            for position in positions:
                inside = {n for n in position + field.offsets if field.flat[n, -1]}
                assert inside <= seen
            seen |= set(positions.tolist())
        assert len(seen) == height * width


def test_the_encoder_sees_exactly_what_the_decoder_sees_however_it_is_cut_into_chunks(monkeypatch):
    model = ContextModel(model_arrays(3, 5))
    symbols = symbol_field("blocks", (30, 40, 3), 5, 0)
    payload = model.encode(symbols)
    monkeypatch.setattr(context_model, "CHUNK", 17)
    assert model.encode(symbols) == payload


def test_channels_that_are_not_sent_change_nothing():
    model = ContextModel(model_arrays(4, 5))
    symbols = symbol_field("noise", (9, 8, 4), 5, 0)
    changed = symbols.copy()
    changed[:, :, 2:] = 0
    assert model.encode(symbols[:, :, :2]) == model.encode(changed[:, :, :2]) != model.encode(symbols)


@pytest.mark.parametrize("spoil", [
    lambda a: a.pop("hidden"),
    lambda a: a.update(hidden=a["hidden"][:, :-1]),
    lambda a: a.update(hidden=a["hidden"].astype(np.float32)),
    lambda a: a.update(neighbours=a["neighbours"][:-1]),
    lambda a: a.update(bias3=a["bias3"].astype(np.int16)),
    lambda a: a.update(bias2=np.full_like(a["bias2"], 2**31 - 1)),
])  # fmt: skip
def test_arrays_that_are_no_context_model_are_refused(spoil):
    arrays = model_arrays(3, 5)
    spoil(arrays)
    with pytest.raises(UserError, match="context model"):
        ContextModel(arrays)


def test_sums_stay_in_an_int32_up_to_the_bound_that_is_checked():
    """The largest weights that are accepted, with inputs that drive every sum to its bound."""
    arrays = model_arrays(2, 9, hidden=3, spread=0)
    arrays["hidden"][:] = 2**15 - 1
    arrays["neighbours"][:] = 2**15 - 1
    arrays["bias2"][:] = 2**31 - 1 - 3 * 1024 * (2**15 - 1)
    arrays["bias3"][:, 4] = 2**20  # one symbol is favoured: equal tables would hide a wrapped sum
    model = ContextModel(arrays)
    symbols = symbol_field("highest", (6, 7, 2), 9, 0)
    field = Field.of(symbols, 2, 9)
    positions = np.concatenate(list(field.diagonals()))
    exact = field.neighbours(positions).astype(np.int64) @ arrays["neighbours"].astype(np.int64)[:, 0]
    np.testing.assert_array_equal(4 * model._sums(field, positions)[0], exact)
    np.testing.assert_array_equal(model.decode(model.encode(symbols), symbols.shape), symbols)
    arrays["bias2"][:] += 2 * 1024
    with pytest.raises(UserError, match="overflow"):
        ContextModel(arrays)


def test_a_payload_that_is_too_short_for_its_size_is_an_error_soon():
    """Else a forged size would be decoded to its end, out of nothing."""
    model = ContextModel(model_arrays(3, 5))
    payload = model.encode(symbol_field("noise", (20, 20, 3), 5, 0))
    with pytest.raises(UserError, match="too short"):
        model.decode(payload, (1000, 1000, 3))
    for shape in [(19, 20, 3), (20, 21, 3), (20, 20, 2), (10, 40, 3)]:
        with pytest.raises(UserError, match="damaged"):
            model.decode(payload, shape)


# ----------------------------------------------------------------------------------------------------------------------
# Fitting
# ----------------------------------------------------------------------------------------------------------------------


def correlated(seed: int) -> np.ndarray:
    """Symbols (20, 24, 3) that mostly repeat their neighbour to the left and the channel before."""
    rng = np.random.default_rng(seed)
    symbols = symbol_field("blocks", (20, 24, 3), 5, seed)
    symbols[:, :, 1] = 4 - symbols[:, :, 0]
    fresh = rng.random(symbols.shape) < 0.05
    return np.where(fresh, rng.integers(0, 5, symbols.shape), symbols).astype(np.uint8)


@pytest.fixture(scope="module")
def fitted():
    from training.fit_entropy import train_context_model

    return train_context_model([correlated(seed) for seed in range(12)], 5, steps=400, partial=0.25)


def test_a_fitted_model_beats_the_tables_by_far(fitted):
    counts = np.stack([np.bincount(correlated(99)[:, :, c].ravel(), minlength=5) for c in range(3)])
    tables = StaticTables(entropy.integer_frequencies(counts))  # of the very symbols
    bits = fitted[1].information(correlated(99))
    assert bits.sum() < 0.6 * tables.information(correlated(99)).sum()
    assert bits[1] < 0.9 * bits[0]  # what the channel before gives away costs nothing again
    assert len(fitted[1].encode(correlated(99))) <= bits.sum() / 8 * 1.01 + 8


def test_rounding_to_integers_costs_next_to_nothing(fitted):
    from training.fit_entropy import bits_per_symbol

    network, model = fitted
    images = [(correlated(seed), None) for seed in (99, 100)]
    assert bits_per_symbol(model, images) == pytest.approx(bits_per_symbol(network, images), rel=0.005)


def test_a_rate_loss_counts_the_bits_that_the_files_will_have(fitted):
    network, _ = fitted
    images = np.stack([correlated(seed) for seed in (99, 100)])
    masks = np.ones((2, 20, 24), np.uint8)
    masks[1, 5:12, 3:20] = 0
    probabilities = network.probabilities(images.astype(np.float32), masks[..., None].astype(np.float32))
    bits = -np.log2(np.take_along_axis(np.asarray(probabilities), images[..., None].astype(int), axis=-1))[..., 0]
    for image, mask, per_symbol in zip(images, masks, bits, strict=True):
        assert per_symbol[mask != 0].sum(axis=0) == pytest.approx(network.information(image, mask), rel=1e-4)


def test_a_model_that_was_fitted_to_fewer_channels_too_takes_them(fitted):
    symbols = correlated(99)[:, :, :1]
    alone, all_channels = (fitted[1].information(s)[0] for s in (symbols, correlated(99)))
    assert alone < 1.25 * all_channels
