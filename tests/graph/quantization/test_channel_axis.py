"""The axis of a weight's channels is that of the outputs of whatever reads it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from artifacts.graph.quantization.channel_axis import channel_axis
from artifacts.graph.quantization.large_weights import Reader

# Inputs with their shapes ("w" is the weight), attributes, and the axis of w.
CASES = [
    ("MatMul", {"x": (5, 6), "w": (6, 7)}, {}, 1),
    ("MatMul", {"x": (2, 5, 6), "w": (2, 6, 7)}, {}, 2),
    ("MatMul", {"w": (7, 6), "x": (6, 5)}, {}, 0),
    ("Gemm", {"x": (5, 6), "w": (6, 7)}, {}, 1),
    ("Gemm", {"x": (5, 6), "w": (7, 6)}, {"transB": 1}, 0),
    ("Gemm", {"w": (7, 6), "x": (6, 5)}, {}, 0),
    ("Gemm", {"w": (6, 7), "x": (6, 5)}, {"transA": 1}, 1),
    ("Conv", {"x": (1, 6, 9), "w": (7, 6, 3)}, {}, 0),
    ("Conv", {"x": (1, 6, 9), "w": (6, 1, 3)}, {"group": 6}, 0),
    ("ConvTranspose", {"x": (1, 6, 9), "w": (6, 7, 3)}, {}, 1),
]


@pytest.mark.parametrize(("op", "inputs", "attributes", "axis"), CASES)
def test_another_scale_for_a_channel_scales_one_channel_of_the_output(
    op: str, inputs: dict[str, tuple[int, ...]], attributes: dict[str, Any], axis: int
) -> None:
    node = helper.make_node(op, list(inputs), ["y"], **attributes)
    assert channel_axis([Reader(node, list(inputs).index("w"))], len(inputs["w"])) == axis
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()]
    graph = helper.make_graph([node], "g", given, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal(dims, np.float32) for name, dims in inputs.items()}
    before = session.run(None, feeds)[0]
    np.moveaxis(feeds["w"], axis, 0)[2] *= 3
    changed = session.run(None, feeds)[0] != before
    lines = [
        {int(index) for index in np.unique(np.nonzero(changed)[of])} for of in range(changed.ndim) if changed.any()
    ]
    assert {2} in lines


def test_recurrent_layers_scale_each_gate_of_each_cell_and_tables_each_entry() -> None:
    for op in ("LSTM", "GRU", "RNN"):
        node = helper.make_node(op, ["x", "w", "r"], ["y"])
        assert [channel_axis([Reader(node, index)], 3) for index in (1, 2)] == [1, 1]
    assert channel_axis([Reader(helper.make_node("Gather", ["w", "i"], ["y"]), 0)], 2) == 0
    assert channel_axis([Reader(helper.make_node("Gather", ["w", "i"], ["y"], axis=-1), 0)], 2) == 1


def test_readers_that_disagree_or_know_no_channels_leave_no_axis() -> None:
    right, left = (
        Reader(helper.make_node("MatMul", names, ["y"]), names.index("w")) for names in (["x", "w"], ["w", "x"])
    )
    assert channel_axis([right, right], 2) == 1
    assert channel_axis([right, left], 2) is None
    assert channel_axis([right, Reader(helper.make_node("Add", ["w", "x"], ["y"]), 0)], 2) is None
    assert channel_axis([left], 1) is None
    bias = helper.make_node("Gemm", ["a", "b", "w"], ["y"])
    assert channel_axis([Reader(bias, 2)], 1) is None
