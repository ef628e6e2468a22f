"""The site builds without a warning, and has a page for each step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from artifacts.plan.step_files import packaged_steps
from doc_blocks import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A warning is an error: a link that leads nowhere, a page that is not in the navigation."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("step", packaged_steps())
def test_each_step_has_a_page_with_its_params(site: Path, step: str) -> None:
    from artifacts.plan.step_files import load_step

    page = (site / "reference" / "steps" / f"{step}.html").read_text()
    for param in load_step(step).Params.model_fields:
        assert f"<code>{param}</code>" in page


def test_each_step_is_under_a_heading(site: Path) -> None:
    page = (site / "reference" / "steps.html").read_text()
    assert all(f">{step}</code>" in page for step in packaged_steps())


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        for mark in ('src="http', 'rel="stylesheet" href="http', "@import url(http"):
            assert mark not in text, page
