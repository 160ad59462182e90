#!/usr/bin/env python3
"""Train a small U-Net that labels the pixels of a photo, to measure whether semantics survive compression.

    python3 tools/train_segmenter.py -ds camvid_train.h5 --val camvid_val.h5 --classes classes.csv -o checkpoints/street_unet
    python3 evaluate.py -r checkpoints/photo_c8 -i camvid/test -o report/ --miou checkpoints/street_unet -sm camvid/testannot

-ds, --val: path tables with a column semantic_map_paths. What is measured is the mean intersection over union (mIoU) of the
classes without void, over all pixels of all images together; 1 is perfect.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import UserError, config_train, directories
from data import Data
from evaluation.segmentation import Segmenter, iou, miou
from gcodec.labels import Classes
from utils import Utils


@Utils.command
def main(argv: list[str] | None = None) -> int:
    parser = Utils.parser(__doc__)
    parser.add_argument("-ds", "--dataset", required=True, metavar="TABLE", help="path table to train on")
    parser.add_argument("--val", metavar="TABLE", help="held-out images (default: as train.py)")
    parser.add_argument("--classes", required=True, metavar="CSV", help="columns index, name, R, G, B")
    parser.add_argument("-o", "--output", required=True, metavar="CKPT", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a network that is there already")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--crop-size", type=int, default=256, help="px, a multiple of 16")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="at first; it falls to 0 as a cosine")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.steps < 1 or args.learning_rate <= 0:
        raise UserError("--steps and --learning-rate: must be above 0")
    output = Path(args.output)
    Segmenter.check_new(output, args.overwrite)
    classes = Classes.read(args.classes)
    config = config_train(
        use_conditional_GAN=True, classes=str(classes), n_classes=len(classes), random_flip=True,
        crop_size=args.crop_size, batch_size=args.batch_size, seed=args.seed,
    )  # fmt: skip
    dataset = Data.dataset(args.dataset, directories(), args.val)
    data = Data(dataset, config)
    with Utils.importing_tensorflow():
        segmenter = Segmenter.new(classes, args.seed)
    segmenter.train(data, args.steps, args.learning_rate)
    segmenter.save(output)
    print_accuracy(segmenter, data, dataset.val)
    print(f"in {output}")
    return 0


def print_accuracy(segmenter: Segmenter, data: Data, paths: list[str]) -> None:
    """Print the intersection over union of each class, and their mean, on held-out images."""
    confusion = np.zeros((len(segmenter.classes),) * 2, np.int64)
    for path in paths:
        image, labels = data.held_out(path)
        assert labels is not None
        confusion += segmenter.confusion(image, labels.classes)
    for name, value in zip(segmenter.classes.names[:-1], iou(confusion), strict=True):
        print(f"{name:16} {value:.3f}")
    print(f"mIoU of {len(paths)} held-out images: {miou(confusion):.4f}")


if __name__ == "__main__":
    sys.exit(main())
