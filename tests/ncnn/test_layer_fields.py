from __future__ import annotations

import pytest

from artifacts.errors import StepError
from artifacts.ncnn.layer_fields import INT8_TERM, WITHOUT_WEIGHTS, is_int8, layer_fields
from artifacts.ncnn.param_file import Layer, Value


def layer(kind: str, **params: Value) -> Layer:
    return Layer(kind, "it", ("in0",), ("out0",), {int(key[1:]): value for key, value in params.items()})


@pytest.mark.parametrize(
    ("it", "fields"),
    [
        (layer("Convolution", p0=32, p6=288), {"weight": (32, 9)}),
        (layer("Convolution", p0=32, p6=288, p5=1), {"weight": (32, 9), "bias": (32,)}),
        (
            layer("Convolution", p0=32, p6=288, p5=1, p8=102),
            {"weight": (32, 9), "bias": (32,), "weight_scales": (32,), "bottom_scale": (1,), "top_scale": (1,)},
        ),
        (layer("Convolution", p0=32, p6=288, p19=1), {}),
        (
            layer("ConvolutionDepthWise", p0=32, p6=288, p7=16, p8=1),
            {"weight": (32, 9), "weight_scales": (16,), "bottom_scale": (1,)},
        ),
        (
            layer("ConvolutionDepthWise", p0=32, p6=288, p7=16, p8=2),
            {"weight": (32, 9), "weight_scales": (1,), "bottom_scale": (1,)},
        ),
        (layer("Convolution1D", p0=8, p6=80, p5=1), {"weight": (8, 10), "bias": (8,)}),
        (layer("ConvolutionDepthWise1D", p0=8, p6=80), {"weight": (8, 10)}),
        (layer("InnerProduct", p0=4, p1=1, p2=20), {"weight": (4, 5), "bias": (4,)}),
        (
            layer("InnerProduct", p0=4, p2=20, p8=2),
            {"weight": (4, 5), "weight_scales": (4,), "bottom_scale": (1,)},
        ),
        (layer("Gemm", p3=1, p5=1, p6=1, p8=4, p9=5, p10=4), {"b": (4, 5), "c": (4,)}),
        (layer("Gemm", p5=1, p6=1, p8=4, p9=5, p10=-1, p18=2), {"b": (5, 4), "b_scale": (1,)}),
        (layer("Gemm", p4=1, p7=3, p9=5, p18=2), {"a": (3, 5), "a_scales": (3,)}),
        (layer("Gemm"), {}),
        (
            layer("LSTM", p0=3, p1=160, p3=8),
            {"weight_xc": (32, 5), "bias_c": (4, 8), "weight_hc": (32, 3), "weight_hr": (3, 8)},
        ),
        (
            layer("LSTM", p0=8, p1=320, p2=2, p8=2),
            {
                "weight_xc": (64, 5),
                "bias_c": (8, 8),
                "weight_hc": (64, 8),
                "weight_xc_scales": (64,),
                "weight_hc_scales": (64,),
            },
        ),
        (layer("GRU", p0=8, p1=120), {"weight_xc": (24, 5), "bias_c": (4, 8), "weight_hc": (24, 8)}),
        (layer("Embed", p0=8, p1=10, p3=80, p18=2), {"weight": (10, 8), "weight_scale": (1,)}),
        (layer("MemoryData", p0=5), {"data": (5,)}),
        (layer("MemoryData", p0=5, p1=4, p2=3), {"data": (3, 4, 5)}),
        (layer("LayerNorm", p0=6), {"gamma": (6,), "beta": (6,)}),
        (layer("LayerNorm", p0=6, p2=0), {}),
        (layer("GroupNorm", p0=2, p1=6), {"gamma": (6,), "beta": (6,)}),
        (layer("BatchNorm", p0=6), {"slope": (6,), "mean": (6,), "variance": (6,), "bias": (6,)}),
        (layer("Padding", p0=1), {}),
        (layer("Padding", p6=4), {"channel_values": (4,)}),
        (layer("Swish"), {}),
        (layer("SherpaMetaData", p0=3), {}),
    ],
)
def test_a_layer_has_the_weights_that_its_parameters_say(it: Layer, fields: dict[str, tuple[int, ...]]) -> None:
    assert {field.name: field.shape for field in layer_fields(it)} == fields


def test_matrices_have_a_tag_and_biases_and_scales_have_none() -> None:
    found = {field.name: field.tagged for field in layer_fields(layer("InnerProduct", p0=4, p1=1, p2=20, p8=2))}
    assert found == {"weight": True, "bias": False, "weight_scales": False, "bottom_scale": False}
    assert all(field.tagged for field in layer_fields(layer("Gemm", p3=1, p5=1, p6=1, p8=4, p9=5, p10=4)))
    assert all(field.tagged for field in layer_fields(layer("LSTM", p0=3, p1=160, p3=8)))
    assert [field.tagged for field in layer_fields(layer("MemoryData", p0=5, p21=0))] == [True]
    assert [field.tagged for field in layer_fields(layer("MemoryData", p0=5))] == [False]


@pytest.mark.parametrize(
    ("it", "fact"),
    [
        (layer("Convolution3D", p0=8), "unknown layer type, which may have weights"),
        (layer("aten::lt"), "unknown layer type"),
        (layer("Convolution", p0=7, p6=288), "288 weights do not make 7 rows"),
        (layer("Convolution"), "0 weights do not make 0 rows"),
        (layer("Gemm", p3=1, p5=1, p8=4), r"b: would have the shape \[4, 0\]"),
        (layer("Gemm", p6=1, p10=7), "param 10: expected -1 to 4, got 7"),
        (layer("Gemm", p3=1, p5=1, p8=4, p9=5, p18=408), "weights in blocks"),
    ],
)
def test_what_is_not_known_or_does_not_fit_is_refused_with_the_layer(it: Layer, fact: str) -> None:
    with pytest.raises(StepError, match=rf"^layer 'it' \({it.type}\): {fact}"):
        layer_fields(it)


@pytest.mark.parametrize("kind", INT8_TERM)
def test_a_parameter_of_the_layer_marks_int8(kind: str) -> None:
    assert not is_int8(Layer(kind, "it", (), (), {}))
    assert is_int8(Layer(kind, "it", (), (), {INT8_TERM[kind]: 2}))
    assert not is_int8(Layer("Swish", "it", (), (), {INT8_TERM[kind]: 2}))


def test_no_type_is_listed_with_and_without_weights() -> None:
    assert not WITHOUT_WEIGHTS & set(INT8_TERM)
