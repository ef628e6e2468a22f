from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from onnx import ModelProto, helper

from artifacts.errors import StepError
from artifacts.graph.texts import check_texts

MARK = "mark-of-the-test"

PLACES: dict[str, Callable[[ModelProto], object]] = {
    "producer": lambda m: setattr(m, "producer_name", MARK),
    "opset domain": lambda m: m.opset_import.append(helper.make_opsetid(MARK, 1)),
    "metadata": lambda m: m.metadata_props.add(key="a", value=MARK),
    "graph": lambda m: setattr(m.graph, "name", MARK),
    "node": lambda m: setattr(m.graph.node[0], "name", MARK),
    "node input": lambda m: m.graph.node[0].input.append(MARK),
    "node output": lambda m: m.graph.node[0].output.append(MARK),
    "op": lambda m: setattr(m.graph.node[0], "op_type", MARK),
    "domain": lambda m: setattr(m.graph.node[0], "domain", MARK),
    "node's note": lambda m: setattr(m.graph.node[0], "doc_string", MARK),
    "attribute": lambda m: setattr(m.graph.node[-1].attribute[0], "name", MARK),
    "node in a body": lambda m: setattr(m.graph.node[-1].attribute[0].g.node[0], "name", MARK),
    "tensor": lambda m: setattr(m.graph.initializer[0], "name", MARK),
    "location": lambda m: m.graph.initializer[0].external_data.add(key="location", value=MARK),
    "input": lambda m: setattr(m.graph.input[0], "name", MARK),
    "open dimension": lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_param", MARK),
    "function": lambda m: m.functions.append(
        helper.make_function("own", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"], MARK)], m.opset_import)
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_text_that_is_not_utf8_is_refused_wherever_it_is(place: str, places_model: ModelProto) -> None:
    PLACES[place](places_model)
    check_texts(places_model)
    broken = places_model.SerializeToString().replace(MARK.encode(), random.Random(0).randbytes(15) + b"\xff")
    with pytest.raises(StepError, match="which is not UTF-8"):
        check_texts(ModelProto.FromString(broken))
