"""A plan of float types is carried out with the fewest Casts."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.cast_repair import agreed_type
from artifacts.graph.type_changes import TypeChanges, change_types
from artifacts.graph.type_plan import plan_types
from cast_cases import model_of, run


def change(model: ModelProto) -> TypeChanges:
    return change_types(model, plan_types(model, agreed_type))


def test_a_listed_initializer_that_is_an_output_of_another_type_is_renamed_with_its_listing() -> None:
    model = model_of("(float16[2] x, float16[2] w) => (float16[2] y, float[2] w) { y = Mul(x, w) }")
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT16, [2], [2, 3]))
    change(model)
    assert [given.name for given in model.graph.input] == ["x", "w_fp16"]
    y, w = run(model, {"x": np.array([1, 1], np.float16)})
    assert (y.tolist(), w.tolist(), w.dtype) == ([2, 3], [2, 3], np.float32)


def test_values_that_contradict_the_dims_are_refused() -> None:
    text = "(float[2] x) => (float16[2] y) { a = Exp(x) y = Mul(a, k) }"
    model = model_of(text)
    model.graph.initializer.append(TensorProto(name="k", data_type=TensorProto.FLOAT16, dims=[1], raw_data=bytes(4)))
    with pytest.raises(StepError, match=r"tensor 'k': has 4 bytes, dims \[1\] need 2"):
        change(model)


def test_an_output_of_another_type_than_declared_gets_a_cast_under_its_name() -> None:
    model = model_of("(float[2] x) => (float[2] y, float[2] z) { y = Exp(x) z = Neg(y) }")
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    assert change(model).casts_inserted == 1
    y, z = run(model, {"x": np.array([0.1, 0.2], np.float32)})
    assert (y.dtype, z.dtype) == (np.float16, np.float32)
    np.testing.assert_allclose(z, -np.exp([0.1, 0.2]), rtol=1e-6)  # not by way of fp16


def test_casts_there_and_back_are_removed() -> None:
    text = """(float16[2] x) => (float16[2] y) {
      wide = Cast<to=1>(x)
      w = Constant<value = float16[2] {15360, 16384}>()
      y = Mul(wide, w)
    }"""
    model = model_of(text)
    changes = change(model)
    assert changes == TypeChanges(casts_removed=1)
    (y,) = run(model, {"x": np.array([3, 5], np.float16)})
    assert y.tolist() == [3, 10]


MIXED = """(float16[2] x, float[2] z) => (float16[2] y, float[2] v) {
  w = Constant<value = float[1] {0.1}>()
  y = Mul(x, w)
  v = Mul(z, z)
}"""


def test_a_constant_is_rounded_only_by_the_callers_rounding() -> None:
    """0.1 is no number of fp16: without a rounding it is cast, and stays what it was in the file."""
    kept, rounded, narrowed = model_of(MIXED), model_of(MIXED), []

    def narrow(tensor: TensorProto) -> None:
        narrowed.append(tensor)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16)))

    assert change_types(kept, plan_types(kept, agreed_type)) == TypeChanges(casts_inserted=1)
    assert change_types(rounded, plan_types(rounded, agreed_type), narrow) == TypeChanges()
    assert len(narrowed) == 1
    feeds = {"x": np.array([1, 2], np.float16), "z": np.array([3, 4], np.float32)}
    for found, expected in zip(run(kept, feeds), run(rounded, feeds), strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)
