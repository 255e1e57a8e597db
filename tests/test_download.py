"""Web servers that are slow, wrong or hostile: each ends in a line, in time, with nothing kept."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from detectron2.utils.file_io import PathManager

from ulga_d2.errors import UserError
from ulga_d2.weights import download as module
from ulga_d2.weights.download import DownloadError, WebHandler, _Redirects, download
from ulga_d2.weights.load import read_plain
from ulga_d2.weights.zoo import MOST_INDEX, fetch, read_index

CONTENT = b"weights" * 1000
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A server on this machine whose pages are functions."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.sent = 0
        self.stopped = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                with contextlib.suppress(OSError):
                    outer.pages[self.path](self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def endless(self, handler: BaseHTTPRequestHandler, *, length: int | None = None) -> None:
        """Send bytes until the other side hangs up."""
        handler.send_response(200)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        while not self.stopped.is_set():
            handler.wfile.write(b"\0" * 2**16)
            self.sent += 2**16

    def drip(self, handler: BaseHTTPRequestHandler) -> None:
        """Send a byte now and then."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        while not self.stopped.wait(0.05):
            handler.wfile.write(b"w")

    def drip_headers(self, handler: BaseHTTPRequestHandler) -> None:
        """Never come to the end of the headers."""
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
        while not self.stopped.wait(0.05):
            handler.wfile.write(b"w")

    def silent(self, handler: BaseHTTPRequestHandler) -> None:
        """Send headers and half of the content, and nothing more."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:100])
        self.stopped.wait()

    def close(self) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()


def content(data: bytes, *, chunked: bool = False) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1" if chunked else "HTTP/1.0"
        handler.send_response(200)
        if chunked:
            handler.send_header("Transfer-Encoding", "chunked")
            handler.send_header("Connection", "close")
            handler.end_headers()
            handler.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
            return
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def redirect(url: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", url)
        handler.end_headers()

    return answer


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    server = Server()
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    yield server
    server.close()


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(module, "SECONDS_OF_SILENCE", 0.5)
    monkeypatch.setattr(module, "SECONDS_TO_ANSWER", 1)
    monkeypatch.setattr(module, "RATE_SECONDS", 1)


def put_zoo(server: Server, monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    entry = {
        "file": "tiny/tiny.safetensors",
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "bytes": len(CONTENT),
        "metrics": {},
        **changes,
    }
    index = json.dumps({"entries": {"tiny": entry}}).encode()
    server.pages["/zoo/index.json"] = content(index)
    server.pages.setdefault("/zoo/tiny/tiny.safetensors", content(CONTENT))
    monkeypatch.setenv("ULGA_ZOO", f"{server.url}/zoo")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_comes_whole_with_and_without_a_stated_length(server, tmp_path, chunked):
    server.pages["/x"] = content(CONTENT, chunked=chunked)
    download(f"{server.url}/x", tmp_path / "x", most=len(CONTENT))
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("drip", r"sent \d+ bytes in \d s, which is too slow"),
        ("drip_headers", "did not answer within 1 s"),
        ("silent", "sent nothing for 0.5 s"),
        ("endless", "sends more than the 10,000 bytes accepted"),
    ],
)
def test_a_server_that_never_ends_is_left(server, tmp_path, impatient, page, told):
    server.pages["/x"] = getattr(server, page)
    (tmp_path / "x").write_bytes(b"before")
    start = time.monotonic()
    with pytest.raises(DownloadError, match=told):
        download(f"{server.url}/x", tmp_path / "x", most=10_000)
    assert time.monotonic() - start < 6
    assert server.sent < 32 * 2**20  # what the sockets hold at most
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"before"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda handler: handler.wfile.write(b"\0\1\2 garbage\r\n\r\n"), "is not HTTP|BadStatus"),
        (lambda handler: handler.wfile.write(b""), "Remote end closed|is not HTTP"),
        (lambda handler: handler.send_error(404), "HTTP Error 404"),
        (lambda handler: handler.wfile.write(
            b"HTTP/1.0 200 OK\r\n" + b"A: b\r\n" * 500), "is not HTTP"),
        (lambda handler: handler.wfile.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "is not HTTP"),
        (redirect("file:///etc/passwd"), "redirects from http to file|not allowed"),
        (redirect("ftp://127.0.0.1/x"), "redirects from http to ftp"),
        (redirect("/x"), "redirect error|infinite loop"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_named(server, tmp_path, answer, told):
    server.pages["/x"] = answer
    with pytest.raises(DownloadError, match=told):
        download(f"{server.url}/x", tmp_path / "x", most=10_000)
    assert not list(tmp_path.glob("x*"))


def test_no_redirect_leads_from_https_to_http():
    request = module.request.Request("https://a.org/x")
    with pytest.raises(DownloadError, match="redirects from https to http"):
        _Redirects().redirect_request(request, None, 302, "", {}, "http://a.org/x")
    followed = _Redirects().redirect_request(request, None, 302, "", {}, "https://b.org/x")
    assert followed.full_url == "https://b.org/x"


@pytest.mark.parametrize("length", [None, 3 * 2**30])
def test_a_zoo_cannot_send_more_than_its_index_states(server, monkeypatch, tmp_path, length):
    server.pages["/zoo/tiny/tiny.safetensors"] = lambda handler: server.endless(
        handler, length=length
    )
    put_zoo(server, monkeypatch)
    with pytest.raises(UserError, match=r"tiny\.safetensors cannot be had: the server (has|sends)"):
        fetch("tiny")
    assert server.sent < 32 * 2**20
    assert not [path for path in (tmp_path / "cache").rglob("tiny*") if ".lock" not in path.name]


def test_a_file_of_another_length_than_the_index_states_is_refused(server, monkeypatch):
    server.pages["/zoo/tiny/tiny.safetensors"] = content(CONTENT[:-1])
    put_zoo(server, monkeypatch)
    with pytest.raises(UserError, match=r"has 6,999 bytes, and 7,000 were stated"):
        fetch("tiny")


def test_a_sha256_in_capitals_is_the_same(server, monkeypatch):
    put_zoo(server, monkeypatch, sha256=hashlib.sha256(CONTENT).hexdigest().upper())
    assert fetch("tiny").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "changes",
    [{"sha256": "ab"}, {"sha256": 5}, {"bytes": "7"}, {"bytes": -1}, {"bytes": True},
     {"file": "a\0b"}, {"file": ["x"]}, {"file": "a" * 10_000}, {"metrics": []}],
    ids=str,
)  # fmt: skip
def test_an_entry_that_states_nonsense_is_named(server, monkeypatch, changes):
    put_zoo(server, monkeypatch, **changes)
    with pytest.raises(UserError, match=r"is no index of a zoo: .*tiny|AttributeError"):
        fetch("tiny")


@pytest.mark.parametrize(
    "index",
    [b"[" * 200_000, b'{"entries":' * 50_000, b"\xff", b'{"entries": ' + b"9" * 5000 + b"}"],
)
def test_an_index_without_end_is_named(server, index):
    server.pages["/zoo/index.json"] = content(index)
    with pytest.raises(UserError, match="is no index of a zoo"):
        read_index(f"{server.url}/zoo")


def test_an_index_that_is_too_long_is_not_read(server, tmp_path):
    server.pages["/zoo/index.json"] = server.endless
    with pytest.raises(UserError, match=f"sends more than the {MOST_INDEX:,} bytes accepted"):
        read_index(f"{server.url}/zoo")
    (tmp_path / "index.json").write_bytes(b" " * (MOST_INDEX + 1))
    with pytest.raises(UserError, match="is no index of a zoo: .*more than"):
        read_index(str(tmp_path))


def test_a_full_disk_is_named_before_and_while_writing(server, tmp_path, monkeypatch):
    server.pages["/x"] = content(CONTENT)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=100))
        with pytest.raises(DownloadError, match=r"is full \(7,000 bytes are needed, and 100 are"):
            download(f"{server.url}/x", tmp_path / "x", most=10_000)
    if Path("/dev/full").exists():
        monkeypatch.setattr(module, "open", lambda *_: open("/dev/full", "wb"), raising=False)
        with pytest.raises(DownloadError, match=r"is full \(No space left on device\)"):
            download(f"{server.url}/x", tmp_path / "x", most=10_000)


def test_weights_by_url_come_by_the_same_way_and_once(server):
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2)}, buffer)
    server.pages["/a/x.pth?token=1"] = content(buffer.getvalue())
    for _ in range(2):
        assert torch.equal(read_plain(f"{server.url}/a/x.pth?token=1")["a"], torch.ones(2))
    assert server.asked == ["/a/x.pth?token=1"]
    assert isinstance(PathManager._PathManager__get_path_handler("https://a.org"), WebHandler)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("file:///data/a%20b.pth", r"give the path itself: /data/a b\.pth"),
        ("ftp://a.org/x.pth", "give a path, or an http:// or https:// URL"),
        ("http:///x.pth", "no host given"),
        ("http://[/x.pth", "Invalid IPv6 URL"),
    ],
)
def test_a_url_of_another_kind_is_refused_with_what_to_give(url, told, monkeypatch, tmp_path):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=told):
        read_plain(url)
