"""What is built again, and what is not: through the real `doit`, in processes of their own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time

import pytest

from small_project import Project, make_project

HEAVY = ("numpy", "onnx", "onnxruntime", "torch", "nemo", "soundfile", "huggingface_hub", "rich", "ssl")


IMPORTING = [sys.executable, "-c", "import doit.doit_cmd, pydantic, yaml"]
IMPORTING_SECONDS = 0.1
"""What that takes on a machine for which the limits are meant: a slower or a busier one is given more."""


def is_quick(project: Project, *words: str, limit_seconds: float) -> bool:
    """Whether the wall time of `doit`, at best, is within the limit."""
    for _ in range(8):
        started = time.monotonic()
        subprocess.run(IMPORTING, check=True)
        slowness = max(1.0, (time.monotonic() - started) / IMPORTING_SECONDS)
        ended = project.doit(*words)
        assert ended.code == 0, ended.err
        if ended.seconds <= limit_seconds * slowness:
            return True
    return False


def test_a_second_run_does_nothing_in_half_a_second(built_project: Project) -> None:
    before = built_project.files()
    assert is_quick(built_project, limit_seconds=0.5)
    assert built_project.files() == before
    assert "5 targets, all unchanged" in built_project.doit().out


def test_listing_takes_less_than_four_tenths_of_a_second(built_project: Project) -> None:
    assert is_quick(built_project, "list", limit_seconds=0.4)
    listed = built_project.doit("list").out
    assert "second   Change the case of a text.\n" in listed
    assert "flat " in listed


@pytest.mark.parametrize("words", [(), ("list", "--all"), ("plan",), ("why",)])
def test_no_heavy_library_is_loaded_when_nothing_is_to_be_built(built_project: Project, words: tuple[str, ...]) -> None:
    script = f"""
import sys
from doit.doit_cmd import DoitMain
code = DoitMain().run({list(words)!r})
print("heavy:", [name for name in {HEAVY!r} if name in sys.modules], code)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=built_project.root, env=built_project.environment, capture_output=True, text=True
    )
    assert "heavy: [] 0" in done.stdout, done.stdout + done.stderr


def test_doit_keeps_no_database_whose_loss_could_rebuild_anything(built_project: Project) -> None:
    names = [path.name for path in built_project.root.rglob("*") if "doit" in path.name and path.is_file()]
    assert names == ["dodo.py"] or names == []
    for path in built_project.cache.glob("digests.sqlite*"):
        path.unlink()
    ended = built_project.doit()
    assert "all unchanged" in ended.out
    assert built_project.built() == ["first", "second", "third", "flat"]


def test_a_changed_param_rebuilds_its_target_and_what_depends_on_it(built_project: Project) -> None:
    built_project.replace("upper: true", "upper: false")
    assert built_project.doit().code == 0
    assert built_project.built()[4:] == ["second", "third", "flat"]
    assert built_project.text("third") == "one\n" * 3 + "."


def test_a_param_that_is_turned_back_is_restored_without_running_a_step(built_project: Project) -> None:
    before = built_project.text("flat")
    built_project.replace("upper: true", "upper: false")
    built_project.doit()
    assert built_project.text("flat") != before
    built_project.replace("upper: false", "upper: true")
    ended = built_project.doit()
    assert ended.code == 0
    assert built_project.built()[4:] == ["second", "third", "flat"], "only the first change ran steps"
    assert built_project.journal("restored") == ["second", "third", "flat"]
    assert built_project.text("flat") == before
    assert (built_project.root / "dist" / "small" / "flat" / "text.txt").read_text() == before
    for word in ("forget", "reset-dep", "clean", "dumpdb", "strace", "text=two"):
        refused = built_project.doit(word)
        assert refused.code == 3
        assert re.fullmatch(r"ERROR: .+\n  fix: .+\n", refused.err)
    assert "all unchanged" in built_project.doit().out


def test_a_default_that_is_written_out_changes_nothing(built_project: Project) -> None:
    built_project.replace("lines: 3", "lines: 3\n      seconds: 0.0")
    assert "all unchanged" in built_project.doit().out


def test_a_reworded_comment_or_docstring_rebuilds_nothing(own_project: Project) -> None:
    assert own_project.doit().code == 0
    step = own_project.package / "steps" / "change_text.py"
    own_project.replace("This comment can be reworded.", "Another comment.", path=step)
    own_project.replace('"""The text."""', '"""What it says."""', path=step)
    own_project.replace("In the middle of a chain, and now and then at its end.", "Anywhere.", path=step)
    own_project.replace('"""How to change it."""', '"""In what way."""', path=step)
    assert "all unchanged" in own_project.doit().out


def test_a_changed_algorithm_that_gives_the_same_bytes_stops_the_rebuild_there(own_project: Project) -> None:
    own_project.recipe(own_project.recipe_file.read_text().replace("step: change_text", "step: change_case", 1))
    steps = own_project.package / "steps"
    shutil.copy(steps / "change_text.py", steps / "change_case.py")
    assert own_project.doit().code == 0
    step = steps / "change_case.py"
    step.write_text(step.read_text().replace("joined", "whole"))
    assert own_project.doit().code == 0
    assert own_project.built()[4:] == ["second"], "its step ran again; nothing behind it did"


def test_code_that_a_step_imports_inside_a_function_counts_as_its_own(own_project: Project) -> None:
    kit = own_project.package / "speech" / "shouting.py"
    kit.write_text("def shout(text: str) -> str:\n    return text.upper()\n")
    step = own_project.package / "steps" / "change_text.py"
    own_project.replace(
        "changed = joined.upper()",
        "from artifacts.speech.shouting import shout\n    changed = shout(joined)",
        path=step,
    )
    assert own_project.doit("second").code == 0
    assert own_project.text("second") == "ONE\n" * 3
    kit.write_text("def shout(text: str) -> str:\n    return text.upper().replace('O', '0')\n")
    assert own_project.doit("second").code == 0
    assert own_project.text("second") == "0NE\n" * 3


def test_a_changed_pin_makes_its_steps_stale_and_the_environment_is_held_to_it(built_project: Project) -> None:
    constraints = built_project.root / "constraints.txt"
    pinned = next(line for line in constraints.read_text().splitlines() if "PyYAML" in line)
    built_project.replace(pinned, "PyYAML==5.0.1", path=constraints)
    version = pinned.partition("==")[2]
    assert f'constraints.txt: PyYAML: "{version}" -> "5.0.1"' in built_project.doit("why", "first").out
    ended = built_project.doit("first")
    assert ended.code == 1
    assert ended.err == (
        f"small:first: 'PyYAML' has version {version}, and constraints.txt pins 5.0.1\n"
        "  fix: pip install PyYAML==5.0.1, or change the pin in constraints.txt\n"
    )
    built_project.replace("PyYAML==5.0.1", pinned, path=constraints)
    assert "all unchanged" in built_project.doit().out


def test_artifacts_can_be_used_where_their_tools_are_missing_or_others(own_project: Project) -> None:
    assert own_project.doit().code == 0
    metadata = own_project.package.parent / "PyYAML-99.9.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: PyYAML\nVersion: 99.9\n")
    assert "all unchanged" in own_project.doit().out
    own_project.replace("suffix: .", "suffix: '!'")
    ended = own_project.doit()
    assert ended.code == 1
    assert ended.err.startswith("small:third: 'PyYAML' has version 99.9, and constraints.txt pins ")
    assert own_project.text("first") == "one\n" * 3


def test_a_new_step_is_one_file_and_one_recipe_entry(own_project: Project) -> None:
    (own_project.package / "steps" / "count_lines.py").write_text(
        '"""Count the lines of a text."""\n'
        "from pathlib import Path\n"
        "from artifacts.params import StepParams\n"
        "TOOLS = ()\n"
        "class Params(StepParams):\n"
        "    start: int = 0\n"
        "def run(out: Path, params: Params, *, text: Path) -> dict[str, int]:\n"
        "    lines = params.start + len((text / 'text.txt').read_text().splitlines())\n"
        "    (out / 'lines.txt').write_text(str(lines))\n"
        "    return {'lines': lines}\n"
    )
    own_project.replace("layouts:", "  lines:\n    step: count_lines\n    inputs: {text: second}\nlayouts:")
    assert "lines    Count the lines of a text.\n" in own_project.doit("list").out
    ended = own_project.doit("lines")
    assert ended.code == 0
    assert "lines 3\n" in ended.out
    assert (own_project.cache / "small" / "lines" / "lines.txt").read_text() == "3"


def test_a_step_is_not_run_twice_for_two_recipes_that_want_the_same(built_project: Project) -> None:
    (built_project.root / "recipes" / "other.yaml").write_text("extends: small.yaml\n")
    ended = built_project.doit("other")
    assert ended.code == 0
    assert "4 restored" in ended.out
    assert (built_project.root / "dist" / "other" / "flat" / "text.txt").exists()
    assert (built_project.cache / "other" / "first").resolve() == (built_project.cache / "small" / "first").resolve()


def test_it_runs_from_another_folder(built_project: Project) -> None:
    elsewhere = built_project.root / "elsewhere"
    elsewhere.mkdir()
    built_project.replace("text: one", "text: two")
    ended = built_project.doit("-f", str(built_project.root / "dodo.py"), "third", cwd=elsewhere)
    assert ended.code == 0, ended.err
    assert built_project.text("third") == "TWO\n" * 3 + "."
    assert list(elsewhere.iterdir()) == []


def test_two_builds_in_two_folders_give_the_same_bytes(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = make_project(tmp_path_factory.mktemp("quite another place") / "p", project.package.parent)
    assert project.doit(environment={"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "TZ": "Asia/Tokyo"}).code == 0
    assert other.doit("-n", "2", environment={"PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "2", "LC_ALL": "C"}).code == 0
    kept = [
        {path.name: (path / "manifest.json").read_bytes() for path in (one.cache / "artifacts").iterdir()}
        for one in (project, other)
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 4


def test_the_words_of_doit_itself_break_nothing(built_project: Project) -> None:
    for words, fact in (
        (("ignore", "first"), "a target cannot be ignored"),
        (("info", "small:first"), "doit does not know what decides a rebuild"),
        (("forget",), "there is nothing to forget"),
    ):
        refused = built_project.doit(*words)
        assert refused.code == 3
        assert re.search(rf"{fact}.*\n  fix: ", refused.err)
    assert built_project.doit("list", "--all").code == built_project.doit("help", "run").code == 0
    assert "all unchanged" in built_project.doit().out
