"""What exporters note down is dropped; what runtimes read stays."""

from __future__ import annotations

from onnx import ModelProto, helper

from artifacts.graph.strip_docs import strip_docs
from artifacts.graph.tensors import iter_tensors


def test_notes_disappear_from_every_place_and_nothing_else_changes(places_model: ModelProto) -> None:
    places_model.functions.append(helper.make_function("own", "f", [], [], [helper.make_node("Neg", ["a"], ["b"])], []))
    places_model.metadata_props.add(key="vocab_size", value="8192")
    clean = places_model.SerializeToString(deterministic=True)
    body = places_model.graph.node[-1].attribute[0].g
    function = places_model.functions[0]
    noted = [
        places_model.graph,
        places_model.graph.input[0],
        places_model.graph.output[0],
        body,
        body.output[0],
        function,
    ]
    noted += [*places_model.graph.node, *body.node, *function.node]
    for item in noted:
        item.doc_string = "/somewhere/else/encoder.py(17)"
        item.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/somewhere/else")
    for tensor in iter_tensors(places_model):
        tensor.doc_string = "/somewhere/else"
    places_model.doc_string = "made on a Tuesday"
    places_model.graph.node[0].attribute.append(helper.make_attribute("unused", 1, doc_string="/somewhere/else"))
    assert places_model.SerializeToString().count(b"/somewhere/else") > 20
    strip_docs(places_model)
    del places_model.graph.node[0].attribute[:]
    assert places_model.SerializeToString(deterministic=True) == clean
