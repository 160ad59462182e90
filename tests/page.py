"""The page's modules, run by Node outside of a browser."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gcodec import Codec
from gcodec.labels import LabelMap

WEB = Path(__file__).parent / "web"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(
    NODE is None or not (WEB.parents[1] / "web/node_modules/onnxruntime-web").is_dir(),
    reason="needs Node, and onnxruntime-web (`npm ci` in web/)",
)


def decode(checkpoint: Path, file: Path, folder: Path) -> dict[str, np.ndarray]:
    """Return what the page's modules decode a .gc file to, as flat arrays: "picture" (RGBA), "symbols", "code", "mask".

    Raises subprocess.CalledProcessError for an error.
    """
    folder.mkdir()
    command = [NODE, str(WEB / "decode.mjs"), str(checkpoint), str(file), str(folder)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return {path.name: np.fromfile(path, np.uint8) for path in folder.iterdir()}


def assert_decodes_alike(
    codec: Codec, image: np.ndarray, labels: LabelMap | None, folder: Path, most_different: float = 1e-3
) -> None:
    """Check that the page decodes an image's file to what it was made of, and to the picture that Python makes of it.

    The pictures may differ by one level in a share of `most_different` of their values.
    """
    contents = codec.contents(image, labels)
    data = codec.pack(*image.shape[:2], contents)
    (folder / "file.gc").write_bytes(data)
    found, picture = decode(codec.checkpoint.folder, folder / "file.gc", folder / "page"), codec.decode(data)
    sent = contents.symbols if contents.mask is None else contents.symbols * contents.mask
    assert set(found) == {"picture", *codec.config.sections}
    for name in codec.config.sections:
        np.testing.assert_array_equal(
            found[name], (sent if name == "symbols" else getattr(contents, name)).ravel(), err_msg=name
        )
    difference = np.abs(found["picture"].reshape(*picture.shape[:2], 4)[..., :3].astype(int) - picture)
    assert difference.max() <= 1
    assert (difference > 0).mean() < most_different
