from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from artifacts.errors import StepError
from artifacts.ncnn.param_file import find_net, read_param
from artifacts.ncnn.runtime import Net, open_net, require_known_layers, run_isolated
from lstm_networks import DIM, HIDDEN, LAYERS, LstmNetworks


def feeds(frames: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(frames)
    return {
        "in0": generator.standard_normal((frames, 80), dtype=np.float32),
        "in1": np.array([frames], np.float32),
        "in2": generator.standard_normal((LAYERS, DIM), dtype=np.float32),
        "in3": generator.standard_normal((LAYERS, HIDDEN), dtype=np.float32),
    }


@pytest.fixture(scope="module")
def encoder(lstm: LstmNetworks) -> Net:
    return Net(*find_net(lstm.converted("encoder")))


def test_the_ends_of_a_network_are_named_in_the_alphabets_order(encoder: Net) -> None:
    assert encoder.inputs == ("in0", "in1", "in2", "in3")
    assert encoder.outputs == ("out0", "out1", "out2", "out3")


@pytest.mark.parametrize("frames", [9, 13, 57, 100])
def test_a_network_computes_what_torch_does_at_any_length(encoder: Net, lstm: LstmNetworks, frames: int) -> None:
    given = feeds(frames)
    got = encoder.run(given)
    with torch.no_grad():
        h, c = (torch.from_numpy(given[name])[:, None] for name in ("in2", "in3"))
        want = lstm.model.encoder(torch.from_numpy(given["in0"])[None], h, c)
    for name, tensor in zip(("out0", "out2", "out3"), want, strict=True):
        assert got[name].dtype == np.float32
        assert np.abs(got[name] - tensor.squeeze(1 if name != "out0" else 0).numpy()).max() < 1e-5


def test_the_same_run_gives_the_same_bytes_and_leaves_its_feeds_alone(encoder: Net) -> None:
    given = feeds(39)
    before = {name: value.copy() for name, value in given.items()}
    first, second = encoder.run(given), encoder.run(given)
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert all((given[name] == before[name]).all() for name in given)


def test_only_the_outputs_that_are_named_are_computed(encoder: Net) -> None:
    without_length = {name: value for name, value in feeds(9).items() if name != "in1"}
    assert list(encoder.run(without_length, ("out2", "out0"))) == ["out2", "out0"]


def test_tokens_are_int32(lstm: LstmNetworks) -> None:
    predictor = Net(*find_net(lstm.converted("predictor")))
    got = predictor.run({"in0": np.array([3, 49], np.int32)})["out0"]
    with torch.no_grad():
        want = lstm.model.decoder(torch.tensor([[3, 49]]))
    assert np.abs(got.reshape(-1) - want.numpy().reshape(-1)).max() < 1e-6


def test_metadata_for_sherpa_changes_nothing(encoder: Net, lstm: LstmNetworks) -> None:
    tagged = Net(*find_net(lstm.tagged()))
    want, got = encoder.run(feeds(9)), tagged.run(feeds(9))
    assert tagged.inputs == encoder.inputs
    assert all(got[name].tobytes() == want[name].tobytes() for name in want)


def test_fp16_weights_are_computed_with_in_float32(encoder: Net, lstm: LstmNetworks) -> None:
    half = Net(*find_net(lstm.converted("encoder", fp16=True)))
    want, got = encoder.run(feeds(39))["out0"], half.run(feeds(39))["out0"]
    assert 1e-6 < np.abs(want - got).max() < 5e-3
    assert (got.astype(np.float16) != got).any()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": np.zeros(3, np.float32)}, "encoder.ncnn.param: has no blob 'x'"),
        ({"in0": np.zeros((9, 80), np.float32)}, "encoder.ncnn.param: blob 'out0' cannot be computed from in0"),
    ],
)
def test_a_feed_that_is_missing_or_unknown_is_an_error(
    encoder: Net, given: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(StepError) as raised:
        encoder.run(given)
    assert raised.value.fact.startswith(message)
    assert "in0, in1, in2, in3" in raised.value.fix


@pytest.mark.parametrize("value", [np.zeros((9, 80)), np.zeros((9, 80), np.int64), np.zeros((1,) * 5, np.float32)])
def test_an_array_that_ncnn_would_misread_is_a_bug_of_ours(encoder: Net, value: np.ndarray) -> None:
    with pytest.raises(TypeError, match="blob 'in0': ncnn takes float32 and int32 of 1 to 4 axes"):
        encoder.run({"in0": value})


def copied(source: Path, target: Path) -> tuple[Path, Path]:
    shutil.copytree(source, target)
    return find_net(target)


def test_weights_that_are_missing_cut_or_anothers_are_errors(lstm: LstmNetworks, tmp_path: Path) -> None:
    param, weights = copied(lstm.converted("joint"), tmp_path / "joint")
    content = weights.read_bytes()
    weights.unlink()
    with pytest.raises(StepError, match=r"joint\.ncnn\.bin: is missing beside joint\.ncnn\.param"):
        Net(param, weights)
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(StepError, match=r"joint\.ncnn\.bin: ncnn does not load it: it ends early"):
        Net(param, weights)


def test_an_operator_that_ncnn_lacks_is_named(lstm: LstmNetworks, tmp_path: Path) -> None:
    param, _ = copied(lstm.converted("joint"), tmp_path / "joint")
    param.write_text(param.read_text().replace("TanH  ", "torch.lt", 1))
    with pytest.raises(StepError) as raised:
        require_known_layers(read_param(param), param.name)
    assert raised.value.fact.startswith("joint.ncnn.param: layer 'tanh_")
    assert raised.value.fact.endswith("ncnn has no layer 'torch.lt' (1 of 7 layers: torch.lt)")


def joint_feeds(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(DIM, dtype=np.float32) for name in ("in0", "in1")}


def test_a_run_in_a_child_process_gives_the_same_bytes(lstm: LstmNetworks) -> None:
    files = find_net(lstm.converted("joint"))
    here = Net(*files)
    results = run_isolated(*files, [joint_feeds(0), joint_feeds(1)])
    assert [result["out0"].tobytes() for result in results] == [
        here.run(joint_feeds(seed))["out0"].tobytes() for seed in (0, 1)
    ]
    assert results[0]["out0"].tobytes() != results[1]["out0"].tobytes()


def test_only_the_outputs_that_are_named_come_back(lstm: LstmNetworks) -> None:
    (result,) = run_isolated(*find_net(lstm.converted("joint")), [joint_feeds(0)], ["in0", "out0"])
    assert list(result) == ["in0", "out0"]
    assert (result["in0"] == joint_feeds(0)["in0"]).all()


def test_an_error_in_the_child_process_is_raised_here(lstm: LstmNetworks) -> None:
    with pytest.raises(StepError) as raised:
        run_isolated(*find_net(lstm.converted("joint")), [{"x": np.zeros(3, np.float32)}])
    assert (raised.value.fact, raised.value.fix) == (
        "joint.ncnn.param: has no blob 'x'",
        "its inputs are in0, in1",
    )


def crashing(source: Path, target: Path) -> tuple[Path, Path]:
    """A network that ncnn loads, and that aborts the process when it runs: a Slice without slices."""
    shutil.copytree(source, target)
    param, weights = find_net(target)
    lines = param.read_text().splitlines()
    number = next(number for number, line in enumerate(lines) if line.startswith("TanH"))
    words = lines[number].split()
    lines[number] = f"Slice slice_0 1 1 {words[4]} {words[5]}"
    param.write_text("\n".join(lines) + "\n")
    return param, weights


def test_a_network_that_aborts_the_process_is_an_error(lstm: LstmNetworks, tmp_path: Path) -> None:
    param, weights = crashing(lstm.converted("joint"), tmp_path / "joint")
    with pytest.raises(StepError) as raised:
        run_isolated(param, weights, [joint_feeds(0)])
    assert "ncnn fails to run it: ended by SIG" in raised.value.fact


def test_a_network_is_opened_in_a_child_process_first(lstm: LstmNetworks, tmp_path: Path) -> None:
    net = open_net(*find_net(lstm.converted("joint")))
    assert net.run(joint_feeds(0))["out0"].shape[-1] == 50
    with pytest.raises(StepError, match="is missing"):
        open_net(tmp_path / "none.param", tmp_path / "none.bin")
