#!/usr/bin/env python3
"""Write golden/, what the page's modules must agree with: python3 tests/web/make_golden.py.

To run anew only when a format changes: test_web.py checks that the Python of today still makes these very files.
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from conftest import model_arrays  # noqa: E402

from config import config_train  # noqa: E402
from evaluation.metrics import psnr, quality  # noqa: E402
from gcodec.container import Header, coded_size, join, pack  # noqa: E402
from gcodec.context_model import FAMILY, ContextModel  # noqa: E402
from gcodec.entropy import RangeEncoder, StaticTables, integer_frequencies, weights_of  # noqa: E402
from gcodec.label_code import code_input, map_symbols  # noqa: E402
from gcodec.labels import LabelMap  # noqa: E402
from gcodec.noise import noise as noise_values  # noqa: E402
from gcodec.pictures import pad, resize  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
CONTEXT = {"channels": 3, "levels": 5, "hidden": 7, "spread": 300}  # a small context model with arbitrary weights
CLASSES = CONTEXT | {"channels": 1, "one_hot": True}  # one of label maps, likewise
CRC = 0xC0FFEE42


def range_coder() -> list[dict]:
    """Return symbols, each with a table, and their payloads: ordinary ones, rare ones, and those that make a carry run far."""
    rng = np.random.default_rng(1)
    skewed = [[1, 65533, 2], [65533, 2, 1], [20000, 25536, 20000], [1, 1, 65534]]
    halves = [[16384, 32768, 16384]]  # the middle symbol always straddles the middle: no word of it is settled before the end
    likely = [rng.choice(3, p=np.array(row) / 65536) for row in skewed for _ in range(500)]
    cases = [
        (skewed, [], []),
        (skewed, [0], [2]),
        (skewed, list(range(4)) * 500, rng.integers(0, 3, 2000).tolist()),
        (skewed, [i for i in range(4) for _ in range(500)], [int(symbol) for symbol in likely]),
        (halves, [0] * 301, [1] * 300 + [2]),
        (halves, [0] * 301, [1] * 300 + [0]),
        (halves, [0] * 300, [1] * 300),
    ]
    found = []
    for rows, chosen, symbols in cases:
        coder = RangeEncoder()
        if symbols:
            coder.encode(np.array(symbols, np.int32), FAMILY, weights_of(np.array(rows)[chosen]))
        found.append({
            "rows": rows,
            "chosen": "".join(map(str, chosen)),
            "symbols": "".join(map(str, symbols)),
            "payload": coder.payload().hex(),
        })  # fmt: skip
    return found


def symbols_of(model, name: str, sizes: list[tuple], masked: bool = False) -> list[dict]:
    """Return arbitrary symbols of these sizes (h, w, K), and their payloads; masked: without those of some positions."""
    rng = np.random.default_rng(2)
    found = []
    for height, width, channels in sizes:
        alike = rng.integers(0, 5, (height, width, 1))  # what the channels of a position have in common
        symbols = np.minimum(rng.integers(0, 5, (height, width, channels)), alike).astype(np.uint8)
        mask = rng.integers(0, 2, (height, width)) if masked else np.ones((height, width), int)
        symbols[mask == 0] = 0
        found.append({
            "model": name,
            "shape": {"height": height, "width": width, "channels": channels},
            "symbols": "".join(map(str, symbols.ravel())),
            "payload": model.encode(symbols, mask if masked else None).hex(),
        } | ({"mask": "".join(map(str, mask.ravel()))} if masked else {}))  # fmt: skip
    return found


def container(channels: int, scale: int) -> dict:
    """Return what a file says, and its bytes."""
    payload = bytes(range(23))
    header = Header(768, 65535, scale, channels, bytes.fromhex("00abcdef"))
    said = header._asdict() | {"fingerprint": header.fingerprint.hex(), "payload": payload.hex()}
    return {"file": said, "bytes": pack(header, payload).hex()}


def coded_sizes() -> list[dict]:
    """Return the sizes at which images are coded, at every scale."""
    found = []
    for scale in range(64):
        coded_height, coded_width = coded_size(1 + 37 * scale, 65535, scale)
        image = {"width": 65535, "height": 1 + 37 * scale, "scale": scale}
        found.append({"image": image, "coded": {"width": coded_width, "height": coded_height}})
    return found


def resizings() -> list[dict]:
    """Return pictures with hard edges, and the same at another size by Pillow; bytes are RGB."""
    rng = np.random.default_rng(5)
    found = []
    sizes = {(1, 1): (3, 5), (2, 9): (2, 31), (9, 2): (20, 2), (7, 11): (61, 12), (20, 13): (37, 29)}
    sizes |= {(61, 12): (7, 11), (37, 29): (20, 13), (40, 31): (1, 1), (9, 20): (30, 7)}
    for (height, width), size in sizes.items():
        picture = rng.choice(np.array([0, 20, 128, 255], np.uint8), (height, width, 3))
        found.append({
            "width": width,
            "height": height,
            "data": picture.tobytes().hex(),
            "resized": {"width": size[1], "height": size[0], "data": resize(picture, *size).tobytes().hex()},
        })  # fmt: skip
    return found


def qualities() -> list[dict]:
    """Return how alike evaluation/metrics.py finds two pictures, which a formula makes: see `waves` in modules.test.mjs."""
    found = []
    for height, width in ((161, 170), (183, 200), (40, 30)):
        y, x, c = np.mgrid[:height, :width, :3]
        a, b = (((x * y + 31 * x * (c + 1) + 7 * y * shift) % 256).astype(np.uint8) for shift in (1, 2))
        mixed = ((3 * a.astype(int) + b) // 4).astype(np.uint8)
        found.append({"width": width, "height": height, "quality": quality(a, mixed), "psnr": psnr(a, mixed)})
    return found


def noise() -> dict:
    """Return raw words of the generator, and the values that they become, as the bits of float32."""
    words = np.random.Philox(key=np.array([CRC, 0], np.uint64)).random_raw(40)
    values = noise_values((1001,), CRC, 0)
    return {"crc": CRC, "words": [f"{word:016x}" for word in words], "values": values.astype("<f4").tobytes().hex()}


def arrays() -> dict[str, np.ndarray]:
    """Return arrays of all types that a checkpoint has."""
    rng = np.random.default_rng(3)
    bits = np.array([0x0000, 0x8000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0xC000, 0x7BFF, 0x7C00, 0xFC00], np.uint16)
    return {
        "encoder/Conv2D_0/kernel": rng.standard_normal((3, 3, 2, 4)).astype(np.float16),
        "halves": bits.view(np.float16),
        "single": rng.standard_normal((5,)).astype(np.float32),
        "int16": rng.integers(-(2**15), 2**15, (2, 3)).astype(np.int16),
        "int32": rng.integers(-(2**31), 2**31, (1,)).astype(np.int32),
        "uint32": np.array(2**32 - 1, np.uint32),
    }


def entropy() -> list[dict]:
    """Return symbols under all entropy models, and their payloads."""
    context, classes = ContextModel(model_arrays(**CONTEXT)), ContextModel(model_arrays(**CLASSES))
    static, equal = StaticTables(frequencies()), StaticTables(integer_frequencies(np.ones((3, 5))))
    sizes = [(2, 2, 3), (5, 9, 3), (7, 1, 3), (1, 7, 2), (12, 10, 1)]
    return [
        *symbols_of(context, "context", sizes),
        *symbols_of(static, "static", sizes),
        *symbols_of(context, "context", sizes, masked=True),
        *symbols_of(static, "static", sizes[:2], masked=True),
        *symbols_of(classes, "classes", [(8, 5, 1), (1, 1, 1)]),
        *symbols_of(equal, "equal", sizes[:2]),
    ]


def payloads() -> list[dict]:
    """Return sections, and the payloads that they make together; some lengths take two bytes."""
    cases = [[b"all"], [b"", b"x", b""], [bytes(200), b"mask", bytes(300)]]
    return [{"sections": [part.hex() for part in parts], "payload": join(parts).hex()} for parts in cases]


def label_codes() -> list[dict]:
    """Return label maps, their symbols and what the generator sees of these."""
    found = []
    for (height, width), side, instances in (
        ((40, 37), 8, False),
        ((33, 50), 4, False),
        ((32, 32), 16, False),
        ((48, 32), 8, True),
    ):
        config = config_train(use_conditional_GAN=True, n_classes=5, semantic_scale=side, use_instances=instances)
        rng = np.random.default_rng(6)
        blocks = rng.integers(0, 5, (12, 13), np.uint8)
        classes = np.kron(blocks, np.ones((4, 4), np.uint8))[:height, :width]
        labels = LabelMap(classes, boundaries=rng.random((height, width)) < 0.01).map(pad)
        symbols = map_symbols(labels.classes, labels.boundaries, config)
        found.append({
            "map": {"width": width, "height": height, "classes": "".join(map(str, classes.ravel()))},
            "code": {"side": side, "classes": 5, "boundaries": instances},
            "shape": {"height": symbols.shape[0], "width": symbols.shape[1], "channels": 1},
            "symbols": symbols.ravel().tolist(),
            "seen": "".join(str(int(value)) for value in code_input(symbols, config).ravel()),
        })  # fmt: skip
    return found


def golden() -> dict:
    """Return what golden.json holds; the other files are static.npz, context.npz, classes.npz and arrays.npz."""
    return {
        "range_coder": range_coder(),
        "entropy": entropy(),
        "payloads": payloads(),
        "label_codes": label_codes(),
        "containers": [container(channels, scale) for channels, scale in ((0, 0), (7, 9), (255, 63))],
        "coded_sizes": coded_sizes(),
        "resizings": resizings(),
        "qualities": qualities(),
        "noise": noise(),
        "arrays": {
            name: {"dtype": array.dtype.str, "shape": array.shape, "data": array.astype(np.float64).ravel().tolist()}
            for name, array in arrays().items()
        },
    }


def frequencies() -> np.ndarray:
    return integer_frequencies(np.random.default_rng(4).random((3, 5)) ** 3)


def text() -> str:
    return json.dumps(golden(), indent=1).replace("Infinity", "1e999") + "\n"  # JSON knows no infinity; 1e999 is read as one


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "golden.json").write_text(text())
    np.savez_compressed(GOLDEN / "context.npz", **model_arrays(**CONTEXT))
    np.savez_compressed(GOLDEN / "classes.npz", **model_arrays(**CLASSES))
    np.savez_compressed(GOLDEN / "static.npz", frequencies=frequencies())
    np.savez_compressed(GOLDEN / "arrays.npz", **arrays())
    with zipfile.ZipFile(GOLDEN / "arrays.npz") as file:
        print(f"{GOLDEN}: written, arrays {', '.join(file.namelist())}")


if __name__ == "__main__":
    main()
