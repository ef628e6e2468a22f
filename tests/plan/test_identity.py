from __future__ import annotations

from typing import Any

import pytest

from artifacts.digest import digest_json
from artifacts.plan.identity import Change, changes, identity_of


def make(**over: Any) -> dict[str, Any]:
    """An identity, with some of it otherwise."""
    parts: dict[str, Any] = {
        "step": "quantize",
        "code": {"artifacts.steps.quantize": {"run": "aa", "Params": "bb"}},
        "params": {"per_channel": True, "limit": None},
        "tools": {"onnx": "1.23.2"},
        "inputs": {"model": "1" * 64},
    }
    return identity_of(**(parts | over))


def test_equal_identities_have_one_key_and_no_changes() -> None:
    assert digest_json(make()) == digest_json(make())
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
def test_each_difference_is_one_change_and_another_key(over: dict[str, Any], change: Change) -> None:
    assert list(changes(make(), make(**over))) == [change]
    assert digest_json(make()) != digest_json(make(**over))


def test_an_identity_of_an_older_version_differs_in_what_it_lacks() -> None:
    old = {"step": "quantize", "params": make()["params"]}
    assert {change.part for change in changes(old, make())} == {"schema", "inputs", "tools", "code"}
