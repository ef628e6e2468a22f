"""`speech-artifacts init`: a new project in an empty folder, so that `doit` works there."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from artifacts.cli.options import UserError
from artifacts.cli.standard_streams import prepare_streams
from artifacts.cli.warning_lines import print_warnings_in_lines
from artifacts.errors import ArtifactsError, RecipeError, disk_error
from artifacts.files.atomic import write_atomically
from artifacts.plan.schema import recipe_schema
from artifacts.plan.step_files import packaged_steps
from artifacts.recipe.validate import did_you_mean

MISTAKE = 3  # doit's exit code for one

COMMANDS = """\
loader = "artifacts"

[tool.doit.plugins.loader]
artifacts = "artifacts.cli.loader:Loader"

[tool.doit.plugins.command]
run = "artifacts.cli.doit_commands:Run"
list = "artifacts.cli.doit_commands:List"
help = "artifacts.cli.doit_commands:Help"
tabcompletion = "artifacts.cli.doit_commands:TabCompletion"
ignore = "artifacts.cli.disabled_commands:Ignore"
forget = "artifacts.cli.disabled_commands:Forget"
reset-dep = "artifacts.cli.disabled_commands:ResetDep"
dumpdb = "artifacts.cli.disabled_commands:DumpDb"
clean = "artifacts.cli.disabled_commands:Clean"
strace = "artifacts.cli.disabled_commands:Strace"
info = "artifacts.cli.disabled_commands:Info"
why = "artifacts.cli.commands:Why"
plan = "artifacts.cli.commands:DryRun"
verify = "artifacts.cli.commands:Verify"
gc = "artifacts.cli.commands:Gc"
outdated = "artifacts.cli.commands:Outdated"
schema = "artifacts.cli.commands:Schema"
pin = "artifacts.cli.pin_command:Pin"
step = "artifacts.cli.step_command:Step"
"""

DODO = '''\
"""The targets of the recipes that a command asks for, for doit.

What they are is said in pipeline.yaml and recipes/; the work is in the package artifacts.
"""

from collections.abc import Iterator
from typing import Any

from artifacts.cli.tasks import Session

SESSION = Session()
DOIT_CONFIG = SESSION.doit_config


def task_targets() -> Iterator[dict[str, Any]]:
    """Every source, target and layout."""
    yield from SESSION.tasks()
'''

RECIPE = """\
# yaml-language-server: $schema=../recipe.schema.json
# A checkpoint of the Parakeet-TDT family. See its targets with `doit list`, and build one with `doit shard_fp32`.
extends: artifacts/parakeet-tdt
sources:
  checkpoint: {file: ../mine.nemo, hint: "copy your .nemo checkpoint there, or name another file in recipes/mine.yaml"}
  # Speech to measure on, and other speech to calibrate with: utterances.jsonl and its clips.
  # Without it, the targets that need it are skipped.
  evaluation: {folder: ../evaluation, optional: true}
  calibration: {folder: ../calibration, optional: true}
targets:
  model_meta: {params: {model_name: mine}}
"""

README = """\
# Artifacts of a speech model

`recipes/mine.yaml` names the checkpoint and the targets. With the checkpoint in place:

- `doit list` lists the targets, `doit` builds all of them, `doit shard_fp32` builds one and what it needs;
- `doit plan` shows what a run would do, `doit why` what causes it;
- `doit step NAME --help` runs one step on any file, without a recipe;
- results are in `cache/mine/`, layouts for consumers in `dist/mine/`;
- a file `steps/<name>.py` is a step of your own; then `doit schema` lets your editor know it.

Commit all that `.gitignore` does not name, and with it `pipeline.lock.yaml`, which pins the sources. Another machine
gets the checkpoint by `hf:` or `url:` in the recipe, or by a copy. To build from other bytes, for example after
training, pin them with `doit pin checkpoint`.
"""

FILES = {
    "dodo.py": DODO,
    "pyproject.toml": f"[tool.doit]\n{COMMANDS}",
    "pipeline.yaml": "# Recipes are in recipes/. `doit` alone means this one.\ndefault: mine\n",
    "recipes/mine.yaml": RECIPE,
    ".gitignore": "/cache/\n/dist/\n/evaluation/\n/calibration/\n*.nemo\n__pycache__/\n",
    "README.md": README,
}


def init(folder: Path) -> list[Path]:
    """Write a new project, and return its files. Raises RecipeError, and writes nothing, if one is there already."""
    schema = json.dumps(recipe_schema(packaged_steps()), indent=1, ensure_ascii=False) + "\n"
    files = {folder / name: text for name, text in (FILES | {"recipe.schema.json": schema}).items()}
    for path in files:
        if path.exists() or path.is_symlink():
            raise RecipeError(f"'{path}' is there already", "name an empty folder: speech-artifacts init FOLDER")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    return list(files)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"ERROR: {message}\n  fix: see {self.prog} --help", file=sys.stderr)
        sys.exit(MISTAKE)


def _step(words: list[str]) -> int:
    from artifacts.cli.step_command import Step

    try:
        return Step().parse_execute(words)
    except UserError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return MISTAKE


def main(words: list[str] | None = None) -> int:
    """Run the console script. Return the exit code: MISTAKE for one of the user."""
    prepare_streams()
    print_warnings_in_lines()
    about = "Build all files that users of a speech model download."
    parser = _Parser(prog="speech-artifacts", description=about, allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="print the version of this package")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    about = "Write a new project, for `doit`."
    new = commands.add_parser("init", help="write a new project", description=about, allow_abbrev=False)
    new.add_argument("folder", nargs="?", default=".", help="an empty or new folder; by default, this one")
    text = "run one step on files, without a project"
    commands.add_parser("step", help=text, description=text, add_help=False)
    given = sys.argv[1:] if words is None else words
    if given[:1] == ["--version"]:
        print(f"speech-artifacts {importlib.metadata.version('speech-artifacts')}")
        return 0
    if given[:1] == ["step"]:
        return _step(given[1:])
    if given and not given[0].startswith("-") and given[0] not in commands.choices:
        fix = did_you_mean(given[0], commands.choices, "see speech-artifacts --help")
        error = RecipeError(f"speech-artifacts has no command '{given[0]}'", fix)
        print(f"ERROR: {error}", file=sys.stderr)
        return MISTAKE
    folder = Path(parser.parse_args(given).folder)
    try:
        files = init(folder)
    except (ArtifactsError, OSError) as fault:
        cause = fault if isinstance(fault, ArtifactsError) else disk_error(fault, folder)
        if cause is None:
            cause = RecipeError(f"'{folder}': {fault}", "name another folder: speech-artifacts init FOLDER")
        print(f"ERROR: {cause}", file=sys.stderr)
        return MISTAKE
    for path in files:
        print(f"wrote {path}")
    place = "" if folder == Path() else f"cd {shlex.quote(str(folder))}; "
    print(f"next: copy a checkpoint to {folder / 'mine.nemo'}, then: {place}doit list")
    return 0
