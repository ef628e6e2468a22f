from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from artifacts.errors import StepError
from artifacts.icefall.checkpoint import fold_learned_scales, load
from faults.hostile_weights import records, zipped

Weights = dict[str, torch.Tensor]
KEY = "joiner.output_linear.weight"


@pytest.fixture
def weights(lstm_checkpoint: Path) -> Weights:
    """The embedded checkpoint's own state dict, to be changed."""
    return dict(torch.load(lstm_checkpoint / "pretrained.pt", weights_only=True)["model"])


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], Path]:
    """Saves anything as a `.pt` file."""

    def save(content: Any) -> Path:
        torch.save(content, tmp_path / "changed.pt")
        return tmp_path / "changed.pt"

    return save


def _scaled(weights: Weights) -> Weights:
    """As training has it: each weight smaller by its own learned scale, which lies beside it."""
    raw: Weights = {}
    for number, (name, value) in enumerate(weights.items()):
        raw[name] = value
        if not name.endswith("eps"):
            scale = torch.tensor(0.01 * number - 0.2)
            raw[name] = value * torch.exp(-scale)
            raw[name.replace("weight", "scale") if "embedding" in name else f"{name}_scale"] = scale
    return raw


def test_the_model_is_in_evaluation_mode_without_gradients_and_float32(model: Any) -> None:
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {(value.device.type, value.dtype) for value in model.parameters()} == {("cpu", torch.float32)}


def test_the_weights_are_those_of_the_file(model: Any, weights: Weights) -> None:
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_the_configuration_is_what_the_shapes_say(
    model: Any, weights: Weights, lstm_checkpoint: Path, saved: Callable[[Any], Path]
) -> None:
    assert yaml.safe_load((lstm_checkpoint / "config.yaml").read_text()) == model.config.model_dump()
    assert load(saved(weights)).config == model.config


def test_a_raw_checkpoint_of_training_is_folded(model: Any, weights: Weights, saved: Callable[[Any], Path]) -> None:
    raw = _scaled(weights)
    assert {name.rpartition(".")[2] for name in raw} >= {
        "weight_scale", "bias_scale", "scale", "weight_ih_l0_scale", "weight_hr_l0_scale", "bias_hh_l0_scale", "eps",
    }  # fmt: skip
    raw |= {
        "simple_am_proj.weight": torch.zeros(3),
        "simple_lm_proj.weight_scale": torch.zeros(()),
        "decoder_giga.embedding.scale": torch.zeros(()),
        "joiner_giga.output_linear.weight": torch.zeros(2, 2),
    }
    content = {
        "model": {f"module.{name}": value for name, value in raw.items()},
        "optimizer": {"state": {}}, "sampler": None, "model_avg": weights,
        "num_encoder_layers": model.config.num_encoder_layers, "batch_idx_train": 7,
    }  # fmt: skip
    folded = load(saved(content))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(folded.state_dict()[name], value, rtol=1e-6, atol=1e-9)


def test_scales_matter_and_need_their_weight(weights: Weights) -> None:
    raw = _scaled(weights)
    name = "joiner.output_linear.weight"
    assert not torch.allclose(raw[name], weights[name], rtol=0.05)
    assert torch.allclose(fold_learned_scales(raw, "here")[name], weights[name], rtol=1e-6)
    with pytest.raises(StepError, match=r"here: 'a\.weight_scale' is not the scale of a weight 'a\.weight'"):
        fold_learned_scales({"a.weight_scale": torch.zeros(())}, "here")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("encoder_dim", 64, "the configuration needs"),
        ("rnn_hidden_size", 512, "the configuration needs"),
        ("num_encoder_layers", 4, "the weight 'encoder.encoder.layers.3.lstm.weight_ih_l0' is missing"),
        ("num_encoder_layers", 2, "the model has no weight 'encoder.encoder.layers.2.lstm.weight_ih_l0'"),
        ("vocab_size", 500, "the configuration needs"),
        ("context_size", 3, "'decoder.conv.weight' is"),
        ("joiner_dim", 512, "the configuration needs"),
        ("feature_dim", 64, "'encoder.encoder_embed.out.weight' is"),
        ("subsampling_factor", 8, "subsampling_factor"),
    ],
)
def test_a_configuration_that_is_not_the_weights_is_refused(
    key: str, value: int, told: str, tmp_path: Path, lstm_checkpoint: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(lstm_checkpoint / "pretrained.pt", folder)
    (folder / "config.json").write_text(json.dumps({key: value}))
    with pytest.raises(StepError) as raised:
        load(folder)
    assert told in raised.value.fact
    assert raised.value.fix


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda weights: weights.pop("joiner.decoder_proj.bias"), "'joiner.decoder_proj.bias' is missing"),
        (lambda weights: weights.pop("encoder.encoder_embed.out.weight"), "no weight 'encoder.encoder_embed.out"),
        (lambda weights: weights.pop("encoder.encoder.layers.0.norm_final.eps"), "norm_final.eps' is missing"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "the model has no weight 'extra'"),
        (lambda weights: weights.update({"joiner.output_linear.bias": torch.zeros(9)}), "is [9], the"),
        (lambda weights: weights.clear(), "no weight 'encoder.encoder_embed.out.weight'"),
    ],
)
def test_weights_of_another_model_are_refused_by_name(
    change: Callable[[Weights], object], told: str, weights: Weights, saved: Callable[[Any], Path]
) -> None:
    change(weights)
    with pytest.raises(StepError, match=r"^changed\.pt: ") as raised:
        load(saved({"model": weights}))
    assert told in raised.value.fact


@pytest.mark.parametrize("content", [{"model": 3}, {"epoch": 3}, [torch.zeros(2)], torch.zeros(2), "text"])
def test_an_object_that_is_not_a_state_dict_is_refused(content: Any, saved: Callable[[Any], Path]) -> None:
    with pytest.raises(StepError, match=r"changed\.pt: contains no state dict"):
        load(saved(content))


def test_code_in_a_checkpoint_is_not_run(weights: Weights, saved: Callable[[Any], Path]) -> None:
    with pytest.raises(StepError, match=r"changed\.pt: contains more than weights") as raised:
        load(saved({"model": weights, "hook": print}))
    assert "export.py" in raised.value.fix


@pytest.mark.parametrize("kept", [0, 500, 300_000])
def test_a_file_that_is_cut_short_is_an_error_of_two_lines(kept: int, tmp_path: Path, lstm_checkpoint: Path) -> None:
    (tmp_path / "cut.pt").write_bytes((lstm_checkpoint / "pretrained.pt").read_bytes()[:kept])
    with pytest.raises(StepError, match=r"^cut\.pt: "):
        load(tmp_path / "cut.pt")


def test_a_folder_contains_one_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"expected one \.pt file, found none"):
        load(tmp_path)
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).touch()
    with pytest.raises(StepError, match=r"found a\.pt, b\.pt"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"[1, 2]", "is not a mapping of keys"),
        (b"a: [", "cannot be read"),
        (b"", ""),
        (b"a: \xff", "cannot be read"),
        (b"a: &a [1]\nb: *a", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"a": ' * 100_000, "cannot be read"),
        (b"a: " + b"1" * 10_000, "cannot be read"),
        (b'{"a": ' + b"1" * 10_000 + b"}", "cannot be read"),
        (b"a: " + b":".join([b"1"] * 100_000), "cannot be read"),
        (b"a: !!python/name:os.system", "cannot be read"),
        (b"#" * 1_000_001, "must have at most 1000000 bytes, got 1000001"),
    ],
    ids=lambda value: repr(value[:12]),
)
@pytest.mark.parametrize("name", ["config.yaml", "config.json"])
def test_a_configuration_that_cannot_be_read_is_refused(text: bytes, told: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "a.pt").touch()
    (tmp_path / name).write_bytes(text)
    with pytest.raises(StepError) as raised:
        load(tmp_path)
    assert raised.value.fact.startswith(f"{name}: ")
    assert told in raised.value.fact or name == "config.json"
    assert raised.value.fact.isprintable()
    assert len(raised.value.fact) < 300


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda weights: weights.update({KEY: weights[KEY].long()}), f"'{KEY}' has values that are not finite"),
        (lambda weights: weights.update({KEY: weights[KEY] * float("nan")}), f"'{KEY}' has values that are not finite"),
        (lambda weights: weights.update({KEY: weights[KEY].double() * 1e300}), f"'{KEY}' has values that are not fin"),
        (lambda weights: weights.update({f"{KEY}_scale": torch.tensor(1e9)}), "must be from -80 to 80, got 1e+09"),
        (
            lambda weights: weights.update({f"{KEY}_scale": torch.tensor(float("nan"))}),
            "must be from -80 to 80, got nan",
        ),
        (lambda weights: weights.update({f"module.{KEY}": weights[KEY]}), "with and without the prefix 'module.'"),
        (lambda weights: weights.update({"x\n" * 500: weights[KEY]}), "the model has no weight 'x\\nx"),
        (lambda weights: weights.update({3: weights[KEY]}), "contains no state dict"),  # type: ignore[dict-item]
        (lambda weights: weights.update({"x": torch.zeros(1).expand(10**9)}), "the tensors have 4005957072 bytes"),
    ],
)
def test_weights_that_no_training_gives_are_refused(
    change: Callable[[Weights], object], told: str, weights: Weights, saved: Callable[[Any], Path]
) -> None:
    change(weights)
    with pytest.raises(StepError, match=r"^changed\.pt: ") as raised:
        load(saved({"model": weights}))
    assert told in raised.value.fact
    assert raised.value.fact.isprintable()
    assert len(raised.value.fact) < 400


@pytest.mark.parametrize("content", [b"", b"\1" * 100_000])
def test_a_storage_of_another_size_is_refused(content: bytes, tmp_path: Path, lstm_checkpoint: Path) -> None:
    found = records((lstm_checkpoint / "pretrained.pt").read_bytes())
    (name,) = (name for name in found if name.endswith("/data/3"))
    (tmp_path / "a.pt").write_bytes(zipped({**found, name: content}))
    with pytest.raises(StepError, match=r"^a\.pt: cannot be read \(storage '3' needs"):
        load(tmp_path / "a.pt")


def test_a_checkpoint_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"no checkpoint")
    script = (
        "import sys\nfrom pathlib import Path\nfrom artifacts.errors import StepError\n"
        "from artifacts.steps.trace_icefall import Params, run\n"
        "try:\n    run(Path('.'), Params(), checkpoint=Path('a.pt'))\n"
        "except StepError as error: print(error.fact, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("a.pt: cannot be read (not of the zip format")
    assert done.stdout.endswith(" False\n")
