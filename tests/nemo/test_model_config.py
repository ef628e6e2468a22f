from __future__ import annotations

import copy
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from artifacts.errors import StepError
from artifacts.nemo.archive import CONFIG, open_archive
from artifacts.nemo.model_config import PART_NAMES, ModelConfig, PreprocessorConfig, read_config
from faults.hostile_archives import config_texts
from faults.hostile_checkpoints import Case, values


@pytest.fixture(scope="session")
def raw_config(tiny_checkpoint: Path) -> dict[str, Any]:
    with open_archive(tiny_checkpoint) as archive:
        config: dict[str, Any] = yaml.safe_load(archive.read(CONFIG, 10**6))
    return config


def _read(folder: Path, content: bytes) -> ModelConfig:
    with tarfile.open(folder / "changed.nemo", "w") as tar:
        member = tarfile.TarInfo(CONFIG)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    with open_archive(folder / "changed.nemo") as archive:
        return read_config(archive)


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        *sections, last = key.split(".")
        for section in sections:
            config = config[section]
        config[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (
            _set("target", "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE"),
            "contains 'nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE', "
            "only EncDecRNNTBPEModel is supported",
        ),
        (_set("target", None), "contains 'None', only EncDecRNNTBPEModel"),
        (
            _set("decoding.durations", []),
            "decoding.durations: must have as many values as joint.num_extra_outputs says, 5, got 0",
        ),
        (_set("joint.num_extra_outputs", 0), "joint.num_extra_outputs says, 0, got 5"),
        (_set("decoding.durations", [0, 1]), "joint.num_extra_outputs says, 5, got 2"),
        (_set("tokenizer.type", "wpe"), "tokenizer.type: "),
        (_set("tokenizer.model_path", "/elsewhere/tokenizer.model"), "tokenizer.model_path: "),
        (_set("encoder._target_", "nemo.collections.asr.modules.SqueezeformerEncoder"), "encoder._target_: "),
        (_set("decoder._target_", "nemo.collections.asr.modules.StatelessTransducerDecoder"), "decoder._target_: "),
        (_set("decoder.blank_as_pad", False), "decoder.blank_as_pad: "),
        (_set("decoder.vocab_size", "many"), "decoder.vocab_size: "),
        (_set("preprocessor", None), "preprocessor: "),
    ],
)
def test_another_kind_of_model_is_refused_by_name(
    tmp_path: Path, raw_config: dict[str, Any], change: Callable[[dict[str, Any]], None], fact: str
) -> None:
    config = copy.deepcopy(raw_config)
    change(config)
    with pytest.raises(StepError) as raised:
        _read(tmp_path, yaml.safe_dump(config).encode())
    assert raised.value.fact.startswith("changed.nemo: ")
    assert fact in raised.value.fact
    assert raised.value.fix == "give a checkpoint of an EncDecRNNTBPEModel with TDT durations, such as Parakeet-TDT"


def test_a_transducer_without_durations_is_read(tmp_path: Path, raw_config: dict[str, Any]) -> None:
    config = copy.deepcopy(raw_config)
    _set("decoding.durations", [])(config)
    _set("joint.num_extra_outputs", 0)(config)
    read = _read(tmp_path, yaml.safe_dump(config).encode())
    assert (read.decoding.durations, read.joint_width) == ((), read.decoder.vocab_size + 1)


@pytest.mark.parametrize(
    ("content", "fact"), [(b"a: [", "is not YAML"), (b"- 1\n", "contains 'no class'"), (b"", "no class")]
)
def test_a_file_without_a_configuration_is_refused(tmp_path: Path, content: bytes, fact: str) -> None:
    with pytest.raises(StepError, match=fact):
        _read(tmp_path, content)


def test_sizes_are_those_of_the_restored_model(tiny_checkpoint: Path, restored_model: Any) -> None:
    with open_archive(tiny_checkpoint) as archive:
        config = read_config(archive)
    featurizer = restored_model.preprocessor.featurizer
    assert config.blank_id == restored_model.decoder.blank_idx
    assert config.joint_width == restored_model.joint.num_classes_with_blank
    assert config.preprocessor.window_samples == featurizer.win_length
    assert config.preprocessor.hop_samples == featurizer.hop_length
    assert config.preprocessor.fft_samples == featurizer.n_fft
    assert config.preprocessor.features == featurizer.nfilt
    assert config.encoder.subsampling_factor == restored_model.encoder.subsampling_factor


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"window_size": 0.025, "n_fft": None},
        {"window_size": 0.032},
        {"sample_rate": 8_000},
        {"window_size": None, "window_stride": None, "n_window_size": 320, "n_window_stride": 128},
    ],
)
def test_sizes_that_are_not_given_are_what_nemo_takes(settings: dict[str, Any], quietly: None) -> None:
    from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor

    featurizer = AudioToMelSpectrogramPreprocessor(**settings).featurizer
    ours = PreprocessorConfig.model_validate({"_target_": "x.AudioToMelSpectrogramPreprocessor", **settings})
    assert (ours.window_samples, ours.hop_samples, ours.fft_samples, ours.features) == (
        featurizer.win_length, featurizer.hop_length, featurizer.n_fft, featurizer.nfilt,
    )  # fmt: skip


VALUES = list(values())


@pytest.mark.parametrize("case", VALUES, ids=[case.name for case in VALUES])
def test_a_value_that_no_model_has_is_refused_by_its_key(case: Case, tmp_path: Path, tiny_checkpoint: Path) -> None:
    case.build(tiny_checkpoint, tmp_path / "h.nemo", tmp_path)
    with open_archive(tmp_path / "h.nemo") as archive, pytest.raises(StepError) as raised:
        read_config(archive)
    assert case.told in raised.value.fact
    assert raised.value.fact.isprintable()
    assert len(raised.value.fact) < 300


def test_the_arguments_of_a_part_are_what_the_file_says(raw_config: dict[str, Any], tiny_checkpoint: Path) -> None:
    with open_archive(tiny_checkpoint) as archive:
        config = read_config(archive)
    for part in PART_NAMES[:3]:
        assert config.arguments(part) == raw_config[part]
    joint = {key: value for key, value in raw_config["joint"].items() if key != "vocabulary"}
    assert config.arguments("joint") == {**joint, "fuse_loss_wer": False}


@pytest.mark.parametrize("case", list(config_texts()), ids=lambda case: case.name)
def test_a_text_that_is_not_plain_values_is_refused(case: Case, tmp_path: Path, tiny_checkpoint: Path) -> None:
    case.build(tiny_checkpoint, tmp_path / "h.nemo", tmp_path)
    with open_archive(tmp_path / "h.nemo") as archive, pytest.raises(StepError) as raised:
        read_config(archive)
    assert case.told in raised.value.fact
    assert raised.value.fact.isprintable()
    assert len(str(raised.value)) < 500
