"""A checkpoint that names a class of its own: refused by the whole program, unless its recipe trusts it."""

from __future__ import annotations

import importlib.metadata

import pytest

from conftest import ROOT
from faults.hostile_checkpoints import changed
from small_project import Project

TOOLS = ("nemo_toolkit", "numpy", "onnx", "sentencepiece", "torch")
NAMED = "nemo.collections.common.tokenizers.megatron_utils._download"
RECIPE = """\
sources:
  checkpoint: {{file: model.nemo{trust}}}
targets:
  predictor: {{step: export_predictor, inputs: {{checkpoint: checkpoint}}}}
"""


@pytest.fixture
def odd_project(project: Project) -> Project:
    """A project with the embedded checkpoint, whose training section names a function that writes a file."""
    constraints = project.root / "constraints.txt"
    tools = {name: importlib.metadata.version(name).partition("+")[0] for name in TOOLS}
    constraints.write_text(constraints.read_text() + "".join(f"{name}=={version}\n" for name, version in tools.items()))
    attack = {"_target_": NAMED, "path": str(project.root / "written"), "url": "data:,x"}
    good = ROOT / "embedded" / "tiny" / "tiny.nemo"
    changed(good, project.root / "recipes" / "model.nemo", lambda config: config.update(spec_augment=attack))
    return project


def test_what_a_checkpoint_would_run_is_refused_with_its_key(odd_project: Project) -> None:
    odd_project.recipe(RECIPE.format(trust=""))
    ended = odd_project.doit("predictor")
    assert ended.code == 1
    assert ended.err == (
        f"small:predictor: model.nemo: model_config.yaml: spec_augment._target_: '{NAMED}' is not a class that such a "
        "checkpoint needs\n"
        "  fix: give a checkpoint of a sender you trust, or write trust: true beside its source if you trust this one\n"
    )
    assert not (odd_project.root / "written").exists()


def test_a_trusted_checkpoint_is_built_and_the_report_says_so(odd_project: Project) -> None:
    odd_project.recipe(RECIPE.format(trust=", trust: true"))
    ended = odd_project.doit("predictor")
    assert (ended.code, ended.err) == (0, "")
    told = "trusted by its recipe (it may name any class): small:checkpoint\n"
    assert ended.out.count(told) == 1
    assert list((odd_project.cache / "small" / "predictor").glob("*.onnx"))
    assert not (odd_project.root / "written").exists(), "what no export needs is not made, trusted or not"
    odd_project.recipe(RECIPE.format(trust=""))
    assert "all unchanged" in odd_project.doit("predictor").out, "trust is not part of the identity"
