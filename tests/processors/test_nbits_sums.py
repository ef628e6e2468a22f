"""ONNX Runtime's MatMulNBits adds its integer products exactly: with the largest weights and activations there are.

With accuracy level 4, that of our int8 encoders, activations are int8 in blocks. Run on other processors by
`test_suites.py`: without VNNI such sums may saturate, and the kernel is another one for each.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

K, N, BLOCK = 256, 32, 32


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [8, 4])
def test_sums_of_the_largest_numbers_are_exact(bits: int, symmetric: bool, rows: int) -> None:
    largest = 2**bits - 1
    packed = np.zeros((N, K // BLOCK, BLOCK * bits // 8), np.uint8)
    packed[::2] = 255  # every number the largest one; in the other columns the smallest
    zero = 2 ** (bits - 1) if symmetric else largest // 3
    zeros = np.full((N, K // BLOCK * bits // 8), zero if bits == 8 else zero | zero << 4, np.uint8)
    weights = [("packed", packed), ("scales", np.ones((N, K // BLOCK), np.float32))]
    weights += [] if symmetric else [("zeros", zeros)]
    node = helper.make_node(
        "MatMulNBits", ["x", *(name for name, _ in weights)], ["y"], domain="com.microsoft",
        K=K, N=N, bits=bits, block_size=BLOCK, accuracy_level=4,
    )  # fmt: skip
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    initializers = [numpy_helper.from_array(numbers, name) for name, numbers in weights]
    graph = helper.make_graph([node], "g", values[:1], values[1:], initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for sign in (1, -1):
        x = np.full((rows, K), 127 * sign, np.float32)  # int8 in blocks with a scale of 1
        (y,) = session.run(None, {"x": x})
        expected = np.where(np.arange(N) % 2 == 0, largest - zero, -zero) * 127.0 * sign * K
        np.testing.assert_array_equal(y, np.broadcast_to(expected, (rows, N)))
