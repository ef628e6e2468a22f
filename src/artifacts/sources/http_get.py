"""One GET over HTTP: redirects, logins, proxies, and a bound on how slowly the server may send.

A login is sent to its own host and to no other. The targets of redirects are checked.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import errno
import http.client
import logging
import netrc
import os
import re
import socket
import ssl
import string
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from artifacts.sources.watched_connection import HttpHandler, HttpsHandler, Watch
from artifacts.web_address import LOGIN_FAULT, LOGIN_FIX, shown_url, url_fault, without_secrets

log = logging.getLogger(__name__)

MOST_REDIRECTS = 10
CHUNK_BYTES = 1 << 18
SURPLUS_SECONDS = 1.0
REDIRECTS = (301, 302, 303, 307, 308)
LATER = (408, 425, 429, 500, 502, 503, 504)


class TransientError(Exception):
    """A failure that may pass. `pause_seconds` is the server's request; `is_reached` is False if no server answers."""

    def __init__(self, fact: str, pause_seconds: float | None = None, is_reached: bool = True) -> None:
        super().__init__(fact)
        self.fact = fact
        self.pause_seconds = pause_seconds
        self.is_reached = is_reached


class RefusedError(Exception):
    """A failure that no further try can overcome: the fact and the fix, as in an `ArtifactsError`."""

    def __init__(self, fact: str, fix: str) -> None:
        super().__init__(fact, fix)
        self.fact = fact
        self.fix = fix


class Answer:
    """A server's answer: status 200, 206 or (without a body) 416, its headers, and its body in chunks."""

    def __init__(self, status: int, headers: Message, response: http.client.HTTPResponse | None, watch: Watch) -> None:
        self.status = status
        self.headers = headers
        self._response = response
        self._watch = watch

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it arrives. Raises `TransientError` for a connection that breaks or is too slow.

        A body may end before its Content-Length; the caller compares the two.
        """
        while self._response is not None:
            with _network_errors(self._watch):
                chunk = _read(self._response)
            _check(self._watch)
            if not chunk:
                return
            self._watch.count(len(chunk))
            yield chunk

    def has_surplus(self) -> bool:
        """Return whether bytes follow the body: too small a Content-Length would cut them off."""
        if self._watch.sock is None or self._response is None or self._response.fp is None:
            return False
        self._watch.sock.settimeout(SURPLUS_SECONDS)  # the server need not close the connection
        try:
            return bool(self._response.fp.read(1))
        except OSError:
            return False


def _read(response: http.client.HTTPResponse) -> bytes:
    """Return the next bytes of a body; none at its end."""
    if response.chunked or response.length is None:
        return response.read1(CHUNK_BYTES)
    # From Python 3.13, read1() of the response closes the connection at the end: has_surplus() would find nothing.
    chunk = response.fp.read1(min(CHUNK_BYTES, response.length))
    response.length -= len(chunk)
    return chunk


@contextlib.contextmanager
def get(
    url: str, headers: Mapping[str, str], authorization: str | None, least_bytes: int, seconds: float
) -> Iterator[Answer]:
    """Open an address. The connection ends if the server sends fewer than `least_bytes` in `seconds`.

    Raises `TransientError` for a failure that may pass, else `RefusedError`. Their facts follow the file's name.
    """
    with contextlib.closing(Watch(least_bytes, seconds)) as watch:
        opener = urllib.request.OpenerDirector()  # urllib's default also follows redirects, and opens ftp: and data:
        for handler in (
            urllib.request.ProxyHandler(),
            HttpHandler(watch),
            HttpsHandler(watch),
            urllib.request.UnknownHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            opener.add_handler(handler)
        here = url
        for _ in range(MOST_REDIRECTS + 1):
            login = {"Authorization": authorization} if authorization and origin(here) == origin(url) else {}
            request = urllib.request.Request(_sendable(here), headers={**headers, **login})
            try:
                with _network_errors(watch):
                    response = opener.open(request, timeout=seconds)
            except urllib.error.HTTPError as error:
                with error:
                    target = error.headers.get("Location") if error.code in REDIRECTS else None
                    if target is not None:
                        here = followed(here, target)
                        continue
                    if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or "Range" not in headers:
                        raise _refusal(error, url, here) from None
                    yield Answer(error.code, error.headers, None, watch)
                    return
            with response:
                _check(watch)  # the library accepts headers that were cut off
                if response.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                    raise RefusedError(f"answers {response.status}, which is not a file", "correct the address")
                yield Answer(response.status, response.headers, response, watch)
                return
        raise RefusedError(f"redirects more than {MOST_REDIRECTS} times", "correct the address, or ask its owner")


def origin(url: str) -> tuple[str, str, int]:
    """Return the scheme, host and port that a login is for."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def login_for(url: str) -> str | None:
    """Return the Authorization header that `~/.netrc` (or the file that $NETRC names) gives for a host, or None."""
    file = Path(os.environ.get("NETRC") or os.path.expanduser("~/.netrc"))  # noqa: PTH111  # Path.home() raises for a user without a home
    try:
        entry = netrc.netrc(str(file)).hosts.get(urlsplit(url).hostname or "")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeError, netrc.NetrcParseError) as error:  # its text may quote a password
        line = f", line {error.lineno}" if isinstance(error, netrc.NetrcParseError) else ""
        log.warning("%s%s cannot be read, so no login is taken from it", file, line)
        return None
    if entry is None:
        return None
    login, _, password = entry
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


def followed(here: str, target: str) -> str:
    """Return the target of a redirect as an address. Raises `RefusedError` for one that must not be followed."""
    # The library reads headers as ISO 8859-1; this restores their bytes.
    target = quote(target, safe=string.punctuation, encoding="iso-8859-1", errors="replace")
    try:
        url = urljoin(here, target)
    except ValueError:
        url = target
    if fault := url_fault(url):
        raise RefusedError(f"redirects to '{shown_url(url)}', which {fault}", "correct the address, or ask its owner")
    if origin(here)[0] == "https" and origin(url)[0] != "https":
        raise RefusedError(f"redirects from https to '{shown_url(url)}'", "use an address that stays with https")
    return url


def _sendable(url: str) -> str:
    """Return the address in ASCII, without its fragment. Raises `RefusedError` if it is malformed."""
    if fault := url_fault(url):
        raise RefusedError(
            f"cannot be fetched: the address {fault}", LOGIN_FIX if fault == LOGIN_FAULT else "correct it"
        )
    parts = urlsplit(url)
    host = parts.netloc
    if not host.isascii():
        try:
            host = (parts.hostname or "").encode("idna").decode() + (f":{parts.port}" if parts.port else "")
        except UnicodeError:
            raise RefusedError(
                "cannot be fetched: the address contains a host that is malformed", "correct it"
            ) from None
    path, query = (_escaped(text) for text in (parts.path or "/", parts.query))
    return urlunsplit((parts.scheme, host, path, query, ""))


def _escaped(text: str) -> str:
    """Percent-encode the characters that no address may contain; those that are encoded already stay."""
    return re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", quote(text, safe="%/:@!$&'()*+,;=~?[]", errors="surrogatepass"))


def _refusal(error: urllib.error.HTTPError, url: str, here: str) -> Exception:
    where = f" at '{shown_url(here)}'" if here != url else ""
    fact = f"answers {error.code} {one_line(error.reason)}{where}"
    if error.code in LATER:
        return TransientError(fact, retry_after(error.headers))
    if error.code == HTTPStatus.UNAUTHORIZED:
        return RefusedError(fact, f"ask its owner for a login, then {LOGIN_FIX}")
    if error.code == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return RefusedError(fact, "correct the login of the proxy in the environment (https_proxy, http_proxy)")
    return RefusedError(fact, "correct the address, or ask its owner")


def retry_after(headers: Message | Mapping[str, str]) -> float | None:
    """Return the seconds that the server asks to wait, or None. The header contains a number or a date."""
    header = (headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"\d{1,9}", header):
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):  # a year of twenty digits
        return None


@contextlib.contextmanager
def _network_errors(watch: Watch) -> Iterator[None]:
    """Turn exceptions of the network's libraries into our errors. The block touches no file."""
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        _check(watch)
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            fix = "correct the address, or trust its certificate (SSL_CERT_FILE)"
            raise RefusedError(f"cannot be fetched: {one_line(cause.verify_message)}", fix) from None
        refused = isinstance(cause, (ConnectionRefusedError, socket.gaierror)) or (
            isinstance(cause, OSError) and cause.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH)
        )
        if isinstance(cause, http.client.IncompleteRead):
            raise TransientError("broke off before its last chunk") from None
        text = one_line(cause) or type(cause).__name__
        raise TransientError(f"cannot be fetched: {text}", is_reached=not refused) from None


def _check(watch: Watch) -> None:
    if watch.is_slow:
        raise TransientError(f"sends fewer than {watch.least_bytes} bytes in {watch.seconds:g} s")


def one_line(text: object) -> str:
    """Return a message of a library or a server as one short printable line, without secrets."""
    printable = "".join(character if character.isprintable() else " " for character in str(text))
    return without_secrets(" ".join(printable.split()))[:200]
