"""Which knobs may change when training goes on from a checkpoint.

A change that contradicts what is loaded is refused. --transfer, which starts at step 0 and takes the weights that still fit,
obeys it. A knob's role in config.py says what depends on it.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config import UserError, config_train


def of_role(role: str) -> frozenset[str]:
    """Return the names of the knobs that have a role."""
    return frozenset(field.name for field in dataclasses.fields(config_train) if field.metadata["role"] == role)


CODEC, TRAINING, FREE = map(of_role, ("network", "state", ""))

_MATTERS: dict[str, Callable[[config_train], Any]] = {  # what of a knob's value decides which variables there are
    "momentum": lambda config: config.optimizer == "momentum" and config.momentum > 0,
    "mixed_precision": lambda config: config.mixed_precision == "float16",  # scales losses, by a factor that it learns
    "target_bpp": lambda config: config.target_bpp > 0,  # the weight that it steers is part of the state
}


def contradictions(old: config_train, new: config_train, *, with_state: bool) -> list[str]:
    """Return the knobs whose change contradicts a checkpoint's weights or, `with_state`, its training state."""
    fixed = CODEC | TRAINING if with_state else CODEC
    return [name for name in vars(new) if name in fixed and _what_matters(old, name) != _what_matters(new, name)]


def check_changes(old: config_train, new: config_train, folder: Path, *, with_state: bool) -> None:
    """Raise UserError for the first knob that contradicts a checkpoint, whose knobs are `old`."""
    for name in contradictions(old, new, with_state=with_state):
        what = "weights" if name in CODEC else "training state"
        raise UserError(
            f"knob {name}: the {what} of {folder} were made with {getattr(old, name)}, not {getattr(new, name)}; leave "
            f"the knob out to go on, or start at step 0 from the weights that still fit, with --transfer"
        )


def _what_matters(config: config_train, name: str) -> Any:
    return _MATTERS.get(name, lambda config: getattr(config, name))(config)
