"""tools/checkpoint.py: what ships of a checkpoint, and blends of two."""

import shutil

import numpy as np

from commands.loading import load_codec
from gcodec import read_image
from gcodec.checkpoint import read_arrays, read_checkpoint
from tools import checkpoint as export
from training.trainer import Trainer


def test_what_ships_of_a_checkpoint_compresses_as_it_does(checkpoint, photos, tmp_path, capsys):
    shipped = tmp_path / "shipped"
    assert export.main(["-r", str(checkpoint), "-o", str(shipped)]) == 0
    assert sorted(file.name for file in shipped.iterdir()) == ["config.json", "fingerprint.txt", "model.npz"]
    source = max(checkpoint.glob("ckpt-*"))
    assert (shipped / "model.npz").stat().st_size < 0.45 * (source / "model.npz").stat().st_size
    whole, half = load_codec(checkpoint), load_codec(shipped)
    assert whole.checkpoint.fingerprint != half.checkpoint.fingerprint
    contents, rounded = (codec.contents(read_image(photos / "0.png")) for codec in (whole, half))
    assert (contents.symbols == rounded.symbols).mean() > 0.9
    pictures = [codec.picture(contents, 80, 96).astype(int) for codec in (whole, half)]
    assert np.abs(pictures[0] - pictures[1]).mean() < 2
    assert Trainer.start_from(read_checkpoint(shipped), {}).step == 0
    assert export.main(["-r", str(checkpoint), "-o", str(shipped)]) == 2
    assert "there already" in capsys.readouterr().err


def test_a_blend_is_between_two_generators_of_one_encoder(checkpoint, tmp_path, capsys):
    source, other = max(checkpoint.glob("ckpt-*")), tmp_path / "other"
    shutil.copytree(source, other)
    weights = read_arrays(source / "model.npz")
    moved = {name: array + 1 if name.startswith(("generator", "noise_generator")) else array for name, array in weights.items()}
    np.savez(other / "model.npz", **moved | {"frequencies": weights["frequencies"][::-1]})
    blend = ["-r", str(source), "--blend", str(other)]
    assert export.main([*blend, "0.25", "-o", str(tmp_path / "blended")]) == 0
    for name, array in read_arrays(tmp_path / "blended/model.npz").items():
        wanted = weights[name] + 0.25 * (moved[name] is not weights[name])
        np.testing.assert_allclose(array, wanted, rtol=2**-6, atol=2e-3)  # six significant bits
    for share in ("1.5", "nan", "much"):
        assert export.main([*blend, share, "-o", str(tmp_path / "b")]) == 2
        assert f"--blend: '{share}'" in capsys.readouterr().err
    np.savez(other / "model.npz", **moved | {"encoder/last/bias": moved["encoder/last/bias"] + 1})
    assert export.main([*blend, "0.5", "-o", str(tmp_path / "b")]) == 2
    assert "encoder/last/bias differs" in capsys.readouterr().err
    np.savez(other / "model.npz", **{name: array for name, array in moved.items() if name != "generator/first/kernel"})
    assert export.main([*blend, "0.5", "-o", str(tmp_path / "b")]) == 2
    assert "generator/first/kernel is not as" in capsys.readouterr().err and not (tmp_path / "b").exists()


def test_weights_beyond_half_precision_are_not_shipped(checkpoint, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(max(checkpoint.glob("ckpt-*")), broken)
    with np.load(broken / "model.npz") as saved:
        arrays = dict(saved)
    arrays["encoder/first/kernel"][0, 0, 0, 0] = 1e6
    np.savez(broken / "model.npz", **arrays)
    (broken / "fingerprint.txt").unlink()
    assert export.main(["-r", str(broken), "-o", str(tmp_path / "shipped")]) == 2
    assert "encoder/first/kernel" in capsys.readouterr().err and not (tmp_path / "shipped").exists()
