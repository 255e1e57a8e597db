"""A zoo behind a real HTTP server: cuts, wrong files, redirects, nothing there."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ulga_d2.errors import UserError
from ulga_d2.weights.zoo import fetch, read_index

CONTENT = b"weights" * 1000
FILE = "/zoo/tiny/tiny-0.safetensors"


@dataclass
class Site:
    """What the server gives, and what it was asked for."""

    url: str = ""
    pages: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    cut: int = 0  # answers that end in the middle
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def site(tmp_path, monkeypatch) -> Iterator[Site]:
    """Serve a zoo of one file on this machine, with an empty cache."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            if self.path in site.redirects:
                self.send_response(302)
                self.send_header("Location", site.redirects[self.path])
                self.end_headers()
                return
            content = site.pages.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.path == FILE and site.cut:
                site.cut -= 1
                content = content[: len(content) // 2]
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    site.pages[FILE] = CONTENT
    put_index(site, CONTENT)
    monkeypatch.setenv("ULGA_ZOO", f"{site.url}/zoo/")
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    yield site
    server.shutdown()
    server.server_close()


def put_index(site: Site, content: bytes) -> None:
    entry = {
        "file": FILE.removeprefix("/zoo/"),
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "metrics": {},
    }
    site.pages["/zoo/index.json"] = json.dumps({"entries": {"tiny": entry}}).encode()


def test_a_file_is_fetched_once_and_then_remembered(site):
    first = fetch("tiny")
    assert first.read_bytes() == CONTENT
    assert fetch("tiny") == first
    assert site.asked.count(FILE) == 1


def test_a_download_that_is_cut_is_told_and_another_try_works(site):
    site.cut = 1
    with pytest.raises(UserError, match=r"tiny-0\.safetensors cannot be had: .*try again"):
        fetch("tiny")
    assert fetch("tiny").read_bytes() == CONTENT


def test_a_file_that_is_not_the_one_of_the_index_is_fetched_again_and_then_refused(site):
    site.pages[FILE] = b"another" * 1000
    with pytest.raises(UserError, match="is not the file of the zoo's index: its sha256 is"):
        fetch("tiny")
    assert site.asked.count(FILE) == 2


def test_a_remembered_file_that_was_damaged_is_fetched_again(site):
    fetch("tiny").write_bytes(b"damaged")
    assert fetch("tiny").read_bytes() == CONTENT
    assert site.asked.count(FILE) == 2


def test_a_changed_index_is_seen_at_once(site):
    assert "more" not in read_index(f"{site.url}/zoo")
    index = json.loads(site.pages["/zoo/index.json"])
    index["entries"]["more"] = index["entries"]["tiny"]
    site.pages["/zoo/index.json"] = json.dumps(index).encode()
    assert "more" in read_index(f"{site.url}/zoo")


def test_a_redirect_is_followed(site):
    site.pages["/elsewhere"] = site.pages.pop(FILE)
    site.redirects[FILE] = f"{site.url}/elsewhere"
    assert fetch("tiny").read_bytes() == CONTENT


@pytest.mark.parametrize("page", [FILE, "/zoo/index.json"])
def test_a_page_that_is_not_there_is_named_with_the_servers_answer(site, page):
    del site.pages[page]
    with pytest.raises(UserError, match=rf"{page} cannot be had: HTTP Error 404.*ULGA_ZOO"):
        fetch("tiny")


def test_a_server_that_does_not_answer_is_named(site, monkeypatch):
    monkeypatch.setenv("ULGA_ZOO", "http://127.0.0.1:9/zoo")
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/zoo/index\.json cannot be had"):
        fetch("tiny")


def test_the_hub_is_asked_by_its_own_client_or_named_where_it_is_missing(monkeypatch, tmp_path):
    from ulga_d2.weights import hub

    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs huggingface_hub: pip install 'ulga_d2\[hub\]'"):
        hub.local_path("hf://owner/repository/x.safetensors")

    class Client:
        @staticmethod
        def hf_hub_download(repository: str, path: str) -> str:
            return f"{repository}|{path}"

    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", Client)
    assert hub.local_path("hf://owner/repository/a/b") == "owner/repository|a/b"
    with pytest.raises(UserError, match="give hf://OWNER/REPOSITORY/PATH"):
        hub.local_path("hf://owner/repository")
