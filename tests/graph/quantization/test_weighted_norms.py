"""LayerNormalizations that only weights consume are found; others are left."""

from __future__ import annotations

import pytest
from onnx import ModelProto, parser

from artifacts.graph.quantization.weighted_norms import weighted_norms

GRAPH = """<ir_version: 8, opset_import: ["" : 17]> g (float[B,4] x, bool c) => (float[B,2] y, int64[2] shape)
<float[4] gamma = {1, 2, 3, 4}, float[4] beta = {0, 0, 4, 0},
 float[4,2] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[4,2] v = {1, 2, 3, 4, 5, 6, 7, 8}> {
  n = LayerNormalization<axis: int = -1>(x, gamma, beta)
  shape = Shape(n)
  a = MatMul(n, w)
  b = MatMul(n, v)
  y = Add(a, b)
}"""


def model(*changes: tuple[str, str]) -> ModelProto:
    text = GRAPH
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    parsed = parser.parse_model(text)
    parsed.graph.node[0].name = "norm"
    return parsed


def test_a_layer_normalization_is_found_with_its_constants_and_consumers() -> None:
    (norm,) = weighted_norms(model())
    assert (norm.value, norm.channels) == ("n", 4)
    assert [tensor.name for tensor in norm.affine] == ["gamma", "beta"]
    assert [matmul.weight.name for matmul in norm.consumers] == ["w", "v"]


def test_the_last_axis_is_the_default() -> None:
    assert len(weighted_norms(model(("<axis: int = -1>", "")))) == 1


def test_beta_may_be_missing() -> None:
    (norm,) = weighted_norms(model(("gamma, beta)", "gamma)")))
    assert [tensor.name for tensor in norm.affine] == ["gamma"]


SUM = "y = Add(a, b)"
IF = """y = If(c) <then_branch = yes () => (float[B,2] p) { p = MatMul(n, w) },
                 else_branch = no () => (float[B,2] q) { q = Add(a, b) }>"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (SUM, "s = Add(a, b)  t = Transpose(n)  u = ReduceSum<keepdims: int = 0>(t)  y = Mul(s, u)"),
        (SUM, IF),
        (SUM, "s = MatMul(n, x)  t = Add(a, b)  y = Add(s, t)"),
        ("float[B,2] y", "float[B,2] y, float[B,4] n"),
        ("b = MatMul(n, v)", "m = Relu(v)  b = MatMul(n, m)"),
        ("float[4] gamma = {1, 2, 3, 4}", "float[1,4] gamma = {1, 2, 3, 4}"),
        ("axis: int = -1", "axis: int = 1"),
        ("n = LayerNormalization<axis: int = -1>(x, gamma, beta)", "n = Relu(x)"),
        ("n = LayerNormalization<axis: int = -1>(x, gamma, beta)", "n = LayerNormalization(x, gamma, c)"),
    ],
)
def test_values_of_other_consumers_or_producers_are_left(old: str, new: str) -> None:
    assert weighted_norms(model((old, new))) == []
