"""HTTP connections that end when too little comes over them, down to a server that sends a byte a minute.

A socket's own timeout begins anew with each byte, and a header or a chunk's length may come byte by byte as well.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import urllib.request


class Watch:
    """Ends the connection `sock` when it brings fewer than `least_bytes` in `seconds`."""

    def __init__(self, least_bytes: int, seconds: float) -> None:
        self.sock: socket.socket | None = None
        self.least_bytes = least_bytes
        self.seconds = seconds
        self._came = 0
        self.is_slow = False
        self._ended = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def count(self, size: int) -> None:
        """Note bytes that came."""
        self._came += size

    def close(self) -> None:
        """Stop watching."""
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(self.seconds):
            came, self._came = self._came, 0
            if self.sock is not None and came < self.least_bytes:
                self.is_slow = True
                with contextlib.suppress(OSError):  # it broke at the same moment
                    # Not SSLSocket's own method, which takes TLS away from under the reader.
                    socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
                return


class HttpHandler(urllib.request.HTTPHandler):
    """Opens http: addresses, watched."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Called by urllib."""
        watch = self._watch

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                watch.sock = self.sock

        return self.do_open(Connection, req)


class HttpsHandler(urllib.request.HTTPSHandler):
    """Opens https: addresses, watched."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Called by urllib."""
        watch = self._watch

        class Connection(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                watch.sock = self.sock

        return self.do_open(Connection, req)
