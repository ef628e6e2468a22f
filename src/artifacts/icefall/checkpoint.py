"""Reads a checkpoint of the LSTM transducer: icefall's own, averaged or raw, or a plain state dict.

A folder holds one `.pt` file and may hold its configuration, `config.yaml` or `config.json`, with icefall's keys; a
checkpoint that icefall's training wrote has those keys beside `model`. What is not said is taken from the shapes of
the weights, and what is said has to agree with them.

Raw checkpoints hold a learned scale s beside each weight, which then counts as weight · exp(s); here it is multiplied
in. What is for training only (the simple joiner of the pruned loss, a second decoder and joiner) is left out. Files
are checked by `torch_file` before torch reads them: no code in a checkpoint is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.errors import StepError
from artifacts.icefall.config import Config, read_config
from artifacts.untrusted.bounded_yaml import YamlBoundError, load_plain
from artifacts.untrusted.torch_file import (
    ForeignObjectError,
    StoredTensor,
    TorchFileError,
    check_records,
    load_tensors,
    read_index,
)

if TYPE_CHECKING:
    from torch import Tensor

    from artifacts.icefall.lstm_transducer import LstmTransducer

CONFIG_NAMES = ("config.yaml", "config.json")
TRAINING_ONLY = ("simple_am_proj", "simple_lm_proj", "decoder_giga", "joiner_giga")
FIX = "give a checkpoint of icefall's lstm_transducer_stateless2, or a folder with one"
MAX_CONFIG_BYTES = 1_000_000
MAX_CONFIG_DEPTH = 20
# exp of it is far beyond what training reaches, and within float32.
MAX_SCALE = 80


def load(checkpoint: Path) -> LstmTransducer:
    """The model in evaluation mode, float32, without gradients.

    Raises StepError for a file that is damaged or holds more than weights, for a configuration that is wrong or does
    not agree with the weights, and for a weight that is missing, unknown, of another shape or not finite.
    """
    file, said = _find(checkpoint)
    _check(file)
    import torch

    from artifacts.icefall.lstm_transducer import LstmTransducer

    weights, inside = _read(file)
    plain = {_plain(name): value for name, value in weights.items()}
    if len(plain) < len(weights):
        raise StepError(f"{file.name}: a weight is there with and without 'module.' before its name", FIX)
    weights = fold_scales(plain, file.name)
    keys = {key: value for key, value in inside.items() if key in Config.model_fields}
    config = read_config({**_from_shapes(weights, file.name), **keys, **said}, checkpoint.name)
    with torch.device("meta"):
        model = LstmTransducer(config)
    _compare(weights, model.state_dict(), file.name)
    model.load_state_dict({name: weights[name].float() for name in model.state_dict()}, assign=True)
    return model.eval().requires_grad_(False)


def _find(checkpoint: Path) -> tuple[Path, dict[str, Any]]:
    """The file with the weights, and what the configuration beside it says."""
    if not checkpoint.is_dir():
        return checkpoint, {}
    files = sorted(checkpoint.glob("*.pt"))
    if len(files) != 1:
        held = ", ".join(path.name for path in files) or "none"
        raise StepError(f"{checkpoint.name}: needs one .pt file, holds {held}", "keep one checkpoint in the folder")
    configs = [checkpoint / name for name in CONFIG_NAMES if (checkpoint / name).is_file()]
    if not configs:
        return files[0], {}
    return files[0], _parse(configs[0])


def _parse(path: Path) -> dict[str, Any]:
    import yaml

    size = path.stat().st_size
    if size > MAX_CONFIG_BYTES:
        raise StepError(
            f"{path.name}: has {size} bytes, at most {MAX_CONFIG_BYTES} are read", "write icefall's keys only"
        )
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            values = json.loads(text)
        else:
            values = load_plain(text, max_bytes=MAX_CONFIG_BYTES, max_depth=MAX_CONFIG_DEPTH)
    except (yaml.YAMLError, YamlBoundError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise StepError(f"{path.name}: cannot be read: {reason:.200}", "write it again") from None
    if not isinstance(values, dict):
        raise StepError(f"{path.name}: holds no keys", "write one key of icefall's configuration a line")
    return values


def _check(file: Path) -> None:
    """Check what the file says of its tensors, and their bytes, before torch is imported."""
    try:
        content = read_index(file)
        # Not by its own methods: an instance may hold anything under their names.
        inner = dict.get(content, "model") if isinstance(content, dict) else None
        state = inner if isinstance(inner, dict) else content
        entries = list(dict.items(state)) if isinstance(state, dict) else [("", None)]
        tensors = [value for name, value in entries if isinstance(name, str) and isinstance(value, StoredTensor)]
        if len(tensors) < len(entries):
            raise StepError(f"{file.name}: holds no state dict, neither plain nor under 'model'", FIX)
        check_records(file, tensors)
    except ForeignObjectError as error:
        raise StepError(
            f"{file.name}: holds more than weights, or is no checkpoint ({error})",
            "export it with icefall's export.py, which keeps the weights only",
        ) from error
    except TorchFileError as error:
        raise StepError(f"{file.name}: cannot be read ({error})", "fetch the checkpoint again") from error


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a checked file, and what else the checkpoint holds."""
    try:
        plain = dict(dict.items(load_tensors(file)))
    except TorchFileError as error:
        raise StepError(f"{file.name}: cannot be read ({error})", "fetch the checkpoint again") from error
    if isinstance(plain.get("model"), dict):
        return dict(dict.items(plain.pop("model"))), plain
    return plain, {}


def _plain(name: str) -> str:
    """Without the prefix that distributed training puts before each name."""
    return name.removeprefix("module.")


def fold_scales(weights: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """Multiply each weight by the exponential of its scale, and leave out the scales and what serves training only.

    Scales are scalars, called `<weight>_scale`; an embedding's is called `scale`. Raises StepError for one without its
    weight.
    """
    from artifacts.icefall.lstm_transducer import exponential

    folded = {name: value for name, value in weights.items() if not name.startswith(TRAINING_ONLY)}
    for name in [name for name in folded if name.endswith(("_scale", ".scale"))]:
        owner = f"{name.removesuffix('scale')}weight" if name.endswith(".scale") else name.removesuffix("_scale")
        if owner not in folded or folded[name].numel() != 1 or not abs(folded[name].item()) <= MAX_SCALE:
            raise StepError(f"{place}: {name!r:.120} is not the scale of a weight {owner!r:.120}", FIX)
        folded[owner] = folded[owner].float() * exponential(folded[name].item())
        del folded[name]
    return folded


def _from_shapes(weights: Mapping[str, Tensor], place: str) -> dict[str, int]:
    """The configuration that the weights themselves show."""

    def size(name: str, axis: int) -> int:
        if name not in weights or weights[name].ndim <= axis:
            raise StepError(f"{place}: there is no weight '{name}' with an axis {axis}", FIX)
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


def _compare(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], place: str) -> None:
    """Raise StepError unless the names and shapes are those of the model that the configuration describes."""
    for name, value in wanted.items():
        if name not in weights:
            raise StepError(f"{place}: the weight '{name}' is missing", FIX)
        if weights[name].shape != value.shape:
            raise StepError(
                f"{place}: '{name}' is {list(weights[name].shape)}, the configuration asks for {list(value.shape)}",
                "give the configuration that the checkpoint was trained with, or none",
            )
        if not weights[name].is_floating_point() or not all(end.isfinite() for end in weights[name].float().aminmax()):
            raise StepError(f"{place}: '{name}' has values that are not finite numbers of float32", FIX)
    for name in weights:
        if name not in wanted:
            raise StepError(f"{place}: the model has no weight {name!r:.120}", FIX)
