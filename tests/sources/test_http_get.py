from __future__ import annotations

import base64
import functools
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from artifacts.sources.http_get import MOST_REDIRECTS, RefusedError, TransientError, get, login_for, one_line, origin
from small_server import CERTIFICATE, FileServer


def fetched(url: str, authorization: str | None = None) -> bytes:
    """Return the body of an address."""
    with get(url, {}, authorization, 1, 5.0) as answer:
        return b"".join(answer.chunks())


def refusal(url: str, authorization: str | None = None) -> RefusedError:
    """Return the error of an address that is refused."""
    with pytest.raises(RefusedError) as caught:
        fetched(url, authorization)
    assert "secret" not in caught.value.fact + caught.value.fix
    return caught.value


def redirect(server: FileServer, path: str, target: str, status: int = 302) -> str:
    """Let a path of the server redirect, and return its address."""
    server.answers[path] = (status, {"Location": target})
    return server.address + path


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No one's ~/.netrc, and this certificate."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_on_the_same_host_with_the_login(server: FileServer, status: int) -> None:
    server.files["/b c/ü"] = b"never asked for like this"
    server.files["/b%20c/%C3%BC?x=1"] = b"data"
    url = redirect(server, "/a", "b c/%C3%BC?x=1#part", status)
    assert fetched(url, "Basic secret") == b"data"
    assert [one.token for one in server.asked] == ["Basic secret"] * 2


def test_a_redirect_in_raw_bytes_is_followed(server: FileServer) -> None:
    server.files["/%C3%BC"] = b"data"
    server.raw["/a"] = lambda write: write(b"HTTP/1.1 302 Found\r\nLocation: /\xc3\xbc\r\nContent-Length: 0\r\n\r\n")
    assert fetched(server.address + "/a") == b"data"


@pytest.mark.parametrize("how", ["another port", "another name"])
def test_a_login_does_not_follow_to_another_host_and_comes_back_to_its_own(
    server: FileServer, other_server: FileServer, how: str
) -> None:
    there = other_server if how == "another port" else server
    address = there.address if how == "another port" else server.address.replace("127.0.0.1", "localhost")
    there.files["/b"] = b"data"
    assert fetched(redirect(server, "/a", f"{address}/b"), "Basic secret") == b"data"
    assert server.gets("/a")[0].token == "Basic secret"
    assert there.gets("/b")[0].token is None
    server.files["/c"] = b"home"
    redirect(there, "/back", f"{server.address}/c")
    assert fetched(redirect(server, "/a", f"{address}/back"), "Basic secret") == b"home"
    assert (there.gets("/back")[0].token, server.gets("/c")[0].token) == (None, "Basic secret")


def test_https_is_fetched_and_not_left_for_http(tls_server: FileServer, server: FileServer) -> None:
    tls_server.files["/a"] = bytes(range(256)) * 5000
    assert fetched(f"{tls_server.address}/a") == tls_server.files["/a"]
    server.files["/b"] = b"data"
    error = refusal(redirect(tls_server, "/down", f"{server.address}/b?key=secret"))
    assert error.fact == f"redirects from https to '{server.address}/b?key=***'"
    assert error.fix == "use an address that stays with https"
    assert server.asked == []


def test_http_is_left_for_https_without_the_login(tls_server: FileServer, server: FileServer) -> None:
    tls_server.files["/a"] = b"data"
    assert fetched(redirect(server, "/up", f"{tls_server.address}/a"), "Basic secret") == b"data"
    assert [one.token for one in tls_server.asked] == [None]


def test_a_certificate_that_is_not_trusted_is_not_tried_again(
    tls_server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    error = refusal(f"{tls_server.address}/a")
    assert error.fact.startswith("cannot be fetched: self")
    assert "SSL_CERT_FILE" in error.fix


def test_the_connection_to_a_slow_server_ends_over_https_as_well(tls_server: FileServer) -> None:
    def drip(write: object) -> None:
        assert callable(write)
        write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1000):  # 20 s
            write(b"x")
            time.sleep(0.02)

    tls_server.raw["/a"] = drip
    started = time.monotonic()
    with (
        pytest.raises(TransientError, match=r"sends fewer than 500 bytes in 0.3 s"),
        get(f"{tls_server.address}/a", {}, None, 500, 0.3) as answer,
    ):
        list(answer.chunks())
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("file:///etc/passwd", "'file:///etc/passwd', which must begin with 'https://'"),
        ("ftp://host/x?key=secret", "'ftp://host/x?key=***', which must begin with 'https://'"),
        ("data:text/plain,hello", "'data:text/plain,hello', which must begin with 'https://'"),
        ("gopher:x", "'gopher:x', which must begin with 'https://'"),
        ("http://user:secret@host/x", "'http://host/x', which contains a user name or password"),
        ("http://[::1/x", "'http://[::1/x', which contains a host or port that is malformed"),
        ("https:///x", "'https:///x', which names no host"),
        ("http://host:port/x", "'http://host:port/x', which contains a host or port that is malformed"),
    ],
)
def test_a_redirect_to_what_is_not_the_web_is_refused(server: FileServer, target: str, shown: str) -> None:
    assert refusal(redirect(server, "/a", target)).fact.startswith(f"redirects to {shown}")


def test_redirects_are_bounded(server: FileServer) -> None:
    error = refusal(redirect(server, "/a", "/a"))
    assert error.fact == f"redirects more than {MOST_REDIRECTS} times"
    assert len(server.asked) == MOST_REDIRECTS + 1
    for number in range(MOST_REDIRECTS):
        redirect(server, f"/{number}", f"/{number + 1}")
    server.files[f"/{MOST_REDIRECTS}"] = b"data"
    assert fetched(f"{server.address}/0") == b"data"


def test_a_refusal_after_a_redirect_says_where(server: FileServer, other_server: FileServer) -> None:
    error = refusal(redirect(server, "/a", f"{other_server.address}/gone?key=secret"))
    assert error.fact == f"answers 404 Not Found at '{other_server.address}/gone?key=***'"


def test_a_login_is_that_of_the_host_in_netrc(server: FileServer, tmp_path: Path) -> None:
    assert login_for(f"{server.address}/a") is None
    (tmp_path / ".netrc").write_text("default login any password thing\nmachine 127.0.0.1 login me password se:cret\n")
    expected = "Basic " + base64.b64encode(b"me:se:cret").decode()
    assert login_for(f"{server.address}/a") == expected
    assert login_for(server.address.replace("127.0.0.1", "localhost")) is None, "no login is for every host"


def test_netrc_names_another_file_and_a_broken_one_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "logins"))
    assert login_for("https://host/a") is None
    (tmp_path / "logins").write_text("machine host login me password secret\n")
    assert login_for("https://HOST:8080/a") == "Basic " + base64.b64encode(b"me:secret").decode()
    (tmp_path / "logins").write_text("machine host login me\npassword my secret\n")
    assert login_for("https://host/a") is None
    assert f"{tmp_path}/logins, line " in caplog.text
    assert "secret" not in caplog.text
    monkeypatch.setenv("NETRC", str(tmp_path))
    assert login_for("https://host/a") is None
    assert f"{tmp_path} cannot be read, so no login is taken from it" in caplog.text


def test_the_fix_for_a_missing_login_is_netrc(server: FileServer) -> None:
    server.answers["/a"] = (401, {"WWW-Authenticate": 'Basic realm="x"'})
    assert "~/.netrc" in refusal(f"{server.address}/a").fix


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str | None]]]:
    """A proxy with its own answers, and the requests that it got."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Proxy-Authorization")))
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"proxy")

        def do_CONNECT(self) -> None:
            asked.append((self.path, self.headers.get("Proxy-Authorization")))
            self.send_error(407)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=functools.partial(httpd.serve_forever, 0.05))
    thread.start()
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://me:secret@127.0.0.1:{httpd.server_address[1]}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    yield asked
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_proxies_of_the_environment_are_used(proxy: list[tuple[str, str | None]], server: FileServer) -> None:
    login = "Basic " + base64.b64encode(b"me:secret").decode()
    assert fetched("http://nowhere.invalid/a?x=1") == b"proxy"
    with pytest.raises(TransientError, match="407") as caught:
        fetched("https://nowhere.invalid/a")
    assert "secret" not in caught.value.fact
    assert proxy == [("http://nowhere.invalid/a?x=1", login), ("nowhere.invalid:443", login)]


def test_a_host_without_a_proxy_is_asked_itself(
    proxy: list[tuple[str, str | None]], server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.files["/a"] = b"data"
    assert fetched(f"{server.address}/a") == b"data"
    assert proxy == []


def test_ipv6_is_supported(server: FileServer) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndata")

    with listener:
        thread = threading.Thread(target=answer)
        thread.start()
        assert fetched(f"http://[::1]:{listener.getsockname()[1]}/a") == b"data"
        thread.join()


def test_an_origin_is_scheme_host_and_port() -> None:
    assert origin("https://HOST/a") == origin("https://host:443/b") == ("https", "host", 443)
    assert len({origin(url) for url in ("http://h/", "https://h/", "https://h:8443/", "https://g/")}) == 4


def test_what_others_say_is_one_short_line_without_secrets() -> None:
    assert one_line("a\n b\x1b[0m 'https://u:secret@host/x?k=secret'\r\n") == "a b [0m 'https://host/x?k=***'"
    assert len(one_line("x" * 1000)) == 200
