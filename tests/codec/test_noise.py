"""The decoder's noise is what docs and browser say it is, bit by bit."""

import numpy as np

from gcodec.noise import noise

MASK = 2**64 - 1


def philox_block(counter: int, key: tuple[int, int]) -> list[int]:
    """Philox4x64-10 from the paper (Salmon et al. 2011), for one block of a counter below 2^64."""
    c, (k0, k1) = [counter, 0, 0, 0], key
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(p1 >> 64) ^ c[1] ^ k0, p1 & MASK, (p0 >> 64) ^ c[3] ^ k1, p0 & MASK]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return c


def test_the_values_are_those_that_were_written_down():
    written = np.array([796, 568, 518, 406], np.float32)
    assert philox_block(1, (0xDEADBEEF, 7))[:2] == [0x2F38DFF29EECD0C2, 0xD496082438A471B9]
    np.testing.assert_array_equal(noise((4,), 0xDEADBEEF, 7), (written - 510) / np.float32(148))
    written = np.array([[607, 532, 699, 329, 404], [430, 660, 396, 523, 560]], np.float32)
    np.testing.assert_array_equal(noise((2, 5), 0, 0), (written - 510) / np.float32(148))


def test_the_values_follow_from_the_rule():
    key = (0x89ABCDEF, 2**32 - 1)
    words = [word for counter in range(1, 9) for word in philox_block(counter, key)]
    halves = [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)][:63]
    values = [np.float32(sum(half.to_bytes(4, "little")) - 510) / np.float32(148) for half in halves]
    np.testing.assert_array_equal(noise((1, 3, 7, 3), *key).ravel(), values)


def test_the_values_are_nearly_normal():
    values = noise((200_000,), 1, 2)
    assert values.dtype == np.float32
    assert abs(values.mean()) < 0.01 and abs(values.var() - 0.997) < 0.01 and abs(values).max() <= 510 / 148
    assert abs((np.abs(values) < 1).mean() - 0.683) < 0.02
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01


def test_checksum_and_seed_both_matter():
    assert (noise((8,), 1, 0) != noise((8,), 0, 1)).any() and (noise((8,), 0, 0) != noise((8,), 0, 1)).any()
