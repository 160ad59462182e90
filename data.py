"""Reading images and path tables, and the tf.data pipeline that feeds training."""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import semantic
from config import UserError, config_train, directories
from semantic import Classes
from utils import PICTURE_SUFFIXES, Utils

Image.MAX_IMAGE_PIXELS = None  # the knob max_pixels is checked before anything is decoded

MAP_COLUMNS = ("semantic_map_paths", "semantic_map_path")  # today's name, and the older spelling
INSTANCE_COLUMN = "instance_map_paths"
LABEL_MAPS_CHECKED = 20  # before training
MAX_BAD_SHARE = 0.01  # of a table's images that may be unreadable before a run stops


@dataclass(frozen=True)
class Dataset:
    """What -ds names: the images, and how they are brought to size when they are not cropped.

    fit: "native" (sides cut to multiples of 16), "512x1024" (resized) or "width512" (resized, then cut).
    maps, instances: the label map and the instance map of an image, by the image's path, where the table has such columns.
    classes: the file that lists the classes of its label maps, if it is known.
    """

    train: list[str]
    val: list[str]
    fit: str = "native"
    maps: dict[str, str] = dataclasses.field(default_factory=dict)
    instances: dict[str, str] = dataclasses.field(default_factory=dict)
    classes: Path | None = None


class Data:
    """Static methods that read, and `batches`, which trains."""

    # ------------------------------------------------------------------------------------------------------------------
    # Images
    # ------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def read_image(path: str | Path, max_pixels: int) -> np.ndarray:
        """PNG, JPEG, WebP or BMP -> (H, W, 3) uint8. Raises UserError naming the file.

        Gray becomes RGB, palettes are looked up, 16 bits are cut to 8, transparency is laid over white, and the
        camera's orientation tag is applied.
        """
        path = Path(path)
        if path.is_dir():
            raise UserError(f"{path}: is a folder, where an image file is wanted")
        try:
            with Image.open(path, formats=("PNG", "JPEG", "WEBP", "BMP")) as image:
                if image.width * image.height > max_pixels:
                    raise UserError(
                        f"{path}: {image.width}x{image.height} is over max_pixels ({max_pixels}); "
                        f"make it smaller, or raise the cap with -k max_pixels=N"
                    )
                return _to_rgb(ImageOps.exif_transpose(image))
        except FileNotFoundError:
            raise UserError(f"{path}: no such image file") from None
        except UserError:
            raise
        except Exception as error:  # Pillow's decoders throw what they like at a damaged file
            raise UserError(f"{path}: cannot be decoded as PNG, JPEG, WebP or BMP ({error})") from None

    # ------------------------------------------------------------------------------------------------------------------
    # Path tables
    # ------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def images_in(folder: str | Path) -> list[str]:
        """All image files below a folder, sorted."""
        found = sorted(str(p) for p in Path(folder).rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file())
        if not found:
            raise UserError(f"{folder}: no images in this folder (looked for {' '.join(PICTURE_SUFFIXES)})")
        return found

    @staticmethod
    def read_table(source: str | Path, column: str = "path") -> list[str]:
        """Image paths from an HDF5 dataframe (.h5), a CSV file, or a plain folder.

        A relative path is taken from the table's folder or from the working directory, whichever has it.
        """
        source = Path(source)
        if source.is_dir():
            return Data.images_in(source)
        frame = _read_frame(source)
        columns = MAP_COLUMNS if column in MAP_COLUMNS else (column,)
        present = [name for name in columns if name in frame.columns]
        if not present:
            raise UserError(f"{source}: no column {column!r}; it has {', '.join(map(str, frame.columns)) or 'none'}")
        if frame.empty:
            raise UserError(f"{source}: the table is empty")
        return [_locate(str(path), source) for path in frame[present[0]]]

    @staticmethod
    def read_pairs(source: str | Path, column: str) -> dict[str, str]:
        """The file that another column of a table has for each image; {} for a table without that column, and a folder.

        Whether the files exist shows when they are read: who trains without label maps need not have them.
        """
        source = Path(source)
        frame = None if source.is_dir() else _read_frame(source)
        present = [] if frame is None else [name for name in (*MAP_COLUMNS, INSTANCE_COLUMN) if name in frame.columns]
        wanted = [name for name in present if name == column or {name, column} <= set(MAP_COLUMNS)]
        if not wanted:
            return {}
        named = {image: path for image, path in zip(Data.read_table(source), frame[wanted[0]], strict=True) if path == path}
        return {
            image: str(next((p for p in (source.parent / path, Path(path)) if p.exists()), path))
            for image, path in named.items()
        }

    @staticmethod
    def dataset(name: str, where: directories, val: str | None = None) -> Dataset:
        """The images that -ds names: sample, cityscapes, ADE20k or camvid, or any path table or folder.

        Held-out images of a table: `val`; else the table of the same name with "val" for "train"; else a fifth of its
        images, at most four, from its end.
        """
        fits = {"sample": "native", "cityscapes": "512x1024", "ADE20k": "width512", "camvid": "native"}
        if name in fits:
            tables = [Utils.locate(getattr(where, f"{name}_{split}")) for split in ("train", "val")]
        else:
            table = Path(name).resolve()
            sibling = table.parent / table.name.replace("train", "val")
            held_out = val or (sibling if sibling.exists() and sibling != table else None)
            tables = [name, held_out] if held_out else [name]
        paths = [Data.read_table(table) for table in tables]
        if len(paths) == 1:
            n = min(4, len(paths[0]) // 5)
            paths = [paths[0][:-n], paths[0][-n:]] if n else [paths[0], paths[0]]
        beside = [
            {image: path for table in tables for image, path in Data.read_pairs(table, column).items()}
            for column in (MAP_COLUMNS[0], INSTANCE_COLUMN)
        ]
        classes = getattr(where, f"{name}_classes", None)
        return Dataset(*paths, fits.get(name, "native"), *beside, classes and Utils.locate(classes))

    # ------------------------------------------------------------------------------------------------------------------
    # Training batches
    # ------------------------------------------------------------------------------------------------------------------

    def __init__(self, paths: list[str], config: config_train, fit: str = "native", report=print, maps=None, instances=None):
        """paths: of the images to train on; fit, maps, instances: see Dataset; report: called for each unreadable file."""
        if config.batch_size > 1 and not config.crop_size and fit != "512x1024":
            raise UserError("knob batch_size: images of several sizes make no batch; set crop_size too")
        self.paths, self.config, self.fit, self.report = paths, config, fit, report
        self.maps, self.instances = maps or {}, instances or {}
        if config.use_conditional_GAN:
            self.classes = Classes.parse(config.classes, config.n_classes)
            for knob, column, present in [
                ("use_conditional_GAN", MAP_COLUMNS[0], self.maps),
                ("use_instances", INSTANCE_COLUMN, self.instances),
            ]:
                if getattr(config, knob) and not set(paths) <= set(present):
                    raise UserError(f"knob {knob}: the path table has no column {column}; see data/make_paths.py")
        self.bad: set[str] = set()
        self._lock = threading.Lock()
        self._error: UserError | None = None
        self._order: dict[int, np.ndarray] = {}

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.paths) // self.config.batch_size)

    def batches(self, first_step: int = 0, worker: int = 0, workers: int = 1) -> Iterator:
        """Endless batches from a step on: images (B, H, W, 3) float32 in [-1, 1], and labels (B, H, W, 3) uint8: see `sample`.

        Without label maps the labels have no channels. Of several workers, each gets its share of every batch.
        Sample i is a function of the seed, the paths and i alone, so training that resumes sees what it would have seen.
        """
        import tensorflow as tf

        batch = self.config.batch_size
        share = batch // workers
        planes = 6 if self.config.use_conditional_GAN else 3
        samples = (
            tf.data.Dataset.range(first_step * share, 2**62 // workers)
            .map(lambda i: i // share * batch + worker * share + i % share)
            .map(
                lambda i: tf.ensure_shape(tf.numpy_function(self._sample_or_error, [i], tf.uint8), (None, None, planes)),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            .batch(share)
            .map(lambda planes: (tf.cast(planes[..., :3], tf.float32) / 127.5 - 1, planes[..., 3:]))
            .prefetch(2)
        )
        try:
            yield from samples
        except tf.errors.OpError:
            if self._error is None:
                raise
            raise self._error from None  # tf.data would have made a page of it

    def sample(self, index: int) -> np.ndarray:
        """Training sample `index`: an image or a crop of it, (H, W, 3) uint8. Each pass over the table is in a new order.

        With label maps (H, W, 6): then also the class, 1 at the boundary of an instance, and 1 where the picture is preserved.
        """
        epoch, position = divmod(index, len(self.paths))
        rng = np.random.default_rng((self.config.seed, epoch, position))
        order = self._epoch_order(epoch)
        for offset in range(len(self.paths)):  # an unreadable image is replaced by the next one
            path = self.paths[order[(position + offset) % len(self.paths)]]
            if path in self.bad:
                continue
            try:
                planes = self._planes(path, self.config.crop_size)
            except UserError as error:
                self._skip(path, error)
                continue
            return self._with_heat_map(augment(planes, self.config, rng), rng)
        raise UserError("none of the training images can be read")

    def _planes(self, path: str, crop_size: int) -> np.ndarray:
        """An image brought to size, (H, W, 3); with label maps (H, W, 6): class, boundary of an instance, instance."""
        image = Data.read_image(path, self.config.max_pixels)
        planes = fit_image(image, self.fit, crop_size)
        if not self.config.use_conditional_GAN:
            return planes
        if path not in self.maps or (self.config.use_instances and path not in self.instances):
            raise UserError(f"{path}: its path table names no {'instance' if path in self.maps else 'label'} map of it")
        instances = self.instances[path] if self.config.use_instances else None
        labels = semantic.read_labels(self.maps[path], instances, self.classes, image.shape[:2])
        fitted = [fit_image(plane, self.fit, crop_size, Image.Resampling.NEAREST) for plane in np.moveaxis(labels, -1, 0)]
        return np.concatenate([planes, semantic.with_boundaries(np.stack(fitted, axis=-1))], axis=-1)

    def _with_heat_map(self, planes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Planes -> uint8; of six, the last, the instance, becomes what is preserved."""
        if not self.config.use_conditional_GAN:
            return planes
        if not self.config.selective:
            preserved = np.ones(planes.shape[:2], bool)
        elif self.config.selective_regions == "boxes":
            preserved = semantic.random_box(planes.shape[:2], rng)
        elif self.config.selective_regions == "classes":
            preserved = semantic.random_regions(planes[..., 3], rng, semantic.SYNTHESIZED_CLASSES)
        else:
            preserved = semantic.random_regions(planes[..., 5], rng, semantic.SYNTHESIZED_INSTANCES)
        return np.concatenate([planes[..., :5], preserved[..., None]], axis=-1).astype(np.uint8)

    def unknown_labels(self) -> float:
        """The mean share of the pixels of some label maps, from all over the table, that are none of the classes, nor void."""
        some = self.paths[:: -(-len(self.paths) // LABEL_MAPS_CHECKED)]
        shares = []
        for path in some:
            with contextlib.suppress(UserError):  # reported when it is its turn to be trained on
                shares.append(float((semantic.read_indices(self.maps[path], self.classes) < 0).mean()))
        return sum(shares) / max(1, len(shares))

    def held_out(self, path: str) -> tuple[np.ndarray, np.ndarray | None]:
        """An image that is not trained on (H, W, 3) uint8, whole, and its labels (H, W, 3) uint8, the same each time.

        Without label maps the labels are None. Raises UserError for files that cannot be read.
        """
        planes = self._with_heat_map(self._planes(path, crop_size=0), np.random.default_rng(0))
        return planes[..., :3], planes[..., 3:] if self.config.use_conditional_GAN else None

    def _sample_or_error(self, index: int) -> np.ndarray:
        try:
            return self.sample(int(index))
        except UserError as error:
            self._error = error
            raise

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
# Bringing images to size
# ----------------------------------------------------------------------------------------------------------------------


def fit_image(image: np.ndarray, fit: str, crop_size: int = 0, resample=Image.Resampling.LANCZOS) -> np.ndarray:
    """Resize and cut an image (H, W, ...) as a Dataset's `fit` says; never under 32 px, nor under crop_size."""
    height, width = image.shape[:2]
    if fit == "512x1024":
        size = (512, 1024)
    elif fit == "width512":
        size = (max(1, round(height * 512 / width)), 512)
    else:
        size = (height, width)
    scale = max(1, max(32, crop_size) / min(size))
    size = tuple(round(side * scale) for side in size)
    if size != (height, width):
        image = np.asarray(Image.fromarray(image).resize(size[::-1], resample))
    if crop_size:
        return image
    top, left = size[0] % 16 // 2, size[1] % 16 // 2
    return image[top : top + size[0] // 16 * 16, left : left + size[1] // 16 * 16]


def augment(image: np.ndarray, config: config_train, rng: np.random.Generator) -> np.ndarray:
    """A random scale (`random_scale`), a random square crop (`crop_size`) and a random left-right flip (`random_flip`)."""
    if crop := config.crop_size:
        image = random_scale(image, max(config.random_scale, crop / min(image.shape[:2])), rng)
        top, left = (rng.integers(side - crop + 1) for side in image.shape[:2])
        image = image[top : top + crop, left : left + crop]
    if config.random_flip and rng.random() < 0.5:
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def random_scale(image: np.ndarray, lowest: float, rng: np.random.Generator) -> np.ndarray:
    """Planes (H, W, ...) scaled by a random factor from `lowest` to 1; no random number is drawn where `lowest` is 1."""
    if lowest >= 1:
        return image
    factor = rng.uniform(lowest, 1)
    size = tuple(round(factor * side) for side in image.shape[1::-1])
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit gray; Pillow's own conversion would clip it
        gray = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(np.clip(np.rint(gray), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


# ----------------------------------------------------------------------------------------------------------------------
# Files
# ----------------------------------------------------------------------------------------------------------------------


def _read_frame(source: Path):
    import pandas as pd

    readers = {".h5": pd.read_hdf, ".hdf5": pd.read_hdf, ".csv": pd.read_csv}
    if not source.exists():
        raise UserError(f"{source}: no such path table or folder; data/make_paths.py writes one")
    if source.suffix.lower() not in readers:
        raise UserError(f"{source}: a path table ends in .h5, .hdf5 or .csv")
    try:
        frame = readers[source.suffix.lower()](source)
        return frame.to_frame() if isinstance(frame, pd.Series) else frame
    except pd.errors.EmptyDataError:
        return pd.DataFrame({"path": []})
    except Exception as error:  # pandas and PyTables throw what they like at a damaged file
        raise UserError(f"{source}: cannot be read as a path table ({error})") from None


def _locate(path: str, table: Path) -> str:
    tried = [table.parent / path, Path(path)]  # for an absolute path, both are the path itself
    for candidate in tried:
        if candidate.exists():
            return str(candidate)
    raise UserError(f"{table}: image not found; tried {' and '.join(dict.fromkeys(map(str, tried)))}")
