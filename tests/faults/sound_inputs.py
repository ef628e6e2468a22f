"""What the steps read, sound: artifacts of the embedded recipes, a short corpus, and a model in two files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx

TARGETS = {
    "tiny": (
        "encoder_fp32",
        "encoder_fp16",
        "decoder_joint_fp32",
        "decoder_joint_fp16",
        "predictor_fp32",
        "joint_fp32",
        "preprocessor",
        "tokens",
        "model_meta",
        "statistics_fp32",
    ),
    "tiny-streaming": (
        "streaming_encoder_batch_first",
        "predictor_fp32",
        "joint_fp32",
        "preprocessor",
        "tokens",
        "model_meta",
    ),
    "tiny-ncnn": (
        "encoder_ncnn_fp32",
        "encoder_ncnn_linear",
        "predictor_ncnn_fp32",
        "joint_ncnn_fp16",
        "traced_joint",
    ),
    "lstm-transducer": (
        "encoder_ncnn_fp32",
        "encoder_ncnn_linear",
        "encoder_sherpa_fp32",
        "predictor_ncnn_fp32",
        "joint_ncnn_fp32",
        "scales_ncnn",
        "traced_joint",
    ),
}
"""What has to be built, by recipe."""


def sound_inputs(cache: Path, recipes: Path, folder: Path) -> dict[str, Path]:
    """Name the artifacts in `cache`, and write to `folder` what no recipe makes: a short corpus, a model in two files.

    The statistics do not say of which model they are, so that a broken one is not refused for being another.
    """
    prefixes = {"tiny": "", "tiny-streaming": "streaming/", "tiny-ncnn": "ncnn/", "lstm-transducer": "lstm/"}
    found = {
        prefixes[recipe] + target: (cache / recipe / target).resolve()
        for recipe, names in TARGETS.items()
        for target in names
    }
    found |= {"corpus": _corpus(recipes / "tiny" / "evaluation", folder / "corpus")}
    found["loose"] = _loose(found["decoder_joint_fp32"], folder / "loose")
    found["statistics"] = _statistics(found["statistics_fp32"], folder / "statistics")
    found["lstm/tokens"] = folder / "tokens"
    found["lstm/tokens"].mkdir()
    shutil.copyfile(recipes / "lstm-transducer" / "checkpoint" / "tokens.txt", folder / "tokens" / "tokens.txt")
    return found


def _corpus(source: Path, target: Path) -> Path:
    lines = [json.loads(line) for line in (source / "utterances.jsonl").read_text().splitlines()]
    shortest = sorted(
        (line for line in lines if isinstance(line["audio_filepath"], str)), key=lambda line: line["duration"]
    )[:2]
    (target / "clips").mkdir(parents=True)
    for line in shortest:
        shutil.copyfile(source / line["audio_filepath"], target / line["audio_filepath"])
    (target / "utterances.jsonl").write_text("".join(json.dumps(line) + "\n" for line in shortest))
    return target


def _loose(source: Path, target: Path) -> Path:
    target.mkdir()
    (model,) = source.glob("*.onnx")
    onnx.save(onnx.load(model), target / "model.onnx", save_as_external_data=True, location="model.onnx.data")
    return target


def _statistics(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    for path in target.iterdir():
        path.chmod(0o644)
    index = json.loads((target / "statistics.json").read_text())
    del index["measured"]["model_sha256"]
    (target / "statistics.json").write_text(json.dumps(index))
    return target
