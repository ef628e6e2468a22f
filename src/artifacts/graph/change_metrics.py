"""Metrics of a step that changes a model: nodes by op and bytes, before and after."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.graph.model_file import model_bytes

if TYPE_CHECKING:
    from onnx import ModelProto


def op_counts(model: ModelProto) -> Counter[str]:
    """Count the nodes of the top graph by op."""
    return Counter(node.op_type for node in model.graph.node)


def changed_ops(before: Counter[str], after: Counter[str]) -> dict[str, float | int | str]:
    """Return `<op>_before` and `<op>_after` for each op whose number of nodes changed."""
    changed = sorted(op for op in before | after if before[op] != after[op])
    return {f"{op}_{when}": counts[op] for op in changed for when, counts in (("before", before), ("after", after))}


def changed_bytes(before: Path, after: Path) -> dict[str, float | int | str]:
    """Return `bytes_before` and `bytes_after`: the bytes of all files of the model's folder."""
    return {"bytes_before": model_bytes(before), "bytes_after": model_bytes(after)}
