"""What makes a file of an image: one model, or the best of several models within a budget."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from commands.guide import Guide
from commands.loading import load_codec
from commands.options import ModelChoice, settings_of
from config import UserError, config_test
from evaluation.metrics import quality
from gcodec import Codec
from gcodec.budget import best_file
from gcodec.knobs import ModelKnobs
from gcodec.labels import LabelMap


@dataclass(frozen=True)
class Budget:
    """The size that a file may have, in bytes or in bits per pixel; without either, it has none."""

    max_bytes: int | None = None
    max_bpp: float | None = None

    def __bool__(self) -> bool:
        return self.max_bytes is not None or self.max_bpp is not None

    def check(self, knobs: config_test, guide: Guide) -> None:
        """Raise UserError for a budget that makes no sense, or does not go with other options."""
        for option, value in {"--max-bytes": self.max_bytes, "--max-bpp": self.max_bpp}.items():
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{option} {value}: must be more than 0")
            if value is not None and (knobs.channels or guide != Guide()):
                raise UserError(f"{option}: does not go with --channels or with label maps")

    def bytes_for(self, image: np.ndarray) -> int:
        height, width = image.shape[:2]
        return self.max_bytes or int((self.max_bpp or 0) * width * height / 8)


@dataclass(frozen=True)
class Coder:
    """One model; or, with a budget, the models of which the best is taken."""

    codecs: list[Codec]
    knobs: config_test
    budget: Budget

    @property
    def config(self) -> ModelKnobs:
        """The knobs of the model, which say what its files hold. With a budget, the files of all models hold symbols only."""
        return self.codecs[0].config

    def encode(self, image: np.ndarray, labels: LabelMap | None, decode: bool) -> tuple[Codec, bytes, np.ndarray | None]:
        """Return the model that made the file of an image, the file, and its picture, which may be None without `decode`.

        Raises UserError if the budget cannot be met.
        """
        if self.budget:
            return best_file(image, self.codecs, self.budget.bytes_for(image), quality)
        data = self.codecs[0].encode(image, labels)
        return self.codecs[0], data, self.codecs[0].decode(data) if decode else None

    def settings(self, *options: Any) -> str:
        """Return a fingerprint of what decides the files beside the images, for results.csv."""
        first, *others = (codec.checkpoint.fingerprint.hex() for codec in self.codecs)
        budget = [others, self.budget.max_bytes, self.budget.max_bpp] if self.budget else []
        return settings_of(self.knobs, first, *options, *budget)


def load_coder(choice: ModelChoice, knobs: config_test, guide: Guide, budget: Budget) -> Coder:
    """Load the models that a command line wants. Raises UserError for options that do not go together."""
    budget.check(knobs, guide)
    paths = choice.several() if budget else [choice.one("only --max-bytes and --max-bpp choose among them")]
    codecs = [load_codec(path, knobs) for path in paths]
    for codec in codecs:
        if budget and codec.config.sections.keys() != {"symbols"}:
            raise UserError(f"{codec.checkpoint.folder}: a budget takes models whose files have no label map")
    return Coder(codecs, knobs, budget)
