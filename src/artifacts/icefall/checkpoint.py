"""Load a checkpoint of the LSTM transducer: icefall's own, averaged or raw, or a plain state dict.

The checkpoint is a `.pt` file, or a folder with one and perhaps its configuration, `config.yaml` or `config.json`, with
icefall's keys. A file that icefall's training wrote has those keys beside `model`. Sizes that the configuration omits
come from the weights. Sizes that it gives must match the weights.

A raw checkpoint has a learned scale s for each weight, which stands for weight · exp(s). The scales are multiplied
into the weights. Weights of training only (the simple joiner of the pruned loss, a second decoder and joiner) are left
out. `torch_file` checks a file before torch reads it: no code in a checkpoint is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.untrusted.bounded_yaml import YamlBoundError, load_plain
from artifacts.untrusted.torch_file import (
    ForeignObjectError,
    StoredTensor,
    TorchFileError,
    check_records,
    load_tensors,
    read_index,
)
from artifacts.validation_errors import first_mistake

if TYPE_CHECKING:
    from torch import Tensor

    from artifacts.icefall.lstm_transducer import Config, LstmTransducer

CONFIG_NAMES = ("config.yaml", "config.json")
TRAINING_ONLY = ("simple_am_proj", "simple_lm_proj", "decoder_giga", "joiner_giga")
FIX = "give a checkpoint of icefall's lstm_transducer_stateless2, or a folder with one"
MAX_CONFIG_BYTES = 1_000_000
MAX_CONFIG_DEPTH = 20
# A scale is a logarithm. Its exponential is far beyond what training reaches, and within float32.
MAX_LOG_SCALE = 80


def load(checkpoint: Path) -> LstmTransducer:
    """Return the model in evaluation mode, float32, without gradients.

    Raises StepError for a file that is damaged or contains more than weights, and for a configuration that is wrong or
    does not agree with the weights. It does so too for a weight that is missing, unknown, of another shape or not
    finite.
    """
    file, config_values = _find(checkpoint)
    _check(file)
    import torch

    from artifacts.icefall.lstm_transducer import Config, LstmTransducer

    stored, checkpoint_keys = _read(file)
    unprefixed = {_without_module_prefix(name): value for name, value in stored.items()}
    if len(unprefixed) < len(stored):
        raise StepError(f"{file.name}: the same weight exists with and without the prefix 'module.'", FIX)
    weights = fold_learned_scales(unprefixed, file.name)
    keys = {key: value for key, value in checkpoint_keys.items() if key in Config.model_fields}
    config = read_config({**_from_shapes(weights, file.name), **keys, **config_values}, checkpoint.name)
    with torch.device("meta"):
        model = LstmTransducer(config)
    _check_weights(weights, model.state_dict(), file.name)
    model.load_state_dict({name: weights[name].float() for name in model.state_dict()}, assign=True)
    return model.eval().requires_grad_(False)


def read_config(values: Mapping[str, Any], location: str) -> Config:
    """Validate a mapping. Raises StepError, with `location` and key, for a value that the architecture cannot have."""
    from artifacts.icefall.lstm_transducer import Config

    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise StepError(
            f"{location}: {first_mistake(error)}",
            "give the configuration of an lstm_transducer_stateless2 model, as its training had it",
        ) from None


def _find(checkpoint: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file with the weights, and the keys of the configuration beside it."""
    if not checkpoint.is_dir():
        return checkpoint, {}
    files = sorted(checkpoint.glob("*.pt"))
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise StepError(f"{checkpoint.name}: expected one .pt file, found {names}", "keep one checkpoint in the folder")
    configs = [checkpoint / name for name in CONFIG_NAMES if (checkpoint / name).is_file()]
    if not configs:
        return files[0], {}
    return files[0], _parse(configs[0])


def _parse(path: Path) -> dict[str, Any]:
    import yaml

    size = path.stat().st_size
    if size > MAX_CONFIG_BYTES:
        raise StepError(
            f"{path.name}: must have at most {MAX_CONFIG_BYTES} bytes, got {size}", "write icefall's keys only"
        )
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            values = json.loads(text)
        else:
            values = load_plain(text, max_bytes=MAX_CONFIG_BYTES, max_depth=MAX_CONFIG_DEPTH)
    except (yaml.YAMLError, YamlBoundError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise StepError(f"{path.name}: cannot be read: {reason:.200}", "rewrite it as valid YAML or JSON") from None
    if not isinstance(values, dict):
        raise StepError(f"{path.name}: is not a mapping of keys", "write one key of icefall's configuration per line")
    return values


def _check(file: Path) -> None:
    """Check the descriptions of the file's tensors, and their bytes, before torch is imported."""
    try:
        content = read_index(file)
        # Call dict's own methods: an unpickled instance may replace them.
        inner = dict.get(content, "model") if isinstance(content, dict) else None
        state = inner if isinstance(inner, dict) else content
        entries = list(dict.items(state)) if isinstance(state, dict) else [("", None)]
        tensors = [value for name, value in entries if isinstance(name, str) and isinstance(value, StoredTensor)]
        if len(tensors) < len(entries):
            raise StepError(f"{file.name}: contains no state dict, neither plain nor under 'model'", FIX)
        check_records(file, tensors)
    except ForeignObjectError as error:
        raise StepError(
            f"{file.name}: contains more than weights, or is not a checkpoint ({error})",
            "export it with icefall's export.py, which keeps the weights only",
        ) from error
    except TorchFileError as error:
        raise StepError(f"{file.name}: cannot be read ({error})", "fetch the checkpoint again") from error


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights of a checked file, and the other keys of the checkpoint."""
    try:
        content = dict(dict.items(load_tensors(file)))
    except TorchFileError as error:
        raise StepError(f"{file.name}: cannot be read ({error})", "fetch the checkpoint again") from error
    if isinstance(content.get("model"), dict):
        return dict(dict.items(content.pop("model"))), content
    return content, {}


def _without_module_prefix(name: str) -> str:
    """Return a name without the prefix of distributed training."""
    return name.removeprefix("module.")


def fold_learned_scales(weights: Mapping[str, Tensor], location: str) -> dict[str, Tensor]:
    """Return each weight times the exponential of its scale, without the scales and the weights of training only.

    Scales are scalars, called `<weight>_scale`; an embedding's is called `scale`. Raises StepError for a scale
    that has no weight, is not a scalar, or is too large.
    """
    from artifacts.icefall.lstm_transducer import exponential

    folded = {name: value for name, value in weights.items() if not name.startswith(TRAINING_ONLY)}
    for name in [name for name in folded if name.endswith(("_scale", ".scale"))]:
        owner = f"{name.removesuffix('scale')}weight" if name.endswith(".scale") else name.removesuffix("_scale")
        if owner not in folded or folded[name].numel() != 1:
            raise StepError(f"{location}: {name!r:.120} is not the scale of a weight {owner!r:.120}", FIX)
        if not abs(folded[name].item()) <= MAX_LOG_SCALE:
            bounds = f"-{MAX_LOG_SCALE} to {MAX_LOG_SCALE}"
            raise StepError(f"{location}: {name!r:.120} must be from {bounds}, got {folded[name].item():g}", FIX)
        folded[owner] = folded[owner].float() * exponential(folded[name].item())
        del folded[name]
    return folded


def _from_shapes(weights: Mapping[str, Tensor], location: str) -> dict[str, int]:
    """Return the sizes of the configuration that the shapes of the weights show."""

    def size(name: str, axis: int) -> int:
        if name not in weights or weights[name].ndim <= axis:
            raise StepError(f"{location}: no weight '{name}' with an axis {axis}", FIX)
        return int(weights[name].shape[axis])

    layers = {name.split(".")[3] for name in weights if name.startswith("encoder.encoder.layers.")}
    conv = "decoder.conv.weight"
    return {
        "num_encoder_layers": len(layers),
        "encoder_dim": size("encoder.encoder_embed.out.weight", 0),
        "rnn_hidden_size": size("encoder.encoder.layers.0.lstm.weight_ih_l0", 0) // 4,
        "dim_feedforward": size("encoder.encoder.layers.0.feed_forward.0.weight", 0),
        "vocab_size": size("decoder.embedding.weight", 0),
        "decoder_dim": size("decoder.embedding.weight", 1),
        "context_size": size(conv, 2) if conv in weights else 1,
        "joiner_dim": size("joiner.encoder_proj.weight", 0),
    }


def _check_weights(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], location: str) -> None:
    """Raise StepError unless the names and shapes are those of the model that the configuration describes."""
    for name, value in wanted.items():
        if name not in weights:
            raise StepError(f"{location}: the weight '{name}' is missing", FIX)
        if weights[name].shape != value.shape:
            raise StepError(
                f"{location}: '{name}' is {list(weights[name].shape)}, the configuration needs {list(value.shape)}",
                "give the configuration that the checkpoint was trained with, or none",
            )
        if not weights[name].is_floating_point() or not all(end.isfinite() for end in weights[name].float().aminmax()):
            raise StepError(f"{location}: '{name}' has values that are not finite numbers of float32", FIX)
    for name in weights:
        if name not in wanted:
            raise StepError(f"{location}: the model has no weight {name!r:.120}", FIX)
