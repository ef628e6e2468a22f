"""Restore a .nemo checkpoint on the CPU, ready to be exported."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from artifacts.errors import StepError
from artifacts.nemo.archive import WEIGHTS, open_archive
from artifacts.nemo.model_config import PART_NAMES, ModelConfig, read_config
from artifacts.untrusted.torch_file import StoredTensor, TorchFileError, check_records, load_tensors, read_index

if TYPE_CHECKING:
    from torch import Tensor

    from artifacts.nemo.transducer import Transducer

log = logging.getLogger(__name__)


class _Unpacked(NamedTuple):
    """Configuration, whether the recipe trusts the sender, and the file of the weights with its tensors by name."""

    config: ModelConfig
    trusted: bool
    weights: Path
    tensors: dict[str, StoredTensor]


def restore(checkpoint: Path, scratch: Path, parts: Sequence[str] = PART_NAMES) -> Transducer:
    """Return these parts of the model in evaluation mode, float32, without gradients; position tables are computed.

    The weights are unpacked into a temporary folder in `scratch` and mapped from there, not copied. Those of other
    parts are not read.
    Raises StepError if the file is damaged or contains a model that is not supported, before torch is imported where
    that is possible.
    """
    with _unpacked(checkpoint, scratch) as (config, trusted, file, tensors):
        log.info("restoring %s", checkpoint.name)
        if "nemo.collections.asr.modules" not in sys.modules:
            _import_nemo()
        from artifacts.nemo.transducer import Transducer, fill, replace_position_tables

        model = Transducer(config, trusted, checkpoint.name, parts)
        others = set(PART_NAMES) - set(parts)
        own = {key: tensor for key, tensor in tensors.items() if key.partition(".")[0] not in others}
        fill(model, _load(file, own, checkpoint.name), checkpoint.name)
    if "encoder" in parts:
        replace_position_tables(model.encoder)
    assert not any(value.is_meta for value in (*model.parameters(), *model.buffers())), "nothing is left unallocated"
    return model


def _import_nemo() -> None:
    """Import NeMo's modules with Python's garbage collector paused, and exempt all objects so far from collection.

    The import makes a million objects that stay. The collector would visit them again and again, and once more when the
    process ends: a third of the time of a small export.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        from artifacts.nemo.quiet import quiet

        with quiet():
            from nemo.collections.asr import modules  # noqa: F401  # for the import alone
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _unpacked(checkpoint: Path, scratch: Path) -> Iterator[_Unpacked]:
    """Read all but the weights themselves, without torch. The file of the weights goes when this ends."""
    with TemporaryDirectory(dir=scratch) as folder:
        with open_archive(checkpoint) as archive:
            config, trusted = read_config(archive), archive.trusted
            file = archive.extract(WEIGHTS, Path(folder))
        yield _Unpacked(config, trusted, file, _read_index(file, checkpoint.name))


def _read_index(file: Path, name: str) -> dict[str, StoredTensor]:
    """Return the description of each weight in the file."""
    try:
        index = read_index(file)
    except TorchFileError as error:
        raise _unreadable(name, error) from error
    if not isinstance(index, dict):
        raise StepError(f"{name}: the weights are not a state dict", "give a file that NeMo's save_to wrote")
    for key, value in dict.items(index):
        if not isinstance(key, str) or not isinstance(value, StoredTensor):
            fact = f"{name}: the weights contain {key!r:.80}, which is not a tensor with a name"
            raise StepError(fact, "give a file that NeMo's save_to wrote")
    return dict(dict.items(index))


def _load(file: Path, tensors: dict[str, StoredTensor], name: str) -> dict[str, Tensor]:
    """Return these tensors, mapped from the file, after checking that their bytes are intact."""
    try:
        check_records(file, list(tensors.values()))
        weights = load_tensors(file)
    except TorchFileError as error:
        raise _unreadable(name, error) from error
    return {key: weights[key] for key in tensors}


def _unreadable(name: str, error: TorchFileError) -> StepError:
    return StepError(f"{name}: the weights cannot be read ({error})", "fetch the checkpoint again")
