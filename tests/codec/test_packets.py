"""An image in packets: any of them, in any order, give a picture."""

import time
import zlib
from functools import cache

import numpy as np
import pytest
from conftest import photo
from hypothesis import given, settings
from hypothesis import strategies as st
from test_codec import gray_codec

from config import UserError
from gcodec import Codec, packets
from gcodec.concealment import conceal
from gcodec.container import coded_size
from gcodec.context_model import ContextModel

SIZE = 64  # bytes of a packet; images of the tests take several


@cache
def sent(height: int = 150, width: int = 200, seed: int = 0, size: int = SIZE) -> tuple[bytes, ...]:
    return tuple(packets.encode(gray_codec()[0], photo(height, width, seed=seed), size))


def named(data) -> dict[str, bytes]:
    return {f"{i}.gcp": packet for i, packet in enumerate(data)}


@settings(max_examples=40, deadline=None)
@given(h=st.integers(1, 40), w=st.integers(1, 40), n=st.integers(1, 255))
def test_every_slice_has_a_position_if_there_are_enough(h, w, n):
    slice_of = packets.slices(h, w, n)
    assert slice_of.shape == (h, w) and slice_of.min() >= 0 and slice_of.max() < n
    if n <= h * w:
        assert len(np.unique(slice_of)) == n


@settings(max_examples=40, deadline=None)
@given(h=st.integers(1, 40), w=st.integers(1, 40), n=st.integers(1, 255))
def test_the_size_of_a_slice_is_the_number_of_its_positions(h, w, n):
    slice_of = packets.slices(h, w, n)
    assert [packets.slice_size(h, w, n, i) for i in range(n)] == [int((slice_of == i).sum()) for i in range(n)]


@pytest.mark.parametrize("n", [3, 4, 5, 6, 8, 11])
def test_blocks_of_a_slice_do_not_touch_along_an_edge(n):
    blocks = packets.slices(32, 48, n)[::4, ::4]
    assert (blocks[1:] != blocks[:-1]).all() and (blocks[:, 1:] != blocks[:, :-1]).all()


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 220), width=st.integers(1, 220), size=st.integers(48, 300))
def test_every_packet_fits_and_all_of_them_give_the_picture(height, width, size):
    codec, image = gray_codec()[0], photo(height, width)
    data = packets.encode(codec, image, size)
    assert max(map(len, data)) <= size
    received = packets.decode(codec, named(data))
    assert (received.total, received.missing, received.damaged) == (len(data), [], {})
    np.testing.assert_array_equal(received.image, codec.reconstruct(image))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_subset_in_any_order_gives_a_picture_that_is_right_where_it_arrived(data):
    all_packets = sent()
    count = len(all_packets)
    arrived = data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))
    codec, runtime = gray_codec()
    received = packets.decode(codec, {str(i): all_packets[i] for i in arrived})
    assert received.missing == sorted(set(range(count)) - set(arrived))
    original = codec.checkpoint.centers[codec.contents(photo(150, 200)).symbols]
    there = np.isin(packets.slices(*original.shape[:2], count), arrived)
    np.testing.assert_array_equal(runtime.seen[0][0], conceal(np.where(there[..., None], original, 0), there))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_packets_are_named_and_left_out(data):
    files = named(sent())
    victims = data.draw(st.sets(st.sampled_from(sorted(files)), min_size=1, max_size=len(files) - 1))
    for name in sorted(victims):
        packet = bytearray(files[name])
        if data.draw(st.booleans()):
            packet[data.draw(st.integers(0, len(packet) - 1))] ^= data.draw(st.integers(1, 255))
        else:
            del packet[data.draw(st.integers(0, len(packet) - 1)) :]
        files[name] = bytes(packet)
    received = packets.decode(gray_codec()[0], files)
    assert set(received.damaged) == victims
    assert received.missing == sorted(int(name.removesuffix(".gcp")) for name in victims)


@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=80), forged=st.booleans())
def test_whatever_is_no_packet_is_a_clear_error_or_left_out(noise, forged):
    if forged:
        noise = b"p\x01" + noise
        noise += zlib.crc32(noise).to_bytes(4, "little")
    with pytest.raises(UserError, match=r"^bad\.gcp: "):
        packets.decode(gray_codec()[0], {"bad.gcp": noise})


def test_a_packet_whose_payload_was_forged_is_left_out_though_its_checksum_holds():
    files = named(sent())
    files["1.gcp"] = packets.pack(packets.unpack(files["1.gcp"])._replace(payload=bytes(range(90))))
    received = packets.decode(gray_codec()[0], files)
    assert received.missing == [1] and "payload" in received.damaged["1.gcp"]
    with pytest.raises(UserError, match=r"^1\.gcp: damaged .*no packet"):
        packets.decode(gray_codec()[0], {"1.gcp": files["1.gcp"]})


def test_more_packets_than_positions_are_damage():
    packet = packets.unpack(packets.encode(gray_codec()[0], photo(32, 48), 200)[0])  # of a feature map of 2x3
    packets.unpack(packets.pack(packet._replace(total=6)))
    with pytest.raises(UserError, match="7 packets of a feature map of 6 positions"):
        packets.unpack(packets.pack(packet._replace(total=7)))


def test_packets_of_different_images_are_told_apart():
    first, second = sent(), sent(seed=1)
    with pytest.raises(UserError, match=r"^b: is a packet of another image than a;"):
        packets.decode(gray_codec()[0], {"a": first[0], "b": second[1]})
    with pytest.raises(UserError, match="another image"):  # the same image, in packets of another size
        packets.decode(gray_codec()[0], {"a": first[0], "b": sent(size=40)[-1]})


def test_a_stray_of_another_image_is_left_out_and_named_wherever_it_comes():
    for place in (0, 2):
        files = list(named(sent()[:4]).items())
        files[place:place] = [("stray", sent(seed=1)[1]), ("copy", sent(seed=1)[1])]
        received = packets.decode(gray_codec()[0], dict(files))
        assert received.missing == list(range(4, received.total))
        assert received.damaged == dict.fromkeys(("stray", "copy"), "is a packet of another image than 0.gcp")


def test_a_packet_that_arrived_twice_counts_once():
    received = packets.decode(gray_codec()[0], {"a": sent()[0], "copy": sent()[0]})
    assert received.missing == list(range(1, received.total)) and received.damaged == {}


def test_the_noise_does_not_depend_on_which_packets_arrived():
    codec, runtime = gray_codec(sample_noise=True, noise_mode="map")
    data = packets.encode(codec, photo(150, 200), SIZE)
    seen = []
    for part in (data, data[1:], data[:1]):
        packets.decode(codec, named(part))
        seen.append(runtime.seen[1])
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[2])


@pytest.mark.parametrize("size", [-5, 0, 20])
def test_a_size_that_has_no_room_beside_the_headers_is_refused_before_the_image_is_coded(size, monkeypatch):
    codec = gray_codec()[0]
    monkeypatch.setattr(codec, "contents", None)
    with pytest.raises(UserError, match=rf"^packets of {size} bytes are too small: 20 bytes are headers and checksum$"):
        packets.encode(codec, photo(150, 200), size)


@pytest.mark.parametrize("seed", range(4))
def test_a_size_that_cannot_hold_the_image_is_an_error_that_names_about_the_smallest_that_can(seed):
    codec, image = Codec.load("photo_c8"), photo(480, 640, seed=seed)
    with pytest.raises(UserError, match=r"^packets of 21 bytes are too small .* works is about \d+ bytes$") as error:
        packets.encode(codec, image, 21)
    least = int(str(error.value).split()[-2])
    assert 0.85 * least < max(map(len, packets.encode(codec, image, least))) <= least


def test_a_size_that_cannot_work_is_refused_after_few_slices_are_coded(monkeypatch):
    codec, coded = Codec.load("photo_c8"), []
    encode = ContextModel.encode
    monkeypatch.setattr(ContextModel, "encode", lambda *arguments: coded.append(1) or encode(*arguments))
    with pytest.raises(UserError, match="too small"):
        packets.encode(codec, photo(480, 640), 22)
    assert len(coded) <= packets.LIKELY


def test_a_packet_has_six_bytes_before_the_pictures_header_and_four_behind_the_payload():
    packet = packets.unpack(sent()[0])
    assert len(sent()[0]) == 6 + 10 + len(packet.payload) + 4
    assert packets.pack(packet) == sent()[0]


def test_an_image_that_is_coded_smaller_comes_back_at_its_size():
    codec = gray_codec()[0]
    data = packets.encode(codec, photo(150, 200), SIZE, scale=8)
    assert packets.unpack(data[0]).header.coded_size == coded_size(150, 200, 8)
    assert packets.decode(codec, named(data[:1])).image.shape == (150, 200, 3)


def test_models_with_label_maps_other_models_and_too_many_pixels_are_refused():
    codec, _ = gray_codec(use_conditional_GAN=True, n_classes=4)
    with pytest.raises(UserError, match="label map"):
        packets.encode(codec, photo(40, 50), SIZE)
    with pytest.raises(UserError, match="label map"):
        packets.decode(codec, named(sent()))
    with pytest.raises(UserError, match="another checkpoint"):
        packets.decode(gray_codec(sample_noise=True)[0], named(sent()))
    with pytest.raises(UserError, match="max_pixels"):
        packets.decode(gray_codec({"max_pixels": 1000})[0], named(sent()))


def test_packets_with_zeros_behind_them_or_in_one_file_are_taken_apart():
    codec = Codec.load("photo_c8")
    sent = packets.encode(codec, photo(150, 200), 60)
    assert len(sent) > 3
    expected = packets.decode(codec, {str(i): data for i, data in enumerate(sent)}).image
    padded = {str(i): data.ljust(100, b"\0") for i, data in enumerate(sent)}
    one = {"all": b"".join(sent)}
    both = {"all": b"".join(data.ljust(100, b"\0") for data in sent)}
    for files in (padded, one, both):
        received = packets.decode(codec, files)
        assert not received.missing and not received.damaged
        np.testing.assert_array_equal(received.image, expected)
    cut = b"".join([*sent[:1], sent[1][:-9], *sent[2:]])
    assert packets.decode(codec, {"all": cut}).missing == [1]


def test_data_without_a_whole_packet_is_not_searched_for_long():
    start = time.process_time()
    data = b"p\1" * 10**6
    assert packets.separate(data) == [data] and time.process_time() - start < 2
    assert packets.separate(b"") == [b""]
