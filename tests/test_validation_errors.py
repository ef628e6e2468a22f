"""A mistake that pydantic found is told with the value and its bound, and the fix is a number within the bound."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from artifacts.validation_errors import first_mistake, fix_of, in_series, mistake, plain_message


class Form(BaseModel):
    """A model with a field of each kind."""

    model_config = ConfigDict(strict=True)
    whole: int = Field(1, gt=0, lt=10)
    closed: int = Field(1, ge=1, le=9)
    share: float = Field(0.5, gt=0, lt=1)
    level: float = Field(0.5, ge=0, le=1)
    name: str = "a"
    few: list[str] = Field(["a"], min_length=1, max_length=2)
    pair: tuple[str, ...] = ()
    many: frozenset[str] = frozenset()
    choice: Literal["fp32", "fp16"] = "fp32"

    @field_validator("name")
    @classmethod
    def _check(cls, name: str) -> str:
        if name == "b":
            raise ValueError("b is taken")
        if name == "c":
            raise mistake("c is taken", "use d")
        if name == "{e}":
            raise mistake("this name is not valid", "use d", kind="pattern")
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
        ({"whole": 5.0}, "must be a whole number, got 5.0", "write 5"),
        ({"whole": 4e6}, "must be a whole number, got 4000000.0", "write 4000000"),
        ({"whole": 1e300}, "must be a whole number, got 1e+300", "correct it"),
        ({"whole": 1.5}, "must be a whole number, got 1.5", "correct it"),
        ({"whole": "3"}, 'must be a whole number, got "3"', "write it without quotes: 3"),
        ({"whole": None}, "must be a whole number, got null", "write a value, or delete the key"),
        ({"name": "b"}, "b is taken", "correct it"),
        ({"name": "c"}, "c is taken", "use d"),
        ({"name": "{e}"}, 'this name is not valid, got "{e}"', "use d"),
        ({"name": 12}, "must be a text, got 12", "put the value in quotes"),
        ({"name": True}, "must be a text, got true", "put the value in quotes"),
        ({"name": None}, "must be a text, got null", "write a value, or delete the key"),
        ({"name": ["fp32"]}, 'must be a text, got ["fp32"]', "write it without brackets: fp32"),
        ({"name": ["a", "b"]}, 'must be a text, got ["a", "b"]', "write one text"),
        ({"name": [1]}, "must be a text, got [1]", "write one text"),
        ({"name": []}, "must be a text, got []", "write one text"),
        ({"name": {"a": 1}}, 'must be a text, got {"a": 1}', "write one text"),
        ({"name": ["x" * 100]}, "must be a text", "write one text"),
        ({"few": "wer_*"}, 'must be a list, got "wer_*"', "write few: [wer_*]"),
        ({"few": "*a"}, 'must be a list, got "*a"', 'write few: ["*a"]'),
        ({"few": "12"}, 'must be a list, got "12"', 'write few: ["12"]'),
        ({"few": "null"}, 'must be a list, got "null"', 'write few: ["null"]'),
        ({"few": "x" * 100}, "must be a list", "correct it"),
        ({"few": 3}, "must be a list, got 3", "correct it"),
        ({"pair": "a"}, 'must be a list, got "a"', "write pair: [a]"),
        ({"many": "a"}, 'must be a list, got "a"', "write many: [a]"),
        ({"choice": "fp61"}, "must be 'fp32' or 'fp16', got \"fp61\"", "did you mean 'fp16'?"),
        ({"choice": "int8"}, "must be 'fp32' or 'fp16', got \"int8\"", "correct it"),
        ({"choice": 16}, "must be 'fp32' or 'fp16', got 16", "did you mean 'fp16'?"),
    ],
)
def test_a_mistake_is_told_with_value_and_bound(given: dict[str, Any], message: str, fix: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Form.model_validate_json(json.dumps(given))
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


def test_the_length_of_a_list_has_a_fix() -> None:
    for given, fix in (([], "use 1 or more"), (["a"] * 3, "use 2 or fewer")):
        with pytest.raises(ValidationError) as caught:
            Form.model_validate({"few": given})
        assert fix_of(caught.value.errors()[0], "correct it") == fix


def test_a_fix_repeats_no_secret_of_a_web_address() -> None:
    for given in ({"name": ["https://u:secret@host/f?k=secret"]}, {"few": "https://u:secret@host/f?k=secret"}):
        with pytest.raises(ValidationError) as caught:
            Form.model_validate_json(json.dumps(given))
        assert "secret" not in fix_of(caught.value.errors()[0], "correct it")


def test_names_are_written_in_series() -> None:
    assert [in_series("abc"[:count]) for count in (1, 2, 3)] == ["'a'", "'a' and 'b'", "'a', 'b' and 'c'"]
