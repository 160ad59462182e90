"""The pages: their Python code runs, their commands exist with these options and knobs, and their links lead somewhere."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import knobs

from config import config_test, config_train, directories
from gcodec import Codec, container, packets, read_image
from gcodec.context_model import ContextModel
from gcodec.entropy import StaticTables, integer_frequencies
from gcodec.knobs import ModelKnobs
from gcodec.noise import noise
from network import Network

PROJECT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    page
    for folder in (".", "docs", "docs/models", "cGAN", "data", "checkpoints", "presets")
    for page in (PROJECT / folder).glob("*.md")
)
KNOBS = {name for knobs in (config_train, config_test, directories) for name in knobs.__dataclass_fields__}
ADDED = ("plain_generator", "gradient_difference")  # functions of docs/extending.md
ADDED_KNOBS = {"lambda_gradient"}  # likewise
TRAIN = """
import sys, tensorflow, train
tensorflow.config.run_functions_eagerly(True)  # one step takes less time than tracing its graph
sys.exit(train.main(sys.argv[1:]))
"""


def page_id(page: Path) -> str:
    return str(page.relative_to(PROJECT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def run_python(page: str) -> dict:
    """Run all Python code of a page in one namespace, and return that."""
    namespace: dict = {}
    for block in blocks(PROJECT / page, "python"):
        exec(compile(block, page, "exec"), namespace)
    return namespace


def commands(page: Path) -> list[list[str]]:
    """The words of each command `python3 FILE ...` on a page."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("python3 ") and " -m " not in line]


@cache
def help_of(script: str) -> str:
    done = subprocess.run([sys.executable, script, "-h"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ----------------------------------------------------------------------------------------------------------------------


def test_the_readme_is_under_12_kb():
    assert (PROJECT / "README.md").stat().st_size < 12_000


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page_id(page)}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page_id(page)}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_exist_with_these_options_and_knobs(page):
    for script, *words in commands(page):
        assert (PROJECT / script).is_file(), f"{page_id(page)}: {script}"
        for file in (word for word in words if word.startswith("presets/")):
            assert (PROJECT / file).is_file(), f"{page_id(page)}: {file}"
        options = [word for word in words if re.fullmatch(r"--?[a-zA-Z][\w-]*", word)]
        for option in options:
            assert re.search(rf"(^|[\s,\[]){re.escape(option)}([\s,\]=]|$)", help_of(script), re.M), f"{script} {option}"
        for name in re.findall(r"(\w+)=", " ".join(b for a, b in pairwise(words) if a == "-k")):
            assert name in KNOBS | ADDED_KNOBS, f"{page_id(page)}: -k {name}"


def test_every_page_of_docs_is_listed():
    listed = (PROJECT / "docs/README.md").read_text()
    for page in (PROJECT / "docs").rglob("*.md"):
        assert page.name == "README.md" or f"({page.relative_to(PROJECT / 'docs')})" in listed, page


# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_project(monkeypatch):
    monkeypatch.chdir(PROJECT)


@pytest.fixture
def network_as_before():
    before = set(vars(Network))
    yield
    for name in set(vars(Network)) - before:
        delattr(Network, name)


def test_the_readmes_python_runs(in_project):
    page = run_python("README.md")
    assert page["picture"].shape == (512, 768, 3) and page["picture"].dtype == np.uint8


def test_what_extending_shows_runs_and_a_copy_of_the_project_trains_with_what_it_adds(tmp_path, in_project, network_as_before):
    table = run_python("docs/extending.md")["folder"] / "noise_train.csv"
    copy = tmp_path / "project"
    shutil.copytree(
        PROJECT, copy, ignore=shutil.ignore_patterns(".*", "checkpoints", "results", "tests", "samples", "__pycache__")
    )
    page = PROJECT / "docs/extending.md"
    network, loss = (next(b for b in blocks(page, "python") if f"def {name}(" in b) for name in ADDED)
    for file, text in {"network.py": network, "losses.py": loss}.items():
        with (copy / file).open("a") as stream:
            stream.write(text)
    for diff in blocks(page, "diff"):
        apply(diff, copy)
    command = [sys.executable, "-c", TRAIN, "-ds", str(table), "--name", "extended", "--steps", "1", *knobs(distortion_steps=1)]
    command += ["-k", "generator=plain_generator", "-k", "lambda_gradient=2"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (copy / "checkpoints/extended/ckpt-00000001/model.npz").exists()


def apply(diff: str, folder: Path) -> None:
    """Insert the added lines of a diff after the lines above them, which must be in the file once."""
    file, above = folder, ""
    for line in diff.splitlines():
        if line.startswith("--- "):
            file, above = folder / line[4:], ""
            continue
        text = file.read_text()
        if line.startswith("+"):
            file.write_text(text.replace(f"{above}\n", f"{above}\n{line[1:]}\n"))
            above = f"{above}\n{line[1:]}"
        else:
            above = f"{above}\n{line[1:]}" if above else line[1:]
            assert text.count(f"{above}\n") == 1, f"{file.name} does not have these lines just once: {above}"


@pytest.fixture(scope="module")
def specification():
    """The decoder that docs/file-format.md spells out."""
    return run_python("docs/file-format.md")


def test_what_extending_names_in_code_files_is_there():
    text = (PROJECT / "docs/extending.md").read_text()
    for name, file in re.findall(r"`(\w+)` (?:in|of|to)\s+\[?`([\w/]+\.py)`", text):
        assert re.search(rf"\b{name}\b", (PROJECT / file).read_text()), f"{file} has no {name}"


def test_the_page_of_the_format_has_the_default_of_every_knob_that_a_decoder_needs():
    text = (PROJECT / "docs/file-format.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| ", text, re.M)
    assert ModelKnobs.from_written({name: json.loads(default) for name, default in listed}) == ModelKnobs()
    assert sorted(name for name, _ in listed) == sorted(ModelKnobs.__dataclass_fields__)


SHAPE = (5, 7)  # positions of a feature map


def random_symbols(tables: np.ndarray, K: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(tables.shape[1], size=SHAPE, p=row / row.sum()) for row in tables[:K]]
    return np.stack(drawn, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("seed", range(40))
def test_the_specification_codes_static_tables_as_the_codec_does(specification, seed):
    rng = np.random.default_rng(seed)
    tables = integer_frequencies(rng.random((8, 5)) ** rng.integers(1, 12) + 1e-6)
    symbols = random_symbols(tables, 8, seed)
    payload = StaticTables(tables).encode(symbols)
    assert np.array_equal(specification["decode_static"](payload, symbols.shape, tables), symbols)
    encoder = specification["RangeEncoder"]()
    for c in range(8):
        for symbol in symbols[:, :, c].ravel():
            encoder.encode(int(symbol), tables[c])
    assert encoder.payload() == payload


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("file", sorted(PROJECT.glob("checkpoints/*/context*.npz")), ids=page_id)
def test_the_specification_decodes_what_the_shipped_context_models_code(specification, file, masked):
    with np.load(file) as archive:
        arrays = dict(archive)
    model = ContextModel(arrays)
    for K in {model.channels, (model.channels + 1) // 2}:
        symbols = random_symbols(np.ones((model.channels, model.levels)), K, K)
        mask = (np.random.default_rng(1).random(SHAPE) < 0.6).astype(np.uint8) if masked else None
        if masked:
            symbols *= mask[..., None]
        payload = model.encode(symbols, mask)
        assert np.array_equal(specification["decode_context"](payload, symbols.shape, arrays, mask), symbols)


def test_the_specification_parses_what_the_codec_packs(specification):
    sections = [b"abcd", b"", b"efghijkl"]
    data = container.pack(container.Header(480, 361, 9, 7, b"\x01\x02\x03\x04"), container.join(sections))
    parsed = specification["parse"](data)
    said = {name: parsed[name] for name in ("width", "height", "scale", "K", "fingerprint")}
    assert said == {"width": 480, "height": 361, "scale": 9, "K": 7, "fingerprint": b"\x01\x02\x03\x04"}
    assert specification["coded_side"](480, 9) == container.coded_size(361, 480, 9)[1]
    assert specification["split"](parsed["payload"], 3) == sections
    assert parsed["crc"] == container.unpack(data).crc
    for i in range(len(data)):
        with pytest.raises(ValueError):
            specification["parse"](data[:i])


@pytest.mark.parametrize("total", [1, 2, 6, 35])
def test_the_specification_reads_the_packets_that_the_codec_packs(specification, total):
    tables = integer_frequencies(np.random.default_rng(1).random((8, 5)))
    symbols, header = random_symbols(tables, 8, 1), container.Header(112, 80, 0, 0, b"\x01\x02\x03\x04")
    decoded, slice_of = np.zeros_like(symbols), packets.slices(*SHAPE, total)
    for i in range(total):
        payload = StaticTables(tables).encode(symbols, slice_of == i)
        data = packets.pack(packets.Packet(0x1234, i, total, header, payload))
        parsed = specification["parse_packet"](data)
        said = {name: parsed[name] for name in ("image_id", "number", "total", "width", "height")}
        assert said == {"image_id": 0x1234, "number": i, "total": total, "width": 112, "height": 80}
        mask = specification["slices"](*SHAPE, total) == i
        decoded += specification["decode_static"](parsed["payload"], symbols.shape, tables, mask)
        for end in range(len(data)):
            with pytest.raises(ValueError):
                specification["parse_packet"](data[:end])
    assert np.array_equal(decoded, symbols)


@pytest.mark.parametrize("n", [1, 2, 5, 13, 60, 255])
def test_the_specified_slices_are_those_of_the_codec(specification, n):
    for h, w in ((2, 2), (32, 48), (7, 31), (40, 3)):
        assert np.array_equal(specification["slices"](h, w, n), packets.slices(h, w, n))


def test_the_specified_noise_is_that_of_the_codec(specification):
    crc, seed = 0x89ABCDEF, 7
    assert np.array_equal(specification["noise"](30, crc, seed).reshape(1, 2, 5, 3), noise((1, 2, 5, 3), crc, seed))


def test_the_specification_and_a_generator_give_the_picture_that_the_codec_gives(specification, in_project):
    codec = Codec.load("checkpoints/photo_c8")
    image = read_image("images/kodim21.png")[200:243, 100:190]
    data = codec.encode(image)
    file = specification["parse"](data)
    assert file["fingerprint"] == codec.checkpoint.fingerprint
    with np.load("checkpoints/photo_c8/context.npz") as context, np.load("checkpoints/photo_c8/model.npz") as model:
        symbols = specification["decode_context"](file["payload"], (3, 6, file["K"] or 8), dict(context))
        w_hat = model["quantizer/Quantizer_0/centers"].astype(np.float32)[symbols]
    channels = 1 + codec.config.n_residual_blocks + sum(k * k for k in (2, 4, 8, 16) if k <= codec.config.noise_finest)
    v = specification["noise"](3 * 6 * channels, file["crc"]).reshape(1, 3, 6, channels)
    x_hat = codec.runtime.generate(w_hat[None], v, None)[0]
    picture = np.clip(np.rint((x_hat + 1) * 127.5), 0, 255).astype(np.uint8)[: file["height"], : file["width"]]
    assert np.array_equal(picture, codec.decode(data))
