"""Read the sizes and texts of `model_meta.json`, within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts.errors import StepError
from artifacts.untrusted.read_input import read_json_object

# More than any size of a model, in whatever it counts.
LARGEST_SIZE = 1_000_000


class ModelMeta:
    """The values of a `model_meta.json`. A key with a point is one of an object within: `features.n_mels`."""

    def __init__(self, path: Path, fix: str) -> None:
        """Read the file. Raises StepError, with the `fix`, if it is missing or does not hold a JSON object."""
        self._name, self._fix = path.name, fix
        self._values = read_json_object(path, fix)

    def size(self, key: str, most: int = LARGEST_SIZE) -> int:
        """Return a whole number. Raises StepError unless it is one from 1 to `most`."""
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            expected = f"a number above 0, at most {most}"
            raise StepError(f"{self._name}: {key}: expected {expected}, got {_shown(value)}", self._fix)
        return value

    def text(self, key: str) -> str:
        """Return a text. Raises StepError if it is anything else."""
        value = self.value(key)
        if not isinstance(value, str):
            raise StepError(f"{self._name}: {key}: expected a text, got {_shown(value)}", self._fix)
        return value

    def value(self, key: str) -> Any:
        """Return whatever the key has. Raises StepError if it is missing."""
        inside: Any = self._values
        for part in key.split("."):
            if not isinstance(inside, Mapping) or part not in inside:
                raise StepError(f"{self._name}: {key}: is missing", self._fix)
            inside = inside[part]
        return inside


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
