"""Whatever is handed over as an image: colours, transparency, orientation, damage, metadata."""

import io
import struct
import zlib

import numpy as np
import pytest
from conftest import photo
from icc_profiles import P3, cmyk_profile, lab_of_inks, rgb_profile, srgb_of_lab
from PIL import ExifTags, Image, ImageCms

from config import UserError
from gcodec import files, pictures
from gcodec.pictures import picture_format, read_image

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about damaged metadata


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(image: Image.Image, *chunks: bytes) -> bytes:
    """An image as PNG, with chunks after its header."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()[:33] + b"".join(chunks) + file.getvalue()[33:]


def raw_png(values: np.ndarray, depth: int, kind: int, *chunks: bytes) -> bytes:
    """A PNG of any bit depth, without Pillow. values: (H, W) gray, kind 0; or (H, W, 3), kind 2."""
    rows = values.reshape(len(values), -1)
    bits = [b"\0" + int("".join(f"{v:0{depth}b}" for v in row), 2).to_bytes(len(row) * depth // 8, "big") for row in rows]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(b"".join(bits))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded_by(icc: bytes, image: np.ndarray, mode: str = "RGB") -> Image.Image:
    """The values that show an sRGB image under a profile."""
    return ImageCms.profileToProfile(Image.fromarray(image), ImageCms.createProfile("sRGB"),
                                     ImageCms.ImageCmsProfile(io.BytesIO(icc)), outputMode=mode)  # fmt: skip


def mild(height: int = 48, width: int = 64) -> np.ndarray:
    """A picture of colours that other gamuts have too."""
    return (photo(height, width) // 2 + 64).astype(np.uint8)


# ----------------------------------------------------------------------------------------------------------------------
# Colours
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "options", "off"), [
    (".png", {}, 2), (".tif", {}, 2), (".webp", {"lossless": True}, 2), (".jpg", {"quality": 98, "subsampling": 0}, 12),
    (".avif", {"quality": 100, "subsampling": "4:4:4"}, 12),
])  # fmt: skip
def test_a_profile_is_honoured_in_every_format_that_has_one(suffix, options, off, tmp_path):
    if suffix == ".avif" and not Image.registered_extensions().get(".avif"):
        pytest.skip("this Pillow has no AVIF")
    image, icc = mild(), rgb_profile()
    stored = encoded_by(icc, image)
    assert np.abs(np.asarray(stored).astype(int) - image).max() > 20  # what is seen where the profile is ignored
    stored.save(tmp_path / f"a{suffix}", icc_profile=icc, **options)
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - image).max() <= off


def test_a_profile_is_honoured_with_transparency_and_with_a_palette(tmp_path):
    image, icc = mild(), rgb_profile()
    stored = encoded_by(icc, image)
    stored.putalpha(0)
    stored.putalpha(Image.fromarray(np.where(np.arange(64) < 32, 255, 0).astype(np.uint8)[None].repeat(48, 0)))
    stored.save(tmp_path / "a.png", icc_profile=icc)
    read = read_image(tmp_path / "a.png").astype(int)
    assert np.abs(read[:, :32] - image[:, :32]).max() <= 2 and (read[:, 32:] == 255).all()
    flat = np.full((8, 8, 3), (150, 90, 60), np.uint8)
    encoded_by(icc, flat).quantize(4).save(tmp_path / "p.png", icc_profile=icc)
    assert np.abs(read_image(tmp_path / "p.png").astype(int) - flat).max() <= 2


def test_an_srgb_profile_changes_no_bit(tmp_path):
    Image.fromarray(photo(40, 50)).save(
        tmp_path / "a.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    )
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), photo(40, 50))


@pytest.mark.parametrize("icc", [b"x" * 200, rgb_profile()[:300]])
def test_a_broken_profile_is_a_warning(icc, tmp_path, capfd):
    Image.fromarray(photo(40, 50)).save(tmp_path / "a.png", icc_profile=icc)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), photo(40, 50))
    error = capfd.readouterr().err
    assert "a.png: its colour profile is ignored" in error and error.count("\n") == 1


def test_a_profile_of_another_kind_of_image_is_a_warning(tmp_path, capfd):
    Image.fromarray(photo(40, 50)).convert("CMYK").save(tmp_path / "a.tif", icc_profile=rgb_profile())
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - photo(40, 50)).max() <= 1
    assert "for RGB and the image is CMYK" in capfd.readouterr().err


def test_a_gray_image_may_have_a_profile_of_rgb(tmp_path):
    Image.fromarray(photo(40, 50)).convert("L").save(tmp_path / "a.png", icc_profile=rgb_profile())
    assert np.ptp(read_image(tmp_path / "a.png").astype(int), axis=-1).max() <= 1  # still gray


def test_lab_is_converted(tmp_path):
    flat = np.full((8, 8, 3), (150, 90, 60), np.uint8)
    lab = ImageCms.profileToProfile(Image.fromarray(flat), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"),
                                    outputMode="LAB")  # fmt: skip
    lab.save(tmp_path / "a.tif")
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - flat).max() <= 4


@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8])
def test_the_gamma_of_a_png_is_honoured_unless_it_says_that_it_is_srgb(gamma, tmp_path):
    v = photo(40, 50) / 255
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    stored = np.rint(255 * linear**gamma).astype(np.uint8)
    said = chunk(b"gAMA", struct.pack(">I", round(gamma * 1e5)))
    (tmp_path / "a.png").write_bytes(png(Image.fromarray(stored), said))
    bright = photo(40, 50) > 60  # of darker values, 8 linear bits keep little
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - photo(40, 50))[bright].max() <= 2
    (tmp_path / "a.png").write_bytes(png(Image.fromarray(stored), said, chunk(b"sRGB", b"\0")))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), stored)


def test_the_primaries_of_a_png_are_honoured(tmp_path):
    stored = encoded_by(rgb_profile(gamma=2.2), np.full((8, 8, 3), (150, 90, 60), np.uint8))
    said = [chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"cHRM", struct.pack(">8I", *(round(v * 1e5) for v in P3)))]
    (tmp_path / "a.png").write_bytes(png(stored, *said))
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - (150, 90, 60)).max() <= 4


def coding(primaries: int, curve: int, full_range: int = 1) -> bytes:
    return chunk(b"cICP", bytes([primaries, curve, 0, full_range]))


def test_the_coding_of_a_png_goes_before_its_profile(tmp_path, capfd):
    """12 is Display P3, 13 is sRGB's curve; the other chunks say that it is sRGB."""
    stored = encoded_by(rgb_profile(gamma=2.2), np.full((8, 8, 3), (150, 90, 60), np.uint8))
    said = [chunk(b"sRGB", b"\0"), coding(12, 13)]
    for chunks in (said, said[::-1]):
        (tmp_path / "a.png").write_bytes(png(stored, *chunks))
        assert np.abs(read_image(tmp_path / "a.png").astype(int) - (150, 90, 60)).max() <= 4
    (tmp_path / "a.png").write_bytes(png(stored, coding(1, 13)))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(stored))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("said", "why"), [(coding(9, 16), "displays, PQ"), (coding(9, 18), "displays, HLG"), (coding(12, 13, 0), "not known")]
)
def test_a_coding_that_is_not_understood_is_a_warning(said, why, tmp_path, capfd):
    (tmp_path / "a.png").write_bytes(png(Image.fromarray(photo(40, 50)), said))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), photo(40, 50))
    error = capfd.readouterr().err
    assert why in error and error.count("\n") == 1


def avif(image: Image.Image, primaries: int, curve: int) -> bytes:
    """Return an AVIF file whose box `colr` has these numbers; Pillow writes those of sRGB, 1 and 13."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(file, "AVIF", quality=100, subsampling="4:4:4")  # without a profile
    before, colr, after = file.getvalue().partition(b"colrnclx\0\1\0\r")
    assert colr
    return before + b"colrnclx" + struct.pack(">HH", primaries, curve) + after


def test_the_coding_of_an_avif_is_honoured(tmp_path, capfd):
    image = Image.new("RGB", (64, 64), (150, 90, 60))
    stored = encoded_by(rgb_profile(gamma=2.2), np.asarray(image))
    (tmp_path / "a.avif").write_bytes(avif(stored, 12, 13))
    assert np.abs(read_image(tmp_path / "a.avif").astype(int) - (150, 90, 60)).max() <= 4
    for coding in ((1, 13), (2, 2)):  # sRGB, unknown
        (tmp_path / "a.avif").write_bytes(avif(image, *coding))
        assert np.abs(read_image(tmp_path / "a.avif").astype(int) - (150, 90, 60)).max() <= 1
    assert capfd.readouterr().err == ""
    (tmp_path / "a.avif").write_bytes(avif(image, 9, 16))
    assert np.abs(read_image(tmp_path / "a.avif").astype(int) - (150, 90, 60)).max() <= 1
    assert "displays, PQ" in capfd.readouterr().err


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_camera_marks_adobe_rgb_in_the_exif_data_alone(orientation, tmp_path):
    """The expected values are those of an ICC profile with the same primaries and gamma."""
    adobe = rgb_profile((0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), gamma=563 / 256)
    image = Image.new("RGB", (16, 16), (150, 90, 60))
    image.save(tmp_path / "icc.png", icc_profile=adobe)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {ExifTags.Interop.InteropIndex: "R03"}
    image.save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    expected = read_image(tmp_path / "icc.png").astype(int)
    assert np.abs(expected - (150, 90, 60)).max() > 10
    assert np.abs(read_image(tmp_path / "a.jpg") - expected).max() <= 2
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {ExifTags.Interop.InteropIndex: "R98"}  # sRGB
    image.save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - (150, 90, 60)).max() <= 2


@pytest.mark.parametrize("said", [
    chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"gAMA", bytes(4)), chunk(b"cHRM", bytes(32)),
    chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
])  # fmt: skip
def test_what_says_srgb_or_nonsense_changes_no_bit(said, tmp_path):
    (tmp_path / "a.png").write_bytes(png(Image.fromarray(photo(40, 50)), said))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), photo(40, 50))


# ----------------------------------------------------------------------------------------------------------------------
# Depth and transparency
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_gray_with_a_transparent_level_is_laid_over_white_at_every_depth(depth, tmp_path):
    values = np.arange(64).reshape(8, 8) * (1000 if depth == 16 else 1) % 2**depth
    key = int(values[0, 1])
    (tmp_path / "a.png").write_bytes(raw_png(values, depth, 0, chunk(b"tRNS", struct.pack(">H", key))))
    expected = np.where(values == key, 255, np.rint(values * 255 / (2**depth - 1)))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 1], expected)


def test_rgb_of_16_bits_with_a_transparent_colour(tmp_path):
    values = np.stack([np.arange(64) * 1000, np.arange(64) * 500, 65535 - np.arange(64) * 100], -1).reshape(8, 8, 3)
    (tmp_path / "a.png").write_bytes(raw_png(values, 16, 2, chunk(b"tRNS", struct.pack(">3H", *values[0, 3]))))
    read = read_image(tmp_path / "a.png")
    assert (read[0, 3] == 255).all()
    others = np.ones((8, 8), bool)
    others[0, 3] = False
    assert np.abs(read[others] - values[others] / 257).max() < 1


@pytest.mark.parametrize(
    ("mode", "suffix"), [("LA", ".png"), ("RGBA", ".png"), ("PA", ".tif"), ("RGBA", ".webp"), ("RGBA", ".gif")]
)
def test_what_is_transparent_is_white(mode, suffix, tmp_path):
    image = Image.new("RGBA", (16, 16), (200, 10, 20, 255))
    image.paste((200, 10, 20, 0), (0, 0, 8, 16))
    image.convert(mode).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    read = read_image(tmp_path / f"a{suffix}")
    assert (read[:, :8] == 255).all() and (read[:, 8:] != 255).any()


def test_alpha_that_is_0_everywhere_means_nothing_in_a_bmp(tmp_path):
    """Pillow writes no alpha; a version 4 header says where it is."""
    header = struct.pack("<IiiHHIIiiIIIIII", 108, 16, -16, 1, 32, 3, 1024, 0, 0, 0, 0, 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header += bytes(108 - len(header))
    body = bytes((20, 10, 200, 0)) * 256
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 14 + 108 + 1024, 0, 0, 122) + header + body)
    np.testing.assert_array_equal(read_image(tmp_path / "a.bmp"), np.full((16, 16, 3), (200, 10, 20)))


def test_gray_of_16_bits_in_tiff_and_pgm(tmp_path):
    gray = (np.arange(4800).reshape(60, 80) * 13).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "a.tif")
    (tmp_path / "a.pgm").write_bytes(b"P5 80 60 65535\n" + gray.astype(">u2").tobytes())
    for name in ("a.tif", "a.pgm"):
        np.testing.assert_array_equal(read_image(tmp_path / name)[..., 0], np.rint(gray / 257))
    tagged = (tmp_path / "a.tif").read_bytes().replace(struct.pack("<HHIH", 262, 3, 1, 1), struct.pack("<HHIH", 262, 3, 1, 0))
    (tmp_path / "a.tif").write_bytes(tagged)  # 0 is white
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], 255 - np.rint(gray / 257))


def test_values_without_a_known_range_are_refused(tmp_path):
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif.*floating-point"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("most", [200, 70_000])
def test_gray_of_32_bits_is_refused_because_its_white_is_not_known(most, tmp_path):
    Image.fromarray(np.full((8, 8), most, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif.*more than 16 bits"):
        read_image(tmp_path / "a.tif")


# ----------------------------------------------------------------------------------------------------------------------
# Orientation and animation
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_the_orientation_tag_is_applied_in_every_format(suffix, tmp_path):
    upright = photo(40, 56)
    turned = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was turned: rotate by 270 to see it upright
    options = {".jpg": {"quality": 98}, ".webp": {"lossless": True}, ".avif": {"quality": 98}}.get(suffix, {})
    turned.save(tmp_path / f"a{suffix}", exif=exif, **options)
    read = read_image(tmp_path / f"a{suffix}")
    assert read.shape == upright.shape and np.abs(read.astype(int) - upright).mean() < 4


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif", ".avif"])
def test_the_first_picture_of_several_is_read_with_a_warning_that_has_their_number(suffix, tmp_path, capfd):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((200, 10, 20), (10, 200, 20), (10, 20, 200))]
    options = {".webp": {"lossless": True}, ".avif": {"quality": 100}}.get(suffix, {})
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], **options)
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - (200, 10, 20)).max() <= 2
    assert capfd.readouterr().err.endswith(f"a{suffix}: has 3 pictures; only the first is read\n")
    frames[0].save(tmp_path / f"b{suffix}", **options)
    read_image(tmp_path / f"b{suffix}")
    assert capfd.readouterr().err == ""


# ----------------------------------------------------------------------------------------------------------------------
# Metadata and damage
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [
    chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000))),
    chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2_000_000))),
    chunk(b"tEXt", b"a\0" + bytes(3_000_000)),
    chunk(b"zTXt", b"damaged")[:-1] + b"x",
    chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(300_000_000))),
    chunk(b"eXIf", b"nonsense"),
])  # fmt: skip
def test_metadata_of_a_png_does_not_decide_whether_it_can_be_read(extra, tmp_path):
    (tmp_path / "a.png").write_bytes(png(Image.fromarray(photo(40, 50)), extra))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), photo(40, 50))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_its_last_bytes_is_read_with_a_warning(progressive, tmp_path, capfd):
    Image.fromarray(photo(300, 400)).save(tmp_path / "whole.jpg", quality=95, progressive=progressive)
    data = (tmp_path / "whole.jpg").read_bytes()
    for missing in (1, 2, 6):
        (tmp_path / f"{missing}.jpg").write_bytes(data[:-missing])
        differs = (read_image(tmp_path / f"{missing}.jpg") != read_image(tmp_path / "whole.jpg")).any(axis=-1)
        assert differs.mean() < 0.03
        assert f"{missing}.jpg: is cut short" in capfd.readouterr().err
    for share in (0.2, 0.5, 0.9):
        (tmp_path / "cut.jpg").write_bytes(data[: int(share * len(data))])
        with pytest.raises(UserError, match=r"cut\.jpg.*truncated"):
            read_image(tmp_path / "cut.jpg")


def test_a_progressive_jpeg_cut_between_two_scans_is_refused(tmp_path):
    Image.fromarray(photo(100, 120)).save(tmp_path / "a.jpg", quality=90, progressive=True)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: data.rindex(b"\xff\xda")])
    with pytest.raises(UserError, match="truncated"):
        read_image(tmp_path / "a.jpg")


def test_a_png_that_lacks_its_end_is_read_with_a_warning_and_one_that_lacks_pixels_is_refused(tmp_path, capfd):
    data = png(Image.fromarray(photo(40, 50)))
    (tmp_path / "a.png").write_bytes(data[:-12])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), photo(40, 50))
    assert "a.png: is cut short" in capfd.readouterr().err
    (tmp_path / "b.png").write_bytes(data[:-40])
    with pytest.raises(UserError, match=r"b\.png: cannot be decoded"):
        read_image(tmp_path / "b.png")


@pytest.mark.parametrize("suffix", [".webp", ".tif", ".gif", ".bmp", ".ppm"])
def test_other_formats_cut_in_half_are_one_line(suffix, tmp_path):
    Image.fromarray(photo(40, 50)).save(tmp_path / f"a{suffix}")
    data = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError) as error:
        read_image(tmp_path / f"a{suffix}")
    assert f"a{suffix}" in str(error.value) and "\n" not in str(error.value)


def test_a_huge_size_is_refused_before_anything_is_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(
        raw_png(np.zeros((1, 8), int), 8, 0).replace(struct.pack(">II", 8, 1), struct.pack(">II", 2**30, 2**30))
    )
    with pytest.raises(UserError, match=r"a\.png"):
        read_image(tmp_path / "a.png")
    Image.new("RGB", (8, 1)).save(tmp_path / "a.webp", lossless=True)
    small = (tmp_path / "a.webp").read_bytes()
    size = small.index(b"VP8L") + 9  # width - 1 and height - 1, in 14 bits each
    (tmp_path / "a.webp").write_bytes(small[:size] + struct.pack("<I", 15999 | 15999 << 14) + small[size + 4 :])
    with pytest.raises(UserError, match="max_pixels"):
        read_image(tmp_path / "a.webp")


def tiff(shape: tuple[int, ...], tags: dict[int, int | tuple[int, ...]], pixels: bytes) -> bytes:
    """A TIFF of (H, W) pixels in one strip, without Pillow. tags: beside the sizes, of 16-bit numbers."""
    entries = {256: shape[1], 257: shape[0], 259: 1, 262: 2, 278: shape[0], 277: 3} | tags
    planes = entries[277] if entries.get(284) == 2 else 1
    start, values = 8 + 2 + 12 * (len(entries) + 2) + 4, b""
    strips = struct.pack(f"<{planes}I", *(0 for _ in range(planes)))
    size, at = len(pixels) // planes, start + 64
    strips = [at + i * size for i in range(planes)]
    fields = []
    for tag, value in sorted((entries | {273: tuple(strips), 279: (size,) * planes}).items()):
        numbers = value if isinstance(value, tuple) else (value,)
        kind = 4 if tag in (256, 257, 273, 279, 322, 323) else 3
        packed = struct.pack(f"<{len(numbers)}{'HI'[kind == 4]}", *numbers)
        if len(packed) > 4:
            packed, values = struct.pack("<I", start + len(values)), values + packed
        fields.append(struct.pack("<HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0"))
    header = b"II*\0" + struct.pack("<IH", 8, len(fields)) + b"".join(fields) + bytes(4)
    return (header + values).ljust(at, b"\0") + pixels


@pytest.mark.parametrize(("tags", "kind"), [
    ({258: (16,) * 3, 284: 2}, "planar TIFF of 16 bits"),
    ({258: (32,) * 3, 339: (3,) * 3}, "3 samples of 32 bits, floating-point"),
    ({258: (16,) * 3, 339: (3,) * 3}, "3 samples of 16 bits, floating-point"),
    ({258: (16,) * 2, 277: 2, 262: 1, 338: 2}, "2 samples of 16 bits"), ({258: (16,), 277: 1, 262: 1, 339: (2,)}, "signed"),
])  # fmt: skip
def test_a_tiff_that_pillow_cannot_read_is_called_what_it_is(tags, kind, tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff((4, 6), tags, bytes(4 * 6 * sum(tags[258]) // 8)))
    with pytest.raises(UserError, match=rf"a\.tif: .*{kind}") as error:
        read_image(tmp_path / "a.tif")
    assert "\n" not in str(error.value)


def test_a_planar_tiff_of_8_bits_is_read(tmp_path):
    planes = np.moveaxis(photo(4, 6), -1, 0).copy()
    (tmp_path / "a.tif").write_bytes(tiff((4, 6), {258: (8,) * 3, 284: 2}, planes.tobytes()))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), photo(4, 6))


def test_an_icon_and_the_png_of_an_iphone_application_are_called_what_they_are(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.ico")
    data = png(Image.new("RGB", (16, 16)))
    (tmp_path / "a.png").write_bytes(data[:8] + chunk(b"CgBI", b"P\0 \2") + data[8:])
    for name, kind in (("a.ico", "is an icon"), ("a.png", "Apple's own kind")):
        with pytest.raises(UserError, match=rf"{name}: .*{kind}"):
            read_image(tmp_path / name)
    assert picture_format((tmp_path / "a.ico").read_bytes()) is None


def test_standard_input_has_a_name(tmp_path):
    with pytest.raises(UserError, match="instead of a file; standard input is called -"):
        read_image("/dev/zero")


def many_scans(image: Image.Image, n: int) -> bytes:
    """A progressive JPEG whose last scan, with all its marker, is there n times more."""
    file = io.BytesIO()
    image.save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (n + 1) + data[-2:]


def test_what_takes_long_or_much_memory_to_decode_is_refused_before(tmp_path):
    image = Image.fromarray(photo(40, 50))
    (tmp_path / "a.jpg").write_bytes(many_scans(image, 0))
    assert read_image(tmp_path / "a.jpg").shape == (40, 50, 3)
    (tmp_path / "b.jpg").write_bytes(many_scans(image, 60))
    tile = {258: (8,) * 3, 322: 43008, 323: 43008}
    (tmp_path / "b.tif").write_bytes(
        tiff((32, 32), tile, bytes(32 * 32 * 3)).replace(struct.pack("<HH", 273, 4), struct.pack("<HH", 324, 4))
    )
    for name, kind in (("b.jpg", "has 7. scans"), ("b.tif", "tiles of 1849688064 px")):
        with pytest.raises(UserError, match=rf"{name}: .*{kind}"):
            read_image(tmp_path / name)


def test_every_format_on_the_list_is_one_that_pillow_knows():
    known = Image.registered_extensions()
    assert {known[s] for s in pictures.READ_SUFFIXES if s in known} == set(pictures.READ_FORMATS) | {"MPO", "DIB"} - set()


def test_a_file_that_stands_in_for_another_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(files.LFS_POINTER + b".com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match="Git LFS pointer"):
        read_image(tmp_path / "a.png")


# ----------------------------------------------------------------------------------------------------------------------
# What cameras and printers write
# ----------------------------------------------------------------------------------------------------------------------


def test_of_an_mpo_file_the_first_picture_is_read(tmp_path):
    first, second = (Image.fromarray(photo(48, 64, seed=seed)) for seed in range(2))
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[second], quality=98, subsampling=0)
    assert b"MPF\0" in (tmp_path / "a.mpo").read_bytes()
    assert np.abs(read_image(tmp_path / "a.mpo").astype(int) - photo(48, 64)).max() <= 12


def test_a_cmyk_jpeg_is_read_with_and_without_a_profile_that_is_not_for_cmyk(tmp_path, capfd):
    ink = Image.fromarray(mild()).convert("CMYK")
    for name, icc in (("plain", None), ("rgb", rgb_profile())):
        ink.save(tmp_path / f"{name}.jpg", quality=98, subsampling=0, icc_profile=icc)
        assert Image.open(tmp_path / f"{name}.jpg").mode == "CMYK"
        assert np.abs(read_image(tmp_path / f"{name}.jpg").astype(int) - mild()).max() <= 12
        assert ("it is for RGB and the image is CMYK" in capfd.readouterr().err) == (icc is not None)


INKS = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 1, 1, 0), (1, 0, 1, 0), (1, 1, 0, 0), (0, 0, 0, 1)]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("suffix", "options", "off"), [(".tif", {}, 2), (".jpg", {"quality": 100, "subsampling": 0}, 4)])
def test_the_profile_of_a_cmyk_image_says_what_its_inks_look_like(suffix, options, off, bits, tmp_path, capfd):
    """A patch of each ink, and of two on top of each other, has the colour that the profile's table gives it."""
    patches = np.repeat(np.repeat(255 * np.array([INKS], np.uint8), 16, axis=0), 16, axis=1)
    Image.fromarray(patches, "CMYK").save(tmp_path / f"a{suffix}", icc_profile=cmyk_profile(bits), **options)
    read = read_image(tmp_path / f"a{suffix}")[8, 8::16].astype(float)
    expected = np.array([srgb_of_lab(lab_of_inks(inks)) for inks in INKS])
    plain = np.asarray(Image.fromarray(patches, "CMYK").convert("RGB"))[8, 8::16]
    assert np.abs(expected - plain).max() > 60  # what is seen where the profile is ignored
    assert np.abs(read - expected).max() <= off
    assert capfd.readouterr().err == ""
