"""The JSON Schema of a recipe: every recipe here fits it, and it finds the mistakes that an editor should show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from artifacts.plan.schema import field_docs, recipe_schema
from artifacts.plan.step_files import known_steps
from artifacts.recipe.declarations import Recipe, Resources, Source, Target
from artifacts.recipe.families import FOLDER
from artifacts.steps import convert_fp16, export_encoder, measure_wer

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "recipes", ROOT / "embedded", ROOT / "experiments", FOLDER)
RECIPES = [path for folder in FOLDERS for path in sorted(folder.glob("*.yaml")) if ".lock" not in path.name]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return recipe_schema(known_steps())


def mistakes(schema: dict[str, Any], recipe: Any) -> list[str]:
    """Where in a recipe the schema finds a mistake."""
    return sorted({".".join(map(str, error.absolute_path)) for error in Draft7Validator(schema).iter_errors(recipe)})


def test_the_committed_schema_is_the_one_that_the_command_writes(schema: dict[str, Any]) -> None:
    assert json.loads((ROOT / "recipe.schema.json").read_text()) == schema, "run: doit schema"


def test_it_is_a_schema_of_the_dialect_that_editors_read(schema: dict[str, Any]) -> None:
    Draft7Validator.check_schema(schema)
    assert "$defs" not in json.dumps(schema)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_fits_it(schema: dict[str, Any], path: Path) -> None:
    assert mistakes(schema, yaml.safe_load(path.read_text())) == []
    if path.parent != FOLDER:
        first = path.read_text().splitlines()[0]
        assert (path.parent / first.removeprefix("# yaml-language-server: $schema=")).samefile(
            ROOT / "recipe.schema.json"
        )


@pytest.mark.parametrize(
    ("recipe", "where"),
    [
        ("targts: {}", ""),
        ("default: []", "default"),
        ("sources: {a: {file: x, opional: true}}", "sources.a"),
        ("sources: {a: {sha256: short}}", "sources.a.sha256"),
        ("sources: {'a b': {file: x}}", "sources"),
        ("targets: {a: {step: shard_weight}}", "targets.a.step"),
        ("targets: {a: {step: shard_weights, inputs: {modl: b}}}", "targets.a.inputs"),
        ("targets: {a: {step: shard_weights, inputs: {model: 3}}}", "targets.a.inputs.model"),
        ("targets: {a: {step: shard_weights, params: {max_bytes: 1}}}", "targets.a.params"),
        (
            "layouts: {a: {step: shard_weights, params: {max_shard_bytes: 3000000000}}}",
            "layouts.a.params.max_shard_bytes",
        ),
        ("targets: {a: {step: convert_fp16, params: {keep_fp32_ops: Softmax}}}", "targets.a.params.keep_fp32_ops"),
        ("targets: {a: {step: convert_fp16, params: {converter: other}}}", "targets.a.params.converter"),
        ("targets: {a: {step: measure_wer, params: {buffered: {chunk_seconds: 0}}}}", "targets.a.params.buffered"),
        ("targets: {a: {resources: {memory_gib: -1}}}", "targets.a.resources.memory_gib"),
    ],
)
def test_a_mistake_in_any_key_is_found_where_it_is(schema: dict[str, Any], recipe: str, where: str) -> None:
    assert mistakes(schema, yaml.safe_load(recipe)) == [where]


def test_what_removes_or_changes_a_target_of_the_base_is_none(schema: dict[str, Any]) -> None:
    recipe = "extends: artifacts/parakeet-tdt\ntargets: {a: null, b: {params: {anything: 1}}, c: {inputs: {d: null}}}"
    assert mistakes(schema, yaml.safe_load(recipe)) == []


def test_every_key_is_described(schema: dict[str, Any]) -> None:
    for model in (Recipe, Source, Target, Resources):
        assert set(field_docs(model)) == set(model.model_fields)
    assert schema["properties"]["extends"]["description"].startswith("A recipe to start from")


def test_params_are_described_by_the_texts_under_them_also_inherited_and_nested_ones(schema: dict[str, Any]) -> None:
    assert field_docs(convert_fp16.Params)["keep_fp32_nodes"] == "Names of nodes that stay in float32."
    assert "chunk_seconds" in field_docs(measure_wer.Buffered)
    assert set(export_encoder.Params.model_fields) >= set(field_docs(export_encoder.Params))
    nested = schema["definitions"]["measure_wer.Buffered"]["properties"]["chunk_seconds"]
    assert nested["description"] == "Speech that is decoded at a time."


def test_each_step_has_its_own_rule(schema: dict[str, Any]) -> None:
    rules = schema["definitions"]["Target"]["allOf"]
    assert [rule["if"]["properties"]["step"]["const"] for rule in rules] == list(known_steps())
