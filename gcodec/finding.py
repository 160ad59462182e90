"""Finding the model of a file among the checkpoints that are here, by the fingerprint that the file carries."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path

from gcodec.checkpoint import hashed_fingerprint, kept_fingerprint
from gcodec.codec import Codec
from gcodec.container import unpack
from gcodec.errors import UserError
from gcodec.files import files_in

DEFAULT = "photo_c8"  # of the models that ship
MOST_NAMES = 12  # of models, in a message


class Checkpoints:
    """The checkpoints in some folders and below them. Names are relative to these folders.

    A checkpoint that keeps its fingerprint in a file is known by that; the others are hashed, which takes longer, once they
    are needed. Where several may be the one that is wanted, all are hashed, because anybody can write that file.
    """

    def __init__(self, roots: Iterable[str | Path]):
        """roots: folders, of which some may not exist. What is in an earlier one comes first."""
        self.roots = [Path(root) for root in roots]
        self._hashed: dict[Path, bytes | None] = {}

    def find(self, fingerprint: bytes) -> Path | None:
        """Return the folder of the checkpoint that has a fingerprint; None if there is none."""
        kept = [folder for folder, mark in self._kept.items() if mark == fingerprint]
        candidates = kept + [folder for folder, mark in self._kept.items() if mark is None]
        if len(candidates) == len(kept) == 1:
            return kept[0]
        return next((folder for folder in candidates if self._hash(folder) == fingerprint), kept[0] if kept else None)

    def name(self, folder: Path) -> str:
        return self._names[folder]

    def described(self) -> str:
        """Return the names and fingerprints of all models, for a message of one line."""
        marks = {folder: mark or self._hash(folder) for folder, mark in self._kept.items()}
        known = [f"{self.name(folder)} ({mark.hex() if mark else 'damaged'})" for folder, mark in marks.items()]
        rest = [f"and {len(known) - MOST_NAMES} more"] if len(known) > MOST_NAMES else []
        return ", ".join(known[:MOST_NAMES] + rest) or "none"

    @cached_property
    def _names(self) -> dict[Path, str]:
        """The folder of each checkpoint, once, and its name."""
        names, seen = {}, set()
        for root, folder in self._folders():
            if (real := folder.resolve()) not in seen:
                seen.add(real)
                names[folder] = root.name if folder == root else str(folder.relative_to(root))
        return names

    def _folders(self) -> Iterator[tuple[Path, Path]]:
        for root in self.roots:
            files = files_in(root, (".json",))[0] if root.is_dir() else []
            yield from ((root, Path(file).parent) for file in files if Path(file).name == "config.json")

    @cached_property
    def _kept(self) -> dict[Path, bytes | None]:
        return {folder: _or_none(kept_fingerprint, folder) for folder in self._names}

    def _hash(self, folder: Path) -> bytes | None:
        """Return the fingerprint that a checkpoint has, whatever it keeps; None if it cannot be read."""
        if folder not in self._hashed:
            self._hashed[folder] = _or_none(hashed_fingerprint, folder)
        return self._hashed[folder]


class Codecs:
    """The codecs of files, each loaded when the first file needs it."""

    def __init__(self, models: Checkpoints, named: Path | None = None, load: Callable[[Path], Codec] = Codec.load):
        """named: the checkpoint that decodes all files. It is loaded here and now, so that a mistake shows at once."""
        self.models, self._load = models, load
        self._named = load(named) if named else None
        self._loaded: dict[bytes, Codec] = {}

    def of(self, data: bytes) -> Codec:
        """Return the codec of a .gc file's bytes. Raises UserError for a damaged file, and for one whose model is not here."""
        return self._named or self.of_fingerprint(unpack(data).header.fingerprint)

    def of_fingerprint(self, fingerprint: bytes) -> Codec:
        """Return the codec of a file that carries a fingerprint. Raises UserError if its model is not here."""
        if self._named:
            return self._named
        if fingerprint not in self._loaded:
            folder = self.models.find(fingerprint)
            if folder is None:
                raise UserError(f"its model, of fingerprint {fingerprint.hex()}, is not here; name its checkpoint with -r "
                                f"(known: {self.models.described()})")  # fmt: skip
            self._loaded[fingerprint] = self._load(folder)
        return self._loaded[fingerprint]


def _or_none(read: Callable[[Path], bytes | None], folder: Path) -> bytes | None:
    try:
        return read(folder)
    except UserError:
        return None
