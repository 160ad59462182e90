"""evaluate.py --packets: what a lossy link makes of an image in packets, and of a plain file."""

import numpy as np
import pytest
from conftest import photo
from PIL import Image

import evaluate
from commands.loading import load_codec
from evaluation import lossy_link
from evaluation.metrics import ms_ssim, psnr
from gcodec import packets

SIZE = 64  # bytes of a packet; the images take several


def both(image: np.ndarray, picture: np.ndarray) -> list[float | None]:
    return [psnr(image, picture), ms_ssim(image, picture)]


def test_nothing_lost_gives_the_pictures_and_everything_lost_gives_gray(checkpoint, monkeypatch):
    monkeypatch.setattr(lossy_link, "LOSSES", (0.0, 0.5, 1.0))
    codec, image = load_codec(checkpoint), photo(180, 240)
    record = lossy_link.measure_image(codec, image, SIZE)
    sent, plain = packets.encode(codec, image, SIZE), codec.encode(image)
    assert record["packets"] == len(sent) > 3 and record["bytes"] == sum(map(len, sent))
    assert record["header_bytes"] == sum(len(packet) - len(packets.unpack(packet).payload) for packet in sent)
    assert record["plain_bytes"] == len(plain) <= record["plain_packets"] * (SIZE - packets.HEADER_SIZE)

    received = packets.decode(codec, {str(i): packet for i, packet in enumerate(sent)}).image
    decoded, gray = both(image, codec.decode(plain)), both(image, np.full_like(image, 128))
    assert record["losses"]["0.0"] == {"packets": both(image, received), "plain": decoded, "plain_whole": 1}
    assert record["losses"]["1.0"] == {"packets": pytest.approx(gray), "plain": pytest.approx(gray), "plain_whole": 0}
    half = record["losses"]["0.5"]
    assert half["plain_whole"] < 0.5  # it has more than one packet, each of which arrives every other time
    expected = [half["plain_whole"] * a + (1 - half["plain_whole"]) * b for a, b in zip(decoded, gray, strict=True)]
    assert half["plain"] == pytest.approx(expected)
    assert half["packets"] not in (both(image, received), gray)


def test_each_image_loses_other_packets_and_the_same_in_each_run():
    images = [photo(32, 32, seed=seed) for seed in range(40)]
    lost = [np.stack(lossy_link.draws(image, 0.5))[:, :8] for image in images]
    assert len({draw.tobytes() for image in lost for draw in image}) > 150  # of 256 that there are, in 400 draws
    assert 0.45 < np.mean(lost) < 0.55 and np.array_equal(lost[0], np.stack(lossy_link.draws(images[0], 0.5))[:, :8])


def test_a_table_of_losses_is_printed_and_a_second_run_measures_nothing_again(checkpoint, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    for i, size in enumerate([(180, 240), (64, 48)]):
        Image.fromarray(photo(*size, seed=i)).save(tmp_path / f"in/{i}.png")
    arguments = ["-r", str(checkpoint), "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--packets", str(SIZE)]
    assert evaluate.main(arguments) == 0
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("| ") and "%" in line]
    assert [row.split(" | ")[0] for row in rows] == ["| 0%", "| 10%", "| 25%", "| 50%"]
    assert "2 images, packets of at most 64 bytes" in printed and rows[0].count("100%") == 1
    monkeypatch.setattr(lossy_link, "measure_image", None)
    assert evaluate.main(arguments) == 0 and capsys.readouterr().out == printed
