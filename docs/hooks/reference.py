"""Reference pages, written from the code: steps and their params, keys of a recipe, commands."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from artifacts.plan.schema import field_docs
from artifacts.plan.step_files import load_step, packaged_steps
from artifacts.recipe.declarations import Recipe, Resources, Source, Target
from artifacts.recipe.pipeline import DeclaredPipeline

ROOT = Path(__file__).parents[2]
# The console scripts, whether they are on the path or not. doit shows `sys.argv[0]` as its name.
DOIT = "import sys; sys.argv[0] = 'doit'; from doit.__main__ import main; sys.exit(main())"
SPEECH_ARTIFACTS = "import sys; from artifacts.cli.init import main; sys.exit(main())"

# The first word of a step's name, and the heading of all steps that begin with it.
KINDS = {
    "export": "Export a checkpoint to ONNX",
    "write": "Write tokens and metadata",
    "fuse": "Fuse",
    "convert": "Convert",
    "fix": "Convert",
    "quantize": "Quantise",
    "round": "Quantise",
    "smooth": "Quantise",
    "calibrate": "Calibrate",
    "shard": "Shard",
    "trace": "Trace for ncnn",
    "rewrite": "Change an ncnn network",
    "tag": "Change an ncnn network",
    "inject": "Prepare a comparison",
    "join": "Prepare a comparison",
    "measure": "Measure",
    "lay": "Lay out for a consumer",
}


def pages() -> Iterator[tuple[str, str]]:
    """Yield the path of each page in the site, and its Markdown."""
    yield "reference/steps.md", _steps()
    for name in packaged_steps():
        yield f"reference/steps/{name}.md", _step(name)
    yield "reference/recipe.md", _recipe()
    yield "reference/commands.md", _commands()


def _steps() -> str:
    lines = ["# Steps", "", "A target names one of these, or [a step of your own](../how-to/own-step.md)."]
    by_kind: dict[str, list[str]] = {heading: [] for heading in KINDS.values()}
    for name in packaged_steps():
        by_kind[KINDS[name.partition("_")[0]]].append(name)
    for heading, names in by_kind.items():
        lines += ["", f"## {heading}", "", "| step | |", "|---|---|"]
        lines += [f"| [`{name}`](steps/{name}.md) | {_first_line(load_step(name))} |" for name in names]
    return "\n".join(lines) + "\n"


def _first_line(module: Any) -> str:
    return _cell(next(iter((module.__doc__ or "").strip().splitlines())))


def _step(name: str) -> str:
    module = load_step(name)
    arguments = inspect.signature(module.run).parameters.values()
    inputs = [one for one in arguments if one.kind is one.KEYWORD_ONLY]
    rows = [(f"`{one.name}`", "no" if one.default is one.empty else "yes") for one in inputs]
    facts = [
        ("tools in its identity", ", ".join(f"`{tool}`" for tool in module.TOOLS) or "none"),
        ("bytes depend on the processor", "yes" if getattr(module, "DEPENDS_ON_PROCESSOR", False) else "no"),
        ("metrics in the run table", ", ".join(f"`{one}`" for one in getattr(module, "HEADLINE", ())) or "none"),
    ]
    words = [f"--{one.name.replace('_', '-')} PATH" for one in inputs if one.default is one.empty]
    parts = [
        f"# {name}",
        inspect.cleandoc(module.__doc__ or ""),
        inspect.cleandoc(module.run.__doc__ or ""),
        "## Inputs",
        _table(("input", "may be left out"), rows),
        "## Params",
        *_params(module.Params, inspect.cleandoc(module.Params.__doc__ or "")),
        "## Facts",
        _table(("", ""), facts),
        "## Without a recipe",
        f"```sh\ndoit step {name} {' '.join(words)} --out FOLDER\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _params(model: type[BaseModel], text: str) -> Iterator[str]:
    """Yield the texts of a step's params; first those of the step, then of each model that is a value of one."""
    schema = model.model_json_schema()
    yield text
    yield _fields(model, schema)
    nested = {one.__name__: one for one in _models(model)}
    for name, part in schema.get("$defs", {}).items():
        yield f"### {name}"
        yield inspect.cleandoc(nested[name].__doc__ or "")
        yield _fields(nested[name], part)


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield the models in the fields of a model, at any depth."""
    waiting: list[Any] = [field.annotation for field in model.model_fields.values()]
    while waiting:
        annotation = waiting.pop()
        waiting += getattr(annotation, "__args__", ())
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            yield annotation
            waiting += [field.annotation for field in annotation.model_fields.values()]


def _fields(model: type[BaseModel], schema: dict[str, Any]) -> str:
    """Return the table of a model's fields: name, type with bounds, default, text."""
    docs = field_docs(model)
    if not model.model_fields:
        return "None."
    rows = []
    for name, field in model.model_fields.items():
        if field.is_required():
            default = "required"
        else:
            value = field.get_default(call_default_factory=True)
            default = f"`{json.dumps(value, default=lambda one: one.model_dump(exclude_defaults=True))}`"
        rows.append((f"`{name}`", kind(schema["properties"][name]), default, docs.get(name, "")))
    return _table(("name", "type", "default", ""), rows)


def kind(schema: dict[str, Any]) -> str:
    """Return the type that a JSON Schema describes, in words: `integer, above 0, at most 64`."""
    if "anyOf" in schema:
        return " or ".join(kind(one) for one in schema["anyOf"])
    if "$ref" in schema:
        return f"[{(name := schema['$ref'].rpartition('/')[2])}](#{name.lower()})"
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", [schema.get("const")]))
    words = [str(schema.get("type", "any"))]
    if words == ["array"]:
        items = schema.get("items", schema.get("prefixItems", {}))
        inner = ", ".join(kind(one) for one in items) if isinstance(items, list) else kind(items)
        words = [f"list of {inner}"]
    if words == ["object"]:
        values = schema.get("additionalProperties")
        words = [f"mapping to {kind(values)}" if isinstance(values, dict) else "mapping"]
    bounds = (
        ("exclusiveMinimum", "above {}"), ("minimum", "at least {}"), ("exclusiveMaximum", "below {}"),
        ("maximum", "at most {}"), ("minItems", "{} or more of them"), ("maxItems", "at most {} of them"),
        ("pattern", "like `{}`"),
    )  # fmt: skip
    words += [text.format(schema[key]) for key, text in bounds if key in schema]
    return ", ".join(words)


def _recipe() -> str:
    parts = [
        "# Keys of a recipe",
        "[Recipes](../recipes.md) explains them. Paths are relative to the YAML file that contains them.",
    ]
    for model in (Recipe, Source, Target, Resources):
        parts += [f"## {model.__name__}", inspect.cleandoc(model.__doc__ or ""), _described(model)]
    parts += ["## pipeline.yaml", inspect.cleandoc(DeclaredPipeline.__doc__ or ""), _described(DeclaredPipeline)]
    return "\n\n".join(parts) + "\n"


def _described(model: type[BaseModel]) -> str:
    return _fields(model, model.model_json_schema())


def _commands() -> str:
    """Return what `doit help` prints for each command, and `--help` for `speech-artifacts`."""
    overview = _output(DOIT, "help")
    parts = ["# Commands", f"```text\n{overview}```"]
    for line in overview.partition("commands:")[2].splitlines():
        match line.split():
            case ["doit", name, *_] if name != "help":
                parts += [f"## doit {name}", f"```text\n{_output(DOIT, 'help', name)}```"]
    parts += ["## speech-artifacts", f"```text\n{_output(SPEECH_ARTIFACTS, '--help')}```"]
    return "\n\n".join(parts) + "\n"


def _output(program: str, *words: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    if len(lines) == 1:
        return "None."
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
