"""The modules of a transducer, made by NeMo's classes from a checked configuration and filled with a file's weights.

NeMo's own model class resolves every name in its configuration, opens files that it mentions, and makes losses,
decoding and metrics. None of these is exported, so only the four modules are made.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from artifacts.errors import StepError
from artifacts.nemo.model_config import PART_NAMES, ModelConfig
from artifacts.nemo.quiet import quiet

if TYPE_CHECKING:
    from nemo.collections.asr.modules import (
        AudioToMelSpectrogramPreprocessor,
        ConformerEncoder,
        RNNTDecoder,
        RNNTJoint,
    )

log = logging.getLogger(__name__)

_FIX = "give a checkpoint that the pinned NeMo restores"


class Transducer(nn.Module):
    """The model of a checkpoint, without what serves training. `cfg` is its configuration."""

    preprocessor: AudioToMelSpectrogramPreprocessor
    encoder: ConformerEncoder
    decoder: RNNTDecoder
    joint: RNNTJoint

    def __init__(self, cfg: ModelConfig, trusted: bool, name: str) -> None:
        """Make the modules without memory for their weights. Raises StepError for what NeMo does not make."""
        super().__init__()
        self.cfg = cfg
        for part in PART_NAMES:
            setattr(self, part, make_part(cfg, part, trusted, name))


def make_part(config: ModelConfig, part: str, trusted: bool, name: str) -> nn.Module:
    """One of the modules in PART_NAMES; its weights are on the meta device, but for the preprocessor's.

    A trusted configuration is given to NeMo, which may resolve more names in it. Raises StepError for the checkpoint
    `name` if NeMo raises anything.
    """
    arguments = config.arguments(part)
    with quiet(), refusals_told(f"{name}: NeMo does not make the {part}"):
        if trusted:
            from nemo.core.classes import Serialization
            from omegaconf import OmegaConf

            module: nn.Module = Serialization.from_config_dict(OmegaConf.create(arguments))
            return module
        from nemo.collections.asr import modules

        made = getattr(modules, arguments.pop("_target_").rpartition(".")[2])
        if part == "preprocessor":
            return made(**arguments)  # type: ignore[no-any-return]  # NeMo has no types
        with _Unallocated():
            return made(**arguments)  # type: ignore[no-any-return]


def fill(module: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Give the module these weights, not copied but for those that are not float32; evaluation mode, no gradients.

    Raises StepError, naming the first weight of the checkpoint `name` that is missing, unknown, of another shape or
    type, or not finite.
    """
    wanted = module.state_dict()
    given = {key: _as_wanted(key, weights.get(key), value, name) for key, value in wanted.items()}
    for key in weights:
        if key not in wanted:
            raise StepError(f"{name}: the model has no weight {key!r:.120}", _FIX)
    module.load_state_dict(given, assign=True)
    module.eval().requires_grad_(False)


def _as_wanted(key: str, value: Tensor | None, wanted: Tensor, name: str) -> Tensor:
    if value is None:
        raise StepError(f"{name}: the weight '{key}' is missing", _FIX)
    if value.shape != wanted.shape or value.is_floating_point() != wanted.is_floating_point():
        raise StepError(
            f"{name}: '{key}' is {value.dtype} {list(value.shape)}, the configuration asks for"
            f" {wanted.dtype} {list(wanted.shape)}",
            _FIX,
        )
    if not value.is_floating_point():
        return value
    value = value.float()
    if value.numel() and not all(end.isfinite() for end in value.aminmax()):
        raise StepError(f"{name}: '{key}' has values that are not finite numbers", "give an intact checkpoint")
    return value


@contextmanager
def refusals_told(fact: str) -> Iterator[None]:
    """Turn what a library raises for an odd value into a StepError; its traceback is a debug record."""
    try:
        yield
    except (MemoryError, OSError, ImportError):
        raise  # of this machine, not of the value
    except Exception as error:
        log.debug("%s", fact, exc_info=True)
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise StepError(f"{fact}: {reason.strip():.300}", _FIX) from error


class _Unallocated(TorchFunctionMode):
    """Put what `torch.empty` makes on the meta device: weights that a file is to give need no memory before."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)
