#!/usr/bin/env python3
"""Serve the page on this machine: python3 web/serve.py, then open http://127.0.0.1:8000/.

The page itself is static. To host it elsewhere, copy to any web server: web/ with node_modules/onnxruntime-web/dist/ and with
models.json, which this script writes; and beside index.html the folders of the models, below checkpoints/, and
images/kodim21.png. WebGPU and offline use want https there.
"""

import argparse
import functools
import json
import os
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WEB = Path(__file__).resolve().parent
PROJECT = WEB.parent
sys.path.insert(0, str(PROJECT))

from gcodec.checkpoint import read_checkpoint  # noqa: E402
from gcodec.knobs import ModelKnobs  # noqa: E402


def models(checkpoints: Path) -> list[dict]:
    """Return what the page must know of each checkpoint with ONNX graphs: those of photos first, with few channels first."""
    found = []
    for folder in sorted(path.parent for path in checkpoints.glob("*/generator.onnx")):
        checkpoint = read_checkpoint(folder)
        found.append({
            "name": folder.name,
            "folder": f"checkpoints/{folder.name}",
            "fingerprint": checkpoint.fingerprint.hex(),
            "channels": checkpoint.config.channel_bottleneck,
            "label_map": "code" in checkpoint.config.coded,
            "compresses": compresses(checkpoint.config),
        })  # fmt: skip
    return sorted(found, key=lambda model: (model["label_map"], model["channels"]))


def compresses(config: ModelKnobs) -> bool:
    """Say whether the page can make a model's files, and not only decode them: the only label maps it takes are of colours."""
    colours_are_enough = config.semantic_code == "lossless" and bool(config.classes) and not config.use_instances
    return "code" not in config.coded or colours_are_enough


class Handler(SimpleHTTPRequestHandler):
    """Serve web/, and below it the project's checkpoints/ and images/, and nothing else of the project."""

    extensions_map = {  # noqa: RUF012 - as the base class has it
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".onnx": "application/octet-stream",
        ".npz": "application/octet-stream",
    }

    def __init__(self, *arguments, checkpoints: Path, quiet: bool, **keywords):
        self.roots = {"checkpoints": checkpoints, "images": PROJECT / "images"}
        self.quiet = quiet
        super().__init__(*arguments, directory=str(WEB), **keywords)

    def translate_path(self, path: str) -> str:
        relative = os.path.relpath(super().translate_path(path), WEB)  # without "..", which the base class removes
        first, *rest = Path(relative).parts or ["."]
        return str(self.roots[first].joinpath(*rest)) if first in self.roots else super().translate_path(path)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # the browser asks whether its copy is still good
        super().end_headers()

    def log_message(self, *arguments) -> None:
        if not self.quiet:
            super().log_message(*arguments)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default: 8000)")
    parser.add_argument("--checkpoints", type=Path, default=PROJECT / "checkpoints", metavar="FOLDER", help="models to offer")
    parser.add_argument("--quiet", action="store_true", help="do not print requests")
    args = parser.parse_args()
    if not (WEB / "node_modules/onnxruntime-web/dist").is_dir():
        print("serve.py: error: web/node_modules is missing; run `npm ci` in web/, or `make web`", file=sys.stderr)
        return 2
    found = models(args.checkpoints)
    if not found:
        print(f"serve.py: error: {args.checkpoints}: no model there has ONNX graphs", file=sys.stderr)
        return 2
    (WEB / "models.json").write_text(json.dumps(found, indent=1) + "\n")
    handler = functools.partial(Handler, checkpoints=args.checkpoints.resolve(), quiet=args.quiet)
    with ThreadingHTTPServer(("127.0.0.1", args.port), handler) as server:
        print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
