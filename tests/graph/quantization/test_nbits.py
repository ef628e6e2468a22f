"""MatMuls become MatMulNBits nodes with the same function, and nothing else of the graph changes."""

from __future__ import annotations

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, numpy_helper, parser

from artifacts.graph.model_file import find_model, load_graph
from artifacts.graph.quantization.nbits import BlockFormat, NBitsChanges, quantize_blocks, rewrite_to_nbits
from artifacts.graph.quantization.weight_matmuls import matrices_to_initializers
from artifacts.graph.tensor_writer import write_model

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[B, 40] x, bool flag) => (float[B, 40] y)
{
  a = MatMul(x, w)
  b = MatMul(a, w)
  c = MatMul(b, v)
  d = Mul(c, c)
  y = If(flag) <
    then_branch = yes () => (float[B, 40] yes) { yes = MatMul(d, u) },
    else_branch = no () => (float[B, 40] no) { no = Identity(d) }
  >
}
"""
FORM = BlockFormat(8, 16, symmetric=True)
Array = np.ndarray[Any, Any]
MIB = 1 << 20

STOCK = """
import logging, sys, types
import onnx
try:
    import onnx_ir
except ImportError:  # all that the quantiser asks of it
    class Tensor:
        def __init__(self, array, name=None):
            self.array, self.name = array, name
        def numpy(self):
            return self.array
    onnx_ir = sys.modules["onnx_ir"] = types.ModuleType("onnx_ir")
    onnx_ir.Tensor = Tensor
    onnx_ir.from_proto = lambda tensor: Tensor(onnx.numpy_helper.to_array(tensor))
    onnx_ir.serde = types.SimpleNamespace(
        serialize_tensor=lambda tensor: onnx.numpy_helper.from_array(tensor.array, tensor.name)
    )
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
logging.disable()
for path in sys.argv[2:]:
    bits, block_size, symmetric, level = map(int, path.split("/")[-1].split(" "))
    model = onnx.load(sys.argv[1])
    quantizer = MatMulNBitsQuantizer(
        model, bits=bits, block_size=block_size, is_symmetric=bool(symmetric), accuracy_level=level
    )
    quantizer.process()
    onnx.save(quantizer.model.model, path)
"""


def matrix(seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((40, 40), np.float32) / np.float32(40)


@pytest.fixture
def model() -> ModelProto:
    """`w` is consumed twice, `v` once, `u` in a subgraph of an If."""
    model = parser.parse_model(GRAPH)
    for node in model.graph.node:
        node.name = f"node {node.output[0]}"
    for seed, name in enumerate("wvu"):
        model.graph.initializer.append(numpy_helper.from_array(matrix(seed), name))
    return model


def rewritten(model: ModelProto, folder: Path, form: BlockFormat = FORM, **given: Any) -> tuple[NBitsChanges, Path]:
    """The changes, and the written file. The model itself is left as it was."""
    changed = deepcopy(model)
    changes = rewrite_to_nbits(
        changed, folder, form, given.get("accuracy_level", 4), given.get("excluded", frozenset())
    )
    path = folder / "out.onnx"
    path.unlink(missing_ok=True)
    write_model(changed, changes.stored, path, external=False)
    onnx.checker.check_model(path)
    return changes, path


def names(path: Path) -> set[str]:
    return {tensor.name for tensor in load_graph(path).graph.initializer}


def run(path: Path, flag: bool = True) -> Array:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(9).standard_normal((7, 40), np.float32)
    return np.asarray(session.run(None, {"x": x, "flag": np.array(flag)})[0])


def test_nodes_of_the_top_graph_become_matmulnbits_and_those_in_subgraphs_stay(
    model: ModelProto, tmp_path: Path
) -> None:
    changes, path = rewritten(model, tmp_path)
    assert (changes.nodes, changes.weights) == (3, 2)
    graph = load_graph(path).graph
    assert [node.op_type for node in graph.node] == ["MatMulNBits", "MatMulNBits", "MatMulNBits", "Mul", "If"]
    node = graph.node[0]
    assert (node.name, node.domain, list(node.input)) == ("node a_Q8", "com.microsoft", ["x", "w_Q8", "w_scales"])
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    assert attributes == {"K": 40, "N": 40, "bits": 8, "block_size": 16, "accuracy_level": 4}
    assert list(graph.node)[3:] == list(model.graph.node)[3:]
    assert names(path) == {"u", "w_Q8", "w_scales", "v_Q8", "v_scales"}


def test_the_domain_is_imported_once(model: ModelProto, tmp_path: Path) -> None:
    _, path = rewritten(model, tmp_path)
    found = load_graph(path)
    assert {opset.domain: opset.version for opset in found.opset_import} == {"": 17, "com.microsoft": 1}
    model.opset_import.add(domain="com.microsoft", version=1)
    _, path = rewritten(model, tmp_path)
    assert len(load_graph(path).opset_import) == 2


def test_a_level_that_is_not_set_leaves_no_attribute(model: ModelProto, tmp_path: Path) -> None:
    _, path = rewritten(model, tmp_path, accuracy_level=0)
    assert "accuracy_level" not in {attribute.name for attribute in load_graph(path).graph.node[0].attribute}


def test_an_excluded_node_keeps_its_weight_beside_the_quantised_one(model: ModelProto, tmp_path: Path) -> None:
    changes, path = rewritten(model, tmp_path, excluded={"node b"})
    assert (changes.nodes, changes.weights) == (2, 2)
    graph = load_graph(path).graph
    assert graph.node[1] == model.graph.node[1]
    assert names(path) == {"u", "w", "w_Q8", "w_scales", "v_Q8", "v_scales"}


def test_a_weight_that_a_subgraph_consumes_too_stays_in_float(model: ModelProto, tmp_path: Path) -> None:
    branch = next(attribute.g for attribute in model.graph.node[-1].attribute if attribute.name == "then_branch")
    branch.node[0].input[1] = "v"
    _, path = rewritten(model, tmp_path)
    assert names(path) == {"u", "w_Q8", "w_scales", "v", "v_Q8", "v_scales"}


def test_a_weight_that_is_an_input_or_an_output_too_is_handled(model: ModelProto, tmp_path: Path) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("v", 1, [40, 40]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("w", 1, [40, 40]))
    _, path = rewritten(model, tmp_path)
    assert [value.name for value in load_graph(path).graph.input] == ["x", "flag"]
    assert "w" in names(path)
    assert "v" not in names(path)


@pytest.mark.parametrize("level", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block_size", [16, 32, 64, 128, 256])
def test_every_format_computes_with_the_weights_that_its_blocks_mean(
    model: ModelProto, tmp_path: Path, block_size: int, bits: Any, symmetric: bool, level: int
) -> None:
    form = BlockFormat(bits, block_size, symmetric)
    _, path = rewritten(model, tmp_path, form, accuracy_level=level)
    found = run(path)
    for tensor in model.graph.initializer[:2]:
        tensor.CopyFrom(numpy_helper.from_array(restored(numpy_helper.to_array(tensor), form), tensor.name))
    onnx.save(model, tmp_path / "float.onnx")
    expected = run(tmp_path / "float.onnx")
    tolerance = 0.05 if level == 4 else 1e-5  # at 4 activations become int8
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


def restored(weight: Array, form: BlockFormat) -> Array:
    """The float weight [K, N] that the blocks stand for."""
    blocks = quantize_blocks(weight, form)
    integers, zeros = blocks.packed.reshape(len(blocks.packed), -1), blocks.zero_points
    if form.bits == 4:
        integers, zeros = (np.stack([part & 15, part >> 4], -1).reshape(len(part), -1) for part in (integers, zeros))
    count = blocks.scales.shape[1]
    zero = 2 ** (form.bits - 1) if form.symmetric else zeros[:, :count, None].astype(np.float32)
    steps = integers.reshape(len(integers), count, -1).astype(np.float32) - zero
    numbers = (steps * blocks.scales[..., None]).reshape(len(integers), -1)
    return np.ascontiguousarray(numbers[:, : len(weight)].T)


def test_no_weight_is_read_before_it_is_written(model: ModelProto, tmp_path: Path) -> None:
    folder = tmp_path / "external"
    folder.mkdir()
    onnx.save(deepcopy(model), folder / "in.onnx", save_as_external_data=True, location="data", size_threshold=1024)
    changed, weights = load_graph(folder / "in.onnx"), (folder / "data").read_bytes()
    (folder / "data").write_bytes(bytes(len(weights)))
    changes = rewrite_to_nbits(changed, folder, FORM, 4, ())
    (folder / "data").write_bytes(weights)
    write_model(changed, changes.stored, folder / "out.onnx", external=True)
    _, inline = rewritten(model, tmp_path)
    np.testing.assert_array_equal(run(folder / "out.onnx"), run(inline))
    assert changes.nbytes == sum(content.nbytes for _, content in changes.stored) < len(weights)


def test_neither_the_weights_nor_their_blocks_are_held(tmp_path: Path) -> None:
    """256 MiB of weights in a hole of a sparse file become 72 MiB, of which one weight at a time is in memory."""
    lines = "".join(f"x{index + 1} = MatMul(x{index}, w{index})\n" for index in range(16))
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[B,2048] x0) => (float[B,2048] x16) {{ {lines} }}'
    )
    for index in range(16):
        tensor = model.graph.initializer.add(name=f"w{index}", data_type=TensorProto.FLOAT, dims=[2048, 2048])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "data"), ("offset", str(index * 16 * MIB))):
            tensor.external_data.add(key=key, value=value)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "data").touch()
    os.truncate(tmp_path / "data", 256 * MIB)
    program = """
import pathlib, sys
from artifacts.graph.model_file import load_graph
from artifacts.graph.quantization.nbits import rewrite_to_nbits
from artifacts.graph.quantization.nbits import BlockFormat
from artifacts.graph.tensor_writer import write_model
source, target = map(pathlib.Path, sys.argv[1:])
model = load_graph(source)
changes = rewrite_to_nbits(model, source.parent, BlockFormat(8, 32, True), 4, ())
write_model(model, changes.stored, target, external=True)
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith(("VmHWM", "RssFile"))))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "model.onnx"), str(tmp_path / "out.onnx")]
    peak, of_files = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    written = tmp_path / "out.onnx.data"
    assert written.stat().st_size == pytest.approx(72 * MIB, rel=0.01)
    written.unlink()  # pytest would keep it
    assert 1024 * (peak - of_files) < 110 * MIB


@pytest.mark.parametrize("target", ["encoder_fp32", "decoder_joint_fp32"])
def test_the_model_is_bit_for_bit_that_of_onnx_runtimes_quantiser(
    target: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source: Path = request.getfixturevalue(target)
    model = load_graph(find_model(source))
    matrices_to_initializers(model)
    onnx.save(model, tmp_path / "input.onnx")
    chosen: list[tuple[Any, int, bool, int]] = [
        (8, 32, True, 4), (8, 64, False, 0), (4, 32, False, 4), (4, 128, True, 0), (4, 16, True, 4),
    ]  # fmt: skip
    paths = [tmp_path / " ".join(str(int(value)) for value in values) for values in chosen]
    subprocess.run([sys.executable, "-W", "ignore", "-c", STOCK, tmp_path / "input.onnx", *paths], check=True)
    for path, (bits, block_size, symmetric, level) in zip(paths, chosen, strict=True):
        _, written = rewritten(model, tmp_path, BlockFormat(bits, block_size, symmetric), accuracy_level=level)
        ours, stock = onnx.load(written), onnx.load(path)
        assert list(ours.graph.node) == list(stock.graph.node)
        assert list(ours.opset_import) == list(stock.opset_import)
        assert tensors(ours) == tensors(stock)


def tensors(model: onnx.ModelProto) -> dict[str, tuple[int, list[int], bytes]]:
    return {t.name: (t.data_type, list(t.dims), numpy_helper.to_array(t).tobytes()) for t in model.graph.initializer}
