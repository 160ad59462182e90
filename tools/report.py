#!/usr/bin/env python3
"""Tables, plots and pictures of what evaluate.py measured, as a page that needs no network; and plots of a training run.

python3 tools/report.py report/                                  # the page anew, from report/results/*.json
python3 tools/report.py --losses tensorboard/run -o losses.png   # the losses of G and D, from TensorBoard's log
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import UserError
from evaluation import plots, report
from gcodec.files import open_binary, refuse_existing
from gcodec.pictures import picture_path
from utils import Utils


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Utils.parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("report", nargs="?", help="folder that evaluate.py wrote")
    what.add_argument("--losses", metavar="RUN", help="folder of a run's TensorBoard log")
    parser.add_argument("-i", "--input", metavar="FOLDER", help="the images that were measured, for the crops")
    parser.add_argument("-o", "--output", default="losses.png", metavar="OUT.png", help="of --losses (default: losses.png)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.png (the page is always written anew)")
    return parser.parse_args(argv)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.losses:
        output = picture_path(args.output)
        refuse_existing(output, overwrite=args.overwrite)
        plots.plot_losses(Path(args.losses), output)
        print(args.output)
        return 0
    report.write(Path(args.report), read_results(Path(args.report)), Path(args.input) if args.input else None)
    print(Path(args.report, "index.html"))
    return 0


def read_results(folder: Path) -> list[dict]:
    """Read what evaluate.py measured. Raises UserError where there is nothing."""
    files = sorted((folder / "results").glob("*.json"))
    if not files:
        raise UserError(f"{folder}: no results/*.json there; evaluate.py writes them")
    results = []
    for file in files:
        try:
            with open_binary(file) as opened:
                results.append(json.load(opened))
        except ValueError as error:
            raise UserError(f"{file}: is not JSON ({error}); remove it and run evaluate.py again") from None
    return results


if __name__ == "__main__":
    sys.exit(main())
