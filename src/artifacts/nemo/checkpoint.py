"""Restores a .nemo checkpoint on the CPU, ready to be exported."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.errors import StepError
from artifacts.nemo.archive import WEIGHTS, open_archive
from artifacts.nemo.model_config import read_config
from artifacts.untrusted.torch_file import StoredTensor, TorchFileError, check_records, load_tensors, read_index

if TYPE_CHECKING:
    from torch import Tensor, nn

    from artifacts.nemo.transducer import Transducer

log = logging.getLogger(__name__)


def restore(checkpoint: Path, scratch: Path) -> Transducer:
    """The model in evaluation mode, float32, without gradients; `position_table` computes its positions.

    The weights are unpacked into `scratch`, an empty folder with room for them, which may go once the model is there.
    They are mapped from that file, not copied.
    Raises StepError if the file is damaged or holds a model that is not supported.
    """
    with open_archive(checkpoint) as archive:
        config, trusted = read_config(archive), archive.trusted
        file = archive.extract(WEIGHTS, scratch)
    index = _read_index(file, checkpoint.name)
    from artifacts.nemo.position_table import replace_position_tables
    from artifacts.nemo.transducer import Transducer, fill

    log.info("restoring %s", checkpoint.name)
    model = Transducer(config, trusted, checkpoint.name)
    fill(model, _load(file, index, checkpoint.name), checkpoint.name)
    replace_position_tables(model.encoder)
    assert not any(value.is_meta for value in (*model.parameters(), *model.buffers())), "nothing is left unallocated"
    return model


def restore_preprocessor(checkpoint: Path, scratch: Path) -> nn.Module:
    """The checkpoint's AudioToMelSpectrogramPreprocessor with its own window and filterbank, in evaluation mode.

    Much quicker than `restore`, and it needs no memory for the other weights. `scratch` and errors as there.
    """
    with open_archive(checkpoint) as archive:
        config, trusted = read_config(archive), archive.trusted
        file = archive.extract(WEIGHTS, scratch)
    prefix = "preprocessor."
    index = _read_index(file, checkpoint.name)
    own = {key: value for key, value in index.items() if key.startswith(prefix)}
    from artifacts.nemo.transducer import fill, make_part

    preprocessor = make_part(config, "preprocessor", trusted, checkpoint.name)
    weights = _load(file, own, checkpoint.name)
    fill(preprocessor, {key.removeprefix(prefix): value for key, value in weights.items()}, checkpoint.name)
    return preprocessor


def _read_index(file: Path, name: str) -> dict[str, StoredTensor]:
    """Return the description of each weight in the file, without torch."""
    try:
        index = read_index(file)
    except TorchFileError as error:
        raise _unreadable(name, error) from error
    if not isinstance(index, dict):
        raise StepError(f"{name}: the weights are not a state dict", "give a file that NeMo's save_to wrote")
    for key, value in dict.items(index):
        if not isinstance(key, str) or not isinstance(value, StoredTensor):
            fact = f"{name}: the weights hold {key!r:.80}, which is not a tensor with a name"
            raise StepError(fact, "give a file that NeMo's save_to wrote")
    return dict(dict.items(index))


def _load(file: Path, index: dict[str, StoredTensor], name: str) -> dict[str, Tensor]:
    """The tensors of the index, mapped from the file, once their bytes are seen to be intact."""
    try:
        check_records(file, list(index.values()))
        weights = load_tensors(file)
    except TorchFileError as error:
        raise _unreadable(name, error) from error
    return {key: weights[key] for key in index}


def _unreadable(name: str, error: TorchFileError) -> StepError:
    return StepError(f"{name}: the weights cannot be read ({error})", "fetch the checkpoint again")
