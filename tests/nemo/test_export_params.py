from __future__ import annotations

import pytest
from pydantic import Field, ValidationError

from artifacts.nemo.export_params import ExportParams


class Params(ExportParams):
    """Two sizes more."""

    frames: int | None = Field(None, ge=1, le=100)
    tokens: int | None = Field(None, ge=1)


def test_axes_vary_unless_all_sizes_are_given() -> None:
    assert Params().fixed_sizes is None
    fixed = Params(dynamic_axes=False, batch_size=2, frames=30, tokens=4)
    assert fixed.fixed_sizes == {"batch": 2, "frames": 30, "tokens": 4}


@pytest.mark.parametrize(
    "sizes",
    [
        {"dynamic_axes": False},
        {"dynamic_axes": False, "batch_size": 1, "frames": 1},
        {"dynamic_axes": False, "frames": 1, "tokens": 1},
        {"tokens": 1},
        {"batch_size": 1, "frames": 1, "tokens": 1},
    ],
)
def test_sizes_and_fixed_axes_need_one_another(sizes: dict[str, int]) -> None:
    message = "dynamic_axes: false needs batch_size and frames and tokens, and nothing else does"
    with pytest.raises(ValidationError, match=message):
        Params.model_validate(sizes)
