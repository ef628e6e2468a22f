"""A mistake that pydantic found is told with the value and its bound, and the fix is a number within the bound."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from artifacts.validation_errors import first_mistake, fix_of, plain_message


class Form(BaseModel):
    """A model with a field of each kind."""

    model_config = ConfigDict(strict=True)
    whole: int = Field(1, gt=0, lt=10)
    closed: int = Field(1, ge=1, le=9)
    share: float = Field(0.5, gt=0, lt=1)
    level: float = Field(0.5, ge=0, le=1)
    name: str = "a"

    @field_validator("name")
    @classmethod
    def _check(cls, name: str) -> str:
        if name == "b":
            raise ValueError("b is taken")
        return name


class Forms(BaseModel):
    """A model with a list."""

    forms: list[Form]


@pytest.mark.parametrize(
    ("given", "message", "fix"),
    [
        ({"whole": 0}, "must be greater than 0, got 0", "use 1 or more"),
        ({"whole": 10}, "must be less than 10, got 10", "use 9 or less"),
        ({"closed": 0}, "must be at least 1, got 0", "use 1 or more"),
        ({"closed": 10}, "must be at most 9, got 10", "use 9 or less"),
        ({"share": 0.0}, "must be greater than 0, got 0.0", "use a number above 0"),
        ({"share": 1.5}, "must be less than 1, got 1.5", "use a number below 1"),
        ({"level": -1.0}, "must be at least 0, got -1.0", "use 0 or more"),
        ({"level": 1.5}, "must be at most 1, got 1.5", "use 1 or less"),
        ({"whole": "x"}, 'must be a whole number, got "x"', "correct it"),
        ({"name": "b"}, "b is taken", "correct it"),
    ],
)
def test_a_mistake_is_told_with_value_and_bound(given: dict[str, Any], message: str, fix: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Form.model_validate(given)
    (error,) = caught.value.errors(include_url=False)
    assert (plain_message(error), fix_of(error, "correct it")) == (message, fix)


def test_the_first_mistake_has_its_key() -> None:
    with pytest.raises(ValidationError) as caught:
        Forms.model_validate({"forms": [{"name": 3}]})
    assert first_mistake(caught.value) == "forms.0.name: must be a text, got 3"
    assert first_mistake(caught.value, depth=1) == "forms: must be a text, got 3"
    with pytest.raises(ValidationError) as caught:
        Forms.model_validate([object])
    assert first_mistake(caught.value).startswith("must be a mapping of keys")
