"""A project with one source, for the tests of its pins."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    Path("recipes/model.nemo").write_bytes(b"model")
    Path("pipeline.yaml").touch()
    return tmp_path
