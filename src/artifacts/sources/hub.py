"""Files of Hugging Face repositories: which commit a revision is, where its file is, and what the hub says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from artifacts.errors import StoreError
from artifacts.sources.download import PATIENT, TRY_AGAIN, Arrived, Download, Location, Patience, Progress
from artifacts.sources.http_get import LATER, RefusedError, TransientError, followed, one_line, origin, retry_after

ELSEWHERE = "check HF_ENDPOINT and the proxy: what answers is not the hub"
# The library lets its HTTP client's errors through. Which client that is has changed between versions; these names have
# not.
PASSING = {"TimeoutException", "Timeout", "ReadError", "WriteError", "RemoteProtocolError"}
UNREACHED = {"ConnectError", "ConnectionError"}


def download_hf(
    repository: str,
    file_name: str,
    folder: Path,
    progress: Progress,
    pin: str | None = None,
    patience: Patience = PATIENT,
) -> Arrived:
    """Fetch a file of `owner/name@revision` into `folder`, at the commit that the revision is now, and hold it to the
    size and the sha256 that the hub has for it. A file with the sha256 `pin` is accepted. Raises `StoreError`.

    huggingface_hub says where the file is and which token opens it. Its own download begins anew after a killed run
    (as of 2.4), so that the bytes are fetched by `Download`.
    """
    shown = f"'{file_name}' of '{repository}'"
    return Download(shown, file_name, ELSEWHERE, _Hub(repository, file_name), folder, pin, patience).fetch(progress)


class _Hub:
    """Locates a file. The first call finds the commit, which the later ones keep to."""

    def __init__(self, repository: str, file_name: str) -> None:
        self._repository = repository
        self._name, _, self._revision = repository.rpartition("@")
        self._file_name = file_name

    def __call__(self) -> Location:
        """The file's address at the commit. Raises `StoreError`, `RefusedError` or `TransientError`."""
        import huggingface_hub

        address, found = self._metadata()
        if not found.commit_hash:
            raise RefusedError("cannot be fetched: the answer names no commit", ELSEWHERE)
        # Where the hub names its own host, that address has the revision in it, which may be another commit by now.
        named, commit = (f"/resolve/{quote(name, safe='')}/" for name in (self._revision, found.commit_hash))
        url = followed(address, found.location).replace(named, commit, 1)
        self._revision = found.commit_hash
        # The token is the hub's alone: a large file is at another host, at an address that is signed already.
        token = huggingface_hub.get_token() if origin(url) == origin(address) else None
        sha256 = found.etag if found.etag and re.fullmatch(r"[0-9a-f]{64}", found.etag) else None
        return Location(url, f"Bearer {token}" if token else None, found.size, sha256)

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
            raise StoreError(f"'{name}' is not a repository's name: {one_line(error)}", "correct 'hf'") from None
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
