"""Real HTTP servers on the loopback: files with ranges and ETags, faults on demand, and the headers of the hub."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

# A certificate for localhost and 127.0.0.1 with its key, trusted by tests that set SSL_CERT_FILE to it.
CERTIFICATE = Path(__file__).parent / "localhost.pem"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Asked(NamedTuple):
    """One request, as it came in."""

    method: str
    path: str
    range: str | None
    token: str | None
    headers: dict[str, str] = {}  # noqa: RUF012  # names in lower case


class FileServer:
    """What is served, what goes wrong, and what was asked for."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.any_path: bytes | None = None  # the file at every path that has none
        self.answers: dict[str, tuple[int, dict[str, str]]] = {}  # path: status and headers, instead of the file
        self.once: dict[str, list[tuple[int, dict[str, str]]]] = {}  # the same, for the next requests only
        self.raw: dict[str, Callable[[Callable[[bytes], object]], object]] = {}  # what a GET writes, headers included
        self.extra: dict[str, str] = {}  # headers of every file
        self.break_after: list[int] = []  # the next answers to GET end after so many bytes
        self.after_break: tuple[int, dict[str, str]] | None = None  # the answer to all requests after a break
        self.ignores_if_range = False
        self.moves: dict[str, bytes] = {}  # what is at a path after it was first asked for
        self.pause_seconds = 0.0  # between two pieces of a file
        self.asked: list[Asked] = []

    def gets(self, path: str) -> list[Asked]:
        """The GETs of one path."""
        return [one for one in self.asked if one.method == "GET" and one.path == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: FileServer

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        wanted = self.headers.get("Range")
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.served.asked.append(Asked(self.command, self.path, wanted, self.headers.get("Authorization"), headers))
        if self.path in self.served.raw and with_body:
            self.close_connection = True
            with contextlib.suppress(ConnectionError, ssl.SSLError):  # the client may have gone
                self.served.raw[self.path](self.wfile.write)
            return
        if self.served.once.get(self.path):
            status, headers = self.served.once[self.path].pop(0)
            self._head(status, headers | {"Content-Length": "0"})
            return
        if self.served.any_path is not None:
            self.served.files.setdefault(self.path, self.served.any_path)
        if self.path in self.served.answers or self.path not in self.served.files:
            status, headers = self.served.answers.get(self.path, (404, {}))
            self._head(status, headers | {"Content-Length": "0"})
            return
        data = self.served.files[self.path]
        self.served.files[self.path] = self.served.moves.pop(self.path, data)
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        headers = {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"} | self.served.extra
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        said = self.headers.get("If-Range", headers["ETag"])
        if said not in (headers["ETag"], headers.get("Last-Modified")) and not self.served.ignores_if_range:
            start = 0
        if start and start >= len(data):
            self._head(416, headers | {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._head(206 if start else 200, headers | {"Content-Length": str(len(data) - start)})
        if with_body:
            self._send(data[start:])

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, data: bytes) -> None:
        allowed = self.served.break_after.pop(0) if self.served.break_after else len(data)
        with contextlib.suppress(ConnectionError):  # the client may be killed
            for start in range(0, allowed, 1 << 14):
                self.wfile.write(data[start : min(start + (1 << 14), allowed)])
                time.sleep(self.served.pause_seconds)
        if allowed < len(data):
            self.close_connection = True
            if self.served.after_break is not None:
                self.served.once[self.path] = [self.served.after_break] * 9

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class calls it so
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server of no files yet."""
    with _serving("http") as served:
        yield served


@pytest.fixture
def other_server() -> Iterator[FileServer]:
    """A second one, at another port: another host, to a client that guards a login."""
    with _serving("http") as served:
        yield served


@pytest.fixture
def tls_server() -> Iterator[FileServer]:
    """A server that speaks https, with CERTIFICATE."""
    with _serving("https") as served:
        yield served


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients break off on purpose."""


@contextlib.contextmanager
def _serving(scheme: str) -> Iterator[FileServer]:
    httpd = _Server(("127.0.0.1", 0), _Handler)
    if scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    served = FileServer(f"{scheme}://127.0.0.1:{httpd.server_address[1]}")
    httpd.RequestHandlerClass = type("Handler", (_Handler,), {"served": served})
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield served
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
