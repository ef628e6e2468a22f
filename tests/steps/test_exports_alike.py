"""The same checkpoint gives the same bytes: in another process, folder and current folder, with other settings."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import StepError

STEPS = (
    "export_encoder", "export_predictor", "export_joint", "export_preprocessor", "write_tokens", "write_model_meta",
)  # fmt: skip


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_file_is_the_same_byte_for_byte(exports: Any) -> None:
    first, again = _files(exports.folder), _files(exports.again)
    assert len(first) == 14
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []


def test_no_file_tells_where_it_was_made(exports: Any) -> None:
    marks = (str(exports.folder.parent.parent), str(Path.home()), sys.prefix, "site-packages", "/artifacts/")
    for name, content in _files(exports.folder).items():
        assert [mark for mark in marks if mark.encode() in content] == [], name


def test_nothing_is_said_on_stderr_and_no_warning_is_left(exports: Any) -> None:
    assert exports.stderr == ""


@pytest.mark.parametrize("step", STEPS)
def test_a_step_loads_no_heavy_library_until_it_runs(step: str) -> None:
    code = (
        f"import sys, artifacts.steps.{step};"
        "print({'torch', 'nemo', 'onnx', 'onnxruntime', 'numpy', 'sentencepiece'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("step", STEPS)
def test_a_truncated_checkpoint_is_refused_and_leaves_nothing(step: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    module = importlib.import_module(f"artifacts.steps.{step}")
    checkpoint, out = tmp_path / "tiny.nemo", tmp_path / "out"
    out.mkdir()
    checkpoint.write_bytes(tiny_checkpoint.read_bytes()[:-100_000])
    with pytest.raises(StepError) as raised:
        module.run(out, module.Params(), checkpoint=checkpoint)
    assert str(raised.value).splitlines() == [
        "tiny.nemo: the archive ends early or is damaged (unexpected end of data)",
        "  fix: fetch it again: an interrupted download, or an error page saved under this name, looks like this",
    ]
    assert list(out.iterdir()) == []
