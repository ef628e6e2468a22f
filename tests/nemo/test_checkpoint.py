from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from artifacts.errors import StepError
from artifacts.nemo.archive import WEIGHTS, open_archive
from artifacts.nemo.checkpoint import restore
from artifacts.untrusted.trust import trust
from faults.hostile_checkpoints import Case, changed, pack, set_key, unpack
from faults.hostile_weights import weights

pytestmark = pytest.mark.slow


def restore_preprocessor(checkpoint: Path, scratch: Path) -> Any:
    return restore(checkpoint, scratch, ["preprocessor"]).preprocessor


@pytest.fixture
def with_weights(tmp_path: Path, tiny_checkpoint: Path) -> Callable[[bytes], Path]:
    """The embedded checkpoint with other bytes as its weights."""
    return lambda content: pack({**unpack(tiny_checkpoint), WEIGHTS: content}, tmp_path / "changed.nemo")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """An empty folder."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_the_model_is_in_evaluation_mode_without_gradients_and_on_the_cpu(restored_model: Any) -> None:
    assert not any(module.training for module in restored_model.modules())
    assert not any(value.is_meta for value in [*restored_model.parameters(), *restored_model.buffers()])
    assert not any(parameter.requires_grad for parameter in restored_model.parameters())
    assert {(value.device.type, value.dtype) for value in restored_model.parameters()} == {("cpu", torch.float32)}


def test_the_weights_are_those_of_the_file(tiny_checkpoint: Path, tmp_path: Path, restored_model: Any) -> None:
    with open_archive(tiny_checkpoint) as archive:
        stored = torch.load(archive.extract(WEIGHTS, tmp_path), weights_only=True)
    restored = restored_model.state_dict()
    assert stored.keys() == restored.keys()
    assert all(torch.equal(stored[key], restored[key]) for key in stored)


def test_the_model_outlives_the_folder_it_was_unpacked_in(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = restore(tiny_checkpoint, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert all(value.isfinite().all() for value in model.parameters())


def test_the_preprocessor_alone_is_the_models(tiny_checkpoint: Path, tmp_path: Path, restored_model: Any) -> None:
    preprocessor = restore_preprocessor(tiny_checkpoint, tmp_path)
    whole = restored_model.preprocessor
    assert not any(module.training for module in preprocessor.modules())
    assert torch.equal(preprocessor.featurizer.fb, whole.featurizer.fb)
    assert torch.equal(preprocessor.featurizer.window, whole.featurizer.window)
    assert preprocessor.featurizer.normalize == whole.featurizer.normalize


@pytest.mark.parametrize("part", ["encoder", "decoder", "joint"])
def test_a_part_is_restored_alone_and_its_weights_are_the_models(
    part: str, tiny_checkpoint: Path, tmp_path: Path, restored_model: Any
) -> None:
    model = restore(tiny_checkpoint, tmp_path, [part])
    assert [name for name, _ in model.named_children()] == [part]
    whole, own = getattr(restored_model, part), getattr(model, part)
    assert own.state_dict().keys() == whole.state_dict().keys()
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in own.state_dict().items())
    if part == "encoder":
        assert torch.equal(own.pos_enc.pe, whole.pos_enc.pe)


def test_the_garbage_collector_runs_again_once_nemo_is_imported(tiny_checkpoint: Path, tmp_path: Path) -> None:
    script = (
        "import gc, sys\nfrom pathlib import Path\nfrom artifacts.nemo.checkpoint import restore\n"
        "restore(Path(sys.argv[1]), Path('.'), ['joint'])\nprint(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    )
    command = [sys.executable, "-c", script, tiny_checkpoint]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"


def test_weights_of_less_precision_are_widened(
    scratch: Path, restored_model: Any, with_weights: Callable[[bytes], Path]
) -> None:
    narrow = {key: value.bfloat16() if value.is_floating_point() else value
              for key, value in restored_model.state_dict().items()}  # fmt: skip
    buffer = io.BytesIO()
    torch.save(narrow, buffer)
    model = restore(with_weights(buffer.getvalue()), scratch)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert torch.equal(model.joint.enc.weight, restored_model.joint.enc.weight.bfloat16().float())


@pytest.mark.parametrize("function", [restore, restore_preprocessor])
@pytest.mark.parametrize("kept", [0, 1000, 300_000])
def test_weights_that_torch_cannot_read_are_an_error_of_two_lines(
    scratch: Path,
    tiny_checkpoint: Path,
    with_weights: Callable[[bytes], Path],
    kept: int,
    function: Callable[..., Any],
) -> None:
    with open_archive(tiny_checkpoint) as archive:
        checkpoint = with_weights(archive.read(WEIGHTS, 10**8)[:kept])
    with pytest.raises(StepError, match=r"changed\.nemo: the weights cannot be read") as raised:
        function(checkpoint, scratch)
    assert raised.value.fix == "fetch the checkpoint again"


WEIGHT_CASES = list(weights())


@pytest.mark.parametrize("case", WEIGHT_CASES, ids=[case.name for case in WEIGHT_CASES])
def test_weights_that_are_not_the_models_are_an_error_of_two_lines(
    case: Case, tmp_path: Path, scratch: Path, tiny_checkpoint: Path
) -> None:
    part = {"export_encoder": "encoder", "export_joint": "joint"}.get(case.step, "preprocessor")
    case.build(tiny_checkpoint, tmp_path / "h.nemo", tmp_path)
    with pytest.raises(StepError) as raised:
        restore(tmp_path / "h.nemo", scratch, [part])
    assert raised.value.fact.startswith("h.nemo: ")
    assert case.told in raised.value.fact
    assert raised.value.fact.isprintable()
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("encoder.self_attention_model", "x" * 1000, "encoder: Not valid self_attention_model: 'xxx"),
        ("encoder.subsampling", "none", "encoder: Not valid sub-sampling: none!"),
        ("encoder.att_context_style", "chunked_limited", "encoder: Right context"),
        ("encoder.conv_context_size", [1, 2], "encoder: "),
        ("encoder.unknown", 1, "encoder: ConformerEncoder.__init__() got an unexpected keyword argument 'unknown'"),
        ("preprocessor.log_zero_guard_type", "x", "preprocessor: "),
        ("preprocessor.mel_norm", "x", "preprocessor: "),
        ("preprocessor.n_window_size", 400, "preprocessor: "),
        ("decoder.normalization_mode", "x", "decoder: "),
        ("decoder.prednet.dropout", 7, "decoder: dropout"),
        ("joint.jointnet.activation", "x", "joint: Unsupported activation"),
        ("joint.masking_prob", 2.0, "joint: masking_prob must be between 0 and 1"),
    ],
)
@pytest.mark.parametrize("trusted", [False, True])
def test_a_value_that_nemo_refuses_is_an_error_of_two_lines_and_its_traceback_is_logged(
    path: str, value: Any, told: str, trusted: bool, tmp_path: Path, scratch: Path, tiny_checkpoint: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    file = tmp_path / "h.nemo"
    changed(tiny_checkpoint, file, set_key(path, value))
    if trusted:
        trust(file)
    with caplog.at_level("DEBUG", "artifacts"), pytest.raises(StepError) as raised:
        restore(file, scratch)
    assert raised.value.fact.startswith("h.nemo: NeMo does not make the ")
    assert trusted or told in raised.value.fact
    assert len(raised.value.fact.splitlines()) == 1
    assert len(raised.value.fact) < 400
    assert raised.value.__cause__ is not None
    assert "Traceback" in caplog.text


def test_a_configuration_that_asks_for_more_than_the_weights_takes_no_memory_for_it(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    def enlarge(config: dict[str, Any]) -> None:
        config["encoder"] |= {"n_layers": 200, "d_model": 4096, "ff_expansion_factor": 32, "n_heads": 4}
        config["joint"]["jointnet"] |= {"encoder_hidden": 4096}

    changed(tiny_checkpoint, tmp_path / "h.nemo", enlarge)
    script = (
        "from pathlib import Path\nfrom artifacts.run.child import peak_bytes\nfrom artifacts.errors import StepError\n"
        "from artifacts.nemo.checkpoint import restore\n"
        "try:\n    restore(Path('h.nemo'), Path('.'))\nexcept StepError as error: print(error.fact)\n"
        "print(peak_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    fact, peak = done.stdout.splitlines()
    assert "the configuration asks for" in fact
    assert int(peak) < 2_000_000_000


def test_a_trusted_checkpoint_is_restored_to_the_same_weights(
    tmp_path: Path, scratch: Path, tiny_checkpoint: Path, restored_model: Any
) -> None:
    file = tmp_path / "tiny.nemo"
    file.write_bytes(tiny_checkpoint.read_bytes())
    trust(file)
    trusted, ours = restore(file, scratch).state_dict(), restored_model.state_dict()
    assert trusted.keys() == ours.keys()
    assert all(torch.equal(trusted[key], ours[key]) for key in ours)
