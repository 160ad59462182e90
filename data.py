"""What there is to train on: path tables, and the tf.data pipeline that feeds training."""

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from config import UserError, config_train, directories
from gcodec import selection
from gcodec.files import warn
from gcodec.labels import Classes, LabelBatch, LabelMap, read_classes, read_indices, read_instances, with_boundaries
from gcodec.pictures import read_image
from path_tables import INSTANCE_COLUMN, MAP_COLUMNS, read_table
from utils import Utils

LABEL_MAPS_CHECKED = 20  # before training
MAX_UNKNOWN_LABELS = 0.01  # mean share of their pixels; more is worth a warning
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
SIZINGS = {"sample": "native", "cityscapes": "512x1024", "ADE20k": "width512", "camvid": "native"}  # see Dataset
# Folders of a data set that say what their images are for; Keras, PyTorch, COCO, ADE20K and Roboflow spell them so.
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
MIN_TO_SPLIT = 5  # images of which one is held out
MAX_BAD_SHARE = 0.01  # of a table's images that may be unreadable before a run stops


@dataclass(frozen=True)
class Dataset:
    """What -ds names: the images, and how they are brought to size when they are not cropped.

    sizing: "native" (sides cut to multiples of 16), "512x1024" (resized) or "width512" (resized, then cut).
    maps, instances: the label map and the instance map of an image, by the image's path, where the table has such columns.
    classes: the file that lists the classes of its label maps, if it is known.
    """

    train: list[str]
    val: list[str] = dataclasses.field(default_factory=list)
    sizing: str = "native"
    maps: dict[str, str] = dataclasses.field(default_factory=dict)
    instances: dict[str, str] = dataclasses.field(default_factory=dict)
    classes: Path | None = None


class Data:
    """What `-ds` names, and the batches that a training run makes of it."""

    @staticmethod
    def dataset(name: str, where: directories, val: str | Path | None = None) -> Dataset:
        """Return the images that -ds names: sample, cityscapes, ADE20k or camvid, or any path table or folder.

        Held-out images come from the first of these that is there: `val`; the table of the same name with "val" in place of
        "train"; the folder "val" within a folder, whose folder "train" is then trained on. Otherwise, the last fifth of the
        images is held out, at most four.
        """
        sources = _tables_of(name, where, val)
        tables = [read_table(source) for source in sources]
        train = _without_duplicates(tables[0].images, sources[0])
        held_out = _without_duplicates(tables[1].images, sources[1]) if len(tables) > 1 else []
        if Path(sources[0]).is_dir():
            train, held_out = _by_folders(train, held_out, *sources)
        few = not held_out and len(train) < MIN_TO_SPLIT
        if not held_out:
            n = min(4, len(train) // MIN_TO_SPLIT)
            train, held_out = (train[:-n], train[-n:]) if n else (train, train)
        _warn_of_overlap(train, held_out, sources[0], few)
        maps = {image: path for table in tables for image, path in table.maps.items()}
        instances = {image: path for table in tables for image, path in table.instances.items()}
        classes = getattr(where, f"{name}_classes", None)
        classes = Utils.locate(classes) if classes else None
        return Dataset(train, held_out, SIZINGS.get(name, "native"), maps, instances, classes)

    # ------------------------------------------------------------------------------------------------------------------
    # Training batches
    # ------------------------------------------------------------------------------------------------------------------

    def __init__(self, dataset: Dataset, config: config_train, report: Callable[[str], Any] = warn):
        """Prepare to train on a data set. report: called for each unreadable file."""
        self.paths, self.sizing, self.maps, self.instances = dataset.train, dataset.sizing, dataset.maps, dataset.instances
        if config.batch_size > 1 and not config.crop_size and self.sizing != "512x1024":
            raise UserError("knob batch_size: images of several sizes make no batch; set crop_size too")
        self.config, self.report = config, report
        if config.use_conditional_GAN:
            self.classes = Classes.parse(config.classes, config.n_classes)
            self._check_maps("use_conditional_GAN", MAP_COLUMNS[0], self.maps)
            if config.use_instances:
                self._check_maps("use_instances", INSTANCE_COLUMN, self.instances)
        self.bad: set[str] = set()
        self._lock = threading.Lock()
        self._error: UserError | None = None
        self._order: dict[int, np.ndarray] = {}

    def _check_maps(self, knob: str, column: str, maps: Mapping[str, str]) -> None:
        """Raise UserError unless each image has a map, and none is a JPEG."""
        if not set(self.paths) <= set(maps):
            raise UserError(f"knob {knob}: the path table has no column {column}; see data/make_paths.py")
        if lossy := [maps[path] for path in self.paths if Path(maps[path]).suffix.lower() in LOSSY_SUFFIXES]:
            raise UserError(f"{lossy[0]}: is a JPEG, whose noise makes classes that are not there; save label maps as PNG")

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.paths) // self.config.batch_size)

    def batches(self, first_step: int = 0, worker: int = 0, workers: int = 1) -> Iterator[tuple[Any, LabelBatch | None]]:
        """Yield batches without end, from a step on: images (B, H, W, 3) float32 in [-1, 1], and their label maps or None.

        Of several workers, each gets its share of every batch. Sample i depends on the seed, the paths and i alone, so that
        training that resumes sees what it would have seen.
        """
        import tensorflow as tf

        batch = self.config.batch_size
        share = batch // workers
        shapes = [(None, None, 3)] + [(None, None)] * (3 if self.config.use_conditional_GAN else 0)

        def read(i):
            planes = tf.numpy_function(self._planes_or_error, [i], [tf.uint8] * len(shapes))
            return tuple(tf.ensure_shape(plane, shape) for plane, shape in zip(planes, shapes, strict=True))

        samples = (
            tf.data.Dataset.range(first_step * share, 2**62 // workers)
            .map(lambda i: i // share * batch + worker * share + i % share)
            .map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .batch(share)
            .map(lambda image, *planes: (tf.cast(image, tf.float32) / 127.5 - 1, *planes))
            .prefetch(2)
        )
        try:
            for x, *planes in samples:
                yield x, LabelBatch(*planes) if planes else None
        except tf.errors.OpError:
            if self._error is None:
                raise
            raise self._error from None  # tf.data would have made a page of it

    def sample(self, index: int) -> tuple[np.ndarray, LabelMap | None]:
        """Return training sample `index`: an image or a crop of it, (H, W, 3) uint8, and its label map or None.

        Each pass over the table is in a new order.
        """
        epoch, position = divmod(index, len(self.paths))
        rng = np.random.default_rng((self.config.seed, epoch, position))
        order = self._epoch_order(epoch)
        for offset in range(len(self.paths)):  # an unreadable image is replaced by the next one
            path = self.paths[order[(position + offset) % len(self.paths)]]
            if path in self.bad:
                continue
            try:
                image, labels = self._read(path, self.config.crop_size)
            except UserError as error:
                self._skip(path, error)
                continue
            image, labels = augment(image, labels, self.config, rng)
            return image, self._select(labels, rng)
        raise UserError("none of the training images can be read")

    def _read(self, path: str, crop_size: int) -> tuple[np.ndarray, LabelMap | None]:
        """Read an image and its label map, and bring them to size."""
        image = read_image(path, self.config.max_pixels)
        sized = to_size(image, self.sizing, crop_size)
        if not self.config.use_conditional_GAN:
            return sized, None
        if path not in self.maps or (self.config.use_instances and path not in self.instances):
            raise UserError(f"{path}: its path table names no {'instance' if path in self.maps else 'label'} map of it")
        size = image.shape[:2]
        s = read_classes(self.maps[path], self.classes, size)
        instances = read_instances(self.instances[path], size) if self.config.use_instances else connected_regions(s)
        labels = LabelMap(s, instances=instances)
        labels = labels.map(lambda plane: to_size(plane, self.sizing, crop_size, Image.Resampling.NEAREST))
        return sized, with_boundaries(labels)  # which have to be those of the map at its final size

    def _select(self, labels: LabelMap | None, rng: np.random.Generator) -> LabelMap | None:
        """Choose what of a training image is preserved, as the knobs `selective` and `selective_regions` say."""
        if labels is None:
            return None
        if not self.config.selective:
            preserved = np.ones(labels.classes.shape, bool)
        elif self.config.selective_regions == "boxes":
            preserved = selection.random_box(labels.classes.shape, rng)
        elif self.config.selective_regions == "classes":
            preserved = selection.random_regions(labels.classes, rng, selection.SYNTHESIZED_CLASSES)
        else:
            assert labels.instances is not None  # _read reads them, or numbers the connected regions
            preserved = selection.random_regions(labels.instances, rng, selection.SYNTHESIZED_INSTANCES)
        return dataclasses.replace(labels, preserved=preserved)

    def unknown_labels(self, classes: Classes | None = None) -> float:
        """Return the mean share of pixels that are none of the classes, nor void, in label maps from all over the table.

        classes: others than those of the knobs.
        """
        some = self.paths[:: -(-len(self.paths) // LABEL_MAPS_CHECKED)]
        shares = []
        for path in some:
            with contextlib.suppress(UserError):  # reported when it is its turn to be trained on
                shares.append(float((read_indices(self.maps[path], classes or self.classes) < 0).mean()))
        return sum(shares) / max(1, len(shares))

    def warn_of_unknown_labels(self) -> None:
        """Say what to give if many pixels of the label maps are none of the classes."""
        n, share = self.config.n_classes, self.unknown_labels()
        if share > MAX_UNKNOWN_LABELS:
            advice = self.advice_on_classes()
            warn(f"{share:.0%} of the label maps' pixels are none of the {n} classes and count as void; {advice}")

    def advice_on_classes(self) -> str:
        """Return what to give to train.py so that the values in the label maps are classes."""
        advice = "give the file that lists them with --classes, or set the knob n_classes to their number, void included"
        for name, file in dataclasses.asdict(directories()).items():
            if name.endswith("_classes") and self.unknown_labels(Classes.read(Utils.locate(file))) <= MAX_UNKNOWN_LABELS:
                data_set = name.removesuffix("_classes")
                return f"if they are those of {data_set}, give --classes {Utils.locate(file)}; otherwise, {advice}"
        return advice

    def held_out(self, path: str) -> tuple[np.ndarray, LabelMap | None]:
        """Return a held-out image (H, W, 3) uint8, whole, and its label map or None; they are the same each time.

        Raises UserError for files that cannot be read.
        """
        image, labels = self._read(path, crop_size=0)
        return image, self._select(labels, np.random.default_rng(0))

    def _planes_or_error(self, index: int) -> list[np.ndarray]:
        """Return a sample's image and the planes of a LabelBatch; keep the UserError that tf.data would garble."""
        try:
            image, labels = self.sample(int(index))
        except UserError as error:
            self._error = error
            raise
        if labels is None:
            return [image]
        planes = [getattr(labels, name) for name in LabelBatch._fields]
        return [image, *(plane.astype(np.uint8) for plane in planes)]

    def _skip(self, path: str, error: UserError) -> None:
        with self._lock:
            if path in self.bad:
                return
            self.bad.add(path)
            self.report(f"skipped: {error}")
            if len(self.bad) > MAX_BAD_SHARE * len(self.paths):
                raise UserError(
                    f"{len(self.bad)} of {len(self.paths)} training images cannot be read, over {MAX_BAD_SHARE:.0%}: "
                    f"mend or remove them from the path table (the last: {error})"
                )

    def _epoch_order(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch not in self._order:
                self._order = {e: o for e, o in self._order.items() if e >= epoch - 1}  # batches may straddle epochs
                self._order[epoch] = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.paths))
            return self._order[epoch]


# ----------------------------------------------------------------------------------------------------------------------
# Images and label maps
# ----------------------------------------------------------------------------------------------------------------------


def to_size(image: np.ndarray, sizing: str, crop_size: int = 0, resample=Image.Resampling.LANCZOS) -> np.ndarray:
    """Resize and cut an image (H, W, ...) as a Dataset's `sizing` says; never under 32 px, nor under crop_size."""
    height, width = image.shape[:2]
    if sizing == "512x1024":
        size = (512, 1024)
    elif sizing == "width512":
        size = (max(1, round(height * 512 / width)), 512)
    else:
        size = (height, width)
    scale = max(1, max(32, crop_size) / min(size))
    size = (round(size[0] * scale), round(size[1] * scale))
    if size != (height, width):
        image = np.asarray(Image.fromarray(image).resize(size[::-1], resample))
    if crop_size:
        return image
    top, left = size[0] % 16 // 2, size[1] % 16 // 2
    return image[top : top + size[0] // 16 * 16, left : left + size[1] // 16 * 16]


def augment(
    image: np.ndarray, labels: LabelMap | None, config: config_train, rng: np.random.Generator
) -> tuple[np.ndarray, LabelMap | None]:
    """Scale the image at random (`random_scale`), cut out a random square (`crop_size`), and flip it at random (`random_flip`).

    The label map goes through the same. Images are scaled only if they are cut.
    """
    window = np.s_[:, :]
    if crop := config.crop_size:
        image, labels = scale_at_random(image, labels, max(config.random_scale, crop / min(image.shape[:2])), rng)
        top, left = (rng.integers(side - crop + 1) for side in image.shape[:2])
        window = np.s_[top : top + crop, left : left + crop]
    step = -1 if config.random_flip and rng.random() < 0.5 else 1

    def cut(plane: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(plane[window][:, ::step])

    return cut(image), labels and labels.map(cut)


def scale_at_random(
    image: np.ndarray, labels: LabelMap | None, lowest: float, rng: np.random.Generator
) -> tuple[np.ndarray, LabelMap | None]:
    """Scale an image and its label map by a factor between `lowest` and 1. Draw no random number if `lowest` is 1."""
    if lowest >= 1:
        return image, labels
    factor = rng.uniform(lowest, 1)
    height, width = (round(factor * side) for side in image.shape[:2])
    rows, columns = (
        ((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip((height, width), image.shape, strict=False)
    )
    scaled = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    return scaled, labels and labels.map(lambda plane: plane[rows][:, columns])  # the nearest class, for a mean is none


def connected_regions(s: np.ndarray) -> np.ndarray:
    """Number the 4-connected regions of equal class, (H, W) int32. They stand in for a missing instance map."""
    numbers = np.zeros(s.shape, np.int32)
    for index in np.unique(s):
        found, _ = ndimage.label(s == index)
        numbers += np.where(found, found + numbers.max(), 0)
    return numbers


# ----------------------------------------------------------------------------------------------------------------------
# Files
# ----------------------------------------------------------------------------------------------------------------------


def _tables_of(name: str, where: directories, val: str | Path | None) -> list[str | Path]:
    """Return the tables, or folders, of a dataset: one to train on, and one of held-out images if there is one."""
    if name in SIZINGS:
        return [Utils.locate(getattr(where, f"{name}_{split}")) for split in ("train", "val")]
    table = Path(name).resolve()
    sibling = table.parent / table.name.replace("train", "val")
    held_out = val or (sibling if sibling.exists() and sibling != table else None)
    return [name, held_out] if held_out else [name]


def _without_duplicates(paths: list[str], table: str | Path) -> list[str]:
    """Return the paths without those that name a file again, with a warning if there were any."""
    unique: dict[str, str] = {}
    for path in paths:
        unique.setdefault(os.path.realpath(path), path)
    if len(unique) < len(paths):
        twice = len(paths) - len(unique)
        warn(f"{table}: {twice} of its rows name an image that another row names too; each image counts once")
    return list(unique.values())


def _by_folders(train: list[str], held_out: list[str], source: str | Path, val: str | Path | None = None) -> tuple[list, list]:
    """Divide a folder's images into those to train on and those to hold out, by the names of the folders within it.

    SPLITS has these names, which count at any depth. Images in no such folder are trained on only if there is no "train".
    Images of `val`, a folder within this one, are not trained on.
    """
    if val and Path(val).is_dir() and (held := {os.path.realpath(path) for path in held_out}):
        others = [path for path in train if os.path.realpath(path) not in held]
        train = others or train
    by: dict[str, list[str]] = {"train": [], "val": [], "test": [], "": []}
    for path in train:
        folders = Path(path).relative_to(source).parts[:-1]
        by[next((split for folder in folders for split, names in SPLITS.items() if folder.lower() in names), "")].append(path)
    if not (by["train"] or by["val"]):
        return train, held_out
    chosen, held_out = by["train"] or by[""], held_out or by["val"]
    if not chosen:
        raise UserError(f"{source}: all of its images are in folders for validation or test; there are none to train on")
    left = len(train) - len(chosen) - (0 if val else len(by["val"]))
    print(f"{source}: trains on {len(chosen)} images " + ("in train" if by["train"] else "outside of val and test")
          + ("" if val else f", holds out {len(by['val'])} in val" if by["val"] else "")
          + (f", leaves out {left} others" if left else ""))  # fmt: skip
    return chosen, held_out


def _warn_of_overlap(train: list[str], val: list[str], table: str | Path, few: bool) -> None:
    """Warn of held-out images that are trained on. few: because there are too few to hold any out."""
    if both := {os.path.realpath(path) for path in train} & {os.path.realpath(path) for path in val}:
        why = "there are fewer than five images" if few else "both tables name them"
        warn(f"{table}: {len(both)} of the {len(val)} held-out images are trained on too, because {why}; what is measured on "
             f"them flatters the model")  # fmt: skip
