"""Read text and JSON of a step's input, in bounded memory: a damaged or hostile file becomes a StepError.

Only regular files are opened: opening a pipe can wait for ever, and a device has no end.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from artifacts.errors import StepError

MAX_TEXT_BYTES = 64 << 20


def require_file(path: Path, fix: str) -> None:
    """Raise StepError, with the `fix`, unless the path is a regular file."""
    try:
        is_file = path.is_file()
    except OSError as error:  # a name that is too long
        raise StepError(f"'{path.name}': {error.strerror}", fix) from None
    if not is_file:
        raise StepError(f"{path.name}: is missing in '{path.parent.name}'", fix)


def require_inside(path: Path, fix: str) -> None:
    """Raise StepError for a link without a target, or with one outside its folder."""
    if path.is_symlink() and not path.exists():
        raise StepError(f"{path.name}: is a symbolic link that leads nowhere", fix)
    if path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve()):
        raise StepError(f"{path.name}: is a symbolic link that leads out of '{path.parent.name}'", fix)


def read_text(path: Path, fix: str) -> str:
    """Return the text of a UTF-8 file. Raises StepError if it is missing, larger than 64 MiB or not UTF-8."""
    require_file(path, fix)
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise StepError(f"{path.name}: has {size} bytes, at most {MAX_TEXT_BYTES} are read", fix)
    data = path.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise StepError(f"{path.name}:{line}: is not UTF-8", fix) from None


def read_json(path: Path, fix: str) -> Any:
    """Return the value of a JSON file. Raises StepError as `read_text` and `parse_json` do."""
    return parse_json(read_text(path, fix), path.name, fix)


def read_json_object(path: Path, fix: str) -> dict[str, Any]:
    """Return the object in a JSON file. Raises StepError as `read_json` does, and for any other value."""
    value = read_json(path, fix)
    if not isinstance(value, dict):
        raise StepError(f"{path.name}: expected a JSON object, got {_kind(value)}", fix)
    return value


def parse_json(text: str, location: str, fix: str) -> Any:
    """Return the value of a JSON text. Raises StepError, with the `location`, for other texts and for odd values.

    These are a text nested too deep, a number of thousands of digits, NaN or infinity, and half a surrogate pair, which
    UTF-8 cannot encode.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        where = f"{location}:{error.lineno}:{error.colno}" if "\n" in text else f"{location}:{error.colno}"
        raise StepError(f"{where}: is not JSON: {error.msg.lower()}", fix) from None
    except RecursionError:
        raise StepError(f"{location}: is nested too deep", fix) from None
    except UnicodeEncodeError:
        raise StepError(f"{location}: contains half a surrogate pair, which is not a character", fix) from None
    except ValueError as error:
        raise StepError(f"{location}: is not JSON that can be read: {error}", fix) from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), repr(value)[:40])
