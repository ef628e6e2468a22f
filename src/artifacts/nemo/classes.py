"""List the classes that a checkpoint's configuration may name, and find any other.

NeMo calls whatever the keys `_target_`, `target` and `cls` name, at any depth, before it checks anything else. Its own
list admits functions that write, fetch and remove files. A checkpoint is a download, so this list is short and of exact
names: the classes of the Parakeet family.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MODELS = frozenset(
    {
        "nemo.collections.asr.models.EncDecRNNTBPEModel",
        "nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel",
    }
)
_MODULES = "nemo.collections.asr.modules"
PARTS = frozenset(
    {
        f"{_MODULES}.AudioToMelSpectrogramPreprocessor",
        f"{_MODULES}.audio_preprocessing.AudioToMelSpectrogramPreprocessor",
        f"{_MODULES}.SpectrogramAugmentation",
        f"{_MODULES}.audio_preprocessing.SpectrogramAugmentation",
        f"{_MODULES}.ConformerEncoder",
        f"{_MODULES}.conformer_encoder.ConformerEncoder",
        f"{_MODULES}.RNNTDecoder",
        f"{_MODULES}.rnnt.RNNTDecoder",
        f"{_MODULES}.RNNTJoint",
        f"{_MODULES}.rnnt.RNNTJoint",
    }
)
KEYS = frozenset({"_target_", "target", "cls"})
SHOWN_CHARACTERS = 80


def unknown_class(config: Any) -> tuple[str, Any] | None:
    """Return the first key path with a class that is not on the list, and its value; None if there is none."""
    for path, key, value in _entries(config):
        if isinstance(key, str) and key.strip().casefold() in KEYS:
            known = MODELS if path == "target" else PARTS
            if not isinstance(value, str) or value not in known:
                return path, value
    return None


def _entries(config: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield key path, key and value of each entry of each mapping, in the order of the file."""
    if isinstance(config, dict):
        # A path is copied for each entry below it, and shown in part: a key may be a megabyte long.
        parts = [(str(key)[:SHOWN_CHARACTERS], key, value) for key, value in config.items()]
    elif isinstance(config, list):
        parts = [(str(index), None, value) for index, value in enumerate(config)]
    else:
        return
    for name, key, value in parts:
        yield name, key, value
        for path, inner, content in _entries(value):
            yield f"{name}.{path}", inner, content
