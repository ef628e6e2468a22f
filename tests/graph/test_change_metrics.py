"""Nodes are counted by op, and only ops whose number changed are reported."""

from __future__ import annotations

from pathlib import Path

from onnx import parser

from artifacts.graph.change_metrics import changed_bytes, changed_ops, op_counts

BEFORE = """<ir_version: 8, opset_import: ["" : 17]> g (float[2,2] x) => (float[2,2] y)
{ a = MatMul(x, x) b = MatMul(a, x) c = Relu(b) y = Neg(c) }"""
AFTER = """<ir_version: 8, opset_import: ["" : 17]> g (float[2,2] x) => (float[2,2] y)
{ a = MatMul(x, x) b = Add(a, x) c = Relu(b) y = Abs(c) }"""


def test_nodes_are_counted_by_op() -> None:
    assert op_counts(parser.parse_model(BEFORE)) == {"MatMul": 2, "Relu": 1, "Neg": 1}


def test_ops_that_changed_are_reported_with_both_numbers_and_by_name() -> None:
    found = changed_ops(op_counts(parser.parse_model(BEFORE)), op_counts(parser.parse_model(AFTER)))
    assert list(found.items()) == [
        ("Abs_before", 0), ("Abs_after", 1),
        ("Add_before", 0), ("Add_after", 1),
        ("MatMul_before", 2), ("MatMul_after", 1),
        ("Neg_before", 1), ("Neg_after", 0),
    ]  # fmt: skip


def test_nothing_is_reported_where_nothing_changed() -> None:
    counts = op_counts(parser.parse_model(BEFORE))
    assert changed_ops(counts, counts) == {}


def test_bytes_are_those_of_all_files(tmp_path: Path) -> None:
    for name, nbytes in (("before", 10), ("after", 4)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(bytes(nbytes))
    assert changed_bytes(tmp_path / "before", tmp_path / "after") == {"bytes_before": 10, "bytes_after": 4}
