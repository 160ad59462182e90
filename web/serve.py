#!/usr/bin/env python3
"""Serve the page on this machine, or write it into a folder that any static host can serve.

    python3 web/serve.py                       # then open http://127.0.0.1:8000/
    python3 web/serve.py --dist web/dist       # what `make web-dist` does

Only the page's own files are served and written: see `page_files`. WebGPU, offline use and copying links want https, except on
this machine.
"""

import functools
import json
import shutil
import sys
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

WEB = Path(__file__).resolve().parent
PROJECT = WEB.parent
sys.path.insert(0, str(PROJECT))

from gcodec.checkpoint import read_checkpoint  # noqa: E402
from gcodec.errors import UserError  # noqa: E402
from gcodec.knobs import ModelKnobs  # noqa: E402
from utils import Utils  # noqa: E402

LIBRARIES = {  # where the page has a file of a library -> where npm puts it
    "vendor/fflate.js": "fflate/esm/browser.js",
    "vendor/fflate.LICENSE.txt": "fflate/LICENSE",
    **{f"vendor/onnxruntime-web/{name}": f"onnxruntime-web/dist/{name}" for name in (
        "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm",  # WebAssembly
        "ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm",  # WebGPU
    )},
}  # fmt: skip
SAMPLE = "images/kodim21.png"
MODEL_FILES = ("config.json", "*.npz", "*.onnx")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".wasm": "application/wasm",
}
HEADERS = {  # of every answer; index.html has the policy too, for hosts that set no headers
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # the browser asks whether its copy is still good
}  # fmt: skip
HOSTS = ("127.0.0.1", "localhost", "[::1]")  # a page of another name that leads here is a stranger's


# ----------------------------------------------------------------------------------------------------------------------
# What the page consists of
# ----------------------------------------------------------------------------------------------------------------------


def page_files(checkpoints: Path) -> dict[str, Path | bytes]:
    """Return the files of the page by their paths below its address, as files of this project or as bytes.

    Raises UserError if a library or every model is missing.
    """
    found: dict[str, Path | bytes] = {**own_files()}
    for name, source in LIBRARIES.items():
        found[name] = WEB / "node_modules" / source
        if not (WEB / "node_modules" / source).is_file():
            raise UserError(f"{WEB / 'node_modules' / source}: is missing; run `npm ci` in web/, or `make web`")
    listed = models(checkpoints)
    if not listed:
        raise UserError(f"{checkpoints}: no model there has ONNX graphs")
    for model in listed:
        for pattern in MODEL_FILES:
            found |= {f"{model['folder']}/{path.name}": path for path in sorted((checkpoints / model["name"]).glob(pattern))}
    found["models.json"] = (json.dumps(listed, indent=1) + "\n").encode()
    return found


def own_files() -> dict[str, Path]:
    """Return the files of the page that this project has, by their paths below its address."""
    patterns = ("*.html", "*.css", "*.js", "*.svg", "codec/*.js")
    found = {path.relative_to(WEB).as_posix(): path for pattern in patterns for path in sorted(WEB.glob(pattern))}
    return found | {SAMPLE: PROJECT / SAMPLE}


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
            "label_map": "code" in checkpoint.config.sections,
            "compresses": compresses(checkpoint.config),
        })  # fmt: skip
    return sorted(found, key=lambda model: (model["label_map"], model["channels"]))


def compresses(config: ModelKnobs) -> bool:
    """Say whether the page can make a model's files, and not only decode them: the only label maps it takes are of colours."""
    colours_are_enough = config.semantic_code == "lossless" and bool(config.classes) and not config.use_instances
    return "code" not in config.sections or colours_are_enough


def write_page(files: dict[str, Path | bytes], folder: Path) -> None:
    """Write the page into a folder. One that holds a page is replaced; raises UserError for one that holds anything else."""
    if folder.exists() and not (folder / "models.json").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there, and is not a page that this command wrote; name another folder")
    if folder.exists():
        shutil.rmtree(folder)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            shutil.copyfile(content, path)


# ----------------------------------------------------------------------------------------------------------------------
# The server
# ----------------------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the page's files, to those who asked this machine by its own name."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments, files: dict[str, Path | bytes], quiet: bool):
        self.files, self.quiet = files, quiet
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.answer(with_content=True)

    def do_HEAD(self) -> None:
        self.answer(with_content=False)

    def answer(self, with_content: bool) -> None:
        host = self.headers.get("Host", "")
        if host.rpartition(":")[0] not in HOSTS and host not in HOSTS:
            return self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "this server is for this machine alone")
        name = unquote(urlsplit(self.path).path).removeprefix("/") or "index.html"
        content = self.files.get(name)
        try:
            stat = content.stat() if isinstance(content, Path) else None
            data = content.read_bytes() if isinstance(content, Path) else content
        except OSError:
            data = None
        if data is None:
            return self.send_error(HTTPStatus.NOT_FOUND)
        tag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"' if stat else f'"{hash(data):x}"'
        known = self.headers.get("If-None-Match") == tag
        self.send_response(HTTPStatus.NOT_MODIFIED if known else HTTPStatus.OK)
        self.send_header("ETag", tag)
        if stat:
            self.send_header("Last-Modified", formatdate(stat.st_mtime, usegmt=True))
        if not known:
            self.send_header("Content-Type", TYPES.get(Path(name).suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_content and not known:
            self.wfile.write(data)

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *arguments) -> None:
        if not self.quiet:
            super().log_message(*arguments)


def serve(files: dict[str, Path | bytes], number: int, quiet: bool) -> None:
    """Serve the page until Ctrl-C. Raises UserError for a port that cannot be had."""
    if not 0 <= number <= 65535:
        raise UserError(f"--port {number}: must be 0 to 65535")
    handler = functools.partial(Handler, files=files, quiet=quiet)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", number), handler)
    except OSError as error:
        raise UserError(f"port {number}: {error.strerror}; name another with --port (0: any that is free)") from None
    with server:
        print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


@Utils.command
def main(argv: list[str] | None = None) -> int:
    parser = Utils.parser(__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default: 8000)")
    parser.add_argument("--checkpoints", type=Path, default=PROJECT / "checkpoints", metavar="FOLDER", help="models to offer")
    parser.add_argument("--dist", type=Path, metavar="FOLDER", help="write the page into this folder, and serve nothing")
    parser.add_argument("--quiet", action="store_true", help="do not print requests")
    args = parser.parse_args(argv)
    files = page_files(args.checkpoints.resolve())
    if args.dist:
        write_page(files, args.dist)
        print(f"{args.dist}: {len(files)} files")
    else:
        serve(files, args.port, args.quiet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
