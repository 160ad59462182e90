"""Knobs: how they are declared, checked and read; and those that say what a model's files hold.

`config_train` of the project, which lists every knob of a training run, is a kind of ModelKnobs. A checkpoint's config.json has
all of them; the codec reads those of ModelKnobs and leaves the others alone.
"""

import dataclasses
import difflib
import json
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gcodec.errors import UserError
from gcodec.files import read_text


def knob(default: Any, *, low: float | None = None, high: float | None = None, allowed: tuple = (), role: str = "") -> Any:
    """Declare a knob: its default, what values it takes (`low` and `high` themselves are allowed), and what depends on it.

    role: "network" if it decides the shape, the value or the meaning of a weight that decoding needs, "state" if it decides
    which variables a checkpoint of training has, and "" if it may change when training goes on from a checkpoint.
    """
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "allowed": allowed, "role": role})


@dataclass(frozen=True)
class Knobs:
    """The base of all knob classes: knobs can be overridden, validated, written as JSON and read back."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._check(field, getattr(self, field.name))

    @staticmethod
    def _check(field: dataclasses.Field, value: Any) -> None:
        """Raise UserError for a value that the knob does not take, whatever the other knobs are."""
        meta, kind = field.metadata, _kind(field)
        if isinstance(value, tuple) and not all(type(v) in (int, float) for v in value):
            raise UserError(f"knob {field.name}: {value!r} are not all numbers")
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise UserError(f"knob {field.name}: {value!r} is not a value of type {kind.__name__}")
        if meta["allowed"] and value not in meta["allowed"]:
            raise UserError(f"knob {field.name}: {value!r} is not one of {', '.join(map(str, meta['allowed']))}")
        low, high = meta["low"], meta["high"]
        numbers = [v for v in (value if isinstance(value, tuple) else (value,)) if not isinstance(v, (str, bool))]
        if not all(abs(v) <= sys.float_info.max for v in numbers):  # nor NaN, of which nothing holds
            raise UserError(f"knob {field.name}: {value!r} is not finite")
        if not all((low is None or v >= low) and (high is None or v <= high) for v in numbers):
            raise UserError(f"knob {field.name}: {value!r} is outside [{low}, {'...' if high is None else high}]")

    def _check_rules(self, rules: Mapping[str, tuple[bool, str]]) -> None:
        """Raise UserError for the first rule that does not hold: by knob, whether it does, and the complaint."""
        for name, (holds, complaint) in rules.items():
            if not holds:
                raise UserError(f"knob {name}: {getattr(self, name)!r} {complaint}")

    @classmethod
    def _field(cls, name: str) -> dataclasses.Field:
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            raise UserError(f"knob {name}: there is no such knob; {f'is it {near[0]}?' if near else 'config.py has them all'}")
        return fields[name]

    @classmethod
    def parse(cls, assignments: list[str]) -> dict[str, Any]:
        """Return the values that `NAME=VALUE` texts of a command line give to knobs, by name."""
        values = {}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals:
                raise UserError(f"knob {assignment!r}: write it as NAME=VALUE")
            kind = _kind(cls._field(name))
            try:
                values[name] = _READERS.get(kind, kind)(text)
            except (KeyError, ValueError):
                raise UserError(f"knob {name}: {text!r} is not a value of type {kind.__name__}") from None
        return values

    @classmethod
    def read(cls, path: str | Path) -> dict[str, Any]:
        """Return the values of knobs in a TOML or JSON file, by name. Raises UserError that names file and knob."""
        kind, parse = ("TOML", tomllib.loads) if Path(path).suffix == ".toml" else ("JSON", json.loads)
        try:
            values = parse(read_text(path))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: is not {kind} ({error})") from None
        if not isinstance(values, dict):
            raise UserError(f'{path}: is not a JSON object, such as {{"width": 192, "crop_size": 128}}')
        try:
            typed = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
            for name, value in typed.items():
                cls._check(cls._field(name), value)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        return typed

    def replace(self, changes: Mapping[str, Any]) -> Self:
        """Return these knobs with some changed. Raises UserError for a value that a knob does not take."""
        for name in changes:
            self._field(name)
        return dataclasses.replace(self, **changes)

    def override(self, assignments: list[str]) -> Self:
        """Return these knobs changed by `NAME=VALUE` texts. Raises UserError for an unknown name or a wrong value."""
        return self.replace(self.parse(assignments))

    @classmethod
    def split(cls, assignments: list[str]) -> tuple[list[str], list[str]]:
        """Separate the `NAME=VALUE` texts that name knobs of this class from the others."""
        own = {field.name for field in dataclasses.fields(cls)}
        mine = [a for a in assignments if a.partition("=")[0] in own]
        return mine, [a for a in assignments if a.partition("=")[0] not in own]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_written(cls, values: Any, others: bool = False) -> Self:
        """Return the knobs of the values that JSON gives for what `to_json` wrote. A knob that is missing gets its default.

        Knobs that this class does not have are an error; with `others`, they are left out.
        """
        if not isinstance(values, dict):
            raise UserError("these are no knobs: not a JSON object")
        own = {field.name for field in dataclasses.fields(cls)}
        if not others and (unknown := sorted(set(values) - own)):
            raise UserError(f"unknown knob {unknown[0]}: the checkpoint is of another version of this project")
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in own})


def _kind(field: dataclasses.Field) -> Any:
    """The type of a knob's value: bool, int, float, str or tuple."""
    return field.type


_READERS: dict[type, Callable[[str], Any]] = {  # of a knob's text; the other types read it themselves
    bool: lambda text: {"true": True, "1": True, "false": False, "0": False}[text.lower()],
    tuple: lambda text: tuple(float(part) for part in text.split(",")),
}


# fmt: off
@dataclass(frozen=True)
class ModelKnobs(Knobs):
    """What the codec must know of a checkpoint: what its files hold, and what its networks take.

    Each knob is one of config.json, where training keeps many more; the default is that of a checkpoint that lacks the knob.
    docs/file-format.md has the same table. C, L and W are the paper's letters.
    """

    # What a file holds
    channel_bottleneck: int = knob(8, low=1, high=255)  # C, channels of the feature map
    centers: tuple = knob((-2.0, -1.0, 0.0, 1.0, 2.0), low=-100, high=100)  # L, the values of a symbol, is their number
    use_conditional_GAN: bool = knob(False)             # there is a label map
    n_classes: int = knob(12, low=2, high=255)          # of it, with void
    classes: str = knob("")                             # their names and colours; see Classes.parse
    use_instances: bool = knob(False)                   # boundaries of instances are in it, too
    semantic_code: str = knob("lossless", allowed=("lossless", "learned", "none"))  # how the file holds the label map
    semantic_scale: int = knob(8, allowed=(4, 8, 16))   # lossless: side in pixels of one position of the map in the file
    selective: bool = knob(False)                       # there is a heat map

    # What the generator sees beside that
    sample_noise: bool = knob(False)
    noise_mode: str = knob("dcgan", allowed=("dcgan", "map", "layers"))
    noise_dim: int = knob(128, low=1)                   # dcgan: length of v
    noise_finest: int = knob(16, allowed=(1, 2, 4, 8, 16))  # layers: blocks larger than this multiple of z's size get none
    n_residual_blocks: int = knob(9, low=0)             # of the generator; layers: each gets one channel of the noise

    # How much memory the networks take
    width: int = knob(960, low=16)                      # W, channels at 1/16 of the size

    @property
    def L(self) -> int:
        return len(self.centers)

    def noise_shape(self, batch: Any, h: Any, w: Any) -> tuple:
        """Return the shape of the noise v ~ N(0, I) for feature maps (batch, h, w, C); sizes may be tensors."""
        return (batch, self.noise_dim) if self.noise_mode == "dcgan" else (batch, h, w, self.noise_channels)

    @property
    def noise_channels(self) -> int:
        """Number of noise channels in the generator's input, at 1/16 of the size. `layers`: one value for each pixel."""
        if self.noise_mode != "layers":
            return self.channel_bottleneck * self.sample_noise
        return sum(k * k for k in self.noise_scales) * self.sample_noise

    @property
    def noise_scales(self) -> tuple[int, ...]:
        """The size of the output of each block of the generator, as a multiple of z's."""
        return (1,) * (1 + self.n_residual_blocks) + tuple(k for k in (2, 4, 8, 16) if k <= self.noise_finest)

    @property
    def label_channels(self) -> int:
        """Number of channels of a label map at full size: one-hot classes, and boundaries of instances."""
        return self.n_classes + self.use_instances

    @property
    def code_channels(self) -> int:
        """Number of channels of the label map in the generator's input, at 1/16 of the size."""
        if not self.use_conditional_GAN or self.semantic_code == "none":
            return 0
        if self.semantic_code == "learned":
            return self.channel_bottleneck
        return self.label_channels * (16 // self.semantic_scale) ** 2

    @property
    def sections(self) -> dict[str, tuple[int, int]]:
        """The sections of a file, in their order: name -> (channels, number of values that a symbol can have)."""
        symbols, sections = (self.channel_bottleneck, self.L), {}
        if self.code_channels:
            lossless = (1, self.n_classes * (1 + self.use_instances))
            sections["code"] = lossless if self.semantic_code == "lossless" else symbols
        if self.selective:
            sections["mask"] = (1, 2)
        return sections | {"symbols": symbols}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_rules({
            "n_classes": (self.n_classes * (1 + self.use_instances) <= 255, "is over 127, the most that go with use_instances"),
            "selective": (not self.selective or (self.use_conditional_GAN and self.semantic_code != "none"),
                          "needs use_conditional_GAN, and a semantic_code to synthesize from"),
            "width": (self.width % 16 == 0, "is not a multiple of 16"),
            "centers": (2 <= self.L <= 255 and list(self.centers) == sorted(set(self.centers)),
                        "are not 2 to 255 different values in ascending order"),
        })
# fmt: on
