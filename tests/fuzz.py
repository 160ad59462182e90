#!/usr/bin/env python3
"""Damage files in every way we can think of, and decode them: each must end in a clean error, soon and in little memory.

    python3 tests/fuzz.py --files 100000
    python3 tests/fuzz.py --files 0 --packets 10000                     # packets alone
    python3 tests/fuzz.py --files 10000 -r checkpoints/camvid_sc_c8     # with a label map and a heat map in the files

Damaged: as disks, networks and editors do it, so that the checksum tells. Each must be an error, or the very picture if
nothing changed. Forged: the checksum was made to match, so that what is behind it is tested too. Such a file may be that of
another picture, by the format's own rules; then a picture of the size and the symbols that it says must come out.

The packets of an image are lost, repeated, shuffled, damaged, forged, and mixed with those of another image. They must give the
picture that the undamaged ones of the image give that most are of; without such an image, an error. Time is the processor's,
so that other programs and slow disks do not count; still, the limit is for a slow machine.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from commands.loading import load_codec
from config import UserError, config_test, directories
from gcodec import Codec, packets, read_image
from gcodec.container import MAGIC, MAX_SCALE, VERSION_BIT, pack, unpack
from gcodec.integers import varint
from gcodec.labels import LabelMap
from utils import Utils

MAX_SECONDS = 3.0  # of processor time, for an error
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
# What happens to packets: (those that arrive, all packets of another image, rng) -> those that arrive
# ----------------------------------------------------------------------------------------------------------------------


def lost(arrived, others, rng):
    return [data for data in arrived if rng.random() < 0.7]


def repeated(arrived, others, rng):
    return arrived + [data for data in arrived if rng.random() < 0.3]


def shuffled(arrived, others, rng):
    return [arrived[i] for i in rng.permutation(len(arrived))]


def damaged(arrived, others, rng):
    kind = DAMAGE[rng.integers(len(DAMAGE))]
    return [kind(data, pick(arrived, rng), rng) if data and rng.random() < 0.3 else data for data in arrived]


def spliced_with_another_image(arrived, others, rng):
    return [splice(data, pick(others, rng), rng) if rng.random() < 0.3 else data for data in arrived]


def mixed(arrived, others, rng):
    return [*arrived, pick(others, rng)]


MISHAPS = (lost, repeated, shuffled, damaged, spliced_with_another_image, mixed)


def pick(choices, rng):
    return choices[rng.integers(len(choices))]


def place(packet, rng):
    return packet._replace(number=int(rng.integers(256)), total=int(rng.integers(256)))


def image_id(packet, rng):
    return packet._replace(image_id=int(rng.integers(2**16)))


def forged(arrived, rng):
    """Return what arrives of packets some of which are forged alike, and the kind of forgery. Sometimes no other arrives."""
    kind = pick((*FORGERY, place, image_id), rng)
    share, seed = pick((0.0, 0.3, 1.0), rng), int(rng.integers(2**32))
    victims = [i for i in range(len(arrived)) if rng.random() < share] or [int(rng.integers(len(arrived)))]
    changed = {i: packets.pack(kind(packets.unpack(arrived[i]), np.random.default_rng(seed))) for i in victims}
    if rng.random() < 0.5:
        return list(changed.values()), kind.__name__
    return [changed.get(i, data) for i, data in enumerate(arrived)], kind.__name__


# ----------------------------------------------------------------------------------------------------------------------
# The run
# ----------------------------------------------------------------------------------------------------------------------


class Watch:
    """What became of the files, and what it took.

    counts: of (kind, outcome). slowest: the longest processor time in seconds and its kind, by outcome. grown: the most bytes
    that the process grew by for one file.
    """

    def __init__(self) -> None:
        self.counts: Counter = Counter()
        self.slowest: dict[str, tuple[float, str]] = {}
        self.grown = 0

    def decode(self, decode, data):
        """Return what the decoder returns, or the UserError that it raises. Whatever else it raises is passed on."""
        before = Utils.memory()
        Utils.reset_peak_memory()
        start = time.process_time()
        try:
            result = decode(data)
        except UserError as error:
            assert "\n" not in str(error)
            result = error
        self.seconds = time.process_time() - start
        self.grown = max(self.grown, Utils.memory("VmHWM") - before)
        return result

    def note(self, kind: str, outcome: str) -> None:
        """Count the file that was decoded last."""
        self.slowest[outcome] = max(self.slowest.get(outcome, (0.0, "")), (self.seconds, kind))
        self.counts[kind, outcome] += 1

    def report(self, what: str) -> bool:
        """Print everything; return whether it is within the limits."""
        for (kind, outcome), count in sorted(self.counts.items()):
            print(f"{count:8} {kind:28} {outcome}")
        for outcome, (seconds, kind) in self.slowest.items():
            print(f"{outcome}: the longest took {seconds:.3f} s of processor time ({kind})")
        print(f"{self.counts.total()} {what}; the most memory for one was {self.grown / 1e6:.0f} MB")
        return self.slowest.get("clean error", (0.0,))[0] <= MAX_SECONDS and self.grown <= MAX_BYTES


def fuzz(codec: Codec, images: list[np.ndarray], n: int, seed: int = 0) -> Watch:
    """Decode n damaged files, a tenth of them forged.

    Raises whatever but UserError the decoder raises, and AssertionError for a wrong picture.
    """
    rng = np.random.default_rng(seed)
    files = [data for image in images for data in encodings(codec, image)]
    pictures = [codec.decode(data) for data in files]  # also the warm-up
    watch = Watch()
    for i in range(n):
        which, other = rng.integers(len(files), size=2)
        if forge := i % 10 == 0:
            kind = FORGERY[rng.integers(len(FORGERY))]
            file = kind(unpack(files[which]), rng)
            data = pack(*file[:2])
        else:
            kind = DAMAGE[rng.integers(len(DAMAGE))]
            data = kind(files[which], files[other], rng)
        picture = watch.decode(codec.decode, data)
        if isinstance(picture, UserError):
            outcome = "clean error"
        elif data in files:
            assert np.array_equal(picture, pictures[files.index(data)]), f"file {i}: {kind.__name__}: a wrong picture"
            outcome = "nothing changed, the right picture"
        else:
            assert forge, f"file {i}: {kind.__name__}: a damaged file was decoded"
            assert picture.shape == (file.header.height, file.header.width, 3)
            outcome = "the picture that the forged file says"
        watch.note("forged " * forge + kind.__name__, outcome)
    return watch


def encodings(codec: Codec, image: np.ndarray) -> list[bytes]:
    """Files of an image with all channels and with some; with labels, and half of it synthesized, if the model has these."""
    height, width = image.shape[:2]
    config = codec.config
    coarse = np.random.default_rng(0).integers(0, config.n_classes, (1 + height // 40, 1 + width // 40))
    s = np.kron(coarse, np.ones((40, 40), int))[:height, :width].astype(np.uint8)
    preserved = np.arange(width) < np.full((height, 1), width // 2)
    labels = LabelMap(s, np.zeros_like(s, bool), preserved=preserved) if config.code_channels else None
    some = Codec(codec.checkpoint, codec.runtime, channels=1 + config.channel_bottleneck // 2)
    return [codec.encode(image, labels), some.encode(image, labels)]


def fuzz_packets(codec: Codec, images: list[np.ndarray], n: int, seed: int = 0) -> Watch:
    """Decode n sets of packets that up to three mishaps happened to; a fifth of the sets is forged instead.

    Raises whatever but UserError the decoder raises, and AssertionError for a wrong picture and for an error without reason.
    """
    rng = np.random.default_rng(seed)
    sent = [packets.encode(codec, image, size) for image in images for size in (40, 100)]
    right = PicturesOfWholePackets(codec, sent)
    watch = Watch()
    for i in range(n):
        which, other = (int(k) for k in rng.integers(len(sent), size=2))
        arrived = sent[which]
        if forge := i % 5 == 0:
            arrived, kind = forged(arrived, rng)
        else:
            mishaps = [pick(MISHAPS, rng) for _ in range(rng.integers(4))]
            for mishap in mishaps:
                arrived = mishap(arrived, sent[other], rng)
            kind = mishaps[0].__name__ if len(mishaps) == 1 else f"{len(mishaps)} mishaps"
        received = watch.decode(lambda files: packets.decode(codec, files), {str(k): data for k, data in enumerate(arrived)})
        arrived = [part for data in arrived for part in packets.separate(data)]  # zeros behind a packet do not matter
        if isinstance(received, UserError):
            assert forge or right.image_of_most(arrived) is None, f"set {i}: {kind}: {received}"
            outcome = "clean error"
        else:
            assert forge or right.is_right(arrived, received), f"set {i}: {kind}: a wrong picture"
            outcome = "a picture" if forge else "the picture of what arrived whole"
        watch.note("forged " * forge + kind, outcome)
    return watch


class PicturesOfWholePackets:
    """What must come out of packets of some images, whatever lies among them that is no packet."""

    def __init__(self, codec: Codec, sent: list[list[bytes]]):
        self.codec, self.sent = codec, sent
        self.image_of = {data: i for i, all_packets in enumerate(sent) for data in all_packets}
        self.known: dict[frozenset[bytes], np.ndarray] = {}

    def image_of_most(self, arrived: list[bytes]) -> int | None:
        """Return the image that more than half of the whole packets are of, copies aside; None if there is none."""
        of = [self.image_of[data] for data in set(arrived) if data in self.image_of]
        return next((image for image in of if 2 * of.count(image) > len(of)), None)

    def is_right(self, arrived: list[bytes], received: packets.Received) -> bool:
        """Whether a picture is that of the packets that arrived whole of the image that most are of."""
        image = self.image_of_most(arrived)
        whole = frozenset(data for data in arrived if self.image_of.get(data, -1) == image)
        if whole not in self.known:
            self.known[whole] = packets.decode(self.codec, dict(enumerate(sorted(whole)))).image
        missing = [i for i, data in enumerate(self.sent[image]) if data not in whole]
        return received.missing == missing and np.array_equal(received.image, self.known[whole])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument(
        "--packets", type=int, metavar="SETS", help="default: a tenth of --files, for a model without label maps"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-r", "--restore", default=PROJECT / directories().default_checkpoint, metavar="CKPT")
    args = parser.parse_args(argv)

    codec = load_codec(args.restore)
    photo = read_image(PROJECT / "images/kodim21.png")
    crops = [photo[200:330, 300:500], photo[250:251, 300:301]]
    sets = args.files // 10 if args.packets is None else args.packets
    within = []
    if args.files:
        within.append(fuzz(codec, [photo, *crops], args.files, args.seed).report("files"))
    if sets and codec.config.sections.keys() == {"symbols"}:
        within.append(fuzz_packets(codec, [*crops, photo[100:230, 100:300]], sets, args.seed).report("sets of packets"))
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
