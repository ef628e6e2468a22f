"""The rules of the house, held: who may import whom, how small a file is, and what every step has."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from artifacts.params import StepParams
from artifacts.plan.schema import field_docs
from artifacts.recipe.pipeline import load_pipeline

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "artifacts"

# The floors of ARCHITECTURE.md. A module imports from the rows above its own; what is in one row does not know of one
# another.
FLOORS: dict[int, list[set[str]]] = {
    0: [
        {"web_address"},
        {"errors", "validation_errors", "digest", "params"},
        {"files"},
        {"untrusted"},
        {"runtime"},
        {"model"},
    ],
    1: [{"graph", "nemo", "icefall", "ncnn", "speech"}],
    2: [{"steps"}],
    3: [{"recipe"}, {"store"}, {"sources"}],
    4: [{"plan"}],
    5: [{"sandbox"}, {"run"}],
    6: [{"cli"}],
}
ROWS = [row for rows in FLOORS.values() for row in rows]
KITS = FLOORS[1][0]
HEAVY = {
    "brotli", "huggingface_hub", "jiwer", "kaldi_native_fbank", "lightning", "ncnn", "nemo", "numpy", "omegaconf",
    "onnx", "onnxconverter_common", "onnxruntime", "pnnx", "sentencepiece", "sherpa_ncnn", "soundfile", "torch",
    "zstandard",
}  # fmt: skip
MOST_LINES = 300
# What a step declares whose output depends on the processor.
MEASURES = "DEPENDS_ON_PROCESSOR"

STEPS = sorted(path.stem for path in (PACKAGE / "steps").glob("*.py") if not path.stem.startswith("_"))


def part_of(module: str) -> str:
    """The part of the package that a module belongs to: a file at its top, or a folder."""
    return module.split(".")[1]


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package with its file, but for the empty ones that make folders packages."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "__init__.py":
            yield ".".join(("artifacts", *path.relative_to(PACKAGE).with_suffix("").parts)), path


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            source = node.module or ""
            inside = PACKAGE.parent.joinpath(*source.split("."))
            if source.split(".")[0] == "artifacts" and inside.is_dir():
                yield from (f"{source}.{alias.name}" for alias in node.names)
            else:
                yield source


def test_every_part_of_the_package_has_its_floor() -> None:
    parts = {part_of(name) for name, _ in modules()}
    assert parts == set().union(*ROWS)


def test_the_floors_are_those_that_are_written_down() -> None:
    table = re.findall(r"^\| (\d) \| ([^|]+) \|", (ROOT / "ARCHITECTURE.md").read_text(), flags=re.MULTILINE)
    written: dict[int, list[set[str]]] = {}
    for number, parts in table:
        written.setdefault(int(number), []).append({part.rstrip("/") for part in re.findall(r"`([^`]+)`", parts)})
    assert written == FLOORS


def test_imports_point_down() -> None:
    floor = {part: number for number, parts in enumerate(ROWS) for part in parts}
    for name, path in modules():
        for other in imported(path):
            if other.split(".")[0] == "artifacts" and part_of(other) != part_of(name):
                assert floor[part_of(other)] < floor[part_of(name)], f"{name} imports {other}"


def test_no_kit_imports_another_kit_or_anything_of_builds() -> None:
    for name, path in modules():
        if part_of(name) in KITS:
            ours = {part_of(other) for other in imported(path) if other.split(".")[0] == "artifacts"}
            assert ours <= set().union(*FLOORS[0]) | {part_of(name)}, name


def test_no_step_imports_a_step() -> None:
    for name, path in modules():
        if part_of(name) == "steps":
            assert not [other for other in imported(path) if other.startswith("artifacts.steps")], name


def test_only_the_faces_know_doit() -> None:
    knowing = {
        part_of(name) for name, path in modules() if any(other.split(".")[0] == "doit" for other in imported(path))
    }
    assert knowing == {"cli"}


def test_no_file_is_too_long_to_be_one_idea() -> None:
    for folder in (PACKAGE, ROOT / "tests"):
        for path in folder.rglob("*.py"):
            assert len(path.read_text().splitlines()) <= MOST_LINES, path


def test_no_file_is_a_drawer() -> None:
    for _, path in modules():
        assert path.stem not in ("utils", "util", "common", "helpers", "base", "manager", "misc")


def test_files_that_make_folders_packages_hold_no_code() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        assert len(ast.parse(path.read_text()).body) <= 1, f"{path}: an identity does not see what runs here"
        assert not path.read_text() or ast.get_docstring(ast.parse(path.read_text())), path


def test_every_module_and_all_that_is_public_in_it_has_a_docstring() -> None:
    for name, path in modules():
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), name
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{name}.{node.name}"


def test_importing_every_step_loads_nothing_heavy() -> None:
    script = "\n".join(f"import artifacts.steps.{step}" for step in STEPS) + "\nimport sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not HEAVY & {name.split(".")[0] for name in loaded.split()}


def test_listing_this_project_loads_nothing_heavy() -> None:
    script = (
        "import sys; from doit.doit_cmd import DoitMain\n"
        "code = DoitMain().run(['list', '--all']); print('loaded:', code, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    code, *loaded = done.stdout.splitlines()[-1].removeprefix("loaded: ").split()
    assert code == "0", done.stdout + done.stderr
    assert not HEAVY & {name.split(".")[0] for name in loaded}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_keeps_the_contract(step: str) -> None:
    module = import_module(f"artifacts.steps.{step}")
    first, *rest = inspect.cleandoc(module.__doc__ or "").splitlines()
    assert first.endswith("."), "doit list shows this line"
    assert len(first) <= 110
    assert not rest or rest[0] == ""
    assert issubclass(module.Params, StepParams)
    assert all(not field.is_required() for field in module.Params.model_fields.values()), "a param has a default"
    assert [name for name in module.Params.model_fields if not field_docs(module.Params).get(name)] == [], "and a text"
    signature = inspect.signature(module.run)
    names = list(signature.parameters)
    assert names[:2] == ["out", "params"]
    for name in names[2:]:
        assert signature.parameters[name].kind is inspect.Parameter.KEYWORD_ONLY, name
    assert inspect.getdoc(module.run)
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", step), "verb_object"
    assert len(getattr(module, "HEADLINE", ())) <= 3, "the run table has room for three metrics"
    assert inspect.getsource(module).count("HEADLINE") <= 1, "a step that reads it could change with it"


def test_architecture_lists_every_step_that_depends_on_the_processor() -> None:
    measuring = {step for step in STEPS if getattr(import_module(f"artifacts.steps.{step}"), MEASURES, False) is True}
    section = (ROOT / "ARCHITECTURE.md").read_text().partition("## Processors")[2].partition("\n## ")[0]
    item = next(text for text in section.split("\n- ") if MEASURES in text)
    assert set(re.findall(r"`([a-z]+_[a-z_]+)`", item)) == measuring


@pytest.mark.parametrize("step", STEPS)
def test_every_tool_of_a_step_is_pinned(step: str) -> None:
    tools = import_module(f"artifacts.steps.{step}").TOOLS
    assert isinstance(tools, tuple)
    pipeline = load_pipeline(ROOT / "pipeline.yaml")
    assert [tool for tool in tools if pipeline.version_of(tool) is None] == []


def test_every_module_has_its_test() -> None:
    for name, path in modules():
        test = ROOT / "tests" / path.relative_to(PACKAGE).with_name(f"test_{path.name}")
        assert test.is_file(), f"{name} has no {test.relative_to(ROOT)}"
