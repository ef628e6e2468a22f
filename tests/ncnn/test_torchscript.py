from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from artifacts.errors import StepError
from artifacts.model.network import Network
from artifacts.ncnn.torchscript import Lengths, interface_of, max_abs_diff, write_trace

LENGTHS = Lengths({"frames": 4}, {"frames": 6}, {"frames": 9})


class Doubled(Network):
    """x [1, frames, 8] → y, twice x; with a table, no more frames of it than there are rows in the table."""

    def __init__(self, rows: int | None) -> None:
        super().__init__({"x": (1, "frames", 8)}, {"y": (1, "frames", 8)})
        self.rows = rows

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Python's `min` is evaluated once, when the network is traced."""
        return (2 * x if self.rows is None else 2 * x[:, : min(self.rows, x.shape[1])],)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "encoder.pt"


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_computes_what_the_network_does_at_a_length_that_it_was_not_traced_at(path: Path) -> None:
    write_trace(Doubled(None), LENGTHS.traced, path)
    assert max_abs_diff(path, Doubled(None), LENGTHS.unseen) == 0.0


def test_a_network_that_takes_a_length_for_a_constant_is_refused(path: Path) -> None:
    write_trace(Doubled(5), LENGTHS.traced, path)
    assert max_abs_diff(path, Doubled(5), {"frames": 4}) == 0.0
    with pytest.raises(StepError, match=r"encoder\.pt: 'y' differs from the network by inf at a length that was not"):
        max_abs_diff(path, Doubled(5), LENGTHS.unseen)


def test_a_difference_above_the_bound_is_refused(path: Path) -> None:
    write_trace(Doubled(None), LENGTHS.traced, path)

    class Tripled(Doubled):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (3 * x,)

    with pytest.raises(StepError, match=r"'y' differs from the network by \d.* 0\.0001 is allowed"):
        max_abs_diff(path, Tripled(None), LENGTHS.unseen)


def test_the_file_has_no_source_positions_and_no_record_that_is_random(path: Path) -> None:
    write_trace(Doubled(None), LENGTHS.traced, path)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert not [name for name in names if name.endswith(".debug_pkl")]
        assert str(Path(__file__).parent).encode() not in b"".join(archive.read(name) for name in names)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_inputs_are_described_with_their_types_and_two_shapes() -> None:
    class Indexed(Doubled):
        def sample(self, sizes: object, seed: int) -> tuple[Tensor, ...]:
            return (torch.zeros(1, sizes["frames"], 8, dtype=torch.int64),)  # type: ignore[index]

    for network, dtype in ((Doubled(None), "float32"), (Indexed(None), "int64")):
        interface = interface_of(network, LENGTHS)
        assert [(each.name, each.dtype, each.shape, each.shape2) for each in interface.inputs] == [
            ("x", dtype, [1, 4, 8], [1, 6, 8])
        ]
        assert interface.outputs == ["y"]
