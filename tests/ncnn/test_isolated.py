from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.ncnn.isolated import open_net, run_isolated
from artifacts.ncnn.runtime import Net, find_net
from lstm_networks import DIM, LstmNetworks


def feeds(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(DIM, dtype=np.float32) for name in ("in0", "in1")}


def test_a_run_elsewhere_gives_the_bytes_of_a_run_here(lstm: LstmNetworks) -> None:
    files = find_net(lstm.converted("joint"))
    here = Net(*files)
    results = run_isolated(*files, [feeds(0), feeds(1)])
    assert [result["out0"].tobytes() for result in results] == [
        here.run(feeds(seed))["out0"].tobytes() for seed in (0, 1)
    ]
    assert results[0]["out0"].tobytes() != results[1]["out0"].tobytes()


def test_only_the_outputs_that_are_named_come_back(lstm: LstmNetworks) -> None:
    (result,) = run_isolated(*find_net(lstm.converted("joint")), [feeds(0)], ["in0", "out0"])
    assert list(result) == ["in0", "out0"]
    assert (result["in0"] == feeds(0)["in0"]).all()


def test_an_error_there_is_the_same_error_here(lstm: LstmNetworks) -> None:
    with pytest.raises(StepError) as raised:
        run_isolated(*find_net(lstm.converted("joint")), [{"x": np.zeros(3, np.float32)}])
    assert (raised.value.fact, raised.value.fix) == (
        "joint.ncnn.param: has no blob 'x'",
        "its inputs are in0, in1",
    )


def crashing(source: Path, target: Path) -> tuple[Path, Path]:
    """A network that ncnn loads and that ends the process when it is run: a Slice of no slices."""
    shutil.copytree(source, target)
    param, weights = find_net(target)
    lines = param.read_text().splitlines()
    number = next(number for number, line in enumerate(lines) if line.startswith("TanH"))
    words = lines[number].split()
    lines[number] = f"Slice slice_0 1 1 {words[4]} {words[5]}"
    param.write_text("\n".join(lines) + "\n")
    return param, weights


def test_a_network_that_ends_the_process_is_an_error(lstm: LstmNetworks, tmp_path: Path) -> None:
    param, weights = crashing(lstm.converted("joint"), tmp_path / "joint")
    with pytest.raises(StepError) as raised:
        run_isolated(param, weights, [feeds(0)])
    assert "ncnn does not survive running it: ended by SIG" in raised.value.fact


def test_a_network_is_opened_elsewhere_before_it_is_opened_here(lstm: LstmNetworks, tmp_path: Path) -> None:
    net = open_net(*find_net(lstm.converted("joint")))
    assert net.run(feeds(0))["out0"].shape[-1] == 50
    with pytest.raises(StepError, match="there is no such file"):
        open_net(tmp_path / "none.param", tmp_path / "none.bin")
