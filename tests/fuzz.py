#!/usr/bin/env python3
"""Damage files in every way we can think of, and decode them: each must end in a clean error, soon and in little memory.

    python3 tests/fuzz.py --files 100000
    python3 tests/fuzz.py --files 10000 -r checkpoints/camvid_sc_c8     # with a label map and a heat map in the files

Damaged: as disks, networks and editors do it, so that the checksum tells. Each must be an error, or the very picture if
nothing changed. Forged: the checksum was made to match, so that what is behind it is tested too. Such a file may be that of
another picture, by the format's own rules; then a picture of the size and the symbols that it says must come out.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from cGAN.labels import LabelMap
from codec import Codec, read_image
from codec.container import MAGIC, MAX_SCALE, VERSION_BIT, pack, unpack
from codec.integers import varint
from config import UserError, config_test, directories
from utils import Utils

MAX_SECONDS = 0.5
MAX_BYTES = 200e6


# ----------------------------------------------------------------------------------------------------------------------
# Kinds of damage: (data, another file, rng) -> bytes
# ----------------------------------------------------------------------------------------------------------------------


def bit_flips(data, other, rng):
    array = np.frombuffer(data, np.uint8).copy()
    for bit in rng.integers(8 * len(array), size=rng.integers(1, 9)):
        array[bit // 8] ^= 1 << bit % 8
    return array.tobytes()


def cut(data, other, rng):
    start, end = sorted(rng.integers(0, len(data) + 1, 2))
    return [data[:end], data[start:], data[:start] + data[end:]][rng.integers(3)]


def splice(data, other, rng):
    return data[: rng.integers(len(data) + 1)] + other[rng.integers(len(other) + 1) :]


def extended(data, other, rng):
    return data + rng.bytes(rng.integers(1, 100))


def zeroed_block(data, other, rng):
    start, length = rng.integers(len(data)), rng.integers(1, 64)
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def random_bytes(data, other, rng):
    return [MAGIC, MAGIC + bytes([VERSION_BIT]), data[:10], b""][rng.integers(4)] + rng.bytes(rng.integers(0, 3000))


def newlines_translated(data, other, rng):
    return [data.replace(b"\n", b"\r\n"), data.decode("latin1").encode("utf8")][rng.integers(2)]


DAMAGE = (bit_flips, cut, splice, extended, zeroed_block, random_bytes, newlines_translated)


# ----------------------------------------------------------------------------------------------------------------------
# Forgeries: (file as unpacked, rng) -> what is then packed, with its checksum
# ----------------------------------------------------------------------------------------------------------------------


def said(file, **changes):
    """Return an unpacked file whose header says something else."""
    return file._replace(header=file.header._replace(**changes))


def size(file, rng):
    sides = [1, 15, 17, 31, 33, 255, 1000, 4000, 5000, 2**15, 2**16 - 1, int(rng.integers(1, 2**16))]
    width, height = ([file.header.width, file.header.height, *sides][i] for i in rng.integers(2 + len(sides), size=2))
    return said(file, width=width, height=height)


def size_within_the_cap(file, rng):
    width = int(rng.integers(1, 2**16))
    return said(file, width=width, height=int(min(2**16 - 1, config_test().max_pixels // width)))


def channels(file, rng):
    return said(file, channels=int(rng.integers(0, 256)) if rng.random() < 0.3 else int(rng.integers(0, 12)))


def scale(file, rng):
    return said(file, scale=int(rng.integers(0, MAX_SCALE + 1)))


def fingerprint(file, rng):
    return said(file, fingerprint=rng.bytes(4))


def payload_changed(file, rng):
    return file._replace(payload=bit_flips(file.payload, b"", rng)) if file.payload else file


def payload_cut(file, rng):
    return file._replace(payload=file.payload[: rng.integers(len(file.payload) + 1)])


def payload_extended(file, rng):
    return file._replace(payload=file.payload + [bytes(4), b"\xff" * 4, rng.bytes(rng.integers(1, 50))][rng.integers(3)])


def payload_random(file, rng):
    return file._replace(payload=rng.bytes(rng.integers(0, 1600)))


def payload_constant(file, rng):
    return file._replace(payload=[b"\0", b"\xff"][rng.integers(2)] * int(rng.integers(0, 1600)))


def section_length(file, rng):
    length = int(rng.integers(0, 2**28) if rng.random() < 0.3 else rng.integers(0, 1 + len(file.payload)))
    return file._replace(payload=varint(length) + file.payload[len(varint(length)) :])


FORGERY = (size, size_within_the_cap, scale, channels, fingerprint, payload_changed, payload_cut, payload_extended,
           payload_random, payload_constant, section_length)  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------
# The run
# ----------------------------------------------------------------------------------------------------------------------


def fuzz(codec: Codec, images: list[np.ndarray], n: int, seed: int = 0) -> tuple[Counter, dict, int]:
    """Decode n damaged files, a tenth of them forged. Returns the counts of (kind, outcome), the longest CPU time in
    seconds and its kind by outcome, and the most bytes that the process grew by for one file.

    Raises whatever but UserError the decoder raises, and AssertionError for a wrong picture.
    """
    rng = np.random.default_rng(seed)
    files = [data for image in images for data in encodings(codec, image)]
    pictures = [codec.decode(data) for data in files]  # also the warm-up
    counts: Counter = Counter()
    slowest: dict[str, tuple[float, str]] = {}
    grown = 0
    for i in range(n):
        which, other = rng.integers(len(files), size=2)
        if forged := i % 10 == 0:
            kind = FORGERY[rng.integers(len(FORGERY))]
            file = kind(unpack(files[which]), rng)
            data = pack(*file[:2])
        else:
            kind = DAMAGE[rng.integers(len(DAMAGE))]
            data = kind(files[which], files[other], rng)
        name = "forged " * forged + kind.__name__
        before = Utils.memory()
        Utils.reset_peak_memory()
        start = time.process_time()
        try:
            picture = codec.decode(data)
            seconds = time.process_time() - start
        except UserError as error:
            seconds = time.process_time() - start
            assert "\n" not in str(error)
            outcome = "clean error"
        else:
            if data in files:
                assert np.array_equal(picture, pictures[files.index(data)]), f"file {i}: {kind.__name__}: a wrong picture"
                outcome = "nothing changed, the right picture"
            else:
                assert forged, f"file {i}: {kind.__name__}: a damaged file was decoded"
                assert picture.shape == (file.header.height, file.header.width, 3)
                outcome = "the picture that the forged file says"
        grown = max(grown, Utils.memory("VmHWM") - before)
        slowest[outcome] = max(slowest.get(outcome, (0.0, "")), (seconds, name))
        counts[name, outcome] += 1
    return counts, slowest, grown


def encodings(codec: Codec, image: np.ndarray) -> list[bytes]:
    """Files of an image with all channels and with some; with labels, and half of it synthesized, if the model has these."""
    height, width = image.shape[:2]
    config = codec.config
    coarse = np.random.default_rng(0).integers(0, config.n_classes, (1 + height // 40, 1 + width // 40))
    s = np.kron(coarse, np.ones((40, 40), int))[:height, :width].astype(np.uint8)
    preserved = np.arange(width) < np.full((height, 1), width // 2)
    labels = LabelMap(s, np.zeros_like(s, bool), preserved=preserved) if config.code_channels else None
    some = Codec(codec.checkpoint, codec.runtime, config_test(channels=1 + config.channel_bottleneck // 2))
    return [codec.encode(image, labels), some.encode(image, labels)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-r", "--restore", default=PROJECT / directories().default_checkpoint, metavar="CKPT")
    args = parser.parse_args(argv)

    codec = Codec.load(args.restore)
    photo = read_image(PROJECT / "images/kodim21.png")
    counts, slowest, grown = fuzz(codec, [photo, photo[200:330, 300:500], photo[250:251, 300:301]], args.files, args.seed)
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{count:8} {kind:28} {outcome}")
    for outcome, (seconds, kind) in slowest.items():
        print(f"{outcome}: the longest took {seconds:.3f} s ({kind})")
    print(f"{counts.total()} files; the most memory for one was {grown / 1e6:.0f} MB")
    return int(slowest.get("clean error", (0.0,))[0] > MAX_SECONDS or grown > MAX_BYTES)


if __name__ == "__main__":
    sys.exit(main())
