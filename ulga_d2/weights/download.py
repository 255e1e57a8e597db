"""Files from web servers, within limits of size and time.

A server can be slow, wrong or hostile. So nothing is waited for without an end, no more is kept
than was stated, and what is in the cache is whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib import error as url_error
from urllib import request
from urllib.parse import unquote, urlsplit

from detectron2.utils.file_io import PathHandler
from iopath.common.file_io import file_lock, get_cache_dir
from tqdm import tqdm

from ..errors import UserError

logger = logging.getLogger(__name__)

MOST_BYTES = 8 * 2**30  # of a file whose size nobody has stated
SECONDS_TO_ANSWER = 60  # until the first byte of the content can be read, redirects included
SECONDS_OF_SILENCE = 30
LEAST_RATE = 1024  # bytes a second, over RATE_SECONDS
RATE_SECONDS = 60
CHUNK = 2**18


class DownloadError(OSError):
    """A file cannot be had from a server; the message says why."""


def download(url: str, target: str | Path, *, size: int | None = None, most: int) -> None:
    """Write the content of a URL to a file, whole or not at all.

    Args:
        url: http or https.
        target: the file, which is replaced.
        size: of the content in bytes, if it is known.
        most: bytes that are accepted where it is not.

    Raises:
        DownloadError: the server does not answer, is too slow, redirects to a less safe place, or
            has more or less than it should; or the disk is full.
    """
    target = Path(target)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
    limit = most if size is None else size
    try:
        with contextlib.closing(_open_in_time(url)) as response, open(unfinished, "wb") as file:
            stated = _stated_length(response)
            _check_length(stated, size, limit)
            free = shutil.disk_usage(target.parent).free
            if (stated or 0) > free:
                raise OSError(errno.ENOSPC, f"{stated:,} bytes are needed, and {free:,} are free")
            count = _copy(response, file, url, stated if stated is not None else size, limit)
        wanted = size if size is not None else stated
        if wanted is not None and count < wanted:
            raise DownloadError(f"it ended after {count:,} of {wanted:,} bytes")
        os.replace(unfinished, target)
    except DownloadError:
        raise
    except (http.client.HTTPException, ValueError) as error:
        raise DownloadError(f"the server's answer is not HTTP: {error!r:.200}") from None
    except TimeoutError:
        raise DownloadError(f"the server sent nothing for {SECONDS_OF_SILENCE} s") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(f"the disk of {target.parent} is full ({error.strerror})") from None
        raise DownloadError(str(getattr(error, "reason", None) or error)) from None
    finally:
        unfinished.unlink(missing_ok=True)


def cached(url: str, *, size: int | None = None, force: bool = False) -> Path:
    """Bring the content of a URL here once, and return where it is.

    Args:
        url: http or https.
        size: of the content in bytes, if it is known; a file of another size is fetched again.
        force: fetch it even if it is here.

    Raises:
        DownloadError: see `download`.
    """
    path = _cache_path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(str(path)):
        is_here = path.is_file() and (size is None or path.stat().st_size == size)
        if force or not is_here:
            logger.info("downloading %s to %s", url, path)
            download(url, path, size=size, most=MOST_BYTES)
    return path


def _cache_path(url: str) -> Path:
    digest = hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:16]
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9._-]", "_", name)[-100:].lstrip(".") or "file"
    return Path(get_cache_dir()) / "ulga_d2" / digest / name


class _Redirects(request.HTTPRedirectHandler):
    """Follows redirects to web servers, and none from https to http."""

    def redirect_request(self, req: request.Request, *args: Any) -> request.Request | None:
        """Return the request to the new URL, the last of the arguments."""
        old, new = urlsplit(req.full_url).scheme, urlsplit(args[-1]).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            raise DownloadError(
                f"the server redirects from {old} to {new or 'no'}:, which is not followed"
            )
        return super().redirect_request(req, *args)


def _open_in_time(url: str) -> http.client.HTTPResponse:
    """Open a URL, or give up: headers that come byte by byte never reach a socket's timeout."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError("give an http:// or https:// URL")
    opener = request.build_opener(_Redirects)
    result: list[Any] = []

    def work() -> None:
        try:
            asked = request.Request(url, headers={"Accept-Encoding": "identity"})
            result.append(opener.open(asked, timeout=SECONDS_OF_SILENCE))
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(SECONDS_TO_ANSWER)
    if not result:
        raise DownloadError(f"the server did not answer within {SECONDS_TO_ANSWER} s")
    if isinstance(result[0], url_error.HTTPError):
        result[0].close()
        raise DownloadError(f"HTTP Error {result[0].code}: {str(result[0].reason)[:200]}")
    if isinstance(result[0], Exception):
        reason = getattr(result[0], "reason", None)
        raise reason if isinstance(reason, Exception) else result[0]
    return result[0]


def _stated_length(response: http.client.HTTPResponse) -> int | None:
    stated = response.headers.get("Content-Length", "").strip()
    return int(stated) if re.fullmatch(r"[0-9]{1,18}", stated) else None


def _check_length(stated: int | None, size: int | None, limit: int) -> None:
    if stated is None:
        return
    if size is not None and stated != size:
        raise DownloadError(f"the server has {stated:,} bytes, and {size:,} were stated")
    if stated > limit:
        raise DownloadError(f"the server has {stated:,} bytes, and {limit:,} are accepted")


def _copy(
    response: http.client.HTTPResponse, file: BinaryIO, url: str, total: int | None, limit: int
) -> int:
    """Copy a response to a file, with a bar on a terminal; return the number of bytes."""
    count = 0
    name = urlsplit(url).path.rpartition("/")[2][:40]
    with tqdm(total=total, unit="B", unit_scale=True, desc=name, disable=None) as bar:
        for chunk in _chunks(response):
            count += len(chunk)
            if count > limit:
                raise DownloadError(f"the server sends more than the {limit:,} bytes accepted")
            file.write(chunk)
            bar.update(len(chunk))
    return count


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    start, counted = time.monotonic(), 0
    while chunk := response.read1(CHUNK):
        yield chunk
        counted += len(chunk)
        seconds = time.monotonic() - start
        if seconds > RATE_SECONDS:
            if counted < LEAST_RATE * RATE_SECONDS:
                raise DownloadError(
                    f"the server sent {counted:,} bytes in {seconds:.0f} s, which is too slow"
                )
            start, counted = time.monotonic(), 0


class WebHandler(PathHandler):
    """Has detectron2's PathManager bring files from web servers here by `cached`."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["http://", "https://", "ftp://", "file://"]

    def _get_local_path(self, path: str, force: bool = False, **_: Any) -> str:
        return str(local_or_cached(path, force=force))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **_: Any) -> IO[Any]:
        return open(self._get_local_path(path), mode, buffering)


def local_or_cached(url: str, *, size: int | None = None, force: bool = False) -> Path:
    """Return where a file is, which is brought here if it is on a web server.

    Args:
        url: a path or a URL.
        size: see `cached`.
        force: see `cached`.

    Raises:
        UserError: a URL of another kind, with what to give instead.
        DownloadError: see `download`.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return Path(url)
    if scheme == "file":
        raise UserError(f"{url} is a URL of this machine; give the path itself: {unquote(rest)}")
    if scheme not in ("http", "https"):
        raise UserError(f"{url}: give a path, or an http:// or https:// URL")
    return cached(url, size=size, force=force)
