"""Measures what a lossy link makes of an image that is sent in packets, beside a plain file that is cut into packets.

Each packet is lost with the same probability, independently of the others. A plain file is lost with any of its packets. A
picture of which nothing can be decoded counts as gray.
"""

import functools
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from evaluation.measure import Measure, Task, pixels_digest
from evaluation.metrics import ms_ssim, psnr
from gcodec import Codec, packets, read_image

LOSSES = (0.0, 0.1, 0.25, 0.5)  # probability that a packet is lost
SEEDS = 10  # draws of what is lost, for each image and probability
GRAY = 128
Record = dict[str, Any]


def measure_image(codec: Codec, image: np.ndarray, size: int) -> Record:
    """Return the bytes of an image in packets of `size` bytes and in a plain file, and the mean quality at each loss."""
    sent, plain = packets.encode(codec, image, size), codec.encode(image)
    pieces = -(-len(plain) // (size - packets.HEADER_SIZE))
    gray = np.full_like(image, GRAY)

    @cache
    def quality(lost: frozenset[int] | None) -> tuple[float, float | None]:
        """Return PSNR and MS-SSIM without the packets `lost`; None: those of the plain file."""
        if lost is None:
            picture = codec.decode(plain)
        elif len(lost) == len(sent):
            picture = gray
        else:
            picture = packets.decode(codec, {str(i): data for i, data in enumerate(sent) if i not in lost}).image
        return psnr(image, picture), ms_ssim(image, picture)

    record: Record = {
        "plain_bytes": len(plain),
        "plain_packets": pieces,
        "bytes": sum(map(len, sent)),
        "packets": len(sent),
        "header_bytes": len(sent) * (len(sent[0]) - len(packets.unpack(sent[0]).payload)),
        "losses": {},
    }
    for loss in LOSSES:
        drawn = draws(image, loss)
        in_packets = [quality(frozenset(np.flatnonzero(lost[: len(sent)]).tolist())) for lost in drawn]
        whole = [not lost[:pieces].any() for lost in drawn]
        as_file = [quality(None if arrived else frozenset(range(len(sent)))) for arrived in whole]
        record["losses"][str(loss)] = {
            "packets": _means(in_packets),
            "plain": _means(as_file),
            "plain_whole": float(np.mean(whole)),
        }
    return record


def draws(image: np.ndarray, loss: float) -> list[np.ndarray]:
    """Return which packets are lost, (MAX_TOTAL,) bool, in each draw: others for each image, the same for each model."""
    generators = [np.random.default_rng([seed, int(pixels_digest(image), 16)]) for seed in range(SEEDS if loss else 1)]
    return [generator.random(packets.MAX_TOTAL) < loss for generator in generators]


def measure_packets(codec: Codec, size: int, max_pixels: int, name: str, files: Sequence) -> tuple[Record, list[bytes]]:
    """Return what was measured of an image, and nothing to write."""
    image = read_image(files[0], max_pixels)
    return {"sha256": pixels_digest(image)} | measure_image(codec, image, size), []


def _means(qualities: list[tuple[float, float | None]]) -> list[float | None]:
    """Return the mean PSNR and MS-SSIM; None for an MS-SSIM that an image is too small for."""
    decibels, similarities = zip(*qualities, strict=True)
    return [float(np.mean(decibels)), None if similarities[0] is None else float(np.mean(similarities))]


class PacketsTask(Task):
    """Measures a model's packets."""

    def __init__(self, measure: Measure, codec: Codec, name: str, size: int):
        """name: of the model. size: bytes of a packet, at most."""
        self.codec, self.size = codec, size
        knobs = measure.knobs.to_json()
        key = f"{codec.checkpoint.fingerprint.hex()} {knobs} {LOSSES} {SEEDS} {packets.VERSION} {packets.BLOCK} by image"
        super().__init__(measure, f"{name}-packets-{size}", f"{name} in packets", key)

    def work(self) -> Callable[[str, Sequence], tuple[Record, list[bytes]]]:
        return functools.partial(measure_packets, self.codec, self.size, self.measure.knobs.max_pixels)


def table(name: str, size: int, records: dict[str, Record]) -> str:
    """Return the means over the images, as Markdown."""

    def mean(field: str) -> float:
        return float(np.mean([record[field] for record in records.values()]))

    more = mean("bytes") / mean("plain_bytes") - 1
    rows = [
        f"{name}, {len(records)} images, packets of at most {size} bytes: {mean('packets'):.1f} packets "
        f"with {mean('bytes'):.0f} bytes, {mean('header_bytes'):.0f} of them headers and checksums; "
        f"a plain file has {mean('plain_bytes'):.0f} bytes in {mean('plain_packets'):.1f} packets ({more:+.0%})",
        "",
        "| packets lost | PSNR, dB | MS-SSIM | plain file: arrives whole | PSNR, dB | MS-SSIM |",
        "|---|---|---|---|---|---|",
    ]
    for loss in map(str, LOSSES):
        at = [record["losses"][loss] for record in records.values()]
        whole = np.mean([each["plain_whole"] for each in at])
        ours, plain = (_cells([each[kind] for each in at]) for kind in ("packets", "plain"))
        rows.append(f"| {float(loss):.0%} | {ours} | {whole:.0%} | {plain} |")
    return "\n".join(rows)


def _cells(qualities: list[list[float | None]]) -> str:
    decibels, similarities = zip(*qualities, strict=True)
    measured = [value for value in similarities if value is not None]
    return f"{np.mean(decibels):.2f} | " + (f"{np.mean(measured):.4f}" if measured else "n/a")
