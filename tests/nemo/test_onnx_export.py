from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from artifacts.model.network import Network
from artifacts.nemo.networks import EncoderNetwork, JointNetwork, PredictorNetwork
from artifacts.nemo.onnx_export import export_network

NETWORKS = pytest.mark.parametrize("kind", [EncoderNetwork, PredictorNetwork, JointNetwork])


def _dims(values: Any) -> dict[str, list[int | str]]:
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def _fixed(network: Network) -> dict[str, int]:
    return dict(zip(network.axes, (1, 24 if "frames" in network.axes else 1, 1), strict=False))


@NETWORKS
def test_open_axes_are_called_as_in_the_tables(kind: type[Any], restored_model: Any, tmp_path: Path) -> None:
    network = kind(restored_model)
    export_network(network, tmp_path / "model.onnx", 17, None)
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert _dims(graph.input) == {name: list(dims) for name, dims in network.inputs.items()}
    assert _dims(graph.output) == {name: list(dims) for name, dims in network.outputs.items()}


@NETWORKS
def test_fixed_axes_are_numbers_that_shape_inference_agrees_with(
    kind: type[Any], restored_model: Any, tmp_path: Path
) -> None:
    network = kind(restored_model)
    sizes = _fixed(network) | {"encoder_frames": 3 if "frames" in network.axes else 1}
    export_network(network, tmp_path / "model.onnx", 17, _fixed(network))
    model = onnx.load(tmp_path / "model.onnx")
    for values, table in ((model.graph.input, network.inputs), (model.graph.output, network.outputs)):
        assert _dims(values) == {
            name: [sizes[dim] if isinstance(dim, str) else dim for dim in dims] for name, dims in table.items()
        }
    onnx.shape_inference.infer_shapes(model, strict_mode=True)


@pytest.mark.parametrize("opset", [17, 18, 20])
def test_the_opset_is_the_one_asked_for(opset: int, restored_model: Any, tmp_path: Path) -> None:
    export_network(JointNetwork(restored_model), tmp_path / "model.onnx", opset, None)
    model = onnx.load(tmp_path / "model.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]


def test_exporting_leaves_the_model_in_evaluation_mode(restored_model: Any, tmp_path: Path) -> None:
    export_network(EncoderNetwork(restored_model), tmp_path / "model.onnx", 17, None)
    assert not any(module.training for module in restored_model.modules())
