"""Corpora and encoders that calibration must refuse or measure as outliers, made from the embedded ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import soundfile
from onnx import numpy_helper

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def save(model: onnx.ModelProto, folder: Path) -> Path:
    """Write the model to a new folder, under the name of an encoder."""
    folder.mkdir()
    onnx.save(model, folder / "encoder-model.onnx")
    return folder


def with_scaled_channel(source: Path, target: Path, norm: str, factor: float) -> Path:
    """The encoder with one channel of a LayerNorm's gamma and beta multiplied by a factor."""
    model = onnx.load(source / "encoder-model.onnx")
    names = next(node for node in model.graph.node if norm in node.name).input[1:]
    for tensor in (tensor for tensor in model.graph.initializer if tensor.name in names):
        numbers = numpy_helper.to_array(tensor).copy()
        numbers[7] *= factor
        tensor.CopyFrom(numpy_helper.from_array(numbers, tensor.name))
    return save(model, target)


def copy_corpus(source: Path, target: Path, utterances: int) -> Path:
    """The first clean utterances of a corpus."""
    (target / "clips").mkdir(parents=True)
    lines = (source / "utterances.jsonl").read_text(encoding="utf-8").splitlines()[:utterances]
    for line in lines:
        shutil.copy(source / json.loads(line)["audio_filepath"], target / "clips")
    (target / "utterances.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return target


def rewrite(corpus: Path, identifier: str, waveform: npt.NDArray[np.float32]) -> None:
    """Give an utterance another waveform."""
    rows = [json.loads(line) for line in (corpus / "utterances.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if row["id"] == identifier:
            soundfile.write(corpus / row["audio_filepath"], waveform, 16_000, format="WAV", subtype="FLOAT")
            row["duration"] = len(waveform) / 16_000
    (corpus / "utterances.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
