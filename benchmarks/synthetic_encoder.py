"""A conformer-shaped encoder of any size, written tensor by tensor: random weights in a graph that loads and runs.

Its blocks have the dimensions of a 0.6b FastConformer (d 1024, ff 4096): feed-forward, self-attention with a second,
positional term, convolution, feed-forward, norms between; 24 of them hold 2.42 GB. One strided convolution stands for
the subsampling. Lengths are computed in floats, with the Casts that exporters leave.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, parser

from artifacts.graph.tensor_content import CHUNK_BYTES
from artifacts.graph.tensor_writer import stored_tensors, write_model
from artifacts.graph.tensors import tensor_nbytes

HEAD = """
<ir_version: 8, opset_import: ["" : 17]>
encoder (float[B, 128, T] audio_signal, int64[B] length)
     => (float[B, 1024, S] encoder_output, int64[B] encoded_lengths) {
  one = Constant<value = float {1.0}>()
  eighth = Constant<value = float {0.125}>()
  heads = Constant<value = int64[4] {0, 0, 8, 128}>()
  merged = Constant<value = int64[3] {0, 0, 1024}>()
  scale = Constant<value = float {0.08838835}>()
  frames = Cast<to: int = 1>(length)
  frames_before = Sub(frames, one)
  strides = Mul(frames_before, eighth)
  whole_strides = Floor(strides)
  frames_out = Add(whole_strides, one)
  encoded_lengths = Cast<to: int = 7>(frames_out)
  strided = Conv<kernel_shape: ints = [9], strides: ints = [8], pads: ints = [4, 4]>(audio_signal, subsampling)
  x_0 = Transpose<perm: ints = [0, 2, 1]>(strided)
"""

# '@' is the block's prefix, INPUT and OUTPUT the values between blocks.
BLOCK = """
  @a0 = LayerNormalization<axis: int = -1>(INPUT, @norm_a, @bias_a)
  @a1 = MatMul(@a0, @ff1_up)
  @a2 = Sigmoid(@a1)
  @a3 = Mul(@a1, @a2)
  @a4 = MatMul(@a3, @ff1_down)
  @a5 = Add(INPUT, @a4)
  @b0 = LayerNormalization<axis: int = -1>(@a5, @norm_b, @bias_b)
  @q0 = MatMul(@b0, @query)
  @q1 = Reshape(@q0, heads)
  @q2 = Transpose<perm: ints = [0, 2, 1, 3]>(@q1)
  @k0 = MatMul(@b0, @key)
  @k1 = Reshape(@k0, heads)
  @k2 = Transpose<perm: ints = [0, 2, 3, 1]>(@k1)
  @p0 = MatMul(@b0, @position)
  @p1 = Reshape(@p0, heads)
  @p2 = Transpose<perm: ints = [0, 2, 3, 1]>(@p1)
  @v0 = MatMul(@b0, @value)
  @v1 = Reshape(@v0, heads)
  @v2 = Transpose<perm: ints = [0, 2, 1, 3]>(@v1)
  @s0 = MatMul(@q2, @k2)
  @s1 = MatMul(@q2, @p2)
  @s2 = Add(@s0, @s1)
  @s3 = Mul(@s2, scale)
  @s4 = Softmax<axis: int = -1>(@s3)
  @s5 = MatMul(@s4, @v2)
  @s6 = Transpose<perm: ints = [0, 2, 1, 3]>(@s5)
  @s7 = Reshape(@s6, merged)
  @s8 = MatMul(@s7, @out)
  @s9 = Add(@a5, @s8)
  @c0 = LayerNormalization<axis: int = -1>(@s9, @norm_c, @bias_c)
  @c1 = Transpose<perm: ints = [0, 2, 1]>(@c0)
  @c2 = Conv<kernel_shape: ints = [1]>(@c1, @pointwise1)
  @c3, @c4 = Split<axis: int = 1>(@c2)
  @c5 = Sigmoid(@c4)
  @c6 = Mul(@c3, @c5)
  @c7 = Conv<kernel_shape: ints = [9], pads: ints = [4, 4], group: int = 1024>(@c6, @depthwise, @depthwise_bias)
  @c8 = Sigmoid(@c7)
  @c9 = Mul(@c7, @c8)
  @d0 = Conv<kernel_shape: ints = [1]>(@c9, @pointwise2)
  @d1 = Transpose<perm: ints = [0, 2, 1]>(@d0)
  @d2 = Add(@s9, @d1)
  @e0 = LayerNormalization<axis: int = -1>(@d2, @norm_d, @bias_d)
  @e1 = MatMul(@e0, @ff2_up)
  @e2 = Sigmoid(@e1)
  @e3 = Mul(@e1, @e2)
  @e4 = MatMul(@e3, @ff2_down)
  @e5 = Add(@d2, @e4)
  OUTPUT = LayerNormalization<axis: int = -1>(@e5, @norm_e, @bias_e)
"""

TAIL = """
  encoder_output = Transpose<perm: ints = [0, 2, 1]>(OUTPUT)
}
"""

VECTOR = (1024,)
SQUARE = (1024, 1024)
BLOCK_WEIGHTS = {
    **{f"norm_{letter}": VECTOR for letter in "abcde"},
    **{f"bias_{letter}": VECTOR for letter in "abcde"},
    **dict.fromkeys(("query", "key", "position", "value", "out"), SQUARE),
    **dict.fromkeys(("ff1_up", "ff2_up"), (1024, 4096)),
    **dict.fromkeys(("ff1_down", "ff2_down"), (4096, 1024)),
    "pointwise1": (2048, 1024, 1),
    "depthwise": (1024, 1, 9),
    "depthwise_bias": VECTOR,
    "pointwise2": (1024, 1024, 1),
}
BLOCK_BYTES = 4 * sum(int(np.prod(dims)) for dims in BLOCK_WEIGHTS.values())


@dataclass(frozen=True)
class SeededNormal:
    """Float32 numbers of a normal distribution around `mean`, the same for the same seed."""

    seed: tuple[int, int]
    nbytes: int
    mean: float
    deviation: float

    def chunks(self) -> Iterator[memoryview]:
        generator = np.random.default_rng(self.seed)
        for start in range(0, self.nbytes, CHUNK_BYTES):
            values = generator.standard_normal(min(CHUNK_BYTES, self.nbytes - start) // 4, dtype=np.float32)
            values *= np.float32(self.deviation)
            values += np.float32(self.mean)
            yield values.view(np.uint8).data


def write_encoder(folder: Path, gigabytes: float, seed: int = 0) -> Path:
    """Write `encoder-model.onnx` and its data to `folder`: as many blocks as come nearest to the size, at least one."""
    blocks = max(1, round(gigabytes * 1e9 / BLOCK_BYTES))
    model = _graph(blocks)
    contents = [
        (located, _weight((seed, index), located.tensor) if located.tensor.name else content)
        for index, (located, content) in enumerate(stored_tensors(model, folder))
    ]
    path = folder / "encoder-model.onnx"
    write_model(model, contents, path, external=True)
    return path


def _weight(seed: tuple[int, int], tensor: TensorProto) -> SeededNormal:
    dims = tensor.dims
    if len(dims) == 1:
        return SeededNormal(seed, tensor_nbytes(tensor), mean=1.0 if "norm" in tensor.name else 0.0, deviation=0.02)
    fan_in = dims[0] if len(dims) == 2 else dims[1] * dims[2]
    return SeededNormal(seed, tensor_nbytes(tensor), mean=0.0, deviation=float(fan_in) ** -0.5)


def _graph(blocks: int) -> ModelProto:
    text = [HEAD]
    for index in range(blocks):
        block = BLOCK.replace("@", f"block{index}_")
        text.append(block.replace("INPUT", f"x_{index}").replace("OUTPUT", f"x_{index + 1}"))
    text.append(TAIL.replace("OUTPUT", f"x_{blocks}"))
    model = parser.parse_model("".join(text))
    for node in model.graph.node:
        node.name = node.output[0]
    _declare(model, "subsampling", (1024, 128, 9))
    for index in range(blocks):
        for name, dims in BLOCK_WEIGHTS.items():
            _declare(model, f"block{index}_{name}", dims)
    return model


def _declare(model: ModelProto, name: str, dims: tuple[int, ...]) -> None:
    model.graph.initializer.add(name=name, dims=dims, data_type=TensorProto.FLOAT)
