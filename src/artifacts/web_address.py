"""Web addresses: their faults, and how they are shown without secrets."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

LOGIN_FAULT = "contains a user name or password, and recipes are shared"
LOGIN_FIX = "put them into ~/.netrc: machine HOST login USER password PASSWORD"

_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:@\[\]]*)(:\d*)?")


def shown_url(url: str) -> str:
    """Return the address without user name and password, with `***` for each query value and for the fragment.

    The result is for people: in errors, logs, progress, `doit list` and the journal. `url` may be malformed.
    """
    scheme, separator, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        rest = rest[len(authority.rpartition("@")[0]) + 1 :]
    elif not _HOST_AND_PORT.fullmatch(authority):  # a password with a '/', '?' or '#' in it
        rest = rest.rpartition("@")[2]
    rest, has_fragment, _ = rest.partition("#")
    rest, has_query, query = rest.partition("?")
    starred = "&".join(f"{name}=***" if equals else "***" for name, equals, _ in map(_named, re.split("[&;]", query)))
    return scheme + separator + rest + (f"?{starred}" if has_query and query else "") + ("#***" if has_fragment else "")


def _named(pair: str) -> tuple[str, str, str]:
    return pair.partition("=")


def without_secrets(text: str) -> str:
    """Return a text with each web address in it as `shown_url` shows it."""
    return re.sub(r"\S+", lambda match: _word_without_secrets(match.group()), text) if "://" in text else text


def _word_without_secrets(word: str) -> str:
    """Replace an address up to the end of its word, because a secret may contain quotes.

    Quotes and punctuation at the end belong to the sentence.
    """
    before, separator, rest = word.partition("://")
    if not separator:
        return word
    address = rest.rstrip("'\"`),.;:>]}")
    return before + shown_url(separator + address) + rest[len(address) :]


def url_fault(url: str) -> str | None:
    """Return the fault of a web address in words that follow its name, or None. No secret is quoted."""
    if not re.match(r"https?://", url):
        return "must begin with 'https://'"
    if any(ord(character) < 32 or ord(character) == 127 for character in url):
        return "contains a control character"
    if url != url.strip():
        return "ends with a space"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port  # reading the port checks it
    except ValueError:
        return "contains a host or port that is malformed"
    if "@" in parts.netloc:
        return LOGIN_FAULT
    if not host:
        return "names no host"
    if parts.netloc.startswith("["):
        return None
    labels = host.removesuffix(".").split(".")
    if re.search(r"[\s\\<>\"'`{}|^%,;]", host) or not all(0 < len(label) <= 63 for label in labels):
        return "contains a host or port that is malformed"
    return None
