"""Files of Hugging Face repositories: the commit of a revision, the address of a file, its size and sha256."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from artifacts.errors import StoreError
from artifacts.sources.download import (
    PATIENT,
    TRY_AGAIN,
    Download,
    DownloadedFile,
    Patience,
    ProgressCallback,
    RemoteFile,
)
from artifacts.sources.http_get import LATER, RefusedError, TransientError, followed, one_line, origin, retry_after

ELSEWHERE = "check HF_ENDPOINT and the proxy: the server that answers is not the hub"
# The library does not translate its HTTP client's errors. The client changed between versions; these names did not.
PASSING = {"TimeoutException", "Timeout", "ReadError", "WriteError", "RemoteProtocolError"}
UNREACHED = {"ConnectError", "ConnectionError"}


def download_hf(
    repository: str,
    file_name: str,
    folder: Path,
    progress: ProgressCallback,
    pin: str | None = None,
    patience: Patience = PATIENT,
) -> DownloadedFile:
    """Fetch a file of `owner/name@revision` into `folder`, and compare it with the hub's size and sha256.

    The commit is the one that the revision names now. A file with the sha256 `pin` is accepted. Raises `StoreError`.
    huggingface_hub gives the address and the token. Its own download begins anew after a killed run (as of 2.4), so
    `Download` fetches the bytes.
    """
    shown = f"'{file_name}' of '{repository}'"
    hub = _Hub(repository, file_name)
    file = Download(shown, file_name, ELSEWHERE, hub, folder, pin, patience).fetch(progress)
    return replace(file, commit=hub.commit)


def version_now(repository: str, file_name: str) -> tuple[str | None, str | None]:
    """Return the commit that `owner/name@revision` names now, and the file's sha256 if the hub says it.

    Raises `StoreError`.
    """
    hub = _Hub(repository, file_name)
    try:
        remote = hub()
    except RefusedError as error:
        raise StoreError(f"'{file_name}' of '{repository}' {error.fact}", error.fix) from None
    except TransientError as error:
        raise StoreError(f"'{file_name}' of '{repository}' {error.fact}", "check the network, then run again") from None
    return hub.commit, remote.sha256


class _Hub:
    """Address of a file. The first call resolves the revision to a commit; later calls use the same commit."""

    def __init__(self, repository: str, file_name: str) -> None:
        self._repository = repository
        self._name, _, self._revision = repository.rpartition("@")
        self._file_name = file_name
        self.commit: str | None = None

    def __call__(self) -> RemoteFile:
        """Return the file's address at the commit. Raises `StoreError`, `RefusedError` or `TransientError`."""
        import huggingface_hub

        address, metadata = self._metadata()
        if not metadata.commit_hash:
            raise RefusedError("cannot be fetched: the answer names no commit", ELSEWHERE)
        # An address on the hub's own host contains the revision, which may be another commit by now.
        named, commit = (f"/resolve/{quote(name, safe='')}/" for name in (self._revision, metadata.commit_hash))
        url = followed(address, metadata.location).replace(named, commit, 1)
        self._revision = self.commit = metadata.commit_hash
        # The token is for the hub alone: a large file is on another host, and its address is signed.
        token = huggingface_hub.get_token() if origin(url) == origin(address) else None
        sha256 = metadata.etag if metadata.etag and re.fullmatch(r"[0-9a-f]{64}", metadata.etag) else None
        return RemoteFile(url, f"Bearer {token}" if token else None, metadata.size, sha256)

    def _metadata(self) -> tuple[str, Any]:
        import huggingface_hub
        from huggingface_hub import errors

        repository, name = self._repository, self._name
        try:
            address = huggingface_hub.hf_hub_url(name, self._file_name, revision=self._revision)
            return address, huggingface_hub.get_hf_file_metadata(address)
        except errors.GatedRepoError:
            fix = "accept its terms on the hub, then log in with `hf auth login`"
            raise StoreError(f"'{repository}' is gated", fix) from None
        except errors.RevisionNotFoundError:
            fact = f"'{name}' has no revision '{self._revision}'"
            raise StoreError(fact, "name a commit, a tag or a branch of it") from None
        except errors.RepositoryNotFoundError:
            fix = "correct the name, or log in with `hf auth login` if it is private"
            raise StoreError(f"the hub has no repository '{name}'", fix) from None
        except errors.EntryNotFoundError:
            raise StoreError(f"'{repository}' has no file '{self._file_name}'", "correct the file's name") from None
        except errors.HFValidationError as error:
            raise StoreError(f"'{name}' is not a repository name: {one_line(error)}", "correct 'hf'") from None
        except errors.OfflineModeIsEnabled:
            raise RefusedError("cannot be fetched: HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE") from None
        except Exception as error:
            response = getattr(error, "response", None)
            fact = f"cannot be fetched: {one_line(str(error).partition(chr(10))[0]) or type(error).__name__}"
            if getattr(response, "status_code", None) in LATER:
                raise TransientError(fact, retry_after(getattr(response, "headers", {}))) from None
            kinds = {kind.__name__ for kind in type(error).__mro__}
            if kinds & (PASSING | UNREACHED):
                raise TransientError(fact, is_reached=not kinds & UNREACHED) from None
            raise RefusedError(fact, TRY_AGAIN) from None
