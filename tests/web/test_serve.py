"""The page's server, and the folder that `make web-dist` writes: the page's own files, and nothing else."""

import functools
import http.client
import socket
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
WEB = PROJECT / "web"
sys.path.insert(0, str(WEB))

import serve  # noqa: E402


@pytest.fixture(scope="module")
def files():
    """What the page consists of, with stand-ins for what npm fetches."""
    found = dict.fromkeys(serve.LIBRARIES, b"library")
    return found | serve.own_files() | {"models.json": b"[]\n", "checkpoints/m/config.json": b"{}"}


@pytest.fixture(scope="module")
def port(files):
    handler = functools.partial(serve.Handler, files=files, quiet=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def ask(port, path, method="GET", **headers):
    """Return status, headers and content of an answer. The path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def test_the_page_and_its_files_are_served(port, files):
    status, headers, content = ask(port, "/")
    assert (status, content) == (200, (WEB / "index.html").read_bytes())
    assert headers["Content-Type"].startswith("text/html")
    for name in files:
        assert ask(port, f"/{name}")[0] == 200
        assert ask(port, f"/{name}", "HEAD")[2] == b""


@pytest.mark.parametrize("path", [
    "/serve.py", "/.gitignore", "/package.json", "/screenshot.jpg", "/node_modules/fflate/package.json", "/config.py",
    "/codec", "/codec/", "/vendor/", "/checkpoints/", "/checkpoints/m", "/images/", "/%00", "/index.html%00", "/index.html/",
    "/../config.py", "/codec/../../config.py", "//etc/passwd", "/checkpoints/m/../../config.py", "/%ff", "/%2e%2e/config.py",
])  # fmt: skip
def test_nothing_else_is_served(port, path):
    assert ask(port, path)[0] == 404


@pytest.mark.parametrize("path", ["/", "/app.js", "/nothing"])
def test_every_answer_has_the_headers_that_keep_strangers_out(port, path):
    headers = ask(port, path)[1]
    assert headers["X-Content-Type-Options"] == "nosniff"
    rules = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == "'none'" and rules["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert "unsafe-inline" not in str(rules) and "http" not in str(rules)


def test_the_page_itself_carries_the_policy_for_hosts_that_set_no_headers():
    policy = serve.HEADERS["Content-Security-Policy"].removesuffix("; frame-ancestors 'none'")  # which only a header can say
    text = (WEB / "index.html").read_text()
    assert f'content="{policy}"' in text
    assert "<script>" not in text and "style=" not in text and " on" + "click" not in text


@pytest.mark.parametrize(("host", "status"), [
    ("127.0.0.1", 200), ("localhost:9000", 200), ("[::1]:8000", 200),
    ("evil.example", 421), ("evil.example:8000", 421), ("127.0.0.1.evil.example", 421), ("localhost@evil.example:1", 421),
    ("", 421),
])  # fmt: skip
def test_only_this_machine_s_own_names_are_answered(port, host, status):
    assert ask(port, "/", Host=host)[0] == status


def test_a_copy_that_is_still_good_is_not_sent_again(port):
    tag = ask(port, "/app.js")[1]["ETag"]
    assert ask(port, "/app.js", If_None_Match=tag)[::2] == (304, b"")
    assert ask(port, "/app.js", If_None_Match='"other"')[0] == 200


def test_other_methods_are_refused(port):
    assert ask(port, "/", "POST")[0] == 501


def test_the_folder_for_other_hosts_has_exactly_the_page_s_files(files, tmp_path):
    serve.write_page(files, tmp_path / "dist")
    (tmp_path / "dist/models.json").write_text("older")
    serve.write_page(files, tmp_path / "dist")  # a page that is there is replaced
    written = {str(path.relative_to(tmp_path / "dist")) for path in (tmp_path / "dist").rglob("*") if path.is_file()}
    assert written == set(files)
    assert (tmp_path / "dist/models.json").read_bytes() == b"[]\n"


def test_a_folder_that_holds_something_else_is_not_replaced(files, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(serve.UserError, match="not a page"):
        serve.write_page(files, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_port_in_use_is_one_line(files, capsys, monkeypatch):
    monkeypatch.setattr(serve, "page_files", lambda checkpoints: files)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        assert serve.main(["--port", str(number)]) == 2
    error = capsys.readouterr().err
    assert f"error: port {number}: " in error and error.count("\n") == 1


@pytest.mark.parametrize("number", ["99999", "-1"])
def test_a_number_that_is_no_port_is_one_line(number, files, capsys, monkeypatch):
    monkeypatch.setattr(serve, "page_files", lambda checkpoints: files)
    assert serve.main([f"--port={number}"]) == 2
    assert capsys.readouterr().err.endswith(f"error: --port {number}: must be 0 to 65535\n")


def test_missing_models_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(serve, "LIBRARIES", {})
    assert serve.main(["--checkpoints", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith(f"error: {tmp_path}: no model there has ONNX graphs\n")


def test_serving_writes_nothing_into_the_project(tmp_path, monkeypatch):
    """So web/ may be read-only."""
    monkeypatch.setattr(serve, "LIBRARIES", {})
    before = {path: path.stat().st_mtime_ns for path in WEB.rglob("*") if "node_modules" not in path.parts}
    found = serve.page_files(PROJECT / "checkpoints")
    assert isinstance(found["models.json"], bytes)
    assert {path: path.stat().st_mtime_ns for path in before} == before
