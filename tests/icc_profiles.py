"""ICC profiles for tests, put together byte by byte: RGB by its primaries, and CMYK by a table of what its inks look like."""

import itertools
import struct

import numpy as np

from gcodec.colour import BRADFORD, SRGB_CHROMATICITIES, _to_xyz

P3 = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
D50 = np.array([0.3457 / 0.3585, 1, (1 - 0.3457 - 0.3585) / 0.3585])  # ICC's white
D65 = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])  # sRGB's
TO_D50 = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ D65)) @ BRADFORD


def rgb_profile(primaries: tuple = P3, gamma: float = 2.2) -> bytes:
    """Return a profile of RGB with these primaries and one gamma."""
    columns = (TO_D50 @ _to_xyz(primaries)).T  # _to_xyz adapts to sRGB's white
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = dict(zip([b"rXYZ", b"gXYZ", b"bXYZ"], map(_xyz, columns), strict=True))
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | dict.fromkeys([b"rTRC", b"gTRC", b"bTRC"], curve))


def cmyk_profile(bits: int = 16) -> bytes:
    """Return a profile of CMYK, whose table A2B0 has 8 or 16 bits and a node for each combination of full inks."""
    nodes = [lab_of_inks(inks) for inks in itertools.product((0, 1), repeat=4)]  # K changes fastest
    head = struct.pack(">4B9i", 4, 3, 2, 0, *(65536 * np.eye(3, dtype=int).ravel()))  # 4 inks, 3 results, 2 nodes an ink
    if bits == 8:
        ramp = bytes(range(256))
        table = bytes(round(v) for L, a, b in nodes for v in (L * 255 / 100, a + 128, b + 128))
        lut = b"mft1\0\0\0\0" + head + 4 * ramp + table + 3 * ramp
    else:
        ramp = struct.pack(">2H", 0, 65535)
        table = b"".join(struct.pack(">3H", *(round(256 * v) for v in (L * 255 / 100, a + 128, b + 128))) for L, a, b in nodes)
        lut = b"mft2\0\0\0\0" + head + struct.pack(">2H", 2, 2) + 4 * ramp + table + 3 * ramp
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


def lab_of_inks(inks: tuple[int, int, int, int]) -> tuple[float, float, float]:
    """Return the L*a*b* colour of full inks (cyan, magenta, yellow, black; each 0 or 1) on paper, roughly as printed."""
    c, m, y, k = inks
    chromatic = {
        (0, 0, 0): (100, 0, 0), (1, 0, 0): (56, -36, -44), (0, 1, 0): (49, 74, -5), (0, 0, 1): (89, -5, 90),
        (0, 1, 1): (48, 66, 46), (1, 0, 1): (51, -66, 27), (1, 1, 0): (26, 20, -46), (1, 1, 1): (24, 0, 0),
    }[c, m, y]  # fmt: skip
    return (0.0, 0.0, 0.0) if k else chromatic


def srgb_of_lab(lab: tuple[float, float, float]) -> np.ndarray:
    """Return the sRGB levels, floats in [0, 255], of L*a*b* under ICC's white. What sRGB lacks is clipped."""
    L, a, b = lab
    y = (L + 16) / 116
    f = np.array([y + a / 500, y, y - b / 200])
    xyz = D50 * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    linear = np.clip(np.linalg.inv(TO_D50 @ _to_xyz(SRGB_CHROMATICITIES)) @ xyz, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return a profile of version 2: the header, the table of tags, and the tags."""
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"P\0" + bytes(82), b"wtpt": _xyz(D50), **tags}
    table, data, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        table += name + struct.pack(">II", start + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    size = start + len(data)
    head = struct.pack(">I4sI4s4s4s12s4s", size, b"lcms", 0x02100000, kind, space, connection, bytes(12), b"acsp")
    white = struct.pack(">3i", *(round(v * 65536) for v in D50))
    return head + bytes(128 - len(head) - 60) + white + bytes(48) + table + data
