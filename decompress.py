#!/usr/bin/env python3
"""Decompress a .gc file to a picture. It needs the file and the checkpoint that it was made with, nothing else.

python3 decompress.py -i photo.gc -o photo.png                  # finds the checkpoint below checkpoints/
python3 decompress.py -r ~/models/run -i photo.gc -o photo.png  # one that is elsewhere
python3 decompress.py -i results/ -o pictures/                  # every .gc file of a folder, and results.csv
python3 decompress.py results/ pictures/                        # IN and OUT by position are the same as -i IN -o OUT
python3 decompress.py -i a.gc b.gc -o pictures/                 # the same for several files
python3 decompress.py -i - -o - < photo.gc > photo.png          # standard input and output
python3 decompress.py -i out/ -o photo.png                      # the packets of an image (.gcp), those that arrived
python3 decompress.py -i out/ -o pictures/                      # the packets of several images

A file carries the fingerprint of its model, so files by several models may lie in one folder.
What is there already is replaced only with --overwrite. A folder run that was interrupted goes on when it is started again.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from commands import packet_files
from commands.folder_run import FolderRun, Input, Job, Made, gather, is_folder, outputs_of, write_files
from commands.images import decode_packets, decompress_data, decompress_file, decompress_packets
from commands.loading import load_codec
from commands.options import (
    ModelChoice,
    Say,
    add_model_arguments,
    add_path_arguments,
    add_worker_arguments,
    parse_with_paths,
    settings_of,
    split_knobs,
)
from commands.workers import Workers
from config import UserError
from gcodec import packets, save_picture
from gcodec.compressed_files import SUFFIX, compressed_files_in, read_compressed
from gcodec.files import refuse_existing
from gcodec.finding import Codecs
from gcodec.inspection import arrived
from gcodec.pictures import LOSSLESS_SUFFIXES, picture_path
from gcodec.streams import STANDARD_INPUT, STREAM, check_streams, output_path
from utils import Utils


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Utils.parser(__doc__)
    add_model_arguments(parser, default="the one below checkpoints/ that made the file")
    add_path_arguments(
        parser,
        "compressed files or packets, or folders of them; - is standard input",
        "the picture to write, or a folder for more than one; - is standard output, as PNG",
        ("FILE.gc", "OUT.png"),
    )
    add_worker_arguments(parser)
    return parse_with_paths(parser, argv, needs_output=True)


@Utils.command
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    where, knobs = split_knobs(args.knob)
    choice, say = ModelChoice(tuple(args.restore), args.restore_last, where), Say(args.quiet, args.verbose)
    workers = Workers(args.workers, args.scheduler)

    def load() -> Codecs:
        return Codecs(choice.here(), next(iter(choice.named), None), functools.partial(load_codec, knobs=knobs))

    def to_folder(decompress: Callable[..., Made], inputs: Mapping[Input, list[Path]]) -> int:
        settings = settings_of(knobs)
        return decompress_folder(decompress, load(), inputs, Path(args.output), settings, say, args.overwrite, workers)

    if found := packet_files.find(args.input, (SUFFIX,)):
        if packet_files.names_folder(args.output):
            return to_folder(decompress_packets, packet_files.by_image(found))
        check_streams([str(found[0].path)], args.output)
        contents = packet_files.read(source.path for source in found)
        return decompress_one_in_packets(load, contents, args.output, say, args.overwrite)
    check_streams(args.input, args.output)
    if len(args.input) > 1 or Path(args.input[0]).is_dir() or (args.input != [STREAM] and is_folder(args.output)):
        inputs = gather(args.input, compressed_files_in)
        output = Path(args.output)
        if output.suffix.lower() in LOSSLESS_SUFFIXES or output.is_file():
            raise UserError(f"{output}: there are several files, so the output must be a folder")
        files = {source: [source.path] for source in inputs}
        return to_folder(decompress_file, files)
    source = STANDARD_INPUT if args.input[0] == STREAM else Path(args.input[0])
    data = read_compressed(args.input[0])  # what is wrong with it shows before the model is loaded
    if packets.is_packet(data):  # on standard input, or by another name than packets have
        return decompress_one_in_packets(load, {str(source): data}, args.output, say, args.overwrite)
    with output_path(args.output, ".png") as named:
        output = picture_path(named, LOSSLESS_SUFFIXES)
        refuse_existing(output, overwrite=args.overwrite)
        codecs = load()
        result, made = decompress_data(codecs, data, source, output)
        write_files([output], made, args.overwrite)
        codec = codecs.of(data)
        say.detail(f"model: {codec.checkpoint.folder}, run by {type(codec.runtime).__name__}")
        name = "standard output" if args.output == STREAM else output
        say("{name}: {width}x{height}, decoded from {bytes} bytes in {seconds:.2f} s".format(name=name, **result))
    return 0


# ----------------------------------------------------------------------------------------------------------------------
# One picture
# ----------------------------------------------------------------------------------------------------------------------


def decompress_one_in_packets(
    load: Callable[[], Codecs],
    contents: dict[str, bytes],  #  of the packets, by their names
    named: str,  #                  the output
    say: Say,
    overwrite: bool,
) -> int:
    """Write the picture that the packets of an image give, and say which are missing or damaged."""
    packets.read_packets(contents)  # what is wrong with them shows before the model is loaded
    with output_path(named, ".png") as path:
        output = picture_path(path, LOSSLESS_SUFFIXES)
        refuse_existing(output, overwrite=overwrite)
        received, seconds = decode_packets(load(), contents)
        save_picture(received.image, output, overwrite)
        height, width = received.image.shape[:2]
        written = "standard output" if named == STREAM else output
        say(f"{written}: {width}x{height}, decoded from {arrived(received.total, received.missing)} in {seconds:.2f} s")
    return 0


# ----------------------------------------------------------------------------------------------------------------------
# A folder
# ----------------------------------------------------------------------------------------------------------------------


def decompress_folder(
    decompress: Callable[..., Made],  #         decompress_file or decompress_packets
    codecs: Codecs,
    inputs: Mapping[Input, list[Path]],  #      with the files that each consists of
    output: Path,
    settings: str,  #                           what decides the pictures beside the files; see `settings_of`
    say: Say,
    overwrite: bool,
    workers: Workers,
) -> int:
    """Decompress each input with its model, into a folder with results.csv. A bad one is named and costs the others nothing."""
    pictures = {source: output / name for source, name in outputs_of(inputs, ".png").items()}
    run = FolderRun(output, "file", settings, overwrite)

    def job(source: Input, picture: Path) -> Job:
        return Job(source, picture, lambda: inputs[source], lambda: [picture])

    jobs, make = [job(*pair) for pair in pictures.items()], functools.partial(decompress, codecs)
    with workers.within_memory([files[0] for files in inputs.values()]).started() as spread:
        rows, kept = run.work(jobs, make, "decompressed", say, spread)
    say(f"{output}: {len(rows)} pictures" + (f", {kept} of which were finished already" if kept else ""))
    return 2 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
