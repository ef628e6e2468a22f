"""Downloads that resume where they broke off, from any web server and from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from artifacts.digest import CHUNK_BYTES
from artifacts.errors import StoreError, disk_error

# Called with (bytes so far, bytes in all or 0 where the server does not say).
Progress = Callable[[int, int], None]

TRY_AGAIN = "check the network, then run again; what has arrived is kept"
TIMEOUT_SECONDS = 60


def download_url(url: str, folder: Path, progress: Progress) -> Path:
    """Fetch `url` into `folder` and return the file. Raises `StoreError`."""
    return _fetch(f"'{url}'", url, {}, folder, progress)


def download_hf(repository: str, file_name: str, folder: Path, progress: Progress) -> Path:
    """Fetch a file of `owner/name@revision` into `folder` and return it. Raises `StoreError`.

    huggingface_hub says where the file lies and what token opens it. Its own download begins anew after a killed run
    (as of 2.4), so the bytes are fetched here.
    """
    import huggingface_hub
    from huggingface_hub import errors

    name, _, revision = repository.rpartition("@")
    address = huggingface_hub.hf_hub_url(name, file_name, revision=revision)
    try:
        location = huggingface_hub.get_hf_file_metadata(address).location
    except errors.GatedRepoError:
        fix = "accept its terms on the hub, then log in with `hf auth login`"
        raise StoreError(f"'{repository}' is gated", fix) from None
    except errors.RevisionNotFoundError:
        raise StoreError(f"'{name}' has no revision '{revision}'", "name a commit, a tag or a branch of it") from None
    except errors.RepositoryNotFoundError:
        fix = "correct the name, or log in with `hf auth login` if it is private"
        raise StoreError(f"the hub has no repository '{name}'", fix) from None
    except errors.EntryNotFoundError:
        raise StoreError(f"'{repository}' has no file '{file_name}'", "correct the file's name") from None
    except Exception as error:
        # The library lets its HTTP client's errors through, and which client that is has changed between versions.
        raise StoreError(f"'{file_name}' of '{repository}' cannot be fetched: {error}", TRY_AGAIN) from None
    # The token is the hub's alone: a large file lies with another host, at an address that is signed already.
    token = huggingface_hub.get_token() if urlsplit(location).netloc == urlsplit(address).netloc else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return _fetch(f"'{file_name}' of '{repository}'", location, headers, folder, progress)


def _fetch(shown: str, url: str, headers: Mapping[str, str], folder: Path, progress: Progress) -> Path:
    """What an earlier call left in `folder` is continued, if the server still has the same file (by its ETag or
    Last-Modified)."""
    import http.client  # these take longer to import than `doit list` may, and few runs download
    import urllib.error
    import urllib.request

    target, partial, mark = folder / "whole", folder / "part", folder / "validator"
    if target.exists():
        return target  # an earlier run was killed before it could take it away
    start = partial.stat().st_size if partial.exists() and mark.exists() else 0
    request = urllib.request.Request(url, headers=dict(headers))  # the recipe admits http and https alone
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", mark.read_text())
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            resumes = str(response.headers.get("Content-Range")).startswith(f"bytes {start}-")
            if response.status != HTTPStatus.PARTIAL_CONTENT or not resumes:
                start = 0
                partial.unlink(missing_ok=True)  # before the mark says that it is of the new file
            validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
            mark.write_text(validator) if validator else mark.unlink(missing_ok=True)
            length = response.headers.get("Content-Length")
            expected = start + int(length) if length else 0
            with partial.open("ab") as file:
                while chunk := response.read(CHUNK_BYTES):
                    file.write(chunk)
                    progress(file.tell(), expected)
                arrived = file.tell()
    except urllib.error.HTTPError as error:
        with error:
            if start and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                if error.headers.get("Content-Range") == f"bytes */{start}":
                    return partial.replace(target)  # all of it had arrived when an earlier run was killed
                partial.unlink()
                return _fetch(shown, url, headers, folder, progress)
            later = error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code == HTTPStatus.TOO_MANY_REQUESTS
            fix = TRY_AGAIN if later else "correct the address, or ask its owner"
            raise StoreError(f"{shown} answers {error.code} {error.reason}", fix) from None
    except (OSError, http.client.HTTPException) as error:
        raise disk_error(error, folder) or StoreError(f"{shown} cannot be fetched: {error}", TRY_AGAIN) from None
    if expected and arrived != expected:
        raise StoreError(f"{shown} broke off after {arrived} of {expected} bytes", TRY_AGAIN)
    return partial.replace(target)
