"""The modules of a transducer, made by NeMo's classes from a checked configuration and filled with a file's weights.

NeMo's own model class resolves every name in its configuration, opens files that it mentions, and makes losses,
decoding and metrics. None of these is exported, so only the four modules are made.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
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
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

# Vaswani et al. 2017, "Attention Is All You Need", section 3.5.
LONGEST_WAVELENGTH = 10_000.0

_FIX = "give a checkpoint that the pinned NeMo restores"


class Transducer(nn.Module):
    """Parts of the model of a checkpoint, none of those that serve training. `cfg` is its configuration."""

    preprocessor: AudioToMelSpectrogramPreprocessor
    encoder: ConformerEncoder
    decoder: RNNTDecoder
    joint: RNNTJoint

    def __init__(self, cfg: ModelConfig, trusted: bool, name: str, parts: Sequence[str] = PART_NAMES) -> None:
        """Make these modules without memory for their weights. Raises StepError if NeMo does not make one."""
        super().__init__()
        self.cfg = cfg
        for part in parts:
            setattr(self, part, make_part(cfg, part, trusted, name))


def make_part(config: ModelConfig, part: str, trusted: bool, name: str) -> nn.Module:
    """Make one of the modules in PART_NAMES; its weights are on the meta device, but for the preprocessor's.

    A trusted configuration is given to NeMo, which may resolve more names in it. Raises StepError for the checkpoint
    `name` if NeMo raises anything.
    """
    arguments = config.arguments(part)
    with quiet(), library_errors(f"{name}: NeMo does not make the {part}"):
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
    """Give the module these weights, not copied unless they are not float32; evaluation mode, no gradients.

    Raises StepError, naming the first weight of the checkpoint `name` that is missing, unknown, of another shape or
    type, or not finite.
    """
    wanted = module.state_dict()
    checked = {key: _checked(key, weights.get(key), value, name) for key, value in wanted.items()}
    for key in weights:
        if key not in wanted:
            raise StepError(f"{name}: the model has no weight {key!r:.120}", _FIX)
    module.load_state_dict(checked, assign=True)
    module.eval().requires_grad_(False)


def _checked(key: str, value: Tensor | None, wanted: Tensor, name: str) -> Tensor:
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
def library_errors(fact: str) -> Iterator[None]:
    """Raise what a library raises for an odd value as StepError(`fact` with its first line); log the traceback."""
    try:
        yield
    except (MemoryError, OSError, ImportError):
        raise  # of this machine, not of the value
    except Exception as error:
        log.debug("%s", fact, exc_info=True)
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise StepError(f"{fact}: {reason.strip():.300}", _FIX) from error


class _Unallocated(TorchFunctionMode):
    """Put what `torch.empty` makes on the meta device: weights that come from a file need no memory before."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


def replace_position_tables(encoder: ConformerEncoder) -> None:
    """Replace NeMo's table of relative positions, in place, by one that is the same on every processor.

    A checkpoint does not store the table: NeMo computes it when a model is made, with torch's float32 `exp`, `sin` and
    `cos`. Their last bit depends on the processor, and one bit of a frequency moves the sine of position 5000 by 3e-4.
    A table that NeMo extends later is replaced too.
    """
    from nemo.collections.asr.parts.submodules.multi_head_attention import PositionalEncoding

    for module in encoder.modules():
        if isinstance(module, PositionalEncoding):
            module.create_pe = MethodType(_create_pe, module)
            del module.pe  # NeMo keeps a table that is long enough
    encoder.set_max_audio_length(encoder.max_audio_length)


def _create_pe(self: Any, positions: Tensor, dtype: torch.dtype) -> None:
    """Set the buffer `pe` [1, N, d_model] from `positions` [N, 1], as NeMo's `PositionalEncoding.create_pe` does."""
    table = torch.from_numpy(sinusoids(positions[:, 0].numpy(), self.d_model))
    self.register_buffer("pe", table.unsqueeze(0).to(dtype), persistent=False)


def sinusoids(positions: NDArray[np.float32], d_model: int) -> NDArray[np.float32]:
    """Return the sinusoidal encoding [N, d_model] of `positions` [N]: sines in even columns, cosines in odd ones.

    The angles are float32, as in NeMo. Functions are evaluated in extended precision and rounded once. With 64 bits of
    mantissa, two libraries round none of ten million values differently (chance 2e-5 that they do).
    """
    exponents = np.arange(0, d_model, 2, dtype=np.float32) * np.float32(-math.log(LONGEST_WAVELENGTH) / d_model)
    frequencies = np.exp(exponents.astype(np.longdouble)).astype(np.float32)
    angles = (positions[:, np.newaxis] * frequencies).astype(np.longdouble)
    table = np.empty((len(positions), d_model), np.float32)
    table[:, 0::2], table[:, 1::2] = np.sin(angles), np.cos(angles)
    return table
