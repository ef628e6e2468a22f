"""The step that ARCHITECTURE.md shows is all that a new step takes: its file and one recipe entry."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
from pathlib import Path

import onnxruntime
import pytest

from small_project import Project

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def with_new_step(own_project: Project, encoder_fp32: Path) -> Project:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    [name] = re.findall(r"One file, `src/artifacts/steps/(\w+)\.py`", text)
    [code] = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "onnx.utils" in block]
    [entry] = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if f"step: {name}" in block]
    (own_project.package / "steps" / f"{name}.py").write_text(code)
    shutil.copytree(encoder_fp32, own_project.root / "recipes" / "encoder")
    own_project.recipe("sources:\n  encoder_fp32: {folder: encoder}\n" + entry)
    return own_project


def test_it_is_listed_and_built_and_gives_the_lengths_alone(with_new_step: Project) -> None:
    assert "Keep some outputs of a model" in with_new_step.doit("list").out
    ended = with_new_step.doit("encoder_lengths")
    assert ended.code == 0, ended.err
    model = with_new_step.cache / "small" / "encoder_lengths" / "encoder-model.onnx"
    session = onnxruntime.InferenceSession(model)
    assert [value.name for value in session.get_outputs()] == ["encoded_lengths"]


def test_it_keeps_the_rules_of_the_house(with_new_step: Project) -> None:
    path = with_new_step.package / "steps" / "keep_outputs.py"
    for node in (tree := ast.parse(path.read_text())).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            assert ast.get_docstring(node), node.name
    assert ast.get_docstring(tree)
    spec = importlib.util.spec_from_file_location("keep_outputs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.Params()  # every param has a default


def test_a_wrong_output_is_met_with_two_lines(with_new_step: Project) -> None:
    with_new_step.replace("outputs: [encoded_lengths]", "outputs: [lengths]")
    ended = with_new_step.doit()
    assert ended.code != 0
    assert ended.err == (
        "small:encoder_lengths: encoder-model.onnx: no output is called 'lengths'\n  fix: name outputs of the model\n"
    )
