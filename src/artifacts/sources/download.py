"""Downloads that resume where they broke off, and are compared with what their server says of the file.

A download's folder contains `part` and `validator` (the server's name for this version of the file) until every byte
has arrived, then `whole`. A part without a validator cannot be continued.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from artifacts.digest import digest_file
from artifacts.errors import StoreError, disk_error
from artifacts.sources.http_get import Answer, RefusedError, TransientError, get, login_for
from artifacts.sources.http_response import PartialFile, beginning_of, fix_for_page, length_of, page_fault, validator_of
from artifacts.web_address import shown_url

log = logging.getLogger(__name__)

# Progress callback of a download or a step: message, number done, number in all; None for an unknown number.
ProgressCallback = Callable[[str, int | None, int | None], None]

FETCHING = "fetching, bytes"
TRY_AGAIN = "check the network, then run again; the download continues where it stopped"


@dataclass(frozen=True)
class Patience:
    """Bounds on a slow server and on the number of tries.

    A connection with fewer than `least_bytes` in `seconds` is closed. A try that adds fewer than `least_bytes` to the
    download is fruitless. After `tries` fruitless ones in a row, or `all_tries`, the download fails. Pauses double from
    `pause_seconds` on. A server may ask for longer ones; more than `longest_pause_seconds` ends the download.
    """

    least_bytes: int = 1 << 15
    seconds: float = 60.0
    tries: int = 5
    all_tries: int = 50
    pause_seconds: float = 1.0
    longest_pause_seconds: float = 300.0


PATIENT = Patience()


@dataclass(frozen=True)
class RemoteFile:
    """Address of a file, login for its host, and its size and sha256 where known."""

    url: str
    authorization: str | None = None
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class DownloadedFile:
    """A downloaded file. `is_whole` is False if no server said its length: it may be cut off.

    `commit` is the one of a hub's repository that the file is of.
    """

    path: Path
    sha256: str
    is_whole: bool
    commit: str | None = None


def download_url(
    url: str, folder: Path, progress: ProgressCallback, pin: str | None = None, patience: Patience = PATIENT
) -> DownloadedFile:
    """Fetch `url` into `folder`. A file with the sha256 `pin` is accepted, whatever its server says of it.

    Raises `StoreError` if it cannot be fetched, or if a page or a Git LFS pointer comes instead of the file.
    """
    remote = RemoteFile(url, login_for(url))
    name = PurePosixPath(urlsplit(url).path).name
    shown = f"'{shown_url(url)}'"
    return Download(shown, name, fix_for_page(url), lambda: remote, folder, pin, patience).fetch(progress)


@dataclass(frozen=True)
class _Body:
    """A body that was received to its end; `doubt` says why it may not be the file."""

    path: Path
    is_whole: bool
    content_type: str = ""
    doubt: str | None = None


@dataclass(frozen=True)
class Download:
    """One file to fetch: its name in errors, its own name, and the fix if a page comes instead of it.

    `locate` is called before each try, because an address may expire.
    """

    shown: str
    file_name: str
    page_fix: str
    locate: Callable[[], RemoteFile]
    folder: Path
    pin: str | None
    patience: Patience

    def fetch(self, progress: ProgressCallback) -> DownloadedFile:
        """Fetch the file in as many tries as `patience` allows, and compare it. Raises `StoreError`."""
        part, patience = self.folder / "part", self.patience
        furthest, fruitless = _size(part), 0
        for attempt in range(1, patience.all_tries + 1):
            try:
                remote = self.locate()
                return self._compared(self._try(remote, progress), remote)
            except RefusedError as error:
                raise StoreError(f"{self.shown} {error.fact}", error.fix) from None
            except TransientError as error:
                reached = _size(part)
                fruitless = 0 if reached >= furthest + patience.least_bytes else fruitless + 1
                furthest = max(furthest, reached)
                is_last = fruitless >= patience.tries or attempt == patience.all_tries
                if is_last or not (error.is_reached or reached):
                    tries = f" ({attempt} tries)" if attempt > 1 else ""
                    raise StoreError(f"{self.shown} {error.fact}{tries}", TRY_AGAIN) from None
                self._pause(error, fruitless, progress)
        raise AssertionError("the last try returns or raises")

    def _pause(self, error: TransientError, fruitless: int, progress: ProgressCallback) -> None:
        seconds = self.patience.pause_seconds * 2 ** max(fruitless - 1, 0) * random.uniform(0.5, 1)
        if error.pause_seconds is not None:
            seconds = error.pause_seconds
        if seconds > self.patience.longest_pause_seconds:
            fact = f"{self.shown} {error.fact}, and asks to wait {seconds:.0f} s"
            raise StoreError(fact, "wait that long, then run again; the download continues where it stopped") from None
        log.warning("%s %s; it is tried again in %.1f s", self.shown, error.fact, seconds)
        progress(f"{error.fact}; tried again in {seconds:.0f} s", None, None)
        time.sleep(seconds)

    def _try(self, remote: RemoteFile, progress: ProgressCallback) -> _Body:
        """Make one request; a second one if the server has another version of the file than the part."""
        whole = self.folder / "whole"
        if whole.exists():  # an earlier run was killed before it moved the file
            sha256 = self.pin or remote.sha256
            if sha256 is None or digest_file(whole) == sha256:
                return _Body(whole, is_whole=True)
            whole.unlink()
        while True:
            partial = self._partial_file(remote)
            headers = {"Accept-Encoding": "identity"}
            if partial is not None:
                headers |= {"Range": f"bytes={partial.size}-", "If-Range": partial.validator}
            limits = self.patience.least_bytes, self.patience.seconds
            with get(remote.url, headers, remote.authorization, *limits) as answer:
                begins_at = beginning_of(answer, partial)
                if begins_at is not None:
                    return self._receive(answer, begins_at, remote, progress)
            self._forget()

    def _receive(self, answer: Answer, begins_at: int, remote: RemoteFile, progress: ProgressCallback) -> _Body:
        """Write a body to the part, from `begins_at` on, and rename it once it is certainly whole."""
        part, validator_file, whole = (self.folder / name for name in ("part", "validator", "whole"))
        length, is_chunked = length_of(answer, begins_at)
        expected = length if length is not None else remote.bytes
        with _disk_errors(self.folder):
            if begins_at == 0:
                part.unlink(missing_ok=True)  # before a validator names another version
            validator = validator_of(answer.headers)
            if validator:
                validator_file.write_text(json.dumps({"validator": validator, "total": expected}))
            else:
                validator_file.unlink(missing_ok=True)
            with part.open("ab") as file:
                for chunk in answer.chunks():
                    file.write(chunk)
                    progress(FETCHING, file.tell(), expected)
                    if expected is not None and file.tell() > expected:
                        break
                arrived = file.tell()
        if expected is not None and arrived < expected:
            raise TransientError(f"broke off after {arrived} of {expected} bytes")
        is_whole = expected is not None or is_chunked
        if not is_whole and arrived == 0:
            raise TransientError("sends nothing, and says no length")
        doubt = self._encoded(answer.headers)
        if expected is not None and (arrived > expected or (not is_chunked and answer.has_surplus())):
            doubt = f"has more than the {expected} bytes that were announced"
        if remote.bytes is not None and arrived != remote.bytes:
            doubt = f"has {arrived} bytes, and the hub says {remote.bytes}"
        with _disk_errors(self.folder):
            path = part.replace(whole) if is_whole else part
            validator_file.unlink(missing_ok=True)
        return _Body(path, is_whole, answer.headers.get("Content-Type") or "", doubt)

    def _compared(self, body: _Body, remote: RemoteFile) -> DownloadedFile:
        """Return the file with its sha256. If it cannot be the right one, remove it and raise `RefusedError`."""
        sha256 = digest_file(body.path)
        if sha256 == self.pin:
            return DownloadedFile(body.path, sha256, is_whole=True)
        page = page_fault(body.path, self.file_name, body.content_type)
        doubt = page or body.doubt
        if doubt is None and remote.sha256 not in (None, sha256):
            doubt = f"has sha256 {sha256}, and the hub says {remote.sha256}"
        if doubt is not None:
            body.path.unlink()
            fix = self.page_fix if page else "run again, or ask its owner"
            raise RefusedError(doubt, f"{fix}; or pin its sha256 if these bytes are right: {sha256}")
        return DownloadedFile(body.path, sha256, body.is_whole)

    def _encoded(self, headers: Message) -> str | None:
        texts = headers.get_all("Content-Encoding") or []
        encoding = ", ".join(text.strip().lower() for text in texts if text.strip()) or "identity"
        # Some servers call a file's own format its encoding.
        is_own_format = encoding in ("gzip", "x-gzip") and self.file_name.lower().endswith((".gz", ".tgz"))
        if encoding == "identity" or is_own_format:
            return None
        return f"arrived with the encoding '{encoding[:20]}', not as it is"

    def _partial_file(self, remote: RemoteFile) -> PartialFile | None:
        """Return the partial file of an earlier try, if it can be continued."""
        size = _size(self.folder / "part")
        version = _version(self.folder)
        if not size or version is None:
            return None
        partial = PartialFile(*version, size)
        is_of_another = remote.bytes is not None and (partial.total not in (None, remote.bytes) or size > remote.bytes)
        return None if is_of_another else partial

    def _forget(self) -> None:
        for name in ("part", "validator"):
            (self.folder / name).unlink(missing_ok=True)


def is_resumable(folder: Path) -> bool:
    """Return whether the next download can continue from this folder; True where it is empty."""
    return not (folder / "part").exists() or _version(folder) is not None


def _version(folder: Path) -> tuple[str, int | None] | None:
    """Return the validator and the size that the server gave; None if there are none, or if a crash cut them off."""
    try:
        fields = json.loads((folder / "validator").read_text())
        validator, total = fields["validator"], fields["total"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    return (validator, total) if isinstance(validator, str) and isinstance(total, int | None) else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError of the disk into our error. Errors of the network are ours already."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, folder) or error from None
