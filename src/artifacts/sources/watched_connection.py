"""HTTP connections that end when too few bytes arrive, even from a server that sends a byte a minute.

A socket's own timeout begins anew with each byte. A header or a chunk's length may arrive byte by byte as well.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import urllib.request


class Watch:
    """End the connection `sock` when it brings fewer than `least_bytes` in `seconds`."""

    def __init__(self, least_bytes: int, seconds: float) -> None:
        self.sock: socket.socket | None = None
        self.least_bytes = least_bytes
        self.seconds = seconds
        self._arrived = 0
        self.is_slow = False
        self._ended = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def count(self, size: int) -> None:
        """Count bytes that arrived."""
        self._arrived += size

    def close(self) -> None:
        """Stop watching."""
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(self.seconds):
            arrived, self._arrived = self._arrived, 0
            if self.sock is not None and arrived < self.least_bytes:
                self.is_slow = True
                with contextlib.suppress(OSError):  # the connection broke at the same moment
                    # Not SSLSocket's own method: it removes TLS while the reader still uses it.
                    socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
                return


class HttpHandler(urllib.request.HTTPHandler):
    """urllib's handler of http: addresses, with a watch."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Open an address; urllib calls this."""
        watch = self._watch

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                watch.sock = self.sock

        return self.do_open(Connection, req)


class HttpsHandler(urllib.request.HTTPSHandler):
    """urllib's handler of https: addresses, with a watch."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Open an address; urllib calls this."""
        watch = self._watch

        class Connection(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                watch.sock = self.sock

        return self.do_open(Connection, req)
