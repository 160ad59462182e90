"""The package gcodec is a leaf: it imports nothing of the project outside itself."""

import ast
import re
import subprocess
import sys
import tomllib

from conftest import PROJECT

from config import config_test, config_train
from gcodec.knobs import ModelKnobs
from gcodec.pictures import MAX_PIXELS

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
IMPORT_ALL = """
import importlib, pkgutil, sys

class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocker)
import gcodec
for module in pkgutil.iter_modules(gcodec.__path__):
    importlib.import_module("gcodec." + module.name)
"""


def names_of(requirements) -> set[str]:
    return {re.match(r"[\w-]+", line)[0] for line in requirements}


def test_it_imports_the_standard_library_its_dependencies_and_itself_and_looks_into_no_other_modules():
    dependencies = {"PIL" if name == "pillow" else name for name in names_of(PYPROJECT["dependencies"])}
    for file in (PROJECT / "gcodec").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            named = [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            foreign = {name.partition(".")[0] for name in named} - {"gcodec", *dependencies, *sys.stdlib_module_names}
            assert not foreign, f"{file.name} imports {foreign}"
            assert not (isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.modules"), file.name


def test_all_of_it_can_be_imported_where_nothing_else_of_the_project_can_be():
    ours = {path.stem for path in PROJECT.iterdir() if path.suffix == ".py" or (path.is_dir() and path.name.isidentifier())}
    blocked = (ours - {"gcodec"}) | {"tensorflow", "keras", "onnx", "pandas", "h5py", "matplotlib", "scipy", "tqdm"}
    assert {"config", "cGAN", "commands", "utils", "network"} < blocked
    subprocess.run([sys.executable, "-c", IMPORT_ALL.replace("{blocked}", repr(blocked))], cwd=PROJECT, check=True)


def test_its_knobs_are_those_of_training():
    for name, field in ModelKnobs.__dataclass_fields__.items():
        own = config_train.__dataclass_fields__[name]
        assert own is not field, f"config.py does not list {name}"
        assert (own.type, own.default) == (field.type, field.default), name
        assert all(field.metadata[part] == own.metadata[part] for part in ("low", "high", "allowed")), name
    assert config_test.max_pixels == MAX_PIXELS


def test_pip_installs_what_the_files_of_requirements_name():
    lines = {file: (PROJECT / file).read_text().splitlines() for file in ("requirements-codec.txt", "requirements.txt")}
    codec, rest = ({line for line in text if line[0] not in "#-"} for text in lines.values())
    assert set(PYPROJECT["dependencies"]) == codec
    assert set(PYPROJECT["optional-dependencies"]["train"]) == rest
