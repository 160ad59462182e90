"""Fitting a context model."""

import numpy as np
import pytest
from conftest import label_map

from config import config_train
from gcodec.codec import Contents
from gcodec.context_model import ContextModel
from training import fit_entropy
from training.fit_entropy import train_context_model
from training.rate import network_inputs


def test_a_fit_to_too_much_takes_a_part(monkeypatch):
    symbols = [np.random.default_rng(i).integers(0, 5, (20, 20, 2), dtype=np.uint8) for i in range(10)]
    row = network_inputs(symbols[0], 5)[0].nbytes
    monkeypatch.setattr(fit_entropy, "MAX_INPUT_BYTES", 1000 * row)
    pairs = [(image, None) for image in symbols]
    inputs, targets = fit_entropy._rows(pairs, 5, False, np.random.default_rng(0))
    assert 850 < len(inputs) == len(targets) < 1150
    assert len({row.tobytes() for row in np.concatenate([inputs.reshape(len(inputs), -1), targets], axis=1)}) > 700


@pytest.mark.parametrize(("of", "share"), [("symbols", 0.3), ("code", 0.0)])
def test_a_fit_hides_channels_of_the_symbols_as_channel_dropout_does(of, share, monkeypatch, tmp_path):
    shares = []
    network, model = train_context_model([np.zeros((4, 6, 2), np.uint8)], 5, 1)
    monkeypatch.setattr(fit_entropy, "train_context_model", lambda *arguments: shares.append(arguments[-1]) or (network, model))
    monkeypatch.setattr(fit_entropy, "save_context_model", lambda *_: None)
    symbols = np.zeros((4, 6, 2), np.uint8)
    contents = Contents(symbols, symbols, None)
    config = config_train(channel_dropout=0.3, use_conditional_GAN=True, n_classes=4, semantic_code="learned")
    fit_entropy._fit_one(of, [contents], [], config, tmp_path)
    assert shares == [share]


def test_classes_and_masked_symbols_survive_the_context_model():
    maps = [np.roll(label_map(24, 30), i, axis=1)[..., None] for i in range(6)]
    _, model = train_context_model(maps, 4, 60, one_hot=True)
    assert model.one_hot
    np.testing.assert_array_equal(model.decode(model.encode(maps[0]), maps[0].shape), maps[0])
    rng = np.random.default_rng(0)
    symbols, mask = rng.integers(0, 5, (9, 14, 3), dtype=np.uint8), rng.integers(0, 2, (9, 14))
    _, model = train_context_model([symbols], 5, 5, masks=[mask])
    changed = np.where(mask[..., None], symbols, 4 - symbols).astype(np.uint8)
    payload = model.encode(symbols, mask)
    assert payload == model.encode(changed, mask) and len(payload) < 0.8 * len(model.encode(symbols))
    np.testing.assert_array_equal(model.decode(payload, symbols.shape, mask), symbols * (mask[..., None] != 0))
    assert isinstance(model, ContextModel)
