"""A value is divided where its consumers can compensate, and no other consumer sees a difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, helper, numpy_helper, parser

from artifacts.graph.model_file import load_graph, save_graph
from artifacts.graph.quantization.divide_values import EXPLICIT_MUL, ScaledValue, divide_values
from artifacts.graph.quantization.matrix_content import write_replaced

Array = np.ndarray[Any, Any]

CHANNELS = 6
SIZES = {
    "gamma": (6,), "beta": (6,), "bias": (6,), "factor": (1, 6), "square": (6, 6), "w": (6, 4), "w2": (6, 3),
    "kernel": (6, 6, 1), "table": (5, 6), "three": (2, 5, 6),
}  # fmt: skip
NORM = "n = LayerNormalization<axis: int = -1>(x, gamma, beta)"
NORM2 = "m = LayerNormalization<axis: int = -1>(x, gamma, beta)"


def make(body: str, outputs: str = "y") -> ModelProto:
    """A model of `x [B, T, 6]` in which each name of SIZES is a constant, and each node is called as its output."""
    declared = ", ".join(f"float[B, T, {name}_n] {name}" for name in outputs.split())
    body = "\n".join(line.strip() for line in body.splitlines())
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[B, T, 6] x) => ({declared}) {{{body}}}'
    )
    generator = np.random.default_rng(7)
    read = {name for node in model.graph.node for name in node.input}
    for name, shape in SIZES.items():
        numbers = generator.uniform(0.5, 2, shape).astype(np.float32) * generator.choice([-1, 1], shape)
        if name in read:
            model.graph.initializer.append(numpy_helper.from_array(numbers.astype(np.float32), name))
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def scale_of(value: str) -> Array:
    generator = np.random.default_rng(len(value) + ord(value[0]))
    return np.exp2(generator.uniform(-4, 4, CHANNELS)).astype(np.float32)


def outputs_of(path: Path) -> list[Array]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = np.random.default_rng(8).standard_normal((2, 5, CHANNELS), dtype=np.float32)
    return list(session.run(None, {"x": feed}))


def folded(model: ModelProto, folder: Path, consumers: dict[str, list[str]], external: bool = False) -> dict[str, str]:
    """Divide each value for its readers, and check that the outputs are what they were. Returns what it went into."""
    save_graph(model, folder / "before.onnx", external=external)
    model = load_graph(folder / "before.onnx")
    nodes: dict[str, NodeProto] = {node.name: node for node in model.graph.node}
    scaled = [
        ScaledValue(value, [nodes[name] for name in names], scale_of(value)) for value, names in consumers.items()
    ]
    result = divide_values(model, scaled, folder)
    (folder / "after").mkdir()
    write_replaced(model, folder, result.contents, folder / "after" / "model.onnx")
    onnx.checker.check_model(folder / "after" / "model.onnx", full_check=True)
    before, after = outputs_of(folder / "before.onnx"), outputs_of(folder / "after" / "model.onnx")
    for expected, found in zip(before, after, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    return result.into


def constants(folder: Path) -> dict[str, Array]:
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(folder / "after" / "model.onnx").graph.initializer
    }


@pytest.mark.parametrize(
    ("body", "into"),
    [
        (f"{NORM}\ny = MatMul(n, w)", "LayerNormalization"),
        ("n = LayerNormalization<axis: int = -1>(x, gamma)\ny = MatMul(n, w)", "LayerNormalization"),
        ("n = MatMul(x, square)\ny = MatMul(n, w)", "MatMul"),
        ("m = MatMul(x, square)\nn = Add(m, bias)\ny = MatMul(n, w)", "MatMul"),
        ("m = MatMul(x, square)\nn = Add(bias, m)\ny = MatMul(n, w)", "MatMul"),
        (f"{NORM2}\na = Add(m, bias)\nn = Relu(a)\ny = MatMul(n, w)", "LayerNormalization"),
        ("n = Mul(x, gamma)\ny = MatMul(n, w)", "Mul"),
        ("n = Mul(factor, x)\ny = MatMul(n, w)", "Mul"),
        ("n = Mul(x, three)\ny = MatMul(n, w)", "Mul"),
        ("c = Constant<value = float[6] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}>()\nn = Mul(x, c)\ny = MatMul(n, w)", "Mul"),
        ("t = Transpose<perm: ints = [0, 2, 1]>(x)\nm = Conv(t, kernel, bias)\n"
         "n = Transpose<perm: ints = [0, 2, 1]>(m)\ny = MatMul(n, w)", "Conv"),
        ("t = Transpose<perm: ints = [0, 2, 1]>(x)\nm = Conv(t, kernel)\nr = Relu(m)\n"
         "n = Transpose<perm: ints = [0, 2, 1]>(r)\ny = MatMul(n, w)", "Conv"),
        (f"{NORM2}\nt = Transpose<perm: ints = [1, 0, 2]>(m)\nn = Transpose<perm: ints = [1, 0, 2]>(t)\n"
         "y = MatMul(n, w)", "LayerNormalization"),
        # Where a division would be seen elsewhere, or the channels are not constants' own:
        (f"{NORM2}\nn = Add(m, x)\ny = MatMul(n, w)", EXPLICIT_MUL),
        ("a = MatMul(x, square)\nm = Sigmoid(a)\nn = Mul(a, m)\ny = MatMul(n, w)", EXPLICIT_MUL),
        ("a = Add(x, bias)\nn = Sigmoid(a)\ny = MatMul(n, w)", EXPLICIT_MUL),
        (f"{NORM2}\nn = Tanh(m)\ny = MatMul(n, w)", EXPLICIT_MUL),
        ("n = Add(x, bias)\ny = MatMul(n, w)", EXPLICIT_MUL),
        (f"{NORM2}\nn = Transpose<perm: ints = [0, 2, 1]>(m)\nk = Transpose<perm: ints = [0, 2, 1]>(n)\n"
         "a = MatMul(n, k)\ny = MatMul(a, square)", None),
    ],
)  # fmt: skip
def test_a_division_is_folded_into_the_producer_or_goes_in_front_of_its_consumers(
    body: str, into: str | None, tmp_path: Path
) -> None:
    value = next(line.split(" = MatMul(")[1].split(",")[0] for line in body.splitlines() if line.startswith("y ="))
    found = folded(make(body), tmp_path, {value: ["y"]})
    assert found == {value: into or EXPLICIT_MUL}


@pytest.mark.parametrize("external", [False, True])
def test_matmuls_that_share_a_value_share_its_scale(tmp_path: Path, external: bool) -> None:
    body = f"{NORM}\na = MatMul(n, w)\nb = MatMul(n, w2)\nc = MatMul(n, square)\ns = Shape(n)"
    model = make(body, "a b c")
    model.graph.output.append(helper.make_tensor_value_info("s", onnx.TensorProto.INT64, [3]))
    assert folded(model, tmp_path, {"n": ["a", "b", "c"]}, external) == {"n": "LayerNormalization"}
    values, scale = constants(tmp_path), scale_of("n")
    originals = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name in ("gamma", "beta"):
        np.testing.assert_allclose(values[name], originals[name] / scale, rtol=1e-6)


@pytest.mark.parametrize(
    ("other", "outputs"),
    [("z = Sigmoid(n)", "y z"), ("z = MatMul(n, w2)", "y z"), ("z = MatMul(x, w2)", "y n z")],
)
def test_a_value_that_something_else_sees_is_not_divided_itself(tmp_path: Path, other: str, outputs: str) -> None:
    found = folded(make(f"{NORM}\ny = MatMul(n, w)\n{other}", outputs), tmp_path, {"n": ["y"]})
    assert found == {"n": EXPLICIT_MUL}


def test_a_subgraph_of_an_if_is_a_consumer(tmp_path: Path) -> None:
    body = f"""{NORM}
    y = MatMul(n, w)
    c = Constant<value = bool {{1}}>()
    z = If(c) <then_branch = t () => (float[B, T, 6] u) {{ u = Relu(n) }},
               else_branch = e () => (float[B, T, 6] v) {{ v = Identity(n) }}>"""
    assert folded(make(body, "y z"), tmp_path, {"n": ["y"]}) == {"n": EXPLICIT_MUL}


def test_a_constant_with_other_consumers_is_left_to_them(tmp_path: Path) -> None:
    """The gamma of two norms, and one weight for two values."""
    body = f"{NORM}\nk = Sigmoid(x)\nm = LayerNormalization<axis: int = -1>(k, gamma, beta)\n" + "\n".join(
        ("a = MatMul(n, w)", "b = MatMul(m, w)", "c = MatMul(k, w)", "d = Mul(k, gamma)")
    )
    found = folded(make(body, "a b c d"), tmp_path, {"n": ["a"], "m": ["b"]})
    assert found == {"n": "LayerNormalization", "m": "LayerNormalization"}
    originals = {tensor.name: numpy_helper.to_array(tensor) for tensor in make(body).graph.initializer}
    values = constants(tmp_path)
    for name in ("gamma", "w"):
        np.testing.assert_array_equal(values[name], originals[name])


def test_values_in_a_row_are_divided_each(tmp_path: Path) -> None:
    """The MatMul that makes the second value reads the first: its weight is scaled on both sides."""
    body = f"{NORM}\nm = MatMul(n, square)\ny = MatMul(m, w)"
    found = folded(make(body), tmp_path, {"n": ["m"], "m": ["y"]})
    assert found == {"n": "LayerNormalization", "m": "MatMul"}
    original = next(numpy_helper.to_array(t) for t in make(body).graph.initializer if t.name == "square")
    expected = original * scale_of("n")[:, np.newaxis] / scale_of("m")
    np.testing.assert_allclose(constants(tmp_path)["square"], expected, rtol=1e-6)


def test_one_mul_serves_all_consumers_and_precedes_them(tmp_path: Path) -> None:
    body = "n = Sigmoid(x)\na = MatMul(n, w)\nb = MatMul(n, w2)"
    assert folded(make(body, "a b"), tmp_path, {"n": ["a", "b"]}) == {"n": EXPLICIT_MUL}
    nodes = onnx.load(tmp_path / "after" / "model.onnx").graph.node
    assert [node.op_type for node in nodes] == ["Sigmoid", "Mul", "MatMul", "MatMul"]


def test_a_way_of_thousands_of_nodes_is_followed(tmp_path: Path) -> None:
    links = " ".join(f"c{i + 1} = Identity(c{i})" for i in range(3000))
    model = make(f"{NORM} c0 = Identity(n) {links} y = MatMul(c3000, w)")
    into = folded(model, tmp_path, {"c3000": ["y"]})
    assert into == {"c3000": "LayerNormalization"}
