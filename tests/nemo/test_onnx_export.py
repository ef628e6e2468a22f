from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from artifacts.errors import StepError
from artifacts.model.network import Network
from artifacts.nemo.networks import EncoderNetwork, JointNetwork, PredictorNetwork
from artifacts.nemo.onnx_export import MAX_ABS_DIFF, compare_with_torch, exported

NETWORKS = pytest.mark.parametrize("kind", [EncoderNetwork, PredictorNetwork, JointNetwork])
SIZES = {"batch": 2, "encoder_frames": 5, "tokens": 3}


def _export(network: Network, path: Path, opset: int = 17, fixed: Mapping[str, int] | None = None) -> None:
    with exported(network, path, opset, fixed) as loose:
        loose.rename(path)


def _dims(values: Any) -> dict[str, list[int | str]]:
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def _fixed(network: Network) -> dict[str, int]:
    return dict(zip(network.axes, (1, 24 if "frames" in network.axes else 1, 1), strict=False))


@NETWORKS
def test_open_axes_are_called_as_in_the_tables(kind: type[Any], restored_model: Any, tmp_path: Path) -> None:
    network = kind(restored_model)
    _export(network, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert _dims(graph.input) == {name: list(dims) for name, dims in network.inputs.items()}
    assert _dims(graph.output) == {name: list(dims) for name, dims in network.outputs.items()}


@NETWORKS
def test_fixed_axes_are_numbers_that_shape_inference_agrees_with(
    kind: type[Any], restored_model: Any, tmp_path: Path
) -> None:
    network = kind(restored_model)
    sizes = _fixed(network) | {"encoder_frames": 3 if "frames" in network.axes else 1}
    _export(network, tmp_path / "model.onnx", 17, _fixed(network))
    model = onnx.load(tmp_path / "model.onnx")
    for values, table in ((model.graph.input, network.inputs), (model.graph.output, network.outputs)):
        assert _dims(values) == {
            name: [sizes[dim] if isinstance(dim, str) else dim for dim in dims] for name, dims in table.items()
        }
    onnx.shape_inference.infer_shapes(model, strict_mode=True)


@pytest.mark.parametrize("opset", [17, 18, 20])
def test_the_opset_is_the_one_asked_for(opset: int, restored_model: Any, tmp_path: Path) -> None:
    _export(JointNetwork(restored_model), tmp_path / "model.onnx", opset)
    model = onnx.load(tmp_path / "model.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]


def test_exporting_leaves_the_model_in_evaluation_mode(restored_model: Any, tmp_path: Path) -> None:
    _export(EncoderNetwork(restored_model), tmp_path / "model.onnx")
    assert not any(module.training for module in restored_model.modules())


def test_the_folder_of_loose_files_goes_afterwards(restored_model: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with exported(JointNetwork(restored_model), path, 17) as loose:
        assert loose.is_file()
        assert loose.parent.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def joint(restored_model: Any, tmp_path: Path) -> tuple[JointNetwork, Path]:
    network = JointNetwork(restored_model)
    _export(network, tmp_path / "joint-model.onnx")
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
    differences = compare_with_torch(path, network, [SIZES])
    assert list(differences) == ["joint_output_max_abs_diff"]
    assert differences["joint_output_max_abs_diff"] == pytest.approx(5e-5, rel=0.2)


@pytest.mark.parametrize("amount", [2 * MAX_ABS_DIFF, np.nan, np.inf])
def test_a_graph_that_differs_is_refused(joint: tuple[JointNetwork, Path], amount: float) -> None:
    network, path = joint
    _change(path, amount)
    with pytest.raises(StepError, match=r"joint-model\.onnx: 'joint_output' differs from torch by .* at batch 2, "):
        compare_with_torch(path, network, [SIZES])


def test_integer_outputs_must_be_equal(restored_model: Any, tmp_path: Path) -> None:
    network, path = EncoderNetwork(restored_model), tmp_path / "encoder-model.onnx"
    _export(network, path)
    model = onnx.load(path)
    producer = next(node for node in model.graph.node if "encoded_lengths" in node.output)
    producer.output[:] = ["true_lengths"]
    one = onnx.helper.make_node("Constant", [], ["one_more"], value_int=1)
    model.graph.node.extend([one, onnx.helper.make_node("Add", ["true_lengths", "one_more"], ["encoded_lengths"])])
    onnx.save(model, path)
    with pytest.raises(StepError, match="'encoded_lengths' differs from torch by 1 at batch 1, frames 64"):
        compare_with_torch(path, network, [{"batch": 1, "frames": 64}])
