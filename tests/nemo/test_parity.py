from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from artifacts.errors import StepError
from artifacts.nemo.networks import EncoderNetwork, JointNetwork
from artifacts.nemo.onnx_export import export_network
from artifacts.nemo.parity import MAX_ABS_DIFF, compare

SIZES = {"batch": 2, "encoder_frames": 5, "tokens": 3}


@pytest.fixture
def joint(restored_model: Any, tmp_path: Path) -> tuple[JointNetwork, Path]:
    network = JointNetwork(restored_model)
    export_network(network, tmp_path / "joint-model.onnx", 17, None)
    return network, tmp_path / "joint-model.onnx"


def _change(path: Path, amount: float) -> None:
    model = onnx.load(path)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.startswith("joint.joint_net."))
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] += amount
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, path)


def test_the_largest_difference_of_each_output_comes_back(joint: tuple[JointNetwork, Path]) -> None:
    network, path = joint
    _change(path, 5e-5)
    differences = compare(path, network, [SIZES])
    assert list(differences) == ["joint_output_max_abs_diff"]
    assert differences["joint_output_max_abs_diff"] == pytest.approx(5e-5, rel=0.2)


@pytest.mark.parametrize("amount", [2 * MAX_ABS_DIFF, np.nan, np.inf])
def test_a_graph_that_drifts_is_refused(joint: tuple[JointNetwork, Path], amount: float) -> None:
    network, path = joint
    _change(path, amount)
    with pytest.raises(StepError, match=r"joint-model\.onnx: 'joint_output' drifts from torch by .* at batch 2, "):
        compare(path, network, [SIZES])


def test_integer_outputs_must_be_equal(restored_model: Any, tmp_path: Path) -> None:
    network, path = EncoderNetwork(restored_model), tmp_path / "encoder-model.onnx"
    export_network(network, path, 17, None)
    model = onnx.load(path)
    producer = next(node for node in model.graph.node if "encoded_lengths" in node.output)
    producer.output[:] = ["true_lengths"]
    one = onnx.helper.make_node("Constant", [], ["one_more"], value_int=1)
    model.graph.node.extend([one, onnx.helper.make_node("Add", ["true_lengths", "one_more"], ["encoded_lengths"])])
    onnx.save(model, path)
    with pytest.raises(StepError, match="'encoded_lengths' drifts from torch by 1 at batch 1, frames 64"):
        compare(path, network, [{"batch": 1, "frames": 64}])
