"""How many nodes of each op a model has, before and after something was done to it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto


def op_counts(model: ModelProto) -> Counter[str]:
    """Nodes of the top graph by op."""
    return Counter(node.op_type for node in model.graph.node)


def changed_ops(before: Counter[str], after: Counter[str]) -> dict[str, float | int | str]:
    """As metrics: `<op>_before` and `<op>_after` for each op whose number of nodes changed."""
    changed = sorted(op for op in before | after if before[op] != after[op])
    return {f"{op}_{when}": counts[op] for op in changed for when, counts in (("before", before), ("after", after))}
