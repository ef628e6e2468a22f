from __future__ import annotations

import copy
from typing import Any

import pytest

from artifacts.plan.explain import reasons
from artifacts.plan.plan import Job, load_plan
from artifacts.store.digest_memory import DigestMemory

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def job() -> Job:
    """The job `shards` of the small model."""
    found = load_plan().jobs["small:shards"]
    assert isinstance(found, Job)
    return found


@pytest.fixture
def new(job: Job, tmp_path: Any) -> dict[str, Any]:
    """The identity that it has now."""
    return job.identity({"small:model": "a" * 64}, DigestMemory(tmp_path / "memory"))


def test_nothing_changed_has_no_reasons(job: Job, new: dict[str, Any]) -> None:
    assert reasons(job, copy.deepcopy(new), new) == []


@pytest.mark.parametrize(
    ("path", "old_value", "said"),
    [
        (("params", "max_shard_bytes"), 5,
         "recipes/small.yaml:7:31: targets.shards.params.max_shard_bytes: 5 -> 40000"),
        (("params", "gone"), 5, "recipes/small.yaml:4:3: targets.shards.params.gone: 5 -> nothing"),
        (("params", "gone"), "x" * 80,
         f"recipes/small.yaml:4:3: targets.shards.params.gone: \"{'x' * 56}... -> nothing"),
        (("inputs", "model"), "b" * 64,
         "input 'model': the content of small:model changed (bbbbbbbbbbbb -> aaaaaaaaaaaa)"),
        (("inputs", "other"), "b" * 64, "recipes/small.yaml:6:13: input 'other' is gone"),
        (("tools", "onnx"), "1.0.0", 'pipeline.yaml: tools.onnx: "1.0.0" -> "'),
        (("step",), "other_step", 'recipes/small.yaml:5:11: step: "other_step" -> "shard_weights"'),
        (("schema",), 0, "the store's own rules: schema: 0 -> 1"),
        (("code", "artifacts.steps.shard_weights", "run"), "0",
         "its step: artifacts/steps/shard_weights.py: run changed"),
        (("code", "artifacts.steps.shard_weights", "X['a:b.c']"), "0",
         "its step: artifacts/steps/shard_weights.py: X['a:b.c'] is gone"),
        (("code", "artifacts.params", "StepParams"), "0",
         "code its step uses: artifacts/params.py: StepParams changed"),
    ],
)  # fmt: skip
def test_each_change_is_said_with_the_place_to_go_to(
    job: Job, new: dict[str, Any], path: tuple[str, ...], old_value: Any, said: str
) -> None:
    old = copy.deepcopy(new)
    part = old
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = old_value
    [reason] = reasons(job, old, new)
    assert reason.startswith(said)
    assert not reason.endswith("(the default)")


def test_what_is_new_is_said_to_be_new(job: Job, new: dict[str, Any]) -> None:
    old = copy.deepcopy(new)
    del old["inputs"]["model"]
    del old["code"]["artifacts.steps.shard_weights"]["run"]
    assert reasons(job, old, new) == [
        "recipes/small.yaml:6:21: input 'model' is new: small:model",
        "its step: artifacts/steps/shard_weights.py: run is new",
    ]
