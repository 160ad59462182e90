"""evaluate.py, the codecs it compares with, and the report."""

import dataclasses
import html.parser
import json
import os
import re
import shutil
import subprocess
import urllib.parse

import numpy as np
import pytest
from conftest import photo
from PIL import Image

import evaluate
from config import UserError, config_test
from evaluation import baselines, measure, report
from evaluation.metrics import psnr, quality
from gcodec.container import unpack
from gcodec.pictures import read_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two photos, one large enough for MS-SSIM, and a file that is none."""
    folder = tmp_path_factory.mktemp("images")
    Image.fromarray(photo(180, 240)).save(folder / "large.png")
    (folder / "below").mkdir()
    Image.fromarray(photo(64, 48, seed=1)).save(folder / "below/small.png")
    (folder / "torn.png").write_bytes((folder / "large.png").read_bytes()[:500])
    return folder


@pytest.fixture(scope="module")
def measured(folder, checkpoint, tmp_path_factory):
    """A report with baselines."""
    output = tmp_path_factory.mktemp("evaluation") / "report"
    assert evaluate.main(["-r", str(checkpoint), "-i", str(folder), "-o", str(output), "--baselines"]) == 2  # torn.png
    return output


def size(path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_the_figures_are_of_files_on_disk_that_were_decoded_again(measured, folder):
    results = {file.stem: json.loads(file.read_text()) for file in (measured / "results").glob("*.json")}
    assert {"tiny", "jpeg@tiny", "jpeg2000_4@tiny", "webp_2@tiny"} <= set(results)
    shapes = {(tuple(r), tuple(r["mean"]), tuple(next(iter(r["images"].values())))) for r in results.values()}
    assert len(shapes) == 1  # the same for all codecs
    for name, r in results.items():
        assert set(r["images"]) == {"large", "below/small"}
        for image, record in r["images"].items():
            (file,) = (measured / "files" / name).glob(f"{image}.*")
            assert record["bytes"] == file.stat().st_size
            assert record["bpp"] == pytest.approx(8 * file.stat().st_size / (record["width"] * record["height"]))
            original = read_image(folder / f"{image}.png", 10**6)
            decoded = read_image(measured / "pictures" / name / f"{image}.png", 10**6)
            assert record["psnr"] == pytest.approx(psnr(original, decoded))
            assert (record["ms_ssim"] is None) == (image == "below/small")
        assert r["mean"]["bytes"] == np.mean([record["bytes"] for record in r["images"].values()])
        assert r["mean"]["ms_ssim"] == r["images"]["large"]["ms_ssim"]
    unpack((measured / "files/tiny/large.gc").read_bytes())


def test_a_bad_image_is_named_and_costs_the_others_nothing(folder, checkpoint, tmp_path, capsys):
    assert evaluate.main(["-r", str(checkpoint), "-i", str(folder), "-o", str(tmp_path / "r")]) == 2
    error = capsys.readouterr().err
    assert error.count("torn.png") == 1 and "not measured" in error and "no context model" in error
    assert (tmp_path / "r/index.html").exists()


def test_the_page_needs_no_network_and_has_all_it_shows(measured):
    page = (measured / "index.html").read_text()
    assert "http" not in page and "JPEG 2000 1/2" in page and "tiny" in page
    shown = [part.partition('"')[0] for part in page.split('src="')[1:]]
    assert len(shown) == 2 + 2  # plots and crops
    for name in shown:
        assert size(measured / name)[0] > 200
    rows = (measured / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * len(list((measured / "results").glob("*.json")))


def test_what_is_measured_already_is_not_measured_again(measured, folder, checkpoint, monkeypatch):
    done = []
    work = measure.measure_file
    monkeypatch.setattr(measure, "measure_file", lambda *arguments: (work(*arguments), done.append(arguments[2]))[0])
    arguments = ["-r", str(checkpoint), "-i", str(folder), "-o", str(measured)]
    before = (measured / "results/tiny.json").read_text()
    assert evaluate.main(arguments) == 2 and done == []
    assert (measured / "results/tiny.json").read_text() == before
    (measured / "pictures/tiny/large.png").unlink()
    assert evaluate.main(arguments) == 2 and done == ["large"]
    assert evaluate.main([*arguments, "-k", "noise_seed=3"]) == 2 and done == ["large", "below/small", "large"]


@pytest.mark.parametrize("codec", baselines.available(), ids=lambda codec: codec.name)
def test_a_baseline_comes_as_near_to_the_wanted_size_as_it_can(codec):
    image = photo(96, 128)
    codec = baselines.replace(codec, settings=codec.settings[:: max(1, len(codec.settings) // 12)])
    sizes = [len(codec.encode(image, setting)) for setting in codec.settings]
    slack = max(np.maximum.accumulate(sizes) - sizes)  # where a higher setting gives a smaller file, the search goes astray
    for wanted in (0, sizes[3], (sizes[5] + sizes[6]) // 2 + 1, 10**6):
        reached = len(codec.encode(image, codec.setting_for(image, wanted)))
        assert abs(reached - wanted) <= min(abs(size - wanted) for size in sizes) + slack
    decoded = codec.decode(codec.encode(image, codec.settings[-1]), 96, 128)
    assert decoded.shape == image.shape and psnr(image, decoded) > 20


def test_within_a_budget_every_codec_is_at_its_best(tmp_path, checkpoint, capsys):
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo(170, 240)).save(tmp_path / "photos/photo.png")
    command = ["-r", str(checkpoint), "-i", str(tmp_path / "photos"), "-o", str(tmp_path / "out"), "--budgets", "60,900"]
    evaluate.main(command)
    table = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if "100%" in line}
    assert {"within_60", "within_900", "jpeg@within_900", "webp@within_900", "slow_scan"} <= table.keys()
    assert "jpeg@within_60" not in table  # a JPEG has no fewer than 125 bytes
    for name, row in table.items():
        if name != "slow_scan":
            assert int(row[1]) <= int(name.split("_")[-1])
    original = read_image(tmp_path / "photos/photo.png")
    webp = next(codec for codec in baselines.available() if codec.name == "webp")
    shown = read_image(tmp_path / "out/pictures/webp@within_900/photo.png")
    fixed = webp.decode(webp.encode(original, webp.setting_for(original, 890)), 170, 240)
    assert quality(original, shown) >= quality(original, fixed)


def test_other_codecs_can_be_asked_for_a_multiple_of_our_bytes(folder, checkpoint, tmp_path, monkeypatch, capsys):
    jpeg = baselines.available()[0]
    monkeypatch.setattr(evaluate, "available", lambda report: [jpeg])
    command = ["-r", str(checkpoint), "-i", str(folder / "below"), "-o", str(tmp_path / "out")]
    assert evaluate.main([*command, "--baselines", "20"]) == 0
    assert "JPEG, bytes x 20" in (tmp_path / "out/index.html").read_text()
    (ours,) = json.loads((tmp_path / "out/results/tiny.json").read_text())["images"].values()
    (theirs,) = json.loads((tmp_path / "out/results/jpeg@tiny_x20.json").read_text())["images"].values()
    assert theirs["matched_bytes"] == 20 * ours["bytes"] and 0.8 < theirs["bytes"] / theirs["matched_bytes"] < 1.2
    for times in ("0", "nan", "-1"):
        assert evaluate.main([*command, f"--baselines={times}"]) == 2
        assert "--baselines" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "12,x", "-4", "1.5"])
def test_budgets_that_are_no_numbers_of_bytes_are_refused(text, folder, checkpoint, tmp_path, capfd):
    command = ["-r", str(checkpoint), "-i", str(folder), "-o", str(tmp_path / "out"), f"--budgets={text}"]
    assert evaluate.main(command) == 2
    assert "--budgets" in capfd.readouterr().err


def test_a_codec_that_is_missing_is_said_and_left_out(monkeypatch):
    lines = []
    monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(baselines.features, "check", lambda name: False)
    names = {codec.name for codec in baselines.available(lines.append)}
    assert names == {f"{codec}{scale}" for codec in ("jpeg", "jpeg2000", "webp") for scale in ("", "_2", "_4")}
    assert "AVIF" in lines[0] and "pip install pillow-jxl-plugin" in lines[1]


def test_the_crop_shows_the_scale_that_is_best_at_our_bytes():
    def result(codec, size, ms_ssim):
        return {"codec": codec, "images": {"a": {"bytes": size, "ms_ssim": ms_ssim, "psnr": 20}}}

    ours = result("ours", 1000, 0.5)
    scales = [result("webp@ours", 4000, 0.9), result("webp_2@ours", 1090, 0.6), result("webp_4@ours", 900, 0.7)]
    assert report.best_at(scales, "webp", "a", ours)["codec"] == "webp_4@ours"
    assert report.best_at(scales[:2], "webp", "a", ours)["codec"] == "webp_2@ours"
    assert report.best_at([scales[0], result("webp_2@ours", 2000, 0.1)], "webp", "a", ours)["codec"] == "webp_2@ours"
    assert report.best_at(scales, "avif", "a", ours) is None


def test_the_crop_is_where_the_detail_is():
    image = np.zeros((600, 700, 3), np.uint8)
    image[300:420, 350:500] = np.random.default_rng(0).integers(0, 256, (120, 150, 3))
    rows, columns = report.detailed_crop(image)
    assert rows.start <= 300 and rows.stop >= 420 and columns.start <= 350 and columns.stop >= 500
    assert image[report.detailed_crop(image[:100, :90])].shape[:2] == (256, 256)


def test_several_checkpoints_are_shown_side_by_side(measured, tmp_path):
    ours = json.loads((measured / "results/tiny.json").read_text())
    other = ours | {"codec": "jpeg@tiny", "label": "b", "channels": 4, "matched_to": None}
    source = measured.parent.parent / "images0"
    (tmp_path / "pictures").symlink_to(measured / "pictures")
    report.write(tmp_path, [ours, other], source)
    assert size(tmp_path / "comparison.png")[0] >= 3 * 240
    assert "comparison.png" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize("mistake", ["no folder", "empty folder", "inside", "twice", "a file", "no checkpoint"])
def test_a_mistake_is_one_line_and_status_2(mistake, folder, checkpoint, tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    source = {"no folder": tmp_path / "none", "empty folder": tmp_path / "empty"}.get(mistake, folder)
    output = {"inside": folder / "out", "a file": tmp_path / "file"}.get(mistake, tmp_path / "out")
    restore = {"twice": [str(checkpoint)] * 2, "no checkpoint": [str(tmp_path / "none")]}.get(mistake, [str(checkpoint)])
    assert evaluate.main(["-r", *restore, "-i", str(source), "-o", str(output)]) == 2
    error = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    named = {"empty folder": "empty", "inside": "out", "twice": "tiny", "a file": "file"}.get(mistake, "none")
    assert len(error) == 1 and named in error[0]


def test_a_result_without_loss_is_valid_json_and_shown(measured, tmp_path):
    def decode(data: bytes, height: int, width: int) -> np.ndarray:
        return np.frombuffer(data, np.uint8).reshape(height, width, 3)

    lossless = measure.Contender("lossless", "Lossless", ".raw", "1", lambda image, name: image.tobytes, decode, 8)
    (tmp_path / "images").mkdir()
    Image.fromarray(photo(170, 170)).save(tmp_path / "images/0.png")
    runs = measure.Measure(tmp_path / "r", tmp_path / "images", {str(tmp_path / "images/0.png"): "0"}, config_test())
    result = evaluate.measure_contender(lossless, runs)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    text = (tmp_path / "r/results/lossless.json").read_text()
    assert json.loads(text, parse_constant=refuse)["images"]["0"]["psnr"] is None
    report.write(tmp_path / "r", [result], tmp_path / "images")
    assert "Lossless" in (tmp_path / "r/index.html").read_text()


HARD_NAMES = ['50% #1 "a"? & <b>\'s.png', "später.png", "a b/c+d.png", os.fsdecode(b"\xff\xfe.png")]


def test_the_page_shows_pictures_whatever_they_are_called(checkpoint, tmp_path):
    """Each link, unquoted as a browser does it, leads to a file."""
    folder = tmp_path / "images #2?"
    for i, name in enumerate(HARD_NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(64, 64, seed=i)).save(folder / name)
    output = tmp_path / "r"
    assert evaluate.main(["-r", str(checkpoint), "-i", str(folder), "-o", str(output)]) == 0
    pictures = []

    class Page(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag == "img":
                pictures.append(dict(attributes))

    Page().feed((output / "index.html").read_text())
    crops = [picture for picture in pictures if "loading" in picture]
    assert len(crops) == len(HARD_NAMES)
    for picture in pictures:
        link = urllib.parse.urlsplit(picture["src"])
        assert not link.query and not link.fragment
        assert (output / os.fsdecode(urllib.parse.unquote_to_bytes(link.path))).is_file()
    assert any(picture["alt"] == HARD_NAMES[0].removesuffix(".png") for picture in crops)
    assert len((output / "results.csv").read_bytes().splitlines()) == 1 + len(HARD_NAMES)


def test_a_file_that_cannot_be_read_back_is_told(monkeypatch):
    codec = baselines.available()[0]
    with pytest.raises(UserError, match="JPEG: its own file cannot be read back"):
        codec.decode(b"no picture", 4, 4)


def test_a_codec_that_cannot_encode_an_image_says_so():
    with pytest.raises(UserError, match="WebP"):
        next(c for c in baselines.available() if c.name == "webp").encode(np.zeros((4, 20_000, 3), np.uint8), 10)


COUNT = """<script>addEventListener("load", () => { const all = [...document.images];
const broken = all.filter(image => !image.naturalWidth);
document.title = `${broken.length} of ${all.length} broken, ${document.querySelectorAll("b").length} <b>`; })
</script>"""


def test_a_browser_shows_every_picture_whatever_it_is_called(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("there is no Chromium")
    folder, output, images = tmp_path / "images #2?", tmp_path / "a%20b #r", {}
    for i, file in enumerate([*HARD_NAMES, "new\nline.png"]):
        name = file.removesuffix(".png")
        for path in (folder / file, output / "pictures/tiny" / file):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo(64, 64, seed=i)).save(path)
        images[name] = {"source": file, "width": 64, "height": 64, "bytes": 99, "bpp": 0.2, "psnr": 20.0, "ms_ssim": None}
    mean = {"bytes": 99, "bpp": 0.2, "psnr": 20.0, "ms_ssim": None}
    result = {"codec": "tiny", "label": "tiny <b>", "channels": 8, "matched_to": None, "mean": mean, "images": images}
    report.write(output, [result], folder)
    page = (output / "index.html").read_text().replace(' loading="lazy"', "") + COUNT
    (output / "counted.html").write_text(page)
    address = "file://" + urllib.parse.quote(os.fsencode(output / "counted.html"))
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=20000",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run([browser, *options, "--dump-dom", address], capture_output=True, text=True, timeout=120)
    title = re.search("<title>(.*?)</title>", done.stdout, re.DOTALL)[1]
    assert title == f"0 of {len(images) + 1} broken, 0 &lt;b&gt;"  # the crops, and a plot


def test_a_codec_that_fails_on_every_image_costs_the_report_nothing(folder, checkpoint, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("Failed to decode frame 0")

    broken = dataclasses.replace(baselines.available()[0], name="odd", label="Odd", settings=(1,))
    monkeypatch.setattr(evaluate, "available", lambda report: [broken])
    monkeypatch.setattr(baselines.Image, "open", fail)
    monkeypatch.setattr(measure, "read_image", lambda path, _: photo(32, 40) if "torn" not in str(path) else fail_to_read(path))
    monkeypatch.setattr(report, "read_image", lambda path, max_pixels: photo(32, 40))
    output = tmp_path / "r"
    assert evaluate.main(["-r", str(checkpoint), "-i", str(folder), "-o", str(output), "--baselines"]) == 2
    error = capsys.readouterr().err
    assert "Odd" in error and "Failed to decode frame 0" in error and "Traceback" not in error
    assert (output / "index.html").exists() and len(json.loads((output / "results/tiny.json").read_text())["images"]) == 2


def fail_to_read(path):
    raise UserError(f"{path}: cannot be decoded")


@pytest.mark.parametrize("options", [["--packets", "64", "--budgets", "60"], ["--packets", "64", "--miou", "x", "-sm", "y"]])
def test_measurements_that_exclude_each_other_are_refused(options, folder, tmp_path, capfd):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "measure_packets", None)
        try:
            status = evaluate.main(["-r", "none", "-i", str(folder), "-o", str(tmp_path / "r"), *options])
        except SystemExit as end:  # argparse's own
            status = end.code
    assert status == 2 and "--packets" in capfd.readouterr().err and not (tmp_path / "r").exists()


def test_checkpoints_of_one_run_are_told_apart_by_their_steps(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "a")
    first = tmp_path / "a/ckpt-00000005"
    shutil.copytree(first, tmp_path / "a/ckpt-00000009")
    both = [str(first), str(tmp_path / "a/ckpt-00000009")]
    assert evaluate.checkpoint_names(both) == {"a-ckpt-00000005": both[0], "a-ckpt-00000009": both[1]}
    assert evaluate.checkpoint_names(both[:1]) == {"a": both[0]}
    with pytest.raises(UserError, match="two checkpoints of the name a-ckpt-00000005"):
        evaluate.checkpoint_names([both[0], both[0]])
