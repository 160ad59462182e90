"""tools/plot_losses.py as its users run it."""

import tensorflow as tf
from PIL import Image

from terms import TERMS
from tools import plot_losses


def test_the_losses_of_a_run_are_plotted(checkpoint, tmp_path, capsys):
    run = checkpoint.parent.parent / "tensorboard/tiny"
    assert plot_losses.main([str(run), "-o", str(tmp_path / "losses.png")]) == 0
    with Image.open(tmp_path / "losses.png") as picture:
        assert picture.height > 500
    scalars = plot_losses.read_scalars(run)
    assert scalars["distortion"][0][0] == 4 and 0 < scalars["distortion"][0][1] < 4
    assert plot_losses.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_every_scalar_is_shown_and_a_run_of_one_point():
    scalars = {name: [(8, 1.0)] for name in (*TERMS, "PSNR", "held_out_PSNR", "lambda_rate", "preserved", "G_learning_rate")}
    lines = [line for axes in plot_losses.plot_losses(scalars).axes for line in axes.lines]
    assert sorted(line.get_label() for line in lines) == sorted(scalars)
    assert all(line.get_marker() == "o" for line in lines)


def test_a_run_without_losses_is_told(tmp_path, capfd):
    writer = tf.summary.create_file_writer(str(tmp_path))
    writer.flush()
    assert plot_losses.main([str(tmp_path), "-o", str(tmp_path / "l.png")]) == 2
    assert "no losses in its log yet" in capfd.readouterr().err
