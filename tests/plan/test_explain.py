from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from artifacts.plan.explain import Change, changes, failed_try, reasons
from artifacts.plan.plan import Job, load_plan
from artifacts.store.digest_memory import DigestMemory
from artifacts.store.journal import Entry, Status
from artifacts.store.records import Identity, read_identity

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def job() -> Job:
    """The job `shards` of the small model."""
    found = load_plan().jobs["small:shards"]
    assert isinstance(found, Job)
    return found


@pytest.fixture
def new(job: Job, tmp_path: Any) -> Identity:
    """The job's identity."""
    return job.identity({"small:model": "a" * 64}, DigestMemory(tmp_path / "memory"))


def test_nothing_changed_has_no_reasons(job: Job, new: Identity) -> None:
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
        (("inputs", "other"), "b" * 64, "recipes/small.yaml:6:13: input 'other' was removed"),
        (("tools", "onnx"), "1.0.0", 'constraints.txt: onnx: "1.0.0" -> "'),
        (("step",), "other_step", 'recipes/small.yaml:5:11: step: "other_step" -> "shard_weights"'),
        (("schema",), 0, "the store's rules: schema: 0 -> 1"),
        (("code", "artifacts.steps.shard_weights", "run"), "0",
         "its step: artifacts/steps/shard_weights.py: run changed"),
        (("code", "artifacts.steps.shard_weights", "X['a:b.c']"), "0",
         "its step: artifacts/steps/shard_weights.py: X['a:b.c'] was removed"),
        (("code", "artifacts.params", "StepParams"), "0",
         "code its step uses: artifacts/params.py: StepParams changed"),
    ],
)  # fmt: skip
def test_each_change_is_reported_with_its_location(
    job: Job, new: Identity, path: tuple[str, ...], old_value: Any, said: str
) -> None:
    old = asdict(new)
    part = old
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = old_value
    [reason] = reasons(job, read_identity(old), new)
    assert reason.startswith(said)
    assert not reason.endswith("(the default)")


@pytest.mark.parametrize(("log", "end"), [(Path("cache/logs/x/a.log"), "; log: cache/logs/x/a.log"), (None, "")])
def test_a_failed_try_is_told_with_its_time_its_fact_and_its_log(log: Path | None, end: str) -> None:
    entry = Entry("x:a", Status.FAILED, "", error="x:a: it is wrong", at="at noon")
    assert failed_try(entry, log) == f"last try at noon failed: it is wrong{end}"


def test_a_new_part_is_reported_as_new(job: Job, new: Identity) -> None:
    old = asdict(new)
    del old["inputs"]["model"]
    del old["code"]["artifacts.steps.shard_weights"]["run"]
    assert reasons(job, read_identity(old), new) == [
        "recipes/small.yaml:6:21: input 'model' is new: small:model",
        "its step: artifacts/steps/shard_weights.py: run is new",
    ]


def make(**over: Any) -> Identity:
    """Return an identity with some parts replaced."""
    parts: dict[str, Any] = {
        "step": "quantize",
        "code": {"artifacts.steps.quantize": {"run": "aa", "Params": "bb"}},
        "params": {"per_channel": True, "limit": None},
        "tools": {"onnx": "1.23.2"},
        "inputs": {"model": "1" * 64},
    }
    return Identity(**(parts | over))


def test_equal_identities_have_no_changes() -> None:
    assert list(changes(make(), make())) == []


@pytest.mark.parametrize(
    ("over", "change"),
    [
        ({"step": "other"}, Change("step", "step", "quantize", "other")),
        ({"params": {"per_channel": False, "limit": None}}, Change("params", "per_channel", True, False)),
        ({"params": {"per_channel": True}}, Change("params", "limit", None, None)),
        ({"inputs": {"model": "2" * 64}}, Change("inputs", "model", "1" * 64, "2" * 64)),
        ({"inputs": {"model": "1" * 64, "extra": "3"}}, Change("inputs", "extra", None, "3")),
        ({"inputs": {}}, Change("inputs", "model", "1" * 64, None)),
        ({"tools": {"onnx": "1.24.0"}}, Change("tools", "onnx", "1.23.2", "1.24.0")),
        ({"code": {"artifacts.steps.quantize": {"run": "cc", "Params": "bb"}}},
         Change("code", "artifacts.steps.quantize:run", "aa", "cc")),
        ({"code": {"artifacts.steps.quantize": {"run": "aa"}}},
         Change("code", "artifacts.steps.quantize:Params", "bb", None)),
        ({"code": {"artifacts.steps.quantize": {"run": "aa", "Params": "bb"}, "artifacts.kit": {"f": "dd"}}},
         Change("code", "artifacts.kit:f", None, "dd")),
    ],
)  # fmt: skip
def test_each_difference_is_one_change(over: dict[str, Any], change: Change) -> None:
    assert list(changes(make(), make(**over))) == [change]


def test_an_identity_of_an_older_version_differs_in_its_missing_parts() -> None:
    old = read_identity({"step": "quantize", "params": make().params})
    assert {change.part for change in changes(old, make())} == {"schema", "inputs", "tools", "code"}
