"""The folders of a training run: what they are called, whether they can be written, and which checkpoints are deleted."""

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

from config import UserError, directories
from gcodec.checkpoint import FILES
from gcodec.files import locked, warn

PART_OF_A_NAME = re.compile(r"\w[\w .,+=@%~-]{0,199}")  # between slashes; it cannot be "..", hidden, an option, or a line break
CHECKPOINT = re.compile(r"ckpt-(\d{8,})")
EVENTS = "events.out.tfevents.*"  # files of TensorBoard's log
PARTIAL = re.compile(
    r"\.ckpt-\d{8,}\.(partial|old)"
)  # a checkpoint that was being written, or deleted, when its run was killed


@dataclass(frozen=True)
class RunFolders:
    """Where a run of this name writes checkpoints, sample pictures and TensorBoard's logs."""

    name: str
    checkpoints: Path
    samples: Path
    logs: Path

    @classmethod
    def of(cls, name: str, where: directories) -> Self:
        """Return the folders of a run. Raises UserError for a name that would lead elsewhere."""
        parts = name.split("/")
        if not all(PART_OF_A_NAME.fullmatch(part) for part in parts) or any(part.startswith("ckpt-") for part in parts):
            raise UserError(f"--name {name!r}: is not the name of a run; give one like photo, or exp1/photo")
        return cls(name, *(Path(base) / name for base in (where.checkpoints, where.samples, where.tensorboard)))

    @property
    def is_taken(self) -> bool:
        """Whether there is a checkpoint in the run's folder."""
        return any(self.checkpoints.glob("ckpt-*")) or (self.checkpoints / "config.json").exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folders, within this context.

        Raises UserError if one is in them, or for the first folder that cannot be written. Then nothing is left behind.
        """
        with ExitStack() as stack:
            for folder in {path.resolve(): path for path in (self.checkpoints, self.samples, self.logs)}.values():
                stack.enter_context(locked(folder, f"run {self.name}"))
            yield

    def move_aside(self) -> None:
        """Move the log and the sample pictures of a former run of this name to folders beside, and say so."""
        for folder, pattern in ((self.logs, EVENTS), (self.samples, "*.png")):
            old = [path for path in folder.glob(pattern) if pattern == EVENTS or path.stem.isdecimal()]
            if not old:
                continue
            aside = next(path for i in count(1) if not (path := folder.with_name(f"{folder.name}.old-{i}")).exists())
            try:
                aside.mkdir()
                for path in old:
                    path.rename(aside / path.name)
            except OSError as error:
                raise UserError(f"{folder}: cannot be emptied for a new run ({error.strerror})") from None
            print(f"{folder}: {len(old)} file{'s' * (len(old) > 1)} of a former run moved to {aside}")

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"ckpt-{step:08d}"

    def prune(self, keep: int, spared: int) -> None:
        """Delete all but the newest `keep` checkpoints, and leave that of the step `spared`.

        Only folders that a run wrote are counted and deleted: they are called ckpt-STEP and have a checkpoint's files alone.
        Whatever a user put there, such as ckpt-00000010-good, stays. A checkpoint is renamed before it is deleted, so that
        none is ever seen in part.
        """
        if not self.checkpoints.is_dir():
            return
        own = sorted((step, path) for path in self.checkpoints.iterdir() if (step := _step_of(path)) is not None)
        old = [path for step, path in own if step != spared][:-keep]
        try:
            for path in old:
                path.rename(path.with_name(f".{path.name}.old"))
            for path in self.checkpoints.iterdir():
                if PARTIAL.fullmatch(path.name):
                    shutil.rmtree(path)
        except OSError as error:  # training is worth more than a tidy folder
            warn(f"an old checkpoint cannot be deleted: {error.filename}: {error.strerror}")


def _step_of(path: Path) -> int | None:
    """Return the step of a checkpoint that a run wrote; None for anything else."""
    match = CHECKPOINT.fullmatch(path.name)
    if not match or path.is_symlink() or not path.is_dir() or match[1] != f"{int(match[1]):08d}":
        return None
    return int(match[1]) if {file.name for file in path.iterdir()} <= FILES else None
