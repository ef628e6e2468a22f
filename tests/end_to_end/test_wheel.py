"""Builds of the package repeat its bytes. The wheel works in an empty folder, and gives the bytes of this checkout."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PARTS = ("src", "README.md", "LICENSE", "pyproject.toml")


def run_build(folder: Path, *words: str | Path) -> Path:
    """Return the one file in `out/` that a build of `folder` writes, with all its times set to one."""
    (folder / "out").mkdir()
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run([sys.executable, *words], cwd=folder, check=True, env=environment)
    (built,) = (folder / "out").iterdir()
    return built


def build_wheel(folder: Path, source: Path) -> Path:
    """The wheel of a folder or of an sdist."""
    folder.mkdir(exist_ok=True)
    words = ("-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation")
    return run_build(folder, *words, "-w", "out", source)


def build_sdist(folder: Path) -> Path:
    return run_build(folder, "-c", "from flit_core.buildapi import build_sdist; build_sdist('out')")


def copy_checkout(folder: Path) -> Path:
    """A copy of what the package is built from. Its files have other times and modes."""
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy(source, folder / name)
    for path in folder.rglob("*.py"):
        os.utime(path)
        path.chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = copy_checkout(tmp_path_factory.mktemp("wheel") / "copy")
    return build_wheel(copy, copy)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose `artifacts` comes from the wheel alone."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--target", target, wheel], check=True)
    return os.environ | {"PYTHONPATH": str(target)}


def run(environment: dict[str, str], folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_builds_give_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    copy = copy_checkout(tmp_path / "copy")
    again = build_wheel(copy, copy)
    assert again.name == wheel.name
    assert hashlib.sha256(again.read_bytes()).hexdigest() == hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_two_sdists_have_the_same_bytes_and_give_the_wheel_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    one, two = (build_sdist(copy_checkout(tmp_path / name)) for name in ("one", "two"))
    assert one.name == two.name
    assert hashlib.sha256(one.read_bytes()).hexdigest() == hashlib.sha256(two.read_bytes()).hexdigest()
    of_sdist = build_wheel(tmp_path / "wheel", one)
    assert of_sdist.name == wheel.name
    assert hashlib.sha256(of_sdist.read_bytes()).hexdigest() == hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_in_an_empty_folder_a_checkpoint_becomes_the_artifacts_of_this_checkout(
    environment: dict[str, str], tmp_path: Path, tokens: Path, predictor_fp32: Path
) -> None:
    program = "import artifacts.cli.init as i, sys; print(i.__file__); sys.exit(i.main(['init']))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(environment["PYTHONPATH"])
    assert "mine.nemo" in done.stdout.splitlines()[-1]
    shutil.copy(ROOT / "embedded" / "tiny" / "tiny.nemo", tmp_path / "mine.nemo")
    assert "shard_fp32" in run(environment, tmp_path, "doit", "list")
    run(environment, tmp_path, "doit", "tokens", "predictor_fp32")
    for name, ours in (("tokens", tokens), ("predictor_fp32", predictor_fp32)):
        theirs = tmp_path / "cache" / "mine" / name
        assert {path.name: path.read_bytes() for path in theirs.iterdir()} == {
            path.name: path.read_bytes() for path in ours.iterdir()
        }
    run(environment, tmp_path, "doit", "model_meta")
    recipe = tmp_path / "recipes" / "mine.yaml"
    recipe.write_text(recipe.read_text().replace("model_name: mine", "model_name: yours"))
    assert 'model_name: "mine" -> "yours"' in run(environment, tmp_path, "doit", "why", "model_meta")
    run(environment, tmp_path, "doit", "model_meta")
    meta = json.loads((tmp_path / "cache" / "mine" / "model_meta" / "model_meta.json").read_text())
    assert meta["model_name"] == "yours"
