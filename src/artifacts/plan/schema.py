"""JSON Schema of a recipe, with the inputs and params of every step: editors complete and check a recipe by it.

A recipe may change one that it extends. So no key is required, every target may be `null`, and a target without `step:`
takes any params.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from artifacts.plan.step_files import load_step
from artifacts.recipe.declarations import NAME, Recipe, Target

DIALECT = "http://json-schema.org/draft-07/schema#"


def recipe_schema(steps: Sequence[str]) -> dict[str, Any]:
    """Return the schema, with these steps. Raises RecipeError for a step that cannot be loaded."""
    schema = Recipe.model_json_schema()
    definitions: dict[str, Any] = schema.pop("$defs")
    _describe(schema, Recipe)
    for model in _nested(Recipe):
        definitions[model.__name__].pop("required", None)
        _describe(definitions[model.__name__], model)
    for name in ("Source", "Target"):
        definitions[name]["type"] = ["object", "null"]
    target = definitions["Target"]
    target["properties"]["step"] = {"enum": list(steps), "description": field_docs(Target)["step"]}
    target["properties"]["inputs"]["additionalProperties"] = {"type": ["string", "null"]}
    target["allOf"] = [_of_step(step, definitions) for step in steps]
    for section in ("sources", "targets", "layouts"):
        values = schema["properties"][section]
        item = {"$ref": f"#/definitions/{'Source' if section == 'sources' else 'Target'}"}
        values.pop("propertyNames", None)
        values |= {
            "patternProperties": {f"^{NAME}$": item},
            "additionalProperties": False,
            "type": ["object", "null"],
        }
    return {"$schema": DIALECT, **_in_draft_07(schema), "definitions": _in_draft_07(definitions)}


def _of_step(step: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the rule for targets of one step, and add what its params refer to to the definitions."""
    module = load_step(step)
    params = module.Params.model_json_schema(ref_template=f"#/definitions/{step}.{{model}}")
    _describe(params, module.Params)
    for model in _nested(module.Params):
        _describe(params["$defs"][model.__name__], model)
    definitions |= {f"{step}.{name}": value for name, value in params.pop("$defs", {}).items()}
    first = next(iter((module.__doc__ or "").strip().splitlines()), step)
    arguments = inspect.signature(module.run).parameters.values()
    inputs = [argument.name for argument in arguments if argument.kind is argument.KEYWORD_ONLY]
    return {
        "if": {"properties": {"step": {"const": step}}, "required": ["step"]},
        "then": {
            "description": first,
            "properties": {
                "inputs": {"properties": {name: {} for name in inputs}, "propertyNames": {"enum": inputs}},
                "params": params,
            },
        },
    }


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Add the text under each field of a model to the field's schema."""
    for name, text in field_docs(model).items():
        if name in schema.get("properties", {}):
            schema["properties"][name]["description"] = text


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Return the text under each field of a model and of its base classes, by the field's name."""
    docs: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
            for field, text in itertools.pairwise(getattr(tree, "body", [])):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    match text:
                        case ast.Expr(value=ast.Constant(value=str(words))):
                            docs[field.target.id] = " ".join(words.split())
    return docs


def _nested(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield the models that fields of a model contain, and so on."""
    waiting: list[Any] = [field.annotation for field in model.model_fields.values()]
    while waiting:
        annotation = waiting.pop()
        waiting += typing.get_args(annotation)
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            yield annotation
            waiting += [field.annotation for field in annotation.model_fields.values()]


def _in_draft_07(value: Any) -> Any:
    """Return a schema of pydantic's dialect (2020-12) in that of editors: definitions and tuples have other names."""
    if isinstance(value, list):
        return [_in_draft_07(item) for item in value]
    if not isinstance(value, dict):
        return value
    renamed = {key: _in_draft_07(item) for key, item in value.items() if key != "title" or not isinstance(item, str)}
    if isinstance(reference := renamed.get("$ref"), str):
        renamed["$ref"] = reference.replace("#/$defs/", "#/definitions/")
    return renamed
