"""What a checkpoint gives to a model whose knobs differ.

To go on from it (-r, -rl), a change that contradicts what is loaded is refused. --transfer takes the weights that fit instead:
what is the same layer is taken, by its name, and the rest starts afresh.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from config import UserError, config_train
from gcodec.checkpoint import Arrays

KINDS = (  # knobs that choose what is built, and where
    ("encoder", "encoder/"),
    ("encoder", "semantic_encoder/"),
    ("generator", "generator/"),
    ("upsampling", "generator/up"),
    ("discriminator", "discriminator/"),
)
FIRST = ("generator/first/kernel", 2)  # the weight and its axis that see z
DECISIVE: dict[str, Callable[[config_train], Any]] = {  # what of a knob's value decides which variables there are
    "momentum": lambda config: config.optimizer == "momentum" and config.momentum > 0,
    "mixed_precision": lambda config: config.mixed_precision == "float16",  # scales losses, by a factor that it learns
    "target_bpp": lambda config: config.target_bpp > 0,  # the weight that it steers is part of the state
}


def knobs_of(*roles: str) -> set[str]:
    """Return the names of the knobs of config_train that have one of these roles."""
    return {field.name for field in dataclasses.fields(config_train) if field.metadata["role"] in roles}


def contradictions(old: config_train, new: config_train, *, with_state: bool) -> list[str]:
    """Return the knobs whose change contradicts a checkpoint's weights or, `with_state`, its training state."""
    fixed = knobs_of("network", "state") if with_state else knobs_of("network")
    decisive = {name: DECISIVE.get(name, operator.attrgetter(name)) for name in vars(new) if name in fixed}
    return [name for name, value in decisive.items() if value(old) != value(new)]


def check_changes(old: config_train, new: config_train, folder: Path, *, with_state: bool) -> None:
    """Raise UserError for the first knob that contradicts a checkpoint, whose knobs are `old`."""
    for name in contradictions(old, new, with_state=with_state):
        what = "weights" if name in knobs_of("network") else "training state"
        raise UserError(
            f"knob {name}: the {what} of {folder} were made with {getattr(old, name)}, not {getattr(new, name)}; leave "
            f"the knob out to go on, or start at step 0 from the weights that still fit, with --transfer"
        )


class Transferred(NamedTuple):
    """What became of the weights, by name. Those that `afresh` and `in_part` leave out were taken as they are.

    afresh: the checkpoint has no such layer, or one of another shape in a network of another kind.  in_part: of another
    shape, so that the channels that both have were taken.  unused: weights of the checkpoint that have no place.
    """

    afresh: list[str]
    in_part: list[str]
    unused: list[str]


def transfer(arrays: Arrays, old: config_train, weights: Mapping[str, Any], new: config_train) -> Transferred:
    """Assign arrays of a checkpoint, whose knobs are `old`, to the variables of the same names, as far as they fit.

    Of a layer with another number of channels, the first ones, which both have, are taken. In a network of another kind, such
    a layer starts afresh.
    """
    other_kind = tuple(place for knob, place in KINDS if getattr(old, knob) != getattr(new, knob))
    result = Transferred([], [], sorted(set(arrays) - set(weights)))
    for name, var in weights.items():
        array, shape = arrays.get(name), tuple(var.shape)
        same = array is not None and array.shape == shape
        fits = array is not None and array.ndim == len(shape) and (same or not name.startswith(other_kind))
        if array is None or not fits:
            result.afresh.append(name)
            continue
        values = var.numpy()
        for source, target in _common(name, array.shape, shape, old, new):
            values[target] = array[source]
        var.assign(values)
        if not same or (name == FIRST[0] and _parts(old) != _parts(new)):
            result.in_part.append(name)
    return result


def _common(name: str, source: tuple, target: tuple, old: config_train, new: config_train) -> Iterator[tuple]:
    """Yield pairs of slices of a weight in the checkpoint and in the model, of what both have."""
    both = [slice(min(sides)) for sides in zip(source, target, strict=True)]
    if name != FIRST[0]:
        yield tuple(both), tuple(both)
        return
    before, behind = both[: FIRST[1]], both[FIRST[1] + 1 :]
    theirs, ours = _parts(old), _parts(new)
    for part in theirs.keys() & ours.keys():
        n = min(theirs[part][1], ours[part][1])
        source_part, target_part = (slice(parts[part][0], parts[part][0] + n) for parts in (theirs, ours))
        yield (*before, source_part, *behind), (*before, target_part, *behind)


def _parts(config: config_train) -> dict[tuple, tuple[int, int]]:
    """Return where the parts of z begin and how many channels they have, by what these channels mean."""
    code: tuple = (config.semantic_code,)
    if config.semantic_code == "lossless":
        code += (config.n_classes, config.use_instances, config.semantic_scale)
    meanings = {"w_hat": (), "noise": (config.noise_mode,), "code": code, "mask": ()}
    ends = np.cumsum([0, *config.z_parts.values()]).tolist()
    return {(name, *meanings[name]): (start, n) for (name, n), start in zip(config.z_parts.items(), ends, strict=False) if n}
