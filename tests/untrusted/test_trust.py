"""What is trusted is what was named, and what it contains; nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.untrusted import trust


@pytest.fixture(autouse=True)
def nothing_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins with no trust, and leaves none."""
    monkeypatch.setattr(trust, "_trusted", set())


def test_a_file_is_trusted_alone(tmp_path: Path) -> None:
    trust.trust(tmp_path / "model.nemo")
    assert trust.is_trusted(tmp_path / "model.nemo")
    assert not trust.is_trusted(tmp_path / "other.nemo")
    assert not trust.is_trusted(tmp_path)


def test_a_folder_is_trusted_with_what_it_contains(tmp_path: Path) -> None:
    trust.trust(tmp_path / "models")
    assert trust.is_trusted(tmp_path / "models" / "deep" / "model.nemo")
    assert not trust.is_trusted(tmp_path / "models.nemo")
