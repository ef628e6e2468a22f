"""Checkpoints that a stranger could send, each made from a good one.

Functions yield the cases: here those of the configuration, in `hostile_archives` and `hostile_weights` the others. A
test, or a harness that runs the whole engine, builds each and expects an error of two lines with the text `told`.
`victim` is a folder, with a file `kept` in it, that no run may touch.
"""

from __future__ import annotations

import functools
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CONFIG, WEIGHTS, TOKENIZER = "model_config.yaml", "model_weights.ckpt", "tokenizer.model"
EVERY_STEP = "every step that reads a checkpoint"
Members = dict[str, bytes]
Config = dict[str, Any]


class Case(NamedTuple):
    """One kind of checkpoint. `build(good, file, victim)` writes it to `file`; `step` is one that meets the fault."""

    name: str
    build: Callable[[Path, Path, Path], object]
    told: str
    step: str = EVERY_STEP


def unpack(checkpoint: Path) -> Members:
    """The content of each member of a .nemo file."""
    with tarfile.open(checkpoint) as tar:
        found = [(member.name.removeprefix("./"), tar.extractfile(member)) for member in tar if member.isfile()]
        return {name: file.read() for name, file in found if file is not None}


def pack(members: Members, file: Path) -> Path:
    """Write a .nemo file."""
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file


def read(members: Members) -> Config:
    """The configuration among the members."""
    config: Config = yaml.safe_load(members[CONFIG])
    return config


def changed(good: Path, file: Path, change: Callable[[Config], object]) -> Path:
    """Write the checkpoint with a changed configuration."""
    members = unpack(good)
    config = read(members)
    change(config)
    return pack({**members, CONFIG: yaml.safe_dump(config, allow_unicode=True).encode()}, file)


def set_key(path: str, value: Any) -> Callable[[Config], None]:
    """A change of one key, given with dots; missing sections are made."""

    def change(config: Config) -> None:
        *sections, last = path.split(".")
        for section in sections:
            config[section] = config.get(section) or {}
            config = config[section]
        config[last] = value

    return change


def keyed(path: str, value: Any) -> Callable[[Path, Path, Path], object]:
    """Build a checkpoint with a value of one key."""
    return lambda good, file, _: changed(good, file, set_key(path, value))


_TOKENIZERS = "nemo.collections.common.tokenizers.megatron_utils"
_DOWNLOAD = f"{_TOKENIZERS}._download"


def writes(victim: Path) -> Config:
    """A call that NeMo's own list admits: it writes bytes of the sender's choice."""
    return {"_target_": _DOWNLOAD, "path": str(victim / "new"), "url": "data:,bytes"}


def removes(victim: Path) -> Config:
    """Another: it removes a folder."""
    target = "nemo.collections.asr.parts.utils.data_simulation_utils.get_cleaned_base_path"
    return {"_target_": target, "output_dir": str(victim), "overwrite_output": True}


def empties(victim: Path) -> Config:
    """Another: it empties a file."""
    target = "nemo.collections.asr.parts.utils.manifest_utils.write_manifest"
    return {"_target_": target, "output_path": str(victim / "kept"), "target_manifest": []}


Call = Callable[[Path], Config]


def _called(
    name: str, path: str, call: Call, shape: Callable[[Config], Any] = lambda call: call, inner: str = "_target_"
) -> Case:
    """The call as the value of a key. `shape` puts it into what the key holds, at the key path `inner`."""
    return Case(
        f"{name}: {call.__name__} at {path}",
        lambda good, file, victim: changed(good, file, set_key(path, shape(call(victim)))),
        f"{CONFIG}: {path}.{inner}: ",
    )


def _renamed(key: str, call: Config) -> Config:
    return {key: call["_target_"], "params": {name: value for name, value in call.items() if name != "_target_"}}


def calls() -> Iterator[Case]:
    """Functions that restoring the model would run."""
    for call in (writes, removes, empties):
        for path in ("preprocessor.a", "spec_augment.a"):
            yield _called("direct", path, call)
    for path in (
        "encoder.a", "decoder.a", "decoder.prednet.a", "joint.a", "joint.jointnet.a", "decoding.a", "decoding.greedy.a",
        "tokenizer.custom_tokenizer", "tokenizer.a", "loss.a", "optim.sched", "train_ds.a", "exp_manager.a", "a",
        "preprocessor.normalize", "preprocessor.rng", "model_defaults.a", "model.preprocessor.a", "adapters.a",
    ):  # fmt: skip
        yield _called("direct", path, writes)
    yield _called("nested list", "preprocessor.a", writes, lambda call: {"x": [call]}, "x.0._target_")
    yield _called("args", "preprocessor.a", writes, lambda call: {"_args_": [call]}, "_args_.0._target_")
    for key in ("target", "cls", "_TARGET_", "Target", "CLS"):
        renamed = functools.partial(_renamed, key)
        yield _called(f"key {key}", "preprocessor.a", writes, renamed, key)
    for path, value in (
        ("preprocessor._target_", _DOWNLOAD),
        ("preprocessor._target_", f"{_TOKENIZERS}.AudioToMelSpectrogramPreprocessor"),
        ("preprocessor._target_", "x.AudioToMelSpectrogramPreprocessor"),
        ("encoder._target_", "nemo.collections.asr.modules.conformer_encoder.x.ConformerEncoder"),
        ("encoder._target_", "NEMO.collections.asr.modules.ConformerEncoder"),
        ("encoder._target_", "nemo.collections.asr.modules.ConformerEncoder "),
        ("encoder._target_", "${oc.env:HOME}.ConformerEncoder"),
        ("encoder._target_", "${oc.create:{_target_:os.system}}"),
        ("encoder._target_", ["nemo.collections.asr.modules.ConformerEncoder"]),
        ("encoder._target_", None),
        ("spec_augment._target_", "os.system"),
        ("preprocessor.a._target_", "nemo.collections.asr.models.EncDecRNNTBPEModel"),
        ("target", "os.EncDecRNNTBPEModel"),
    ):
        yield Case(f"{path} {value!r}", keyed(path, value), f"{CONFIG}: {path}: ")


def texts() -> Iterator[Case]:
    """Texts in known sections that OmegaConf, NeMo or the file system would follow."""
    for path, value, told, step in (
        ("preprocessor.window", "${oc.env:HOME}", "preprocessor.window: ", EVERY_STEP),
        ("preprocessor.mel_norm", "${oc.env:HOME}", "is an interpolation", EVERY_STEP),
        ("encoder.subsampling", "${oc.decode:x}", "is an interpolation", EVERY_STEP),
        ("joint.jointnet.activation", "a${joint}", "is an interpolation", EVERY_STEP),
        ("tokenizer.model_path", "/etc/passwd", "tokenizer.model_path: ", EVERY_STEP),
        ("tokenizer.model_path", "nemo:../../etc/passwd", "no '../../etc/passwd' in the archive", "write_tokens"),
        ("tokenizer.model_path", "nemo:/etc/passwd", "no '/etc/passwd' in the archive", "write_tokens"),
        ("tokenizer.model_path", "nemo:model_config.yaml", "is not a SentencePiece model", "write_tokens"),
        ("tokenizer.type", "agg", "tokenizer.type: ", EVERY_STEP),
        ("preprocessor._partial_", True, "NeMo does not make the preprocessor: ", "export_preprocessor"),
        ("preprocessor.a", 1, "NeMo does not make the preprocessor: ", "export_preprocessor"),
        ("preprocessor.params", {"x": 1}, "NeMo does not make the preprocessor: ", "export_preprocessor"),
    ):
        yield Case(f"{path} {value!r}", keyed(path, value), told, step)


def values() -> Iterator[Case]:
    """Values of known keys that ask for much memory, or for what cannot be."""
    sizes = {
        "encoder": ("n_layers", "d_model", "n_heads", "ff_expansion_factor", "conv_kernel_size", "feat_in",
                    "subsampling_factor", "subsampling_conv_channels", "pos_emb_max_len", "reduction_factor"),
        "preprocessor": ("sample_rate", "window_size", "window_stride", "n_fft", "features", "pad_to",
                         "preemph", "lowfreq", "highfreq", "dither", "frame_splicing", "mag_power", "window"),
        "decoder": ("vocab_size", "prednet.pred_hidden", "prednet.pred_rnn_layers"),
        "joint": ("num_extra_outputs", "jointnet.joint_hidden", "jointnet.encoder_hidden", "jointnet.pred_hidden"),
        "decoding": ("greedy.max_symbols", "durations"),
    }  # fmt: skip
    paths = [f"{section}.{key}" for section, keys in sizes.items() for key in keys]
    for path in paths:
        for value in (10**9, -2, float("nan"), float("inf"), "many" * 1000, [10**9] * 3, {"a": 1}, True):
            yield Case(f"{path} {value!r:.30}", keyed(path, value), f"{CONFIG}: {path}")
    for path, value, told in (
        ("encoder.n_layers", 10**300, "is not of type int"),
        ("encoder.n_layers", 10**38, "encoder.n_layers: "),
        ("encoder.subsampling_factor", 6, "subsampling_factor must be a power of two"),
        ("encoder.d_model", 95, "d_model must be even and a multiple of n_heads"),
        ("encoder.att_context_size", [10**9, 10**9], "encoder.att_context_size"),
        ("encoder.att_context_size", [[70, 10**9]], "encoder.att_context_size"),
        ("encoder.conv_context_size", [10**6, 8 - 10**6], "encoder.conv_context_size"),
        ("encoder.subsampling_conv_chunking_factor", 10**9, "encoder.subsampling_conv_chunking_factor: must be a"),
        ("encoder.stochastic_depth_start_layer", float("nan"), "encoder.stochastic_depth_start_layer: must be a"),
        ("decoding.durations", list(range(1000)), "joint.num_extra_outputs says, 5, got 1000"),
        ("decoding.durations", [0, 1, 2, 3, 10**9], "decoding.durations.4: "),
        ("preprocessor.n_window_stride", 10**9, "preprocessor.n_window_stride: "),
        ("encoder.feat_in", 80, "encoder.feat_in: must be preprocessor.features, 128, got 80"),
        ("joint.jointnet.encoder_hidden", 95, "must be the encoder's width, 96, got 95"),
        ("decoder.prednet", None, "decoder.prednet: "),
        ("encoder", [], "encoder: "),
    ):
        yield Case(f"{path} {value!r:.40}", keyed(path, value), told)
