"""What guides compress.py beside the image: the label map that the command line names, and what of the picture to preserve."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from commands.folder_run import Input
from config import UserError
from gcodec.files import warn
from gcodec.knobs import ModelKnobs
from gcodec.labels import Classes, LabelMap, map_of, read_classes, read_instances, with_boundaries
from gcodec.selection import Selection


@dataclass(frozen=True)
class Guide:
    """What the command line says beside the image: its label map and instances, and what to preserve.

    semantic_map, instances: files; or folders, with files of the same names as the images have below theirs.
    """

    semantic_map: str | None = None
    instances: str | None = None
    selection: Selection = dataclasses.field(default_factory=Selection)

    def check(self, config: ModelKnobs, inputs: Sequence[Input], several: bool = False) -> None:
        """Raise UserError, once and before the first image, for what the model lacks; warn of what it ignores.

        inputs: the images, whose path table may name their maps.
        """
        wanted = {"-sm": config.code_channels > 0, "--instances": config.code_channels > 0 and config.use_instances}
        for option, given in {"-sm": self.semantic_map, "--instances": self.instances}.items():
            kind, of_tables = ("a label map", "semantic_map") if option == "-sm" else ("an instance map", "instances")
            if wanted[option] and not given and not any(getattr(source, of_tables) for source in inputs):
                raise UserError(f"this model compresses with {kind}: name it with {option}")
            if given and not wanted[option]:
                warn(f"{option} is ignored: this model compresses without {kind}")
            if given and wanted[option] and several and not Path(given).is_dir():
                raise UserError(f"{given}: there are several images, so the maps must be in a folder")
        if self.selection and not config.selective:
            raise UserError("--preserve, --synthesize, --mask, --box: this model was not trained for that (knob selective)")
        self.selection.check(Classes.parse(config.classes, config.n_classes))

    def read(
        self,
        config: ModelKnobs,
        image: np.ndarray,
        source: Input,
        labels: Path | None,
        instances: Path | None,
        mask: Path | None,
    ) -> LabelMap | None:
        """Return the label map of an image, with what is preserved; None for a model that wants none.

        labels, instances, mask: the files, as `files` returns them.
        """
        if labels is None:
            return None
        classes = Classes.parse(config.classes, config.n_classes)
        size = image.shape[:2]
        planes = LabelMap(read_classes(labels, classes, size))
        if instances is not None:
            planes = with_boundaries(dataclasses.replace(planes, instances=read_instances(instances, size)))
        if not config.selective:
            return planes
        selection = dataclasses.replace(self.selection, mask=None if mask is None else str(mask))
        preserved = selection.preserved(planes.classes, classes)
        if not preserved.any():
            warn(f"{source.name}: nothing is preserved: all of it is synthesized")
        elif self.selection and preserved.all():
            warn(f"{source.name}: all of it is preserved: nothing is synthesized")
        return dataclasses.replace(planes, preserved=preserved)

    def files(self, config: ModelKnobs, source: Input) -> tuple[Path | None, Path | None, Path | None]:
        """Return the label map, the instance map and the mask of an image; None for one that the model does not want."""
        if not config.code_channels:
            return None, None, None
        labels = _file(self.semantic_map, source.semantic_map, "label", source)
        instances = _file(self.instances, source.instances, "instance", source) if config.use_instances else None
        return labels, instances, None if self.selection.mask is None else Path(self.selection.mask)


def _file(named: str | None, of_table: Path | None, kind: str, source: Input) -> Path:
    """Return a map of an image: what an option names, or the file below it of the image's name; else what a table names."""
    if named:
        return map_of(source.path, source.root, named) if Path(named).is_dir() else Path(named)
    if of_table is None:
        raise UserError(f"{source.path}: its path table names no {kind} map of it")
    return of_table
