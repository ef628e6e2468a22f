"""What cannot be rewritten to float16 is refused with its reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from artifacts.errors import StepError
from artifacts.graph.fp16_graph import Fp16Changes, Fp16Options, rewrite_to_fp16
from artifacts.graph.fp16_values import Fp16Rounding

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
Array = npt.NDArray[Any]


def model_of(text: str, **weights: Array) -> ModelProto:
    model = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>\n' + text)
    for node in model.graph.node:
        node.name = node.output[0]
    for name, values in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def rewrite(
    model: ModelProto, *blocked_ops: str, nodes: tuple[str, ...] = (), keep_io_types: bool = True
) -> Fp16Changes:
    options = Fp16Options(frozenset(blocked_ops), frozenset(nodes), keep_io_types)
    return rewrite_to_fp16(model, options, Fp16Rounding(1e-7, 1e4))


X = np.linspace(-2, 2, 8, dtype=np.float32)


def chain() -> ModelProto:
    return model_of("g (float[8] x) => (float[8] y) { middle = Mul(x, w)  y = Add(middle, v) }", w=X + 3, v=X)


@pytest.mark.parametrize(
    ("model", "fact"),
    [
        (model_of("g (float16[8] x) => (float16[8] y) { y = Neg(x) }"), "float16 values already"),
        (
            model_of("g (float[8] x) => (float[8] y) { y = Mul(x, w) }", w=X.astype(np.float16)),
            "float16 values already",
        ),
        (model_of("g (float[8] x) => (float[8] y) { y = Neg(x) }"), "0 tensors converted to float16"),
        (model_of("g (int64[8] x) => (int64[8] y) { y = Neg(x) }"), "0 tensors converted to float16"),
    ],
)
def test_a_model_with_nothing_to_convert_is_refused(model: ModelProto, fact: str) -> None:
    with pytest.raises(StepError, match=fact):
        rewrite(model)


@pytest.mark.parametrize(
    ("blocked", "nodes", "fact"),
    [(["Softmaxx"], (), "no op is called 'Softmaxx'"), ([], ("middel",), "no node is called 'middel'")],
)
def test_a_name_that_nothing_has_is_told(blocked: list[str], nodes: tuple[str, ...], fact: str) -> None:
    with pytest.raises(StepError, match=f"{fact}\n  fix: did you mean '"):
        rewrite(chain(), *blocked, nodes=nodes)


def test_sequences_are_refused() -> None:
    text = (
        "g (float[8] x) => (float[8] y) { s = SequenceConstruct(x)  i = Constant<value_int = 0>()  a = SequenceAt(s, i)"
    )
    with pytest.raises(StepError, match="node 's': SequenceConstruct gives a sequence or an optional"):
        rewrite(model_of(text + "  y = Mul(a, w) }", w=X))


def test_functions_are_refused() -> None:
    model = chain()
    model.functions.append(helper.make_function("own", "f", [], ["c"], [], []))
    with pytest.raises(StepError, match="function 'f': functions are not converted"):
        rewrite(model)
