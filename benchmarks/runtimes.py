#!/usr/bin/env python3
"""Compare ONNX Runtime with TensorFlow: whole commands from start to file, and repeated decoding in one process.

    python3 benchmarks/runtimes.py                      # images/kodim21.png, 768x512, by the checkpoint that ships
    python3 benchmarks/runtimes.py -r checkpoints/mine -i photo.png --repeat 5

Each figure is the least of some repetitions, in which the runtimes take turns. Memory is the peak resident size of the process.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from commands.loading import load_codec
from config import config_test
from gcodec import read_image
from utils import Utils

RUNTIMES = ("onnx", "tensorflow")


@Utils.command
def main(argv: list[str] | None = None) -> int:
    parser = Utils.parser(__doc__)
    parser.add_argument("-r", "--restore", default=PROJECT / "checkpoints/photo_c8", metavar="CKPT")
    parser.add_argument("-i", "--input", default=PROJECT / "images/kodim21.png", metavar="IMAGE")
    parser.add_argument("--repeat", type=int, default=3, metavar="N")
    args = parser.parse_args(argv)
    print(f"{'':26}{'onnx':>10}{'tensorflow':>12}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        file, picture = Path(folder) / "a.gc", Path(folder) / "b.png"
        for command, source, output in (("compress.py", args.input, file), ("decompress.py", file, picture)):
            arguments = [PROJECT / command, "-r", args.restore, "-i", source, "-o", output, "--overwrite"]
            figures = [[run([*arguments, "-k", f"runtime={r}"]) for r in RUNTIMES] for _ in range(args.repeat)]
            (onnx, onnx_memory), (tensorflow, tensorflow_memory) = (
                map(min, zip(*own, strict=True)) for own in zip(*figures, strict=True)
            )
            report(f"{command}, s", onnx, tensorflow)
            report(f"{command}, MB", onnx_memory, tensorflow_memory)
    report("decoding again, s", *decoding(args.restore, args.input, args.repeat))
    return 0


def run(arguments: list) -> tuple[float, float]:
    """Run a command; return its seconds and its peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments[0]} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1000


def decoding(checkpoint: str, image: str, repeat: int) -> list[float]:
    """Return the seconds that each runtime takes to decode a file once it has decoded one."""
    codecs = [load_codec(checkpoint, config_test(runtime=runtime)) for runtime in RUNTIMES]
    data = codecs[0].encode(read_image(image))
    seconds: list[list[float]] = [[], []]
    for _ in range(repeat + 1):
        for codec, own in zip(codecs, seconds, strict=True):
            start = time.perf_counter()
            codec.decode(data)
            own.append(time.perf_counter() - start)
    return [min(own[1:]) for own in seconds]


def report(name: str, onnx: float, tensorflow: float) -> None:
    print(f"{name:26}{onnx:10.2f}{tensorflow:12.2f}{onnx / tensorflow:8.2f}")


if __name__ == "__main__":
    sys.exit(main())
