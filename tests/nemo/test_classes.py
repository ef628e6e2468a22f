from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from artifacts.errors import StepError
from artifacts.nemo.archive import open_archive
from artifacts.nemo.classes import MODELS, PARTS, unknown_class
from artifacts.nemo.model_config import read_config
from faults.hostile_checkpoints import CONFIG, Case, calls, texts, unpack, writes

CALLS = list(calls())
READERS = (
    "export_encoder", "export_predictor", "export_joint", "export_preprocessor", "export_streaming_encoder",
    "trace_nemo", "write_tokens", "write_model_meta",
)  # fmt: skip


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder with a file, which no checkpoint may touch."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    return folder


def _untouched(victim: Path) -> bool:
    return [path.name for path in victim.iterdir()] == ["kept"] and (victim / "kept").read_text() == "kept"


@pytest.mark.parametrize("case", CALLS, ids=[case.name for case in CALLS])
def test_a_class_that_is_not_on_the_list_is_refused_by_its_key(
    case: Case, tmp_path: Path, tiny_checkpoint: Path, victim: Path
) -> None:
    case.build(tiny_checkpoint, tmp_path / "h.nemo", victim)
    with open_archive(tmp_path / "h.nemo") as archive, pytest.raises(StepError) as raised:
        read_config(archive)
    assert raised.value.fact.startswith(f"h.nemo: {case.told}")
    assert len(str(raised.value).splitlines()) == 2
    is_of_another_kind = "must match pattern" in raised.value.fact or "must be a text" in raised.value.fact
    if not is_of_another_kind:
        assert raised.value.fact.endswith(" is not a class that such a checkpoint needs")
        assert "trust: true" in raised.value.fix
    assert _untouched(victim)


def test_every_step_refuses_a_call_before_torch_is_loaded(tmp_path: Path, tiny_checkpoint: Path, victim: Path) -> None:
    cases = [case for case in CALLS if case.name.startswith("direct")]
    for number, case in enumerate(cases):
        case.build(tiny_checkpoint, tmp_path / f"{number}.nemo", victim)
    script = f"""
import importlib, sys
from pathlib import Path
from artifacts.errors import StepError
for step in {READERS}:
    module = importlib.import_module(f"artifacts.steps.{{step}}")
    for number in range({len(cases)}):
        out = Path(f"{{step}}-{{number}}")
        out.mkdir()
        try:
            module.run(out, module.Params(), checkpoint=Path(f"{{number}}.nemo"))
        except StepError as error:
            assert "is not a class that" in error.fact, error
            assert not list(out.rglob("*")), out
        else:
            raise AssertionError(out)
assert not {{"torch", "nemo", "hydra", "omegaconf"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert _untouched(victim)


def test_every_class_of_the_embedded_checkpoints_is_on_the_list(tiny_checkpoint: Path) -> None:
    for checkpoint in sorted(tiny_checkpoint.parents[1].glob("*/*.nemo")):
        config = yaml.safe_load(unpack(checkpoint)[CONFIG])
        assert unknown_class(config) is None
        assert config["target"] in MODELS
        assert config["encoder"]["_target_"] in PARTS


def test_every_name_on_the_list_is_a_class_of_nemo(quietly: None) -> None:
    import hydra
    import torch

    assert all(issubclass(hydra.utils.get_class(name), torch.nn.Module) for name in sorted(MODELS | PARTS))


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"labels": ["_target_", "cls"]}, None),
        ({"a": [{"b": [[{"cls": 1}]]}]}, ("a.0.b.0.0.cls", 1)),
        ({"target": sorted(MODELS)[0], "a": {"target": sorted(MODELS)[0]}}, ("a.target", sorted(MODELS)[0])),
        ({1: {"_target_": {}}}, ("1._target_", {})),
        ([], None),
        (None, None),
    ],
)
def test_the_first_unknown_class_is_found_at_any_depth(config: Any, found: Any) -> None:
    assert unknown_class(config) == found


@pytest.mark.parametrize("case", list(texts()), ids=lambda case: case.name)
def test_a_text_that_a_library_would_follow_is_refused(
    case: Case, tmp_path: Path, tiny_checkpoint: Path, victim: Path
) -> None:
    from importlib import import_module

    file, out = tmp_path / "h.nemo", tmp_path / "out"
    out.mkdir()
    case.build(tiny_checkpoint, file, victim)
    step = import_module(f"artifacts.steps.{case.step if case.step in READERS else 'export_preprocessor'}")
    with pytest.raises(StepError) as raised:
        step.run(out, step.Params(), checkpoint=file)
    assert case.told in raised.value.fact
    assert len(str(raised.value).splitlines()) == 2


def test_trust_lifts_the_list_and_nothing_else(
    tmp_path: Path, tiny_checkpoint: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from artifacts.nemo.checkpoint import restore
    from artifacts.untrusted import trust

    monkeypatch.setattr(trust, "_trusted", set())
    trusted = tmp_path / "h.nemo"
    trust.trust(trusted)

    def restored(case_name: str) -> Any:
        next(case for case in CALLS if case.name == case_name).build(tiny_checkpoint, trusted, victim)
        scratch = tmp_path / case_name.replace(" ", "-")
        scratch.mkdir()
        return restore(trusted, scratch, ["preprocessor"]).preprocessor

    # A section that no export needs does not reach NeMo, trusted or not.
    assert restored("direct: writes at spec_augment.a").featurizer.nfilt == 128
    assert _untouched(victim)
    # NeMo makes what a needed section names, and then refuses the argument.
    with pytest.raises(StepError, match=r"^h\.nemo: NeMo does not make the preprocessor: "):
        restored("direct: writes at preprocessor.a")
    assert (victim / "new").read_bytes() == b"bytes"


def test_a_call_is_one_that_nemos_own_list_admits(tmp_path: Path, quietly: None) -> None:
    from nemo.core.classes.common import _is_target_allowed

    assert _is_target_allowed(writes(tmp_path)["_target_"])


def test_a_long_key_costs_no_more_than_a_short_one() -> None:
    started = time.process_time()
    path, _ = unknown_class({"k" * 900_000: {f"a{index}": 0 for index in range(12_000)} | {"cls": "x"}}) or ("", "")
    assert path == f"{'k' * 80}.cls"
    assert time.process_time() - started < 1
