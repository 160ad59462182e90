#!/usr/bin/env python3
"""A small U-Net (Ronneberger et al. 2015) that labels the pixels of a photo: do semantics survive compression?

    python3 segmentation.py -ds camvid_train.h5 --val camvid_val.h5 --classes classes.csv -o checkpoints/camvid_unet
    python3 evaluate.py -r checkpoints/photo_c8 -i camvid/test -o report/ --miou checkpoints/camvid_unet -sm camvid/testannot

-ds, --val: path tables with a column semantic_map_paths. What is measured is the mean intersection over union (mIoU) of the
classes, void left out, over all pixels of all images together; 1 is perfect.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from config import UserError, config_train, directories
from data import Data
from semantic import Classes
from utils import Utils

WIDTHS = (24, 48, 96, 160)  # channels at 1/2, 1/4, 1/8, 1/16 of the size: 0.9 million parameters
STRIDE = 16
WEIGHTS, CLASSES = "unet.keras", "classes.txt"  # the files of a checkpoint


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-ds", "--dataset", required=True, metavar="TABLE", help="path table to train on")
    parser.add_argument("--val", metavar="TABLE", help="held-out images (default: as train.py)")
    parser.add_argument("--classes", required=True, metavar="CSV", help="columns index, name, R, G, B")
    parser.add_argument("-o", "--output", required=True, metavar="CKPT", help="folder to write")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--crop-size", type=int, default=256, help="px, a multiple of 16")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="at first; it falls to 0 as a cosine")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.steps < 1 or args.learning_rate <= 0:
        raise UserError("--steps and --learning-rate: above 0")
    classes = Classes.read(args.classes)
    config = config_train(
        use_conditional_GAN=True, classes=str(classes), n_classes=len(classes), random_flip=True,
        crop_size=args.crop_size, batch_size=args.batch_size, seed=args.seed,
    )  # fmt: skip
    dataset = Data.dataset(args.dataset, directories(), args.val)
    data = Data(dataset.train, config, maps=dataset.maps, report=lambda line: print(line, file=sys.stderr))
    with Utils.quiet_tensorflow():
        segmenter = Segmenter.new(classes, args.seed)
    segmenter.train(data, args.steps, args.learning_rate)
    segmenter.save(Path(args.output))
    confusion = np.zeros((len(classes),) * 2, np.int64)
    for path in dataset.val:
        image, labels = data.held_out(path)
        confusion += segmenter.confusion(image, labels[..., 0])
    for name, value in zip(classes.names[:-1], iou(confusion), strict=True):
        print(f"{name:16} {value:.3f}")
    print(f"mIoU of {len(dataset.val)} held-out images: {miou(confusion):.4f}")
    print(f"in {args.output}")
    return 0


class Segmenter:
    """A U-Net and its classes."""

    def __init__(self, network, classes: Classes):
        self.network, self.classes = network, classes

    @classmethod
    def new(cls, classes: Classes, seed: int = 0) -> "Segmenter":
        import keras

        keras.utils.set_random_seed(seed)
        return cls(_unet(len(classes) - 1), classes)

    @classmethod
    def load(cls, folder: str | Path) -> "Segmenter":
        """Read what `save` wrote; raises UserError for what is none."""
        import keras

        folder = Path(folder)
        try:
            text = (folder / CLASSES).read_text()
            network = keras.saving.load_model(folder / WEIGHTS, compile=False)
        except Exception as error:  # Keras and zipfile throw what they like at a damaged file
            raise UserError(f"{folder}: no network that segmentation.py wrote ({error})") from None
        return cls(network, Classes.parse(text, network.output_shape[-1] + 1))

    def save(self, folder: Path) -> None:
        with Utils.atomic(folder / CLASSES) as path:
            path.write_text(str(self.classes))
        bare = _unet(len(self.classes) - 1)  # without the optimizer's state, a third of the size
        bare.set_weights(self.network.get_weights())
        with Utils.atomic(folder / WEIGHTS) as path:
            bare.save(path)

    def train(self, data: Data, steps: int, learning_rate: float) -> None:
        """Cross-entropy of all pixels but void, rare classes weighted up as in ENet (Paszke et al. 2016)."""
        import keras
        import tensorflow as tf
        from tqdm import tqdm

        counts = np.zeros(len(self.classes))
        for i in range(min(200, len(data.paths))):
            counts += np.bincount(data.sample(i)[..., 3].ravel(), minlength=len(counts))
        weights = 1 / np.log(1.02 + counts / counts[:-1].sum())
        weights[-1] = 0  # void
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.network.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
        weights = tf.constant(weights, tf.float32)
        with tqdm(total=steps, unit="step") as bar:
            for x, labels in data.batches():
                if bar.n >= steps:
                    break
                s = tf.cast(labels[..., 0], tf.int32)
                known = tf.minimum(s, len(self.classes) - 2)  # void has no output; its weight is 0
                value = self.network.train_on_batch(x, known, sample_weight=tf.gather(weights, s))
                bar.update()
                bar.set_postfix(loss=f"{float(value):.3g}", refresh=False)

    def segment(self, image: np.ndarray) -> np.ndarray:
        """Image (H, W, 3) uint8 -> classes (H, W) uint8."""
        height, width = image.shape[:2]
        bottom, right = -height % STRIDE, -width % STRIDE
        x = np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge").astype(np.float32) / 127.5 - 1
        logits = self.network.predict_on_batch(x[None])[0, :height, :width]
        return logits.argmax(axis=-1).astype(np.uint8)

    def confusion(self, image: np.ndarray, s: np.ndarray) -> np.ndarray:
        """(n, n): how many pixels of class i in the label map s are taken for class j; the void's row is 0."""
        n = len(self.classes)
        known = s != self.classes.void
        pairs = n * s[known].astype(np.int64) + self.segment(image)[known]
        return np.bincount(pairs, minlength=n * n).reshape(n, n)


def iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class but void, the last; NaN for one that is nowhere."""
    both = np.diag(confusion).astype(float)
    either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    return np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)[:-1]


def miou(confusion: np.ndarray) -> float:
    """Mean of `iou` over the classes that are there."""
    return float(np.nanmean(iou(confusion)))


def _unet(n: int):
    """Image (H, W, 3) in [-1, 1], sides multiples of 16 -> logits (H, W, n)."""
    import keras
    from keras import layers

    def conv(h, width, stride=1):
        h = layers.Conv2D(width, 3, stride, padding="same", use_bias=False, kernel_initializer="he_normal")(h)
        return layers.ReLU()(layers.BatchNormalization()(h))

    def double(h):
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


if __name__ == "__main__":
    sys.exit(main())
