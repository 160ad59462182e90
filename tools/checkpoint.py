#!/usr/bin/env python3
"""Make a checkpoint that ships out of one that was trained: weights in half precision, rounded, and no training.npz.

    python3 tools/checkpoint.py -r checkpoints/run -o checkpoints/mine
    python3 tools/checkpoint.py -r checkpoints/run --blend checkpoints/run/ckpt-00003500 0.3 -o checkpoints/mine

    python3 tools/checkpoint.py -r checkpoints/mine --onnx  # lets compress.py and decompress.py run it without TensorFlow

--onnx writes the networks as ONNX graphs beside the weights, which stay where they are: files of the checkpoint stay valid.
It takes half a minute and needs tf2onnx. Together with -o, the graphs are those of the new checkpoint.
--blend CKPT SHARE averages the weights of two generators of one encoder, such as that before the GAN stage (higher PSNR) and
that after it (sharper). This is network interpolation, Wang et al. 2018 (ESRGAN), section 3.4. It takes freeze_encoder=true.
"""

import contextlib
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import UserError, config_train
from gcodec.checkpoint import (
    CONTEXT_FILES,
    FINGERPRINT_FILE,
    Arrays,
    hashed_fingerprint,
    keep_fingerprint,
    read_arrays,
    read_checkpoint,
    resolve_checkpoint,
    save_arrays,
)
from gcodec.files import new_folder, refuse_existing_folder
from utils import Utils

SIGNIFICANT_BITS = 6  # with photo_c8, files and PSNR are the same to 0.1% and 0.01 dB; with 5, files are 0.5% larger


def export(source: Path, output: Path, other: Path | None = None, share: float = 0.0, overwrite: bool = False) -> None:
    """Write what compressing needs of a checkpoint to a new folder, with weights as `rounded` has them.

    With `other`, G's weights are (1 - share) * the source's + share * the other's. Even without it, what is written is another
    checkpoint, because of the rounding: its fingerprint differs, and neither decodes the files of the other.
    """
    refuse_existing_folder(output, overwrite)
    checkpoint = read_checkpoint(source)
    checkpoint.knobs(config_train)  # whose errors come before anything is written
    arrays = {"frequencies": checkpoint.static_tables.frequencies, **checkpoint.weights}
    if other:
        arrays = blend(arrays, read_arrays(other / "model.npz"), share, other)
    halves = {name: rounded(array) if array.dtype == np.float32 else array for name, array in arrays.items()}
    if broken := [name for name, array in halves.items() if not np.isfinite(array).all()]:
        raise UserError(f"checkpoint {source}: {broken[0]} has values beyond half precision, 65504")
    with new_folder(output, overwrite) as partial:
        save_arrays(partial / "model.npz", halves, compressed=True)
        for name in ("config.json", *CONTEXT_FILES.values()):
            if (source / name).exists():
                shutil.copy(source / name, partial)
        keep_fingerprint(partial / FINGERPRINT_FILE, hashed_fingerprint(partial))


def rounded(array: np.ndarray) -> np.ndarray:
    """Return an array as float16; a kernel's values with SIGNIFICANT_BITS alone, which deflate makes smaller by a quarter."""
    if array.ndim > 1:
        mantissas, exponents = np.frexp(array)  # array = mantissas * 2**exponents
        array = np.ldexp(np.round(mantissas * 2**SIGNIFICANT_BITS) / 2**SIGNIFICANT_BITS, exponents)
    with np.errstate(over="ignore"):  # infinite then, which is reported
        return array.astype(np.float16)


def blend(arrays: Arrays, others: Arrays, share: float, other: Path) -> Arrays:
    """Return (1 - share) * arrays + share * others for what decodes only. Raise UserError unless both have one encoder."""
    blended = dict(arrays)
    for name, array in arrays.items():
        if name not in others or others[name].shape != array.shape:
            raise UserError(f"checkpoint {other}: {name} is not as in the one to blend it with")
        if name.startswith(("generator/", "noise_generator/")):
            blended[name] = ((1 - share) * array + share * others[name]).astype(array.dtype)
        elif name != "frequencies" and not np.array_equal(array, others[name]):
            raise UserError(f"checkpoint {other}: {name} differs; blend checkpoints of one run with freeze_encoder=true")
    return blended


def _share_of(other: str, share: str) -> tuple[Path, float]:
    with contextlib.suppress(ValueError):
        if 0 <= float(share) <= 1:
            return resolve_checkpoint(other), float(share)
    raise UserError(f"--blend: {share!r} is not a share from 0 to 1")


@Utils.command
def main(argv: list[str] | None = None) -> int:
    parser = Utils.parser(__doc__)
    parser.add_argument("-r", "--restore", required=True, metavar="CKPT", help="checkpoint or run folder")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="the checkpoint to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that is there already")
    parser.add_argument("--blend", nargs=2, metavar=("CKPT", "SHARE"), help="take SHARE of the generator from that checkpoint")
    parser.add_argument(
        "--onnx", action="store_true", help="write graphs for ONNX Runtime: into FOLDER, or into CKPT without -o"
    )
    args = parser.parse_args(argv)
    if not args.output and (args.blend or not args.onnx):
        raise UserError("name the checkpoint to write with -o, or add graphs to this one with --onnx")
    folder = source = resolve_checkpoint(args.restore)
    if args.output:
        folder = Path(args.output)
        other, share = _share_of(*args.blend) if args.blend else (None, 0.0)
        export(source, folder, other, share, args.overwrite)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{source} -> {folder}: {size / 1e6:.1f} MB; it is a checkpoint of its own: files of {source} are not for it")
    if args.onnx:
        from tools.onnx_export import write_graphs  # late: TensorFlow

        for file in write_graphs(folder):
            print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
