"""Tensors are found wherever a model keeps them, and their bytes are the same in every kind of field."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.tensors import (
    BITS_PER_ELEMENT,
    LocatedTensor,
    check_values,
    inline_bytes,
    iter_tensors,
    located_tensors,
    tensor_nbytes,
)

NUMERIC = sorted(set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED, TensorProto.STRING})


def test_initializers_come_first_then_nodes_in_order_with_their_subgraphs(places_model: ModelProto) -> None:
    labels = [place.label for place in located_tensors(places_model)]
    assert labels == [
        "tensor 'raw_weight'",
        "tensor 'typed_weight'",
        "tensor 'small'",
        "tensor 'zero'",
        "attribute 'value' of Constant 'constant'",
        "tensor 'in_branch'",
        "attribute 'value' of Constant 'in_else'",
    ]


def test_a_change_to_a_yielded_tensor_is_a_change_to_the_model(places_model: ModelProto) -> None:
    for tensor in iter_tensors(places_model):
        tensor.doc_string = "seen"
    assert places_model.SerializeToString().count(b"seen") == 7


def test_only_initializers_and_constants_outside_of_functions_can_move(places_model: ModelProto) -> None:
    filler = numpy_helper.from_array(np.zeros(1, np.float32))
    fill = helper.make_node("ConstantOfShape", ["shape"], ["filled"], value=filler)
    words = TensorProto(name="words", data_type=TensorProto.STRING, dims=[1], string_data=[b"a"])
    constant = helper.make_node("Constant", [], ["c"], value=filler)
    function = helper.make_function("own", "f", [], ["c"], [constant], [helper.make_opsetid("", 17)])
    places_model.graph.node.append(fill)
    places_model.graph.initializer.append(words)
    places_model.functions.append(function)
    fixed = [place.label for place in located_tensors(places_model) if not place.movable]
    assert fixed == [
        "tensor 'words'",
        "attribute 'value' of ConstantOfShape 'filled'",
        "function 'f', attribute 'value' of Constant 'c'",
    ]


def test_sparse_tensors_are_listed(places_model: ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(2, np.float32), "sparse")
    indices = numpy_helper.from_array(np.array([0, 3]))
    sparse = helper.make_sparse_tensor(values, indices, [5])
    places_model.graph.sparse_initializer.append(sparse)
    places_model.graph.node.append(helper.make_node("Constant", [], ["s"], sparse_value=sparse))
    assert [place.tensor.dims[0] for place in located_tensors(places_model) if not place.movable] == [2, 2, 2, 2]


@pytest.mark.parametrize("data_type", NUMERIC)
def test_a_tensor_s_size_and_bytes_do_not_depend_on_its_field(data_type: int) -> None:
    values = np.array([0, 1, 0, 1, 1], helper.tensor_dtype_to_np_dtype(data_type))
    raw = numpy_helper.from_array(values, "t")
    typed = helper.make_tensor("t", data_type, [5], values.tolist())
    assert raw.HasField("raw_data")
    assert not typed.HasField("raw_data")
    assert inline_bytes(typed) == inline_bytes(raw) == raw.raw_data
    assert tensor_nbytes(typed) == len(raw.raw_data)


@pytest.mark.parametrize(
    ("data_type", "dims"),
    [(TensorProto.STRING, [1]), (TensorProto.UNDEFINED, [1]), (TensorProto.FLOAT, [2, -1]), (99, [1])],
)
def test_a_tensor_without_a_size_is_refused(data_type: int, dims: list[int]) -> None:
    with pytest.raises(StepError, match=r"tensor 't': data type .* has no size in bytes"):
        tensor_nbytes(TensorProto(name="t", data_type=data_type, dims=dims))


def test_bytes_that_contradict_the_dims_are_refused() -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[3], raw_data=bytes(8))
    with pytest.raises(StepError, match=r"tensor 't': has 8 bytes, dims \[3\] need 12"):
        inline_bytes(tensor)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_values_that_contradict_the_dims_are_refused(count: int) -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[3], float_data=[1.0] * count)
    with pytest.raises(StepError, match="tensor 't': cannot reshape"):
        inline_bytes(tensor)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"dims": [-1]}, "dims [-1] are not valid"),
        ({"dims": [1] * 100}, "are not valid"),
        ({"dims": [2**32, 2**32]}, "are not valid"),
        ({"dims": [0, 2**62, 2**62]}, "are not valid"),
        ({"dims": [10**12]}, "has 8 in raw_data, dims [1000000000000] of data type 1 need 4000000000000"),
        ({"dims": [3]}, "has 8 in raw_data, dims [3] of data type 1 need 12"),
        ({"data_type": 0}, "data type 0 is unknown"),
        ({"data_type": 99}, "data type 99 is unknown"),
        ({"data_type": TensorProto.STRING}, "has 8 in raw_data, dims [2] of data type 8 cannot have them"),
        ({"raw_data": None}, "has no values, dims [2] of data type 1 need 2"),
        ({"float_data": [1.0, 2.0]}, "its values are in float_data and in raw_data"),
        ({"raw_data": None, "float_data": [1.0]}, "has 1 in float_data, dims [2] of data type 1 need 2"),
        ({"raw_data": None, "int64_data": [1, 2]}, "has 2 in int64_data, dims [2] of data type 1 cannot have them"),
        ({"data_location": TensorProto.EXTERNAL}, "its values are external and in raw_data"),
    ],
)
def test_a_tensor_whose_values_do_not_fit_it_is_refused(change: dict[str, object], fact: str) -> None:
    fields: dict[str, object] = {"name": "w", "dims": [2], "data_type": TensorProto.FLOAT, "raw_data": bytes(8)}
    tensor = TensorProto(**{key: value for key, value in (fields | change).items() if value is not None})
    with pytest.raises(StepError) as raised:
        check_values(LocatedTensor(tensor, "tensor 'w'", movable=True))
    assert raised.value.fact.startswith("tensor 'w': ")
    assert raised.value.fact.endswith(fact)


@pytest.mark.parametrize("data_type", sorted({*BITS_PER_ELEMENT, TensorProto.STRING}))
@pytest.mark.parametrize("raw", [True, False])
def test_what_onnx_writes_of_any_type_fits(data_type: int, raw: bool) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(data_type)
    if data_type == TensorProto.STRING:
        tensor = helper.make_tensor("w", data_type, [3], ["a", "", "c"])
    elif raw:
        tensor = numpy_helper.from_array(np.ones(3, dtype), "w")
    else:
        tensor = helper.make_tensor("w", data_type, [3], np.ones(3, dtype))
    check_values(LocatedTensor(tensor, "tensor 'w'", movable=True))
    check_values(LocatedTensor(numpy_helper.from_array(np.zeros((0, 7), np.float32), "w"), "tensor 'w'", movable=True))
