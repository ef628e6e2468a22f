from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from artifacts.errors import StepError
from artifacts.nemo.archive import WEIGHTS, open_archive
from artifacts.nemo.checkpoint import restore, restore_preprocessor


@pytest.fixture
def with_weights(tmp_path: Path, tiny_checkpoint: Path) -> Callable[[bytes], Path]:
    """The embedded checkpoint with other bytes as its weights."""

    def make(weights: bytes) -> Path:
        folder, checkpoint = tmp_path / "members", tmp_path / "changed.nemo"
        folder.mkdir()
        with open_archive(tiny_checkpoint) as archive:
            archive.extract_all(folder)
        (folder / WEIGHTS).write_bytes(weights)
        with tarfile.open(checkpoint, "w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)
        return checkpoint

    return make


def test_the_model_is_in_evaluation_mode_without_gradients_and_on_the_cpu(restored_model: Any) -> None:
    assert not any(module.training for module in restored_model.modules())
    assert not any(parameter.requires_grad for parameter in restored_model.parameters())
    assert {(value.device.type, value.dtype) for value in restored_model.parameters()} == {("cpu", torch.float32)}


def test_the_weights_are_those_of_the_file(tiny_checkpoint: Path, tmp_path: Path, restored_model: Any) -> None:
    with open_archive(tiny_checkpoint) as archive:
        stored = torch.load(archive.extract(WEIGHTS, tmp_path), weights_only=True)
    restored = restored_model.state_dict()
    assert stored.keys() == restored.keys()
    assert all(torch.equal(stored[key], restored[key]) for key in stored)


def test_the_model_outlives_the_folder_it_was_unpacked_in(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = restore(tiny_checkpoint, tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    assert all(value.isfinite().all() for value in model.parameters())


def test_the_preprocessor_alone_is_the_models(tiny_checkpoint: Path, tmp_path: Path, restored_model: Any) -> None:
    preprocessor = restore_preprocessor(tiny_checkpoint, tmp_path)
    whole = restored_model.preprocessor
    assert not any(module.training for module in preprocessor.modules())
    assert torch.equal(preprocessor.featurizer.fb, whole.featurizer.fb)
    assert torch.equal(preprocessor.featurizer.window, whole.featurizer.window)
    assert preprocessor.featurizer.normalize == whole.featurizer.normalize


def test_weights_of_less_precision_are_widened(
    tmp_path: Path, restored_model: Any, with_weights: Callable[[bytes], Path]
) -> None:
    narrow = {key: value.bfloat16() if value.is_floating_point() else value
              for key, value in restored_model.state_dict().items()}  # fmt: skip
    buffer = io.BytesIO()
    torch.save(narrow, buffer)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    model = restore(with_weights(buffer.getvalue()), scratch)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert torch.equal(model.joint.enc.weight, restored_model.joint.enc.weight.bfloat16().float())


@pytest.mark.parametrize("function", [restore, restore_preprocessor])
@pytest.mark.parametrize("kept", [0, 1000, 300_000])
def test_weights_that_torch_cannot_read_are_told_in_two_lines(
    tmp_path: Path,
    tiny_checkpoint: Path,
    with_weights: Callable[[bytes], Path],
    kept: int,
    function: Callable[..., Any],
) -> None:
    with open_archive(tiny_checkpoint) as archive:
        checkpoint = with_weights(archive.read(WEIGHTS)[:kept])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(StepError, match=r"changed\.nemo: the weights cannot be read") as raised:
        function(checkpoint, scratch)
    assert raised.value.fix == "fetch the checkpoint again"
