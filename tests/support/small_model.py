"""A small ONNX model and a project around it, for tests that use the package in this very process."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from artifacts.plan.plan import load_plan
from artifacts.run.build import Build

TOOLS = {name: importlib.metadata.version(name) for name in ("onnx", "protobuf")}

MODEL_RECIPE = """\
sources:
  model: {folder: model}
targets:
  shards:
    step: shard_weights
    inputs: {model: model}
    params: {max_shard_bytes: 40000}
  again:
    step: shard_weights
    inputs: {model: shards}
layouts:
  flat:
    step: shard_weights
    inputs: {model: again}
    params: {max_shard_bytes: 20000}
"""


def write_model(folder: Path) -> None:
    """Six matrices of 16 KiB, one after the other, as `encoder-model.onnx`."""
    weights = [numpy_helper.from_array(np.full((64, 64), i, np.float32), f"w{i}") for i in range(6)]
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(6)]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 64]) for name in ("x0", "x6")]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:], weights)
    folder.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), folder / "encoder-model.onnx")


def write_pipeline(recipe: str = MODEL_RECIPE) -> None:
    """`pipeline.yaml`, `constraints.txt` and the recipe `small`, in the working folder."""
    Path("pipeline.yaml").write_text("default: small\n")
    Path("constraints.txt").write_text("".join(f"{name}=={version}\n" for name, version in TOOLS.items()))
    Path("recipes").mkdir(exist_ok=True)
    Path("recipes/small.yaml").write_text(recipe)


class Quiet:
    """A listener who says nothing."""

    def started(self, target: str, why: list[str]) -> None:
        """Nothing."""

    def progressed(self, target: str, message: str, done: int | None, total: int | None) -> None:
        """Nothing."""

    def ended(self, outcome: object) -> None:
        """Nothing."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the small model, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    write_pipeline()
    write_model(tmp_path / "recipes" / "model")
    return tmp_path


@pytest.fixture(scope="session")
def built_once_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which all of the small model's targets are built; not to be changed."""
    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_pipeline()
        write_model(folder / "recipes" / "model")
        build = Build(load_plan(), Quiet(), lambda: 1 << 30)
        for name in build.plan.jobs:
            build.ensure(name)
        build.close()
    return folder


@pytest.fixture
def built_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built_once_here: Path) -> Path:
    """A project in which all is built, which is the working folder."""
    shutil.copytree(built_once_here, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
