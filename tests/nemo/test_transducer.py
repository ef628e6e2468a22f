from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from artifacts.errors import StepError
from artifacts.nemo.archive import open_archive
from artifacts.nemo.model_config import PART_NAMES, read_config
from artifacts.nemo.transducer import Transducer, fill, library_errors, make_part


@pytest.fixture(scope="module")
def empty(tiny_checkpoint: Path) -> Transducer:
    with open_archive(tiny_checkpoint) as archive:
        return Transducer(read_config(archive), False, "tiny.nemo")


def test_weights_take_no_memory_before_they_are_filled_in(empty: Transducer) -> None:
    for part in ("encoder", "decoder", "joint"):
        matrices = [value for value in getattr(empty, part).parameters() if value.ndim > 1]
        large = [value for value in matrices if value.numel() > 96 * 96]
        assert large
        assert all(value.is_meta for value in large)


def test_the_parts_are_those_of_nemos_own_model(tiny_checkpoint: Path, empty: Transducer, quietly: None) -> None:
    from nemo.collections.asr.models import EncDecRNNTBPEModel

    theirs = EncDecRNNTBPEModel.restore_from(str(tiny_checkpoint), map_location="cpu")
    for part in PART_NAMES:
        ours = getattr(empty, part)
        assert type(ours) is type(getattr(theirs, part))
        shapes = {key: value.shape for key, value in getattr(theirs, part).state_dict().items()}
        assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    fill(empty, theirs.state_dict(), "tiny.nemo")
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in empty.state_dict().items())
    left = [name for name, value in [*empty.named_parameters(), *empty.named_buffers()] if value.is_meta]
    assert left == ["encoder.pos_enc.pe"]  # which replace_position_tables makes
    assert not any(module.training for module in empty.modules())


def test_filled_weights_are_not_copied() -> None:
    module, weights = torch.nn.Linear(2, 3), {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}
    fill(module, weights, "x")
    assert module.weight.data_ptr() == weights["weight"].data_ptr()


@pytest.mark.parametrize("trusted", [False, True])
def test_a_part_is_made_alike_from_a_trusted_configuration(tiny_checkpoint: Path, trusted: bool) -> None:
    with open_archive(tiny_checkpoint) as archive:
        config = read_config(archive)
    preprocessor: Any = make_part(config, "preprocessor", trusted, "tiny.nemo")
    assert preprocessor.featurizer.window.shape == (400,)
    assert preprocessor.featurizer.fb.shape == (1, 128, 257)


def test_an_exception_of_a_library_becomes_an_error_with_its_first_line() -> None:
    with pytest.raises(StepError, match=r"^x: one\n") as raised, library_errors("x"):
        raise ValueError("\n\none\ntwo")
    assert isinstance(raised.value.__cause__, ValueError)
    with pytest.raises(StepError, match=r"^x: TypeError"), library_errors("x"):
        raise TypeError
    for error in (MemoryError(), FileNotFoundError(), ImportError()):
        with pytest.raises(type(error)), library_errors("x"):
            raise error
