"""What did not arrive of a feature map is painted from what did."""

import numpy as np

from gcodec.concealment import conceal


def test_what_was_received_stays_and_a_hole_in_a_slope_continues_the_slope():
    w_hat = np.repeat(np.arange(9.0, dtype=np.float32)[None, :, None], 9, axis=0)
    received = np.ones((9, 9), bool)
    received[3:6, 3:6] = False
    damaged = np.where(received[..., None], w_hat, 99).astype(np.float32)
    concealed = conceal(damaged, received)
    np.testing.assert_array_equal(concealed[received], w_hat[received])
    np.testing.assert_allclose(concealed, w_hat, atol=1e-4)


def test_a_position_with_four_known_neighbours_is_their_mean():
    w_hat = np.zeros((3, 3, 1), np.float32)
    w_hat[0, 1], w_hat[1, 0], w_hat[1, 2], w_hat[2, 1] = 1, 2, 3, 6
    received = np.ones((3, 3), bool)
    received[1, 1] = False
    assert conceal(w_hat, received)[1, 1, 0] == 3


def test_where_nothing_was_received_the_map_is_zero():
    assert (conceal(np.ones((2, 3, 4), np.float32), np.zeros((2, 3), bool)) == 0).all()
