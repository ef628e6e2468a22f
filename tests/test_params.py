from __future__ import annotations

import pytest
from pydantic import Field, ValidationError

from artifacts.params import StepParams


class Params(StepParams):
    """A step's, for these tests."""

    size_bytes: int = Field(5, gt=0)
    scale: float = 1.0


@pytest.mark.parametrize("given", [{}, {"size_bytes": 1}, {"scale": 2}, {"scale": 0.5}])
def test_good_params_are_taken(given: dict[str, float]) -> None:
    assert Params.model_validate(given).model_dump() == {"size_bytes": 5, "scale": 1.0} | given


@pytest.mark.parametrize(
    "given",
    [{"size_byte": 1}, {"size_bytes": 0}, {"size_bytes": "1"}, {"size_bytes": 1.5}, {"size_bytes": True},
     {"scale": "1"}, {"scale": float("nan")}, {"scale": float("inf")}, {"scale": None}],
)  # fmt: skip
def test_unknown_keys_wrong_types_and_values_out_of_bounds_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate(given)


def test_params_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Params.model_validate({}).size_bytes = 6
