"""The content of `model_meta.json`: sizes, ids and tokens of a transducer, written in one place and read by key.

The keys are those that TensorRT applications read. A reader needs the keys that it asks for, and no others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from artifacts.errors import StepError
from artifacts.untrusted.read_input import read_json_object

# More than any size of a model, whatever its unit.
LARGEST_SIZE = 1_000_000

Size = Annotated[int, Field(ge=1, le=LARGEST_SIZE)]


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TensorLayout(_Content):
    """Names and shapes of the inputs and outputs of the exported networks, as texts."""

    encoder_input: str
    encoder_output: str
    predictor_input: str
    predictor_output: str
    joint_input: str
    joint_output: str


class Features(_Content):
    """Settings of the features: lengths in samples, and `n_mels` features a frame."""

    type: str
    n_fft: Size
    n_mels: Size
    win_length: Size
    hop_length: Size
    normalize: str | dict[str, Any] | None


class ModelMetaContent(_Content):
    """All keys, in the order of the file. `duration_values` is empty for an RNN-T; `max_symbols` null: no limit."""

    model_name: str
    sample_rate: Size
    labels: list[str]
    blank_id: Size
    tokenizer_vocab_size: Size
    joint_vocab_size: Size
    duration_values: list[int]
    max_symbols: int | None
    subsampling_factor: Size
    max_encoder_frames: Size
    pred_rnn_layers: Size
    pred_hidden: Size
    tensor_layout_contract: TensorLayout
    features: Features

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_bytes((json.dumps(self.model_dump(), ensure_ascii=False, indent=2) + "\n").encode())


def _keys(content: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in content.model_fields.items():
        yield before + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{before}{name}.")


KEYS = frozenset(_keys(ModelMetaContent))


class ModelMeta:
    """The values of a `model_meta.json`, by the keys in KEYS; `features.n_mels` is a key of the object `features`."""

    def __init__(self, path: Path, fix: str) -> None:
        """Read the file. Raises StepError, with the `fix`, if it is missing or does not contain a JSON object."""
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
        """Return the value of a key, whatever its type. Raises StepError if it is missing."""
        assert key in KEYS, f"model_meta.json has no key {key}"
        value: Any = self._values
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise StepError(f"{self._name}: {key}: is missing", self._fix)
            value = value[part]
        return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
