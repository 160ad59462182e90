"""A small U-Net (Ronneberger et al. 2015) that labels the pixels of a photo, and the mean intersection over union (mIoU)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from config import UserError
from data import Data
from gcodec.files import atomic, refuse_existing
from gcodec.labels import Classes

if TYPE_CHECKING:
    import keras

WIDTHS = (24, 48, 96, 160)  # channels at 1/2, 1/4, 1/8, 1/16 of the size: 0.9 million parameters
STRIDE = 2 ** len(WIDTHS)
WEIGHTS, CLASSES = "unet.npz", "classes.txt"  # the files of a network
IMAGES_COUNTED = 200  # training samples whose pixels are counted to weight the classes


class Segmenter:
    """A U-Net and its classes."""

    def __init__(self, network: "keras.Model", classes: Classes):
        self.network, self.classes = network, classes

    @classmethod
    def new(cls, classes: Classes, seed: int = 0) -> "Segmenter":
        import keras

        keras.utils.set_random_seed(seed)
        return cls(_unet(len(classes) - 1), classes)

    @classmethod
    def load(cls, folder: str | Path) -> "Segmenter":
        """Read what `save` wrote. Raises UserError for anything else; nothing in the files can run code."""
        folder = Path(folder)
        try:
            text = (folder / CLASSES).read_text(encoding="utf-8").strip()
            with np.load(folder / WEIGHTS, allow_pickle=False) as file:
                arrays = [file[name] for name in sorted(file.files)]
            classes = Classes.parse(text, arrays[-1].shape[-1] + 1)
            network = _unet(len(classes) - 1)
            network.set_weights(arrays)
        except Exception as error:  # zipfile, numpy and Keras raise many kinds of errors for a damaged file
            reason = (str(error).splitlines() or ["?"])[0]
            raise UserError(f"{folder}: no network that tools/train_segmenter.py wrote ({reason})") from None
        return cls(network, classes)

    def save(self, folder: Path) -> None:
        """Write the weights and the classes."""
        arrays = {f"{i:03}": array for i, array in enumerate(self.network.get_weights())}
        with atomic(folder / CLASSES) as path:
            path.write_text(f"{self.classes}\n", encoding="utf-8")
        with atomic(folder / WEIGHTS) as path, path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @staticmethod
    def check_new(folder: Path, overwrite: bool = False) -> None:
        """Raise UserError if a network is in the folder: training takes too long for its result to be replaced unasked."""
        refuse_existing(folder / WEIGHTS, folder / CLASSES, overwrite=overwrite)

    def train(self, data: Data, steps: int, learning_rate: float) -> None:
        """Minimize the cross-entropy of all pixels but void, with rare classes weighted up as in ENet (Paszke et al. 2016)."""
        import keras
        import tensorflow as tf
        from tqdm import tqdm

        weights = tf.constant(self._class_weights(data), tf.float32)
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.network.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
        with tqdm(total=steps, unit="step") as bar:
            for x, labels in data.batches():
                if bar.n >= steps:
                    break
                assert labels is not None
                s = tf.cast(labels.classes, tf.int32)
                known = tf.minimum(s, len(self.classes) - 2)  # void has no output; its weight is 0
                value = self.network.train_on_batch(x, known, sample_weight=tf.gather(weights, s))
                bar.update()
                bar.set_postfix(loss=f"{float(value):.3g}", refresh=False)

    def _class_weights(self, data: Data) -> np.ndarray:
        counts = np.zeros(len(self.classes))
        for i in range(min(IMAGES_COUNTED, len(data.paths))):
            _, labels = data.sample(i)
            assert labels is not None
            counts += np.bincount(labels.classes.ravel(), minlength=len(counts))
        weights = 1 / np.log(1.02 + counts / counts[:-1].sum())
        weights[-1] = 0  # void
        return weights

    def segment(self, image: np.ndarray) -> np.ndarray:
        """Image (H, W, 3) uint8 -> classes (H, W) uint8."""
        height, width = image.shape[:2]
        bottom, right = -height % STRIDE, -width % STRIDE
        x = np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge").astype(np.float32) / 127.5 - 1
        logits = np.asarray(self.network(x[None], training=False))  # no graph: each size of image would make another one
        logits = logits[0, :height, :width]
        return logits.argmax(axis=-1).astype(np.uint8)

    def confusion(self, image: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Return (n, n): how many pixels of class i in the label map s are taken for class j. Void's row is 0."""
        n = len(self.classes)
        known = s != self.classes.void
        pairs = n * s[known].astype(np.int64) + self.segment(image)[known]
        return np.bincount(pairs, minlength=n * n).reshape(n, n)


def iou(confusion: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each class but void, which is the last; NaN for a class that is nowhere."""
    both = np.diag(confusion).astype(float)
    either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    return np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)[:-1]


def miou(confusion: np.ndarray) -> float:
    """Return the mean of `iou` over the classes that are somewhere."""
    return float(np.nanmean(iou(confusion)))


def _unet(n: int) -> "keras.Model":
    """Image (H, W, 3) in [-1, 1], with sides that are multiples of 16 -> logits (H, W, n)."""
    import keras
    from keras import layers

    def conv(h: Any, width: int, stride: int = 1) -> Any:
        h = layers.Conv2D(width, 3, stride, padding="same", use_bias=False, kernel_initializer="he_normal")(h)
        return layers.ReLU()(layers.BatchNormalization()(h))

    def double(h: Any) -> Any:
        return layers.UpSampling2D(interpolation="bilinear")(h)

    x = keras.Input((None, None, 3))
    h, skips = x, []
    for width in WIDTHS:
        h = conv(conv(h, width, stride=2), width)
        skips.append(h)
    for width, skip in zip(reversed(WIDTHS[:-1]), reversed(skips[:-1]), strict=True):
        h = layers.Concatenate()([double(h), skip])
        h = conv(conv(h, width), width)
    return keras.Model(x, double(layers.Conv2D(n, 1)(h)))
