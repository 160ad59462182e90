#!/usr/bin/env python3
"""Write the path tables that train.py reads: tables with a column `path`, as CSV or as an HDF5 dataframe (.h5).

    python3 data/make_paths.py photos/ -o photos.h5
    python3 data/make_paths.py photos/ -o photos.h5 --split 0.8 0.1 0.1 --seed 1   # photos_train.h5, _val.h5, _test.h5
    python3 data/make_paths.py cityscapes/leftImg8bit/train -o data/cityscapes_paths_train.h5 \\
        --maps cityscapes/gtFine/train --image-suffix _leftImg8bit --map-suffix _gtFine_labelIds \\
        --instances cityscapes/gtFine/train --instance-suffix _gtFine_instanceIds

With --maps, a second column `semantic_map_paths` names the label map of each image: the file at the same place below the
folder of maps, with the same name but for its suffix. --instances adds a column `instance_map_paths` in the same way. Paths are
relative to the table if the files lie below its folder, so that both can be moved together; else they are absolute.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from config import UserError
from data import INSTANCE_COLUMN, MAP_COLUMNS
from gcodec.files import atomic, files_in, refuse_existing
from gcodec.pictures import READ_SUFFIXES, images_in
from path_tables import SUFFIXES, write_columns
from utils import Utils


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Utils.parser(__doc__)
    parser.add_argument("folder", help="of images, searched with its subfolders")
    parser.add_argument("-o", "--output", required=True, metavar="TABLE", help="table to write, .h5 or .csv")
    parser.add_argument("--maps", metavar="FOLDER", help="of label maps")
    parser.add_argument("--instances", metavar="FOLDER", help="of instance maps")
    parser.add_argument(
        "--image-suffix", default="", help="end of an image's name that its map's name lacks; others are left out"
    )
    parser.add_argument("--map-suffix", default="", help="end of a map's name that its image's name lacks")
    parser.add_argument("--instance-suffix", default="", help="the same of an instance map")
    parser.add_argument("--split", nargs=3, type=float, metavar=("TRAIN", "VAL", "TEST"), help="shares of three tables")
    parser.add_argument("--seed", type=int, default=0, help="of the random split (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace tables that are there already")
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    output = Path(args.output)
    if output.suffix.lower() not in SUFFIXES:
        raise UserError(f"{output}: a path table ends in .h5, .hdf5 or .csv")
    if args.seed < 0:
        raise UserError(f"--seed: {args.seed} is negative")
    if not Path(args.folder).is_dir():
        raise UserError(f"{args.folder}: no such folder")
    images = [path for path in images_in(args.folder) if Path(path).stem.endswith(args.image_suffix)]
    if not images:
        raise UserError(f"{args.folder}: no image whose name ends in {args.image_suffix}; see --image-suffix")
    columns: dict[str, list[str]] = {"path": images}
    if args.maps:
        columns[MAP_COLUMNS[0]] = match_maps(images, args.folder, args.image_suffix, args.maps, args.map_suffix)
    if args.instances:
        columns[INSTANCE_COLUMN] = match_maps(images, args.folder, args.image_suffix, args.instances, args.instance_suffix)
    tables = {output: np.arange(len(columns["path"]))}
    if args.split:
        tables = split(output, len(columns["path"]), args.split, args.seed)
    refuse_existing(*tables, overwrite=args.overwrite)
    for table, rows in tables.items():
        if not len(rows):  # train.py would take a table of before for one of these
            table.unlink(missing_ok=True)
            continue
        write_table(table, {name: [paths[row] for row in rows] for name, paths in columns.items()})
        print(f"{table}: {len(rows)} images")
    return 0


def match_maps(images: list[str], source: str, image_suffix: str, folder: str, map_suffix: str) -> list[str]:
    """Return the map of each image below `source`, among the files below `folder` whose names end in a suffix.

    Raises UserError for an image without a map.
    """

    def key(path: str, below: str, suffix: str) -> Path:
        relative = Path(path).relative_to(below).with_suffix("")
        return relative.with_name(relative.name.removesuffix(suffix))

    files, _ = files_in(folder, READ_SUFFIXES)
    maps = {key(path, folder, map_suffix): path for path in files if Path(path).stem.endswith(map_suffix)}
    keys = [key(path, source, image_suffix) for path in images]
    for image, k in zip(images, keys, strict=True):
        if k not in maps:
            raise UserError(f"{image}: no map {k}{map_suffix}.* below {folder}; see --image-suffix, --map-suffix")
    return [maps[k] for k in keys]


def split(output: Path, n: int, shares: list[float], seed: int) -> dict[Path, np.ndarray]:
    """Return random rows, in ascending order, for the tables OUTPUT_train, OUTPUT_val and OUTPUT_test; some may get none."""
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise UserError(f"--split: {shares} are not three shares with the sum 1")
    ends = np.rint(np.cumsum(shares) * n).astype(int)
    parts = np.split(np.random.default_rng(seed).permutation(n), ends[:2])
    names = [output.with_name(f"{output.stem}_{part}{output.suffix}") for part in ("train", "val", "test")]
    return {name: np.sort(part) for name, part in zip(names, parts, strict=True)}


def write_table(table: Path, columns: dict[str, list[str]]) -> None:
    base = table.parent.resolve()

    def stored(name: str) -> str:
        path = Path(name).resolve()
        return str(path.relative_to(base)) if path.is_relative_to(base) else os.fspath(path)

    with atomic(table) as partial:
        write_columns(partial, {name: [stored(path) for path in paths] for name, paths in columns.items()})


if __name__ == "__main__":
    sys.exit(main())
