"""Restores a .nemo checkpoint on the CPU, ready to be exported."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.errors import StepError
from artifacts.nemo.archive import CONFIG, WEIGHTS, open_archive
from artifacts.nemo.model_config import read_config
from artifacts.nemo.position_table import replace_position_tables
from artifacts.nemo.quiet import quiet

if TYPE_CHECKING:
    from nemo.collections.asr.models import EncDecRNNTBPEModel
    from torch import nn

log = logging.getLogger(__name__)


def restore(checkpoint: Path, scratch: Path) -> EncDecRNNTBPEModel:
    """The model in evaluation mode, float32, without gradients; `position_table` computes its positions.

    The archive is unpacked into `scratch`, an empty folder with room for it, which may go once the model is there. The
    weights are mapped from its file, not copied: NeMo by itself holds them twice while it restores.
    Raises StepError if the file is damaged or holds a model that is not supported.
    """
    with open_archive(checkpoint) as archive:
        read_config(archive)
        archive.extract_all(scratch)
    with quiet():
        from nemo.collections.asr.models import EncDecRNNTBPEModel
        from nemo.core.connectors.save_restore_connector import SaveRestoreConnector

        class MappedWeights(SaveRestoreConnector):  # type: ignore[misc]  # NeMo has no types
            @staticmethod
            def _load_state_dict_from_disk(model_weights: str, map_location: str = "cpu") -> dict[str, Any]:
                return _load_weights(Path(model_weights), checkpoint.name)

            def load_instance_with_state_dict(self, instance: Any, state_dict: dict[str, Any], strict: bool) -> None:
                instance.load_state_dict(state_dict, strict=strict, assign=True)
                instance._set_model_restore_state(is_being_restored=False)

        connector = MappedWeights()
        connector.model_extracted_dir = str(scratch)
        log.info("restoring %s", checkpoint.name)
        model = EncDecRNNTBPEModel.restore_from(str(checkpoint), map_location="cpu", save_restore_connector=connector)
    model.freeze()  # evaluation mode, no gradients
    model = model.float()
    replace_position_tables(model.encoder)
    return model


def restore_preprocessor(checkpoint: Path, scratch: Path) -> nn.Module:
    """The checkpoint's AudioToMelSpectrogramPreprocessor with its own window and filterbank, in evaluation mode.

    Much quicker than `restore`, and it needs no memory for the other weights. `scratch` and errors as there.
    """
    with open_archive(checkpoint) as archive:
        read_config(archive)
        config_file, weights_file = archive.extract(CONFIG, scratch), archive.extract(WEIGHTS, scratch)
    with quiet():
        from nemo.core.classes import Serialization
        from omegaconf import OmegaConf

        preprocessor: nn.Module = Serialization.from_config_dict(OmegaConf.load(config_file).preprocessor)
    prefix = "preprocessor."
    weights = _load_weights(weights_file, checkpoint.name)
    own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    preprocessor.load_state_dict(own)
    return preprocessor.eval()


def _load_weights(path: Path, name: str) -> dict[str, Any]:
    import torch

    try:
        weights: dict[str, Any] = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except RuntimeError as error:  # what torch raises for a file that is not one of its own, or is cut short
        raise StepError(f"{name}: the weights cannot be read ({error})", "fetch the checkpoint again") from None
    return weights
