"""`doit step`: one step on files from anywhere, with its params as options."""

from __future__ import annotations

import argparse
import inspect
import json
import shlex
import sys
import typing
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError

from artifacts.cli.doit_commands import INTERRUPTED
from artifacts.cli.interrupts import interrupt_on_signals
from artifacts.cli.options import Options, UserError, unknown_option, user_errors
from artifacts.cli.progress import Progress
from artifacts.cli.tables import size_text
from artifacts.errors import RecipeError, printable
from artifacts.plan.step_files import known_steps, load_step
from artifacts.recipe.validate import did_you_mean
from artifacts.recipe.yaml_locations import yaml_value
from artifacts.run.run_step import StepCrashError, StepResult
from artifacts.validation_errors import fix_of, plain_message

BUG = 2


class Step(Options):
    """`doit step`."""

    name = "step"
    doc_purpose = "run one step on files, without a recipe: doit step NAME --help"
    doc_usage = "NAME --INPUT PATH ... --out FOLDER [--PARAM VALUE ...]"

    def parse_execute(self, in_args: list[str]) -> int:
        """Run the step that the first word names. Raises `UserError`."""
        ended_by = interrupt_on_signals()
        try:
            with user_errors():
                return self._run(in_args)
        except KeyboardInterrupt:
            return ended_by[0] if ended_by else INTERRUPTED

    def _run(self, words: list[str]) -> int:
        from artifacts.run.one_step import check_paths, run_one_step

        if not words or words[0] in ("-h", "--help"):
            _print_steps()
            return 0
        name, *options = words
        if name not in known_steps():
            raise RecipeError(f"no step is called '{name}'", did_you_mean(name, known_steps(), "see them: doit step"))
        module = load_step(name)
        try:
            parser = _parser(name, module)
        except argparse.ArgumentError as error:
            raise RecipeError(
                f"step '{name}': an input or param has a name that is taken: {error}", "rename it"
            ) from None
        if {"-h", "--help"} & set(options):
            print(parser.format_help(), end="")
            return 0
        _check_options(name, parser, options)
        _check_positional(name, module, options)
        given = vars(parser.parse_args(options))
        inputs = {key: Path(given[key]) for key in _inputs(module) if given[key] is not None}
        options_given = {key: given[key] for key in module.Params.model_fields if given[key] is not None}
        params = _params(module.Params, options_given)
        check_paths(inputs, Path(given["out"]))
        progress = Progress()
        progress.begin(1, dict)
        try:
            progress.started(name, [])
            result = run_one_step(name, params, inputs, Path(given["out"]), _listener(progress, name))
        except StepCrashError as error:
            lines = [f"{name} crashed, which is a bug", *str(error).splitlines()]
            print(*map(printable, lines), sep="\n", file=sys.stderr)
            return BUG
        finally:
            progress.close()
        _print_result(result, Path(given["out"]))
        return 0


class _Parser(argparse.ArgumentParser):
    """argparse, with errors in two lines."""

    def error(self, message: str) -> NoReturn:
        raise UserError(RecipeError(f"{self.prog.removeprefix('doit ')}: {message}", f"see: {self.prog} --help"))


def _parser(name: str, module: ModuleType) -> argparse.ArgumentParser:
    from artifacts.plan.schema import field_docs

    parser = _Parser(
        prog=f"doit step {name}", description=(module.__doc__ or "").strip(), add_help=False, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    inputs = parser.add_argument_group("inputs: a folder, or one file")
    for key, is_required in _inputs(module).items():
        inputs.add_argument(_option(key), dest=key, metavar="PATH", required=is_required)
    parser.add_argument_group("output").add_argument("--out", metavar="FOLDER", required=True, help="new or empty")
    params = parser.add_argument_group("params: YAML values; a list as [a, b], or by repeating the option")
    docs = field_docs(module.Params)
    for key, field in module.Params.model_fields.items():
        default = json.dumps(field.get_default(call_default_factory=True), default=str)
        text = f"{docs.get(key, '')} (default: {default})".strip().replace("%", "%%")
        params.add_argument(_option(key), dest=key, metavar="VALUE", action="append", help=text)
    return parser


def _check_options(name: str, parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Raise RecipeError for the first unknown option. argparse would say first which options are lacking."""
    known = [option for action in parser._actions for option in action.option_strings]
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--") and option not in ("--", *known):
            fact = f"step {name}: takes no option '{option}'"
            raise unknown_option(fact, option, known, f"see: doit step {name} --help")


def _check_positional(name: str, module: ModuleType, words: list[str]) -> None:
    """Raise RecipeError for a word without an option, if it can be an input. argparse would say what is lacking."""
    lacking = [_option(key) for key, is_required in _inputs(module).items() if is_required]
    alone = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            alone.append(word)
        elif "=" not in word:
            next(rest, None)  # its value
        lacking = [option for option in lacking if option != word.partition("=")[0]]
    if alone and lacking:
        uses = " or ".join(f"{option} {shlex.quote(alone[0])}" for option in lacking)
        raise RecipeError(f"step {name}: '{alone[0]}' is given without an option", f"give '{alone[0]}' as {uses}")


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _inputs(module: ModuleType) -> dict[str, bool]:
    """Return the inputs of a step, and whether each is required."""
    parameters = inspect.signature(module.run).parameters.values()
    keyword_only = [one for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]
    return {one.name: one.default is inspect.Parameter.empty for one in keyword_only}


def _params(model: type[BaseModel], given: dict[str, list[str]]) -> dict[str, Any]:
    """Return the params that options give, with defaults filled in. Raises RecipeError for the first mistake."""
    fields = model.model_fields
    values = {key: _value(fields[key].annotation, texts, _option(key)) for key, texts in given.items()}
    try:
        filled: dict[str, Any] = json.loads(model.model_validate_json(json.dumps(values)).model_dump_json())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        fact = f"{_option(key)}: {plain_message(first)}" if key else plain_message(first)
        raise RecipeError(fact, fix_of(first, f"correct {_option(key)}" if key else "correct the options")) from None
    return filled


def _value(annotation: Any, texts: list[str], option: str) -> Any:
    """Return the value of an option: text where the param is a text, a list where it is a list, else by YAML."""
    kinds = _kinds(annotation)
    if {tuple, list, frozenset} & kinds:
        if len(texts) == 1 and texts[0].startswith("["):
            return yaml_value(texts[0], option)
        return [text if str in kinds else yaml_value(text, option) for text in texts]
    if len(texts) > 1:
        raise RecipeError(f"{option}: is given {len(texts)} times", "give it once")
    return texts[-1] if kinds <= {str, type(None)} else yaml_value(texts[-1], option)


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that an annotation is made of; those of its values for a Literal."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return {type(value) for value in typing.get_args(annotation)}
    inner = {kind for argument in typing.get_args(annotation) for kind in _kinds(argument)}
    return inner | ({origin} if origin in (tuple, list, frozenset) else set()) or {annotation}


def _listener(progress: Progress, name: str) -> Any:
    return lambda message, done, total: progress.progressed(name, message, done, total)


def _print_steps() -> None:
    print("doit step NAME --help shows the inputs and params of a step. The steps:")
    for name in known_steps():
        try:
            doc = load_step(name).__doc__ or ""
        except RecipeError as error:
            doc = f"({error.fact})"
        print(printable(f"  {name:<32}{next(iter(doc.strip().splitlines()), '')}"))


def _print_result(result: StepResult, out: Path) -> None:
    for name, (size, _) in result.files.items():
        print(printable(f"{out / name}  {size_text(size)}"))
    for name, value in result.metrics.items():
        print(printable(f"{name} {value}"))
