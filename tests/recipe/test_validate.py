from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from artifacts.errors import RecipeError
from artifacts.recipe.validate import did_you_mean, validate
from artifacts.recipe.yaml_locations import read_yaml


class Inner(BaseModel):
    """Inside."""

    model_config = ConfigDict(extra="forbid", strict=True)
    dtype: Literal["fp32", "fp16"] = "fp32"
    share: float = Field(0.5, ge=0, le=1)
    names: tuple[str, ...] = ()


class Outer(BaseModel):
    """Outside."""

    model_config = ConfigDict(extra="forbid", strict=True)
    count: int = Field(gt=0, lt=2**31)
    inner: dict[str, Inner] = {}
    on: bool = False
    maybe: Inner | None = None

    @model_validator(mode="after")
    def _check(self) -> Outer:
        if self.count == 13:
            raise ValueError("13 is not counted here")
        return self


def check(tmp_path: Path, text: str) -> Outer:
    """Validate a text."""
    (tmp_path / "x.yaml").write_text(text)
    return validate(Outer, read_yaml(tmp_path / "x.yaml"))


def test_a_valid_document_becomes_the_model_with_defaults(tmp_path: Path) -> None:
    found = check(tmp_path, "count: 2\ninner: {a: {share: 1, names: [x, y]}}\n")
    assert found == Outer(count=2, inner={"a": Inner(share=1.0, names=("x", "y"))})


def test_an_absent_value_is_all_defaults_or_reported_as_missing(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("targets:\n  one: {}\n")
    document = read_yaml(tmp_path / "x.yaml")
    assert validate(Inner, document, ("targets", "one", "params")) == Inner()
    with pytest.raises(RecipeError, match=r"x.yaml:2:\d: targets.one.params.count: this key is missing"):
        validate(Outer, document, ("targets", "one", "params"))


@pytest.mark.parametrize(
    ("text", "fact", "fix"),
    [
        ("", "1:1: count: this key is missing", "add it"),
        ("cuont: 1", "1:1: cuont: unknown key 'cuont'", "did you mean 'count'?"),
        ("count: 1\nzzz: 1", "2:1: zzz: unknown key 'zzz'", "the known keys are: count, inner, on, maybe"),
        ("count: 1\ninner: {a: {dtpye: fp16}}", "2:13: inner.a.dtpye: unknown key 'dtpye'", "did you mean 'dtype'?"),
        ("count: 1\nmaybe: {dtpye: fp16}", "2:9: maybe.dtpye: unknown key 'dtpye'", "did you mean 'dtype'?"),
        ("count: x", '1:8: count: must be a whole number, got "x"', "correct 'count'"),
        ("count: 1.5", "1:8: count: must be a whole number, got 1.5", "correct 'count'"),
        ("count: 0", "1:8: count: must be greater than 0, got 0", "use 1 or more"),
        ("count: 13", "1:1: 13 is not counted here", "correct it"),
        ("count: 1\non: yes", '2:5: on: must be true or false, got "yes"', "correct 'on'"),
        ("count: 1\ninner: 3", "2:8: inner: must be a mapping of keys, got 3", "correct 'inner'"),
        (
            "count: 1\ninner: {a: }",
            "2:12: inner.a: must be a mapping of keys, got null",
            "write a value, or delete the key",
        ),
        ("count: 1\ninner: {a: {share: 2}}", "2:20: inner.a.share: must be at most 1, got 2", "use 1 or less"),
        ("count: 1\ninner: {a: {share: -1}}", "2:20: inner.a.share: must be at least 0, got -1", "use 0 or more"),
        (
            "count: 1\ninner: {a: {names: [1]}}",
            "2:21: inner.a.names.0: must be a text, got 1",
            "put the value in quotes",
        ),
        ("count: 1\ninner: {a: {names: x}}", '2:20: inner.a.names: must be a list, got "x"', "write names: [x]"),
        (
            "count: 1\ninner: {a: {dtype: f}}",
            "2:20: inner.a.dtype: must be 'fp32' or 'fp16', got \"f\"",
            "correct 'dtype'",
        ),
    ],
)
def test_a_mistake_is_reported_in_words_of_yaml(tmp_path: Path, text: str, fact: str, fix: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check(tmp_path, text)
    assert caught.value.fact == f"{tmp_path / 'x.yaml'}:{fact}"
    assert caught.value.fix == fix


def test_a_long_value_is_not_quoted(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        check(tmp_path, f"count: {'x' * 100}")
    assert "got" not in caught.value.fact


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        (f"count: {'9' * 4000}", "1:8: count: must be less than"),
        (f"count: -{'9' * 400}", "1:8: count: must be greater than 0"),
        (f"count: 1\ninner: {{a: {{share: {'9' * 400}}}}}", "2:20: inner.a.share: must be"),
        (f"count: 1\n? {'k' * 1_000_000}\n: 1", "2:3: kkk"),
        ('count: 1\n"a\\n\\e[31m\\u202e": 1', r"2:1: a\n\x1b[31m\u202e: unknown key 'a\n\x1b[31m\u202e'"),
        ('count: "\\u2028"', r'1:8: count: must be a whole number, got "\u2028"'),
        (f"count: 1\ninner: {{a: {{names: [{'1, ' * 50_000}]}}}}", "2:21: inner.a.names.0: must be a text, got 1"),
        ("count: null", "1:8: count: must be a whole number, got null"),
        ("null: 1", "1:1: null: unknown key 'null'"),
        ("'': 1", "1:1: : unknown key ''"),
        ("count: 1\ninner: null", "2:8: inner: must be a mapping of keys, got null"),
        ("- count", '1:1: must be a mapping of keys, got ["count"]'),
        ("count", '1:1: must be a mapping of keys, got "count"'),
    ],
    ids=lambda text: text[:20],
)
def test_hostile_values_are_reported_in_one_printable_line_of_bounded_length(
    tmp_path: Path, text: str, fact: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        check(tmp_path, text)
    assert caught.value.fact.removeprefix(f"{tmp_path / 'x.yaml'}:").startswith(fact)
    assert len(caught.value.fact) <= 1000
    assert caught.value.fact.isprintable()


def test_the_fix_is_the_nearest_word_else_another_move() -> None:
    assert did_you_mean("shard_weight", ["shard_weights", "other"], "look") == "did you mean 'shard_weights'?"
    assert did_you_mean("nothing", ["shard_weights"], "look") == "look"
