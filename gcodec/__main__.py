"""Compress photos, decompress .gc files, and say what files are.

    gcodec compress photo.jpg photo.gc                    # by photo_c8
    gcodec compress photo.jpg photo.gc -r photo_c4 --max-bytes 340
    gcodec decompress photo.gc back.png                   # finds the model of the file
    gcodec decompress photo.gc back.png --models ~/models
    gcodec inspect photo.gc packets/                      # without running a network; so does: gcodec photo.gc packets/

`python3 -m gcodec` is the same. - is standard input or output. Models are those that ship, and those below the folder that
--models names. `inspect` also says which packets of an image are missing; its exit status is 1 if any file is damaged, or is no
file of this version.
"""

import argparse
import sys
from pathlib import Path

from gcodec import Codec, __version__, command_line
from gcodec.budget import best_file
from gcodec.checkpoint import SHIPPED
from gcodec.compressed_files import read_compressed
from gcodec.errors import UserError
from gcodec.files import atomic, refuse_existing
from gcodec.finding import DEFAULT, Checkpoints, Codecs
from gcodec.inspection import inspect
from gcodec.pictures import LOSSLESS_SUFFIXES, picture_path, read_image, read_standard_image, save_picture
from gcodec.streams import STREAM, check_streams, output_path

COMMANDS = ("compress", "decompress", "inspect")


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = command_line.parser(__doc__, f"gcodec {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{compress,decompress,inspect}")
    compress, decompress, inspect = (commands.add_parser(name) for name in COMMANDS)
    for command, what in ((compress, "IMAGE"), (decompress, "FILE.gc")):
        command.add_argument("input", metavar=what)
        command.add_argument("output", metavar={"IMAGE": "OUT.gc", "FILE.gc": "OUT.png"}[what])
        command.add_argument("--overwrite", action="store_true", help="replace an output that is there already")
        command.add_argument("-r", "--restore", metavar="MODEL", help="a model below --models, one that ships, or a "
                             f"checkpoint's folder (default: {DEFAULT}, or the one that made the file)")  # fmt: skip
    compress.add_argument("--max-bytes", type=int, metavar="N", help="code the image at the largest size that fits")
    inspect.add_argument("files", nargs="+", metavar="FILE.gc", help="compressed files or packets, or folders of them")
    for command in (compress, decompress, inspect):
        command.add_argument("--models", type=Path, metavar="FOLDER", help="look for models there first")
    if argv and argv[0] not in (*COMMANDS, "-h", "--help", "--version"):
        argv = ["inspect", *argv]
    return parser.parse_args(argv)


@command_line.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(sys.argv[1:] if argv is None else argv)
    if args.models and not args.models.is_dir():
        raise UserError(f"{args.models}: no such folder of models")
    if args.command == "compress":
        compress(args.input, args.output, model(args.restore or DEFAULT, args.models), args.max_bytes, args.overwrite)
    elif args.command == "decompress":
        named = model(args.restore, args.models) if args.restore else None
        decompress(args.input, args.output, Codecs(models(args.models), named), args.overwrite)
    elif not inspect(args.files, models(args.models)):
        return 1
    return 0


def models(folder: Path | None) -> Checkpoints:
    """Return the models that files may be of: those below the folder, those that ship, those of a project that is worked in."""
    return Checkpoints([*([folder] if folder else []), SHIPPED, "checkpoints"])


def model(name: str, folder: Path | None) -> Path:
    """Return the checkpoint that is named: below the folder if there is one, else a path or a model that ships."""
    return folder / name if folder and (folder / name).is_dir() else Path(name)


def compress(source: str, output: str, checkpoint: Path, max_bytes: int | None, overwrite: bool) -> None:
    """Write the .gc file of an image."""
    check_streams([source], output)
    with output_path(output, ".gc") as path:
        path = path if path.suffix else path.with_suffix(".gc")
        if path.suffix.lower() != ".gc":
            raise UserError(f"{path}: the output must end in .gc")
        refuse_existing(path, overwrite=overwrite)
        image = read_standard_image() if source == STREAM else read_image(source)
        codec = Codec.load(checkpoint)
        try:
            data = codec.encode(image) if max_bytes is None else best_file(image, [codec], max_bytes).data
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        with atomic(path, overwrite) as partial:
            partial.write_bytes(data)


def decompress(source: str, output: str, codecs: Codecs, overwrite: bool) -> None:
    """Write the picture of a .gc file."""
    check_streams([source], output)
    with output_path(output, ".png") as named:
        path = picture_path(named, LOSSLESS_SUFFIXES)
        refuse_existing(path, overwrite=overwrite)
        data = read_compressed(source)
        try:
            picture = codecs.of(data).decode(data)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        save_picture(picture, path, overwrite)


if __name__ == "__main__":
    sys.exit(main())
