"""What the how-to pages tell a reader to write and to type works, in a folder of their own."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from artifacts.plan.schema import recipe_schema
from artifacts.plan.step_files import known_steps
from artifacts.speech.corpus import read_corpus
from doc_blocks import DOCS, ROOT, blocks, copy_of_checkout, run_shell

HOW_TO = DOCS / "how-to"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if "decisions" not in path.parts)]
PIECES = {"sources", "targets", "layouts", "resources", "extends", "default"}


def run(command: str, folder: Path) -> str:
    """Run a command that succeeds; returns what it prints."""
    code, printed = run_shell(command, folder)
    assert code == 0, f"$ {command}\n{printed}"
    return printed


def listed_targets(folder: Path) -> set[str]:
    return {line.split()[0] for line in run("doit list", folder).splitlines()}


def run_python(code: str, folder: Path) -> str:
    (folder / "example.py").write_text(code)
    return run("python example.py", folder)


@pytest.fixture
def new_project(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A project that `init` wrote, with the embedded checkpoint as `mine.nemo`."""
    run('python -c \'from artifacts.cli.init import main; main(["init", "asr-release"])\'', tmp_path)
    shutil.copy(tiny_checkpoint, tmp_path / "asr-release" / "mine.nemo")
    return tmp_path / "asr-release"


# The target of own-step.md has a step of that page: the test of it builds it.
@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "own-step"], ids=lambda page: page.stem)
def test_recipes_in_pages_follow_the_schema(page: Path) -> None:
    schema = recipe_schema(known_steps())
    for block in blocks(page, "yaml"):
        written = yaml.safe_load(block)
        assert written.keys() <= PIECES
        assert [error.message for error in Draft7Validator(schema).iter_errors(written)] == []


def test_a_package_is_installed_with_extras_that_it_has() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for page in PAGES:
        for name, extras in re.findall(r"pip install '?([\w-]+)(?:\[([\w,]+)\])?", page.read_text()):
            assert name == project["name"], page
            assert {*extras.split(",")} - {""} <= project["optional-dependencies"].keys(), page


def test_a_new_project_is_what_the_page_of_a_checkpoint_says(new_project: Path) -> None:
    page = HOW_TO / "own-checkpoint.md"
    started, *pieces = blocks(page, "yaml")
    written = (new_project / "recipes" / "mine.yaml").read_text()
    assert yaml.safe_load(started)["targets"] == yaml.safe_load(written)["targets"]
    assert yaml.safe_load(started)["sources"].keys() == yaml.safe_load(written)["sources"].keys()
    (new_project / "recipes" / "mine.yaml").write_text(started)
    assert {"encoder_int4", "size_int4"} <= listed_targets(new_project)
    # The piece that removes targets of the family, added to the recipe.
    removed = next(piece for piece in pieces if "null" in piece)
    merged = yaml.safe_load(started)
    merged["targets"] |= yaml.safe_load(removed)["targets"]
    (new_project / "recipes" / "mine.yaml").write_text(yaml.safe_dump(merged))
    assert not {"encoder_int4", "size_int4"} & listed_targets(new_project)
    planned = run("doit plan", new_project)
    assert re.search(r"^skip +mine:wer_fp32 ", planned, re.MULTILINE)


def test_a_manifest_of_nemo_becomes_a_corpus(tmp_path: Path, evaluation: Path) -> None:
    rows = [json.loads(line) for line in (evaluation / "utterances.jsonl").read_text().splitlines()[:3]]
    kept = ("audio_filepath", "duration", "text")
    lines = [json.dumps({key: row[key] for key in kept}) for row in rows]
    (tmp_path / "manifest.json").write_text("\n".join(lines) + "\n")
    [code] = blocks(HOW_TO / "own-speech.md", "python")
    shutil.copytree(evaluation / "clips", tmp_path / "clips")
    run_python(code, tmp_path)
    corpus = read_corpus(tmp_path / "evaluation")
    assert [one.text for one in corpus.utterances] == [row["text"] for row in rows]
    assert {one.slice for one in corpus.utterances} == {"telephone"}
    assert all(len(corpus.waveform(one)) for one in corpus.utterances)


def test_a_step_on_a_file_works_from_a_shell_and_from_python(tmp_path: Path, built: Callable[[str], Path]) -> None:
    shutil.copy(built("onnx-asr") / "decoder_joint-model.onnx", tmp_path / "model.onnx")
    page = HOW_TO / "one-file.md"
    [block] = blocks(page, "sh")
    steps = [line for line in block.splitlines() if line.startswith("speech-artifacts step ")]
    assert len(steps) == 3
    program = "python -c 'import sys; from artifacts.cli.init import main; sys.exit(main(sys.argv[1:]))'"
    for line in steps:
        run(line.replace("speech-artifacts", program), tmp_path)
    shutil.rmtree(tmp_path / "small")  # the shell's, which Python's has the name of
    [code] = blocks(page, "python")
    printed = run_python(code, tmp_path)
    weights, bytes_after = map(int, re.findall(r"\d+", printed))
    (model,) = (tmp_path / "small").iterdir()
    assert weights > 0
    assert model.stat().st_size == bytes_after


def test_a_step_of_ones_own_is_built_and_its_code_is_in_the_identity(new_project: Path) -> None:
    page = HOW_TO / "own-step.md"
    [code], [target] = blocks(page, "python"), blocks(page, "yaml")
    step = new_project / "steps" / "name_producer.py"
    step.parent.mkdir()
    step.write_text(code)
    recipe = yaml.safe_load((new_project / "recipes" / "mine.yaml").read_text())
    recipe["targets"] |= yaml.safe_load(target)["targets"]
    (new_project / "recipes" / "mine.yaml").write_text(yaml.safe_dump(recipe))
    assert "Write the name of the program" in run("doit list", new_project)
    assert "built mine:decoder_named" in (printed := run("doit decoder_named", new_project))
    assert "producer_before" in printed
    shutil.copy(next((new_project / "cache/mine/decoder_joint_int8").glob("*.onnx")), new_project / "model.onnx")
    [command] = re.findall(r"`(doit step name_producer .*?)`", page.read_text())
    assert "producer_before" in run(command, new_project)
    step.write_text(code.replace('"""Write the name', '"""Write, in other words, the name'))
    assert "all unchanged" in run("doit decoder_named", new_project)
    step.write_text(
        code.replace("graph.producer_name = params.producer", "graph.producer_name = params.producer + '!'")
    )
    assert "steps/name_producer.py: run changed" in run("doit why decoder_named", new_project)


def test_recordings_with_more_errors_are_listed(whole_recipe: Path) -> None:
    [code] = blocks(HOW_TO / "word-errors.md", "python")
    done = run(f"python - <<'END'\n{code}\nEND", whole_recipe.parents[1])
    assert re.search(r"^[a-z0-9_]+-\d+\n  \[\d+, \d+\]\n  \w+", done, re.MULTILINE)


def test_the_lines_of_a_nightly_job_run(whole_recipe: Path, tmp_path: Path) -> None:
    project = copy_of_checkout(tmp_path / "asr-release")
    for recipe in (project / "recipes").glob("*.yaml"):
        if "hf:" in recipe.read_text():  # a test has no network
            recipe.unlink()
    block, *_ = blocks(HOW_TO / "nightly.md", "sh")
    lines = [line for line in block.splitlines() if not line.startswith(("cd ", "git "))]
    assert [line.split()[0] for line in lines] == ["set", "doit", "doit"]
    run("\n".join(lines), project)
    source = next(project.glob("embedded/tiny/*.nemo"))
    source.unlink()
    code, printed = run_shell("\n".join(lines), project)
    assert code == 1, printed
