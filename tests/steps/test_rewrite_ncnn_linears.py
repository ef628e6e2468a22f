from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.ncnn.param_file import read_param
from artifacts.ncnn.runtime import Net, find_net
from artifacts.steps import rewrite_ncnn_linears
from artifacts.steps.rewrite_ncnn_linears import Params
from ncnn_conversions import Array, Pieces


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("{}", True),
        ('{"layers_to_exclude": ["gemm_0"]}', True),
        ('{"layers_to_exclude": "gemm_0"}', False),
        ('{"types": ["Gemm"]}', False),
    ],
)
def test_params(text: str, good: bool) -> None:
    if good:
        Params.model_validate_json(text)
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(text)


def test_every_linear_layer_is_an_inner_product_that_computes_the_same(
    pieces: Pieces, one_utterance: Array, tmp_path: Path
) -> None:
    metrics = rewrite_ncnn_linears.run(tmp_path, Params(), model=pieces.folder("head"))
    assert (metrics["layers_rewritten"], metrics["gemms_left"]) == (3, 0)
    before, after = (Net(*find_net(folder)).run({"in0": one_utterance}) for folder in (pieces.folder("head"), tmp_path))
    assert np.abs(before["out0"] - after["out0"]).max() < 1e-5 * np.abs(before["out0"]).max()
    types = [layer.type for layer in read_param(find_net(tmp_path)[0]).layers]
    assert (types.count("InnerProduct"), types.count("Gemm")) == (3, 0)
    assert metrics["bytes_after"] == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_what_is_excluded_stays_as_it_is_and_must_be_there(pieces: Pieces, tmp_path: Path) -> None:
    metrics = rewrite_ncnn_linears.run(tmp_path, Params(layers_to_exclude=("gemm_1",)), model=pieces.folder("head"))
    assert (metrics["layers_rewritten"], metrics["gemms_left"]) == (2, 1)
    with pytest.raises(StepError, match=r"head\.ncnn\.param: layers_to_exclude: no layer is called 'gemm_7'"):
        rewrite_ncnn_linears.run(tmp_path, Params(layers_to_exclude=("gemm_7",)), model=pieces.folder("head"))


def test_a_model_without_linear_gemms_is_refused(pieces: Pieces, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"joint\.ncnn\.param: 0 layers rewritten"):
        rewrite_ncnn_linears.run(tmp_path, Params(), model=pieces.folder("joint"))
    assert not list(tmp_path.iterdir())
