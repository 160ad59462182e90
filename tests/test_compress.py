"""compress.py and decompress.py as their users run them."""

import contextlib
import csv
import io
import os
import shutil

import numpy as np
import pytest
from conftest import PROJECT, label_map, photo
from PIL import Image
from test_data import bad_images

import compress
import decompress
from commands.loading import load_codec
from evaluation.metrics import ms_ssim, psnr
from gcodec import Codec, packets, read_image
from gcodec.container import Header, pack, unpack
from path_tables import write_columns

CAP = 10**6


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def image(tmp_path) -> str:
    Image.fromarray(photo(170, 200)).save(tmp_path / "photo.png")
    return "photo.png"


@pytest.fixture(scope="module")
def codec(checkpoint):
    return load_codec(checkpoint)


def test_a_photo_becomes_a_file_and_a_picture_and_the_report_is_of_the_file(checkpoint, image, tmp_path, capsys):
    assert compress.main(["-r", str(checkpoint), "-i", image, "-o", "out"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.gc", "out.png", "photo.png"]
    size = (tmp_path / "out.gc").stat().st_size
    report = capsys.readouterr().out
    assert (
        "side by side:    out.png" in report
        and f"{size} bytes" in report
        and f"{8 * size / (170 * 200):.4f} (bound 0.0726" in report
    )
    assert decompress.main(["-r", str(checkpoint), "-i", "out.gc", "-o", "back.png"]) == 0
    original, back = read_image(image, CAP), read_image("back.png", CAP)
    assert f"{psnr(original, back):.2f} dB" in report and f"{ms_ssim(original, back):.4f}" in report


def test_the_picture_shows_the_original_beside_what_decompressing_gives(checkpoint, image):
    compress.main(["-r", str(checkpoint), "-i", image, "-o", "out.png"])
    decompress.main(["-r", str(checkpoint), "-i", "out.gc", "-o", "back.png"])
    shown = read_image("out.png", CAP)
    left = (240 - 200) // 2  # narrow pictures are centered in columns with room for the caption
    np.testing.assert_array_equal(shown[:170, left : left + 200], read_image(image, CAP))
    np.testing.assert_array_equal(shown[:170, 248 + left : 248 + left + 200], read_image("back.png", CAP))


def test_a_checkpoint_without_a_context_model_is_named_in_one_warning(checkpoint, image, capsys):
    assert compress.main(["-r", str(checkpoint), "-i", image, "-o", "out.gc"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "warning" in line and "no context model" in line and str(checkpoint) in line]


def test_with_a_gc_output_there_is_only_the_file(checkpoint, image, tmp_path):
    assert compress.main(["-r", str(checkpoint), "-i", image, "-o", "sub/out.gc"]) == 0
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["out.gc"]


def test_fewer_channels_make_a_smaller_file_that_says_so(checkpoint, image, tmp_path):
    for K, name in [(8, "all.gc"), (3, "three.gc")]:
        assert compress.main(["-r", str(checkpoint), "-i", image, "-o", name, "--channels", str(K)]) == 0
        assert decompress.main(["-r", str(checkpoint), "-i", name, "-o", f"{name}.png"]) == 0
        assert unpack((tmp_path / name).read_bytes()).header.channels == K % 8  # 0 stands for all
    assert (tmp_path / "three.gc").stat().st_size < 0.5 * (tmp_path / "all.gc").stat().st_size


def test_more_channels_than_the_model_has_are_refused_before_a_folder_is_begun(checkpoint, image, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    Image.open(image).save(tmp_path / "in" / "a.png")
    assert compress.main(["-r", str(checkpoint), "-i", "in", "-o", "out", "--channels", "9"]) == 2
    assert is_one_line_that_names("the model has 8", capfd) and not (tmp_path / "out").exists()


def test_the_newest_checkpoint_is_found_by_rl(checkpoint, image, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "checkpoints" / "run")
    assert compress.main(["-rl", "-i", image, "-o", "out.gc"]) == 0
    assert decompress.main(["-rl", "-i", "out.gc", "-o", "back.png"]) == 0


def test_a_folder_is_compressed_by_one_model_with_a_table_of_results(checkpoint, tmp_path, capsys):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("a.png", "a.bmp", "sub/b.png"):
        Image.fromarray(photo(40, 50)).save(tmp_path / "in" / name)
    assert compress.main(["-r", str(checkpoint), "-i", "in", "-o", "out"]) == 0
    made = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert made == {"results.csv", "a.bmp.png", "a.bmp.gc", "a.png.png", "a.png.gc", "sub/b.png", "sub/b.gc"}
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == ["a.bmp", "a.png", "sub/b.png"]
    assert int(rows[2]["bytes"]) == (tmp_path / "out/sub/b.gc").stat().st_size
    assert "mean bytes" in capsys.readouterr().out


def test_a_bad_image_in_a_folder_is_named_and_costs_the_others_nothing(checkpoint, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    bad_images(tmp_path / "in")  # and one whole image
    assert compress.main(["-r", str(checkpoint), "-i", "in", "-o", "out"]) == 2
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == ["whole.jpg"]
    error = capsys.readouterr().err
    assert all(name in error for name in ("cut.jpg", "text.png", "empty.png"))


def test_the_input_folder_is_not_written_to(checkpoint, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    Image.fromarray(photo(40, 50)).save(tmp_path / "in" / "a.png")
    for output in ("in", "in/below", "."):
        status = compress.main(["-r", str(checkpoint), "-i", "in", "-o", output])
        assert status == (0 if output == "." else 2)
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["a.png"]


# ----------------------------------------------------------------------------------------------------------------------
# Bad input
# ----------------------------------------------------------------------------------------------------------------------


def is_one_line_that_names(named: str, capfd) -> bool:
    error = capfd.readouterr().err
    return named in error and error.count("\n") == 1 and "error:" in error and "Traceback" not in error


@pytest.mark.parametrize("name", ["cut.jpg", "text.png", "empty.png", "none.png"])
def test_a_file_that_is_no_image_is_one_line_and_status_2(name, checkpoint, tmp_path, capfd):
    bad_images(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert compress.main(["-r", str(checkpoint), "-i", name, "-o", "out.png"]) == 2
    assert is_one_line_that_names(name, capfd)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-r", "nowhere"], "nowhere"),
        (["-r", "photo.png"], "photo.png"),
        (["-rl"], "checkpoints"),
        (["-k", "max_pixels=100"], "max_pixels"),
        (["-k", "frobnicate=1"], "frobnicate"),
        (["-k", "max_pixels=few"], "max_pixels"),
        (["--channels", "9"], "the model has 8"),
        (["--channels", "0"], "channels"),
        (["-o", "out.doc"], "out.doc"),
        (["-o", "photo.png/out.png"], "photo.png/out"),
        (["-o", "folder.gc"], "folder.gc"),
        (["-o", "photo.png"], "photo.png"),
        (["-i", "x" * 300, "-o", "out.gc"], "x" * 300),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, named, checkpoint, image, tmp_path, capfd):
    (tmp_path / "folder.gc").mkdir()
    before = sorted(tmp_path.rglob("*"))
    defaults = ["-r", str(checkpoint)] if not {"-r", "-rl"} & set(arguments) else []
    output = ["-o", "out.png"] if "-o" not in arguments else []
    assert compress.main(["-i", image, *defaults, *output, *arguments]) == 2
    assert is_one_line_that_names(named, capfd)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_picture_that_cannot_be_written_leaves_no_file_either(checkpoint, image, tmp_path, capfd, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise ValueError("too large for this format")

    monkeypatch.setattr("PIL.Image.Image.save", refuse)
    assert compress.main(["-r", str(checkpoint), "-i", image, "-o", "out.png"]) == 2
    assert is_one_line_that_names("out.png: cannot be written (too large for this format)", capfd)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]


def test_an_image_too_long_for_the_format_is_named_and_costs_a_folder_nothing(checkpoint, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((1, 70000, 3), np.uint8)).save(tmp_path / "in" / "a_long.png")
    Image.fromarray(photo(40, 50)).save(tmp_path / "in" / "b.png")
    assert compress.main(["-r", str(checkpoint), "-i", "in", "-o", "out"]) == 2
    assert "a_long.png: 70000x1" in capfd.readouterr().err
    assert (tmp_path / "out" / "b.gc").exists() and not (tmp_path / "out" / "a_long.gc").exists()


def test_a_full_disk_leaves_no_half_written_output(checkpoint, image, tmp_path, capfd, monkeypatch):
    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    assert compress.main(["-r", str(checkpoint), "-i", image, "-o", "out.gc"]) == 2
    assert is_one_line_that_names("out.gc: cannot be written (No space left on device)", capfd)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: data[:9], "cut short"),
        (lambda data: b"text" * 10, "not a .gc file"),
        (lambda data: data[:-1], "checksum"),
        (lambda data: data[:20] + bytes([data[20] ^ 4]) + data[21:], "checksum"),
    ],
)
def test_a_damaged_file_is_one_line_and_status_2(damage, named, codec, checkpoint, tmp_path, capfd):
    data = codec.encode(photo(50, 60))
    (tmp_path / "a.gc").write_bytes(damage(data))
    assert decompress.main(["-r", str(checkpoint), "-i", "a.gc", "-o", "a.png"]) == 2
    assert is_one_line_that_names("a.gc", capfd) and not (tmp_path / "a.png").exists()
    (tmp_path / "a.gc").write_bytes(data)
    assert decompress.main(["-r", str(checkpoint), "-i", "a.gc", "-o", "a.png"]) == 0


def by_another_model(data: bytes) -> bytes:
    """The bytes of a file as if an unknown model had made it."""
    file = unpack(data)
    return pack(file.header._replace(fingerprint=b"else"), file.payload)


def test_a_file_of_another_model_is_refused(codec, checkpoint, tmp_path, capfd):
    data = codec.encode(photo(50, 60))
    (tmp_path / "a.gc").write_bytes(by_another_model(data))
    assert decompress.main(["-r", str(checkpoint), "-i", "a.gc", "-o", "a.png"]) == 2
    assert is_one_line_that_names("made with another checkpoint", capfd)


def test_a_file_that_claims_a_huge_image_is_refused_before_anything_is_allocated(codec, checkpoint, tmp_path, capfd):
    (tmp_path / "a.gc").write_bytes(pack(Header(65535, 65535, 0, 0, codec.checkpoint.fingerprint), b"\0" * 8))
    assert decompress.main(["-r", str(checkpoint), "-i", "a.gc", "-o", "a.png"]) == 2
    assert is_one_line_that_names("max_pixels", capfd)


# ----------------------------------------------------------------------------------------------------------------------
# Which model a file is of
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_files() -> dict[str, bytes]:
    """Files of one small photo, by the shipped models that made them."""
    return {name: Codec.load(PROJECT / "checkpoints" / name).encode(photo(40, 48)) for name in ("photo_c4", "photo_c16")}


def test_files_of_several_models_are_decoded_together_each_by_its_own_which_is_loaded_once(small_files, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for name, data in small_files.items():
        (tmp_path / "in" / f"{name}.gc").write_bytes(data)
        (tmp_path / "in" / f"{name}_again.gc").write_bytes(data)
    loaded = []
    load = Codec.load
    monkeypatch.setattr(Codec, "load", lambda path, *runtime, **options: loaded.append(path) or load(path, *runtime, **options))
    assert decompress.main(["-i", "in", "-o", "out"]) == 0
    assert sorted(path.name for path in loaded) == sorted(small_files)
    for name, data in small_files.items():
        back = load(PROJECT / "checkpoints" / name).decode(data)
        for file in (name, f"{name}_again"):
            np.testing.assert_array_equal(read_image(f"out/{file}.png"), back)
    assert decompress.main(["-i", "in/photo_c4.gc", "in/photo_c16.gc", "-o", "two"]) == 0
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == ["photo_c16.png", "photo_c4.png", "results.csv"]


def test_a_checkpoint_of_ones_own_is_found_below_the_working_directory(checkpoint, image, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "checkpoints/runs/mine")
    assert compress.main(["-r", str(checkpoint), "-i", image, "-o", "a.gc"]) == 0
    assert decompress.main(["-i", "a.gc", "-o", "a.png"]) == 0


def test_a_file_of_an_unknown_model_is_one_line_that_names_the_known_ones_and_costs_the_others_nothing(
    small_files, tmp_path, capfd
):
    (tmp_path / "unknown.gc").write_bytes(by_another_model(small_files["photo_c4"]))
    (tmp_path / "known.gc").write_bytes(small_files["photo_c4"])
    assert decompress.main(["-i", "unknown.gc", "-o", "a.png"]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "unknown.gc: " in error and b"else".hex() in error and "-r" in error
    assert all(f"{name} ({unpack(data).header.fingerprint.hex()})" in error for name, data in small_files.items())
    assert decompress.main(["-i", "unknown.gc", "known.gc", "-o", "out"]) == 2
    assert "skipped: unknown.gc" in capfd.readouterr().err and (tmp_path / "out/known.png").exists()


def test_a_gc_file_to_compress_and_a_photo_to_decompress_are_told_which_command_to_use(image, small_files, tmp_path, capfd):
    (tmp_path / "a.gc").write_bytes(small_files["photo_c4"])
    (tmp_path / "old.gc").write_bytes(b"gc\2" + bytes(40))
    for name in ("a.gc", "old.gc"):
        assert compress.main(["-i", name, "-o", "out.gc"]) == 2
        assert is_one_line_that_names(f"{name}: is a .gc file, not an image; decompress it first", capfd)
    assert decompress.main(["-i", image, "-o", "out.png"]) == 2
    assert is_one_line_that_names("photo.png: is a picture (PNG), not a .gc file; compress it first", capfd)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gc", "old.gc", "photo.png"]


# ----------------------------------------------------------------------------------------------------------------------
# Standard input and output
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def piped(monkeypatch, capfdbinary):
    """Run a command with bytes on standard input; return its status, standard output and standard error."""

    def run(main, data: bytes, *arguments: str) -> tuple[int, bytes, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        capfdbinary.readouterr()
        status = main(list(arguments))
        output, error = capfdbinary.readouterr()
        return status, output, error.decode()

    return run


def test_images_and_files_go_through_standard_input_and_output(piped, checkpoint, image, tmp_path):
    model = ("-r", str(checkpoint))
    assert compress.main([*model, "-i", image, "-o", "a.gc"]) == 0
    assert decompress.main([*model, "-i", "a.gc", "-o", "a.png"]) == 0
    status, file, error = piped(compress.main, (tmp_path / image).read_bytes(), *model, "-i", "-", "-o", "-")
    assert (status, file) == (0, (tmp_path / "a.gc").read_bytes()) and "bits per pixel" in error
    status, picture, error = piped(decompress.main, file, *model, "-i", "-", "-o", "-")
    assert (status, picture) == (0, (tmp_path / "a.png").read_bytes()) and "200x170" in error
    before = sorted(tmp_path.iterdir())
    status, output, _ = piped(compress.main, (tmp_path / image).read_bytes(), *model, "-i", "-", "-o", "b.png")
    assert status == 0 and b"b.gc" in output and (tmp_path / "b.gc").read_bytes() == file
    assert {p.name for p in set(tmp_path.iterdir()) - set(before)} == {"b.gc", "b.png"}


def test_a_packet_on_standard_input_gives_its_part_of_the_picture(piped, codec, checkpoint, image):
    first, *others = packets.encode(codec, read_image(image, CAP), 100)
    status, picture, error = piped(decompress.main, first, "-r", str(checkpoint), "-i", "-", "-o", "-")
    assert status == 0 and f"1 of {1 + len(others)} packets" in error
    with Image.open(io.BytesIO(picture)) as opened:
        assert opened.size == (200, 170)
    status, picture, error = piped(decompress.main, first[:-1], "-r", str(checkpoint), "-i", "-", "-o", "-")
    assert (status, picture) == (2, b"") and "standard input: damaged" in error


@pytest.mark.parametrize("cut", [0, 1, 8, 20])
def test_standard_input_that_ends_early_is_one_line_and_writes_nothing(cut, piped, codec, checkpoint, image, tmp_path):
    data = codec.encode(photo(50, 60))
    for main, whole in [(decompress.main, data), (compress.main, (tmp_path / image).read_bytes())]:
        status, output, error = piped(main, whole[:cut], "-r", str(checkpoint), "-i", "-", "-o", "-")
        assert (status, output) == (2, b"") and error.count("\n") == 1 and "error: standard input: " in error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-i", "-", "photo.png", "-o", "out"], "-i -: standard input goes alone"),
        (["-i", "-"], "-i -: say with -o"),
        (["-i", "photo.png", "photo.png", "-o", "-"], "-o -: standard output takes one file"),
        (["-i", ".", "-o", "-"], "-o -: standard output takes one file"),
    ],
)
def test_streams_that_do_not_go_with_the_rest_are_one_line(arguments, named, image, tmp_path, capfd):
    assert compress.main(arguments) == 2
    assert is_one_line_that_names(named, capfd) and [p.name for p in tmp_path.iterdir()] == ["photo.png"]


# ----------------------------------------------------------------------------------------------------------------------
# What is there already, and what was finished before
# ----------------------------------------------------------------------------------------------------------------------


def snapshot(folder) -> dict[str, tuple[int, bytes]]:
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def test_a_budget_is_kept_for_one_image_and_in_a_folder_that_says_what_was_chosen(image, tmp_path, capsys):
    assert compress.main(["-i", image, "-o", "out.gc", "--max-bytes", "64"]) == 0
    assert (tmp_path / "out.gc").stat().st_size <= 64 and "by photo_c" in capsys.readouterr().out
    assert decompress.main(["-i", "out.gc", "-o", "back.png"]) == 0
    assert read_image("back.png", CAP).shape == (170, 200, 3)
    (tmp_path / "photos").mkdir()
    for i in range(2):
        Image.fromarray(photo(100 + i, 170, seed=i)).save(tmp_path / f"photos/{i}.png")
    models = [str(PROJECT / f"checkpoints/photo_c{C}") for C in (4, 16)]
    assert compress.main(["-r", *models, "-i", "photos", "-o", "results", "--max-bpp", "0.03"]) == 0
    rows = list(csv.DictReader((tmp_path / "results/results.csv").read_text().splitlines()))
    for row in rows:
        assert 8 * int(row["bytes"]) <= 0.03 * int(row["width"]) * int(row["height"])
        file = unpack((tmp_path / "results" / row["image"]).with_suffix(".gc").read_bytes())
        assert file.header.coded_size == (int(row["coded_height"]), int(row["coded_width"]))
        assert row["model"] in ("photo_c4", "photo_c16")
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--max-bytes", "0"], "--max-bytes 0: must be more than 0"),
        (["--max-bytes", "-5"], "--max-bytes -5: must be more than 0"),
        (["--max-bytes", "many"], "invalid int value: 'many'"),
        (["--max-bpp", "nan"], "--max-bpp nan: must be more than 0"),
        (["--max-bytes", "9"], "does not fit into 9 bytes; "),
        (["--max-bytes", "200", "--max-bpp", "1"], "not allowed with"),
        (["--max-bytes", "200", "--channels", "2"], "--max-bytes: does not go with --channels"),
        (["--max-bytes", "200", "-sm", "map.png"], "--max-bytes: does not go with --channels or with label maps"),
        (["--max-bytes", "200", "-r", str(PROJECT / "checkpoints/camvid_sc_c8")], "no label map"),
        (["-r", str(PROJECT / "checkpoints/photo_c4"), str(PROJECT / "checkpoints/photo_c8")], "names several models"),
    ],
)
def test_a_budget_that_makes_no_sense_is_one_line(arguments, named, image, tmp_path, capfd):
    with contextlib.suppress(SystemExit):  # argparse's own way
        assert compress.main(["-i", image, "-o", "out.gc", *arguments]) == 2
    error = capfd.readouterr().err
    assert named in error.splitlines()[-1] and "Traceback" not in error
    assert not (tmp_path / "out.gc").exists()


def test_outputs_are_replaced_only_with_overwrite(checkpoint, image, tmp_path, capfd):
    command = ["-r", str(checkpoint), "-i", image, "-o", "out.png"]
    (tmp_path / "out.gc").write_text("mine")
    assert compress.main(command) == 2
    assert is_one_line_that_names("out.gc: is there already", capfd) and (tmp_path / "out.gc").read_text() == "mine"
    assert compress.main([*command, "--overwrite"]) == 0
    (tmp_path / "back.png").write_text("mine")
    capfd.readouterr()
    decompressing = ["-r", str(checkpoint), "-i", "out.gc", "-o", "back.png"]
    assert decompress.main(decompressing) == 2
    assert is_one_line_that_names("--overwrite", capfd) and (tmp_path / "back.png").read_text() == "mine"
    assert decompress.main([*decompressing, "--overwrite"]) == 0


def test_a_folder_run_goes_on_where_it_stopped_and_a_run_back_does_too(checkpoint, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    names = ["IMG.jpg", "IMG.png", "IMG.jpg.png", os.fsdecode(b"\xff.png"), "new\nline.tif"]
    for i, name in enumerate(names):
        Image.fromarray(photo(40, 48, seed=i)).save(tmp_path / "in" / name)
    command = ["-r", str(checkpoint), "-i", "in", "-o", "out"]
    assert compress.main(command) == 0
    whole = snapshot(tmp_path / "out")
    assert len(whole) == 2 * len(names) + 1
    (tmp_path / "out" / "IMG.jpg.gc").unlink()  # as if it had been killed before this one was renamed
    (tmp_path / "out" / "new\nline.png").unlink()
    rows = (tmp_path / "out/results.csv").read_bytes()
    (tmp_path / "out/results.csv").write_bytes(b"".join(rows.splitlines(keepends=True)[:2]))  # and before most rows
    assert compress.main(command) == 0
    again = snapshot(tmp_path / "out")
    assert {n: data for n, (_, data) in again.items() if n != "results.csv"} == {
        n: data for n, (_, data) in whole.items() if n != "results.csv"
    }
    with (tmp_path / "out/results.csv").open(newline="", errors="surrogateescape") as file:
        assert {row["image"] for row in csv.DictReader(file)} == set(names)
    assert compress.main(command) == 0 and snapshot(tmp_path / "out").keys() == again.keys()
    assert "kept: 5 images" in capfd.readouterr().out

    assert compress.main([*command, "--channels", "3"]) == 2
    assert is_one_line_that_names("--overwrite", capfd)
    Image.fromarray(photo(40, 48, seed=9)).save(tmp_path / "in/IMG.png")  # a file that has changed
    assert compress.main(command) == 2
    assert is_one_line_that_names("made from another file", capfd)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "out") and compress.main([*command, "--overwrite"]) == 0

    back = ["-r", str(checkpoint), "-i", "out", "-o", "back"]
    assert decompress.main(back) == 0
    before = snapshot(tmp_path / "back")
    assert len(before) == len(names) + 1
    (tmp_path / "back/IMG.jpg.png").unlink()
    assert decompress.main(back) == 0 and {n: d for n, (_, d) in snapshot(tmp_path / "back").items() if n[-3:] == "png"} == {
        n: d for n, (_, d) in before.items() if n[-3:] == "png"
    }


def test_several_inputs_are_taken_together_or_one_by_one(checkpoint, tmp_path, capfd):
    for name in ("a.png", "b.bmp"):
        Image.fromarray(photo(40, 48)).save(tmp_path / name)
    whole = (tmp_path / "a.png").read_bytes()
    assert compress.main(["-r", str(checkpoint), "-i", "a.png", "b.bmp", "-o", ".", "--overwrite"]) == 2
    assert "a.png: is an input itself" in capfd.readouterr().err and (tmp_path / "a.png").read_bytes() == whole
    assert compress.main(["-r", str(checkpoint), "-i", "a.png", "b.bmp", "-o", "one"]) == 0
    assert compress.main(["-r", str(checkpoint), "-i", "a.png", "-i", "b.bmp", "-o", "two"]) == 0
    assert {p.name for p in (tmp_path / "one").iterdir()} == {p.name for p in (tmp_path / "two").iterdir()}
    assert decompress.main(["-r", str(checkpoint), "-i", "one/a.gc", "-i", "one/b.gc", "-o", "back"]) == 0
    assert {p.name for p in (tmp_path / "back").iterdir()} == {"a.png", "b.png", "results.csv"}


# ----------------------------------------------------------------------------------------------------------------------
# Files only, path tables, positions, loudness
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def never_decoded(monkeypatch):
    def refuse(self, data):
        raise AssertionError("a file was decoded")

    monkeypatch.setattr(Codec, "decode", refuse)


def test_files_only_are_those_of_a_run_with_pictures_and_nothing_is_decoded(checkpoint, image, tmp_path, capsys, request):
    (tmp_path / "in/sub").mkdir(parents=True)
    for i, name in enumerate(("a.png", "a.bmp", "sub/b.png")):
        Image.fromarray(photo(40, 50, seed=i)).save(tmp_path / "in" / name)
    command = ["-r", str(checkpoint), "-i", "in", "-o"]
    assert compress.main([*command, "out"]) == 0
    request.getfixturevalue("never_decoded")
    capsys.readouterr()
    assert compress.main([*command, "files", "--files-only"]) == 0
    assert "mean psnr" not in (out := capsys.readouterr().out) and "mean bytes" in out
    made = {name: data for name, (_, data) in snapshot(tmp_path / "files").items() if name != "results.csv"}
    assert made == {name: data for name, (_, data) in snapshot(tmp_path / "out").items() if name.endswith(".gc")}
    with (tmp_path / "files/results.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            data = made[{"a.png": "a.png.gc", "a.bmp": "a.bmp.gc", "sub/b.png": "sub/b.gc"}[row["image"]]]
            assert int(row["bytes"]) == len(data) and float(row["bpp"]) == pytest.approx(8 * len(data) / 2000)
            assert "psnr" not in row
    assert compress.main([*command, "out", "--files-only"]) == 0
    assert "kept: 3 images" in capsys.readouterr().out
    assert compress.main(["-r", str(checkpoint), "-i", image, "-o", "one.gc", "--files-only"]) == 0
    assert "PSNR" not in (out := capsys.readouterr().out) and f"{(tmp_path / 'one.gc').stat().st_size} bytes" in out
    packets_alone = ["-r", str(checkpoint), "-i", image, "-o", "p.gcp", "--packets", "200", "--files-only"]
    assert compress.main(packets_alone) == 0 and (tmp_path / "p-001.gcp").exists()


def test_pictures_are_added_to_a_folder_of_files_alone(checkpoint, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.fromarray(photo(40, 50)).save(tmp_path / "in/a.png")
    command = ["-r", str(checkpoint), "-i", "in", "-o", "out"]
    assert compress.main([*command, "--files-only"]) == 0
    before = (tmp_path / "out/a.gc").read_bytes()
    assert compress.main(command) == 0 and (tmp_path / "out/a.png").exists()
    assert (tmp_path / "out/a.gc").read_bytes() == before and "mean psnr" in capsys.readouterr().out


@pytest.mark.parametrize("more", [[], ["--packets", "200"]])
def test_files_only_and_a_picture_as_output_are_one_line(more, checkpoint, image, tmp_path, capfd):
    assert compress.main(["-r", str(checkpoint), "-i", image, "-o", "out.png", "--files-only", *more]) == 2
    assert is_one_line_that_names("out.png: --files-only writes no picture", capfd)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.parametrize("suffix", ["h5", "csv"])
def test_every_image_of_a_path_table_is_compressed(suffix, checkpoint, tmp_path, capsys):
    for i, name in enumerate(("a.png", "sub/b.png", "left_out.png")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(40, 50, seed=i)).save(tmp_path / "photos" / name)
    (tmp_path / "photos/broken.png").write_bytes(b"no image")
    table = tmp_path / f"photos/table.{suffix}"
    write_columns(table, {"path": ["a.png", str(tmp_path / "photos/sub/b.png"), "broken.png"]})
    command = ["-r", str(checkpoint), "-i", f"photos/table.{suffix}", "-o", "out"]
    assert compress.main(command) == 2
    assert "broken.png: cannot be decoded" in capsys.readouterr().err
    made = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert made == {"results.csv", "a.gc", "a.png", "sub/b.gc", "sub/b.png"}
    assert compress.main(command) == 2 and "kept: 2 images" in capsys.readouterr().out
    assert compress.main([*command[:-1], "out.gc"]) == 2 and "must be a folder" in capsys.readouterr().err
    assert compress.main([*command[:-1], "-"]) == 2 and "name a folder" in capsys.readouterr().err


def test_images_outside_the_folder_of_their_table_go_into_the_output_folder_too(checkpoint, tmp_path):
    for place in ("photos/x", "photos/y"):
        (tmp_path / place).mkdir(parents=True)
        Image.fromarray(photo(40, 50)).save(tmp_path / place / "a.png")
    (tmp_path / "tables").mkdir()
    write_columns(tmp_path / "tables/t.csv", {"path": ["../photos/x/a.png", "../photos/y/a.png"]})
    assert compress.main(["-r", str(checkpoint), "tables/t.csv", "out", "--files-only"]) == 0
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.gc")} == {"out/x/a.gc", "out/y/a.gc"}


@pytest.mark.parametrize("suffix", ["h5", "csv"])
def test_a_path_table_brings_the_label_maps_of_its_images(suffix, tmp_path, capfd):
    model = ["-r", str(PROJECT / "checkpoints/camvid_sc_c8"), "--preserve", "Sky"]
    for name in ("images", "maps"):
        (tmp_path / name).mkdir()
    for i in range(3):
        Image.fromarray(photo(64, 96, seed=i)).save(tmp_path / f"images/{i}.png")
        Image.fromarray(np.roll(label_map(64, 96), i)).save(tmp_path / f"maps/labels{i}.png")
    maps = ["maps/labels0.png", "maps/labels1.png", None]
    write_columns(tmp_path / f"t.{suffix}", {"path": [f"images/{i}.png" for i in range(3)], "semantic_map_paths": maps})
    assert compress.main([*model, f"t.{suffix}", "out"]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "images/2.png: its path table names no label map of it" in error
    for i in range(2):
        assert compress.main([*model, f"images/{i}.png", f"{i}.gc", "-sm", f"maps/labels{i}.png"]) == 0
        assert (tmp_path / f"out/images/{i}.gc").read_bytes() == (tmp_path / f"{i}.gc").read_bytes()
    assert not (tmp_path / "out/images/2.gc").exists() and (tmp_path / "out/images/1.png").exists()
    Image.fromarray(label_map(64, 96)).save(tmp_path / "maps/labels1.png")  # a map that has changed
    capfd.readouterr()
    assert compress.main([*model, f"t.{suffix}", "out"]) == 2
    assert "images/1.gc: is there already, made from another file" in capfd.readouterr().err
    write_columns(tmp_path / f"bare.{suffix}", {"path": ["images/0.png"]})
    capfd.readouterr()
    assert compress.main([*model, f"bare.{suffix}", "bare"]) == 2
    assert is_one_line_that_names("compresses with a label map: name it with -sm", capfd)


def test_a_table_that_is_damaged_or_names_nothing_is_one_line(checkpoint, tmp_path, capfd):
    write_columns(tmp_path / "other.csv", {"name": ["a.png"]})
    (tmp_path / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    for table, named in (("other.csv", "no column 'path'"), ("damaged.h5", "damaged.h5: "), ("none.h5", "none.h5: no such")):
        assert compress.main(["-r", str(checkpoint), "-i", table, "-o", "out"]) == 2
        assert is_one_line_that_names(named, capfd) and not (tmp_path / "out").exists()


def test_in_and_out_by_position_are_those_of_the_options(checkpoint, image, tmp_path):
    model = ["-r", str(checkpoint)]
    assert compress.main([*model, "-i", image, "-o", "a.gc"]) == 0
    for words in (
        [image, "b.gc", *model],
        [*model, image, "c.gc"],
        [image, *model, "-o", "d.gc"],
        [image, "--overwrite", "e.gc", *model],
    ):
        assert compress.main(words) == 0
    Image.open(image).save("photo2.png")
    assert compress.main([image, "photo2.png", "both", *model]) == 0
    files = [tmp_path / name for name in ("b.gc", "c.gc", "d.gc", "e.gc", "both/photo.gc", "both/photo2.gc")]
    assert {path.read_bytes() for path in files} == {(tmp_path / "a.gc").read_bytes()}
    assert decompress.main([*model, "a.gc", "a.png"]) == 0
    assert decompress.main(["both/photo.gc", "both/photo2.gc", "back", *model]) == 0
    assert (tmp_path / "back/photo.png").read_bytes() == (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize(
    ("main", "words", "named"),
    [
        (compress.main, [], "required: IN"),
        (compress.main, ["photo.png", "-i", "photo.png", "-o", "out.gc"], "not both"),
        (compress.main, ["-q", "-v", "photo.png", "out.gc"], "not allowed with"),
        (decompress.main, ["a.gc"], "required: OUT"),
        (decompress.main, ["-o", "a.png"], "required: IN"),
    ],
)
def test_positions_that_are_missing_or_said_twice_are_usage_errors(main, words, named, image, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and named in capsys.readouterr().err


def test_a_quiet_command_prints_nothing_and_a_verbose_one_says_more(image, tmp_path, capsys):
    model = ["-r", str(PROJECT / "checkpoints/photo_c4")]  # whose files need no warning
    (tmp_path / "in").mkdir()
    Image.open(image).save(tmp_path / "in/a.png")
    for main, words in [
        (compress.main, [image, "a.png"]), (compress.main, ["in", "out"]),
        (compress.main, [image, "p.gcp", "--packets", "200"]), (compress.main, ["in", "packets", "--packets", "200"]),
        (decompress.main, ["a.gc", "b.png"]), (decompress.main, ["out", "back"]), (decompress.main, ["packets", "c.png"]),
    ]:  # fmt: skip
        assert main([*words, "-q", *model]) == 0
        assert capsys.readouterr() == ("", "")
    assert compress.main(["none.png", "n.gc", "-q", *model]) == 2 and "none.png" in capsys.readouterr().err
    assert compress.main([image, "v.gc", "-v", *model]) == 0
    assert "photo_c4, run by OnnxRuntime" in capsys.readouterr().out
    assert compress.main(["in", "verbose", "-v", *model]) == 0
    size = (tmp_path / "verbose/a.gc").stat().st_size
    assert f"a.png: width 200, height 170, bytes {size}, " in capsys.readouterr().out
