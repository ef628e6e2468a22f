"""What the documents say is there: files that they link to, commands that they name, the recipe that README shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from artifacts.plan.schema import recipe_schema
from artifacts.plan.step_files import known_steps
from artifacts.recipe.recipe import load_recipe

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "docs",
    "docs/decisions",
    "docs/how-to",
    "docs/reference",
    "benchmarks",
    "embedded/tiny",
    "embedded/tiny-streaming",
    "embedded/lstm-transducer",
)
PAGES = [path for folder in (".", *FOLDERS) for path in sorted((ROOT / folder).glob("*.md"))]
# Pages that docs/hooks/ writes from the code. `tests/docs` builds the site, which checks the links to them.
WRITTEN = [ROOT / "docs" / "reference" / name for name in ("steps.md", "recipe.md", "commands.md")]
COMMANDS = {"run", "list", "plan", "why", "verify", "gc", "outdated", "pin", "step", "schema", "help", "tabcompletion"}
DISABLED = {"ignore", "forget", "reset-dep", "dumpdb", "clean", "strace", "info"}
# The target that ARCHITECTURE.md adds, the recipes that README.md and the tutorial write, the step of docs/how-to/.
EXAMPLES = {"encoder_lengths", "mine", "first", "name_producer"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_resolves(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    targets = {link: (page.parent / link).resolve() for link in links if "://" not in link}
    broken = [link for link, target in targets.items() if not target.exists() and target not in WRITTEN]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one_and_every_target_is_there(page: Path) -> None:
    names = {path.stem for folder in ("recipes", "embedded", "experiments") for path in (ROOT / folder).glob("*.yaml")}
    for path in (ROOT / "recipes" / "tiny.yaml", ROOT / "experiments" / "tiny-forms.yaml"):
        recipe = load_recipe(path.stem, path).recipe
        names |= {*recipe.sources, *recipe.targets, *recipe.layouts}
    text = page.read_text()
    for words in re.findall(r"`doit ([^`]*)`", text):
        first = next((word for word in words.split() if not re.match(r"-|[0-9]|\[|<|NAME|TARGET|'", word)), None)
        known = first is None or first in COMMANDS | DISABLED | EXAMPLES | names or first.partition(":")[0] in names
        assert known, f"doit {words}"
    for step in re.findall(r"`doit step ([a-z_]+)", text):
        assert step in {*known_steps(), *EXAMPLES}


def test_readme_is_short_and_its_recipe_is_one(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    [recipe] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert list(Draft7Validator(recipe_schema(known_steps())).iter_errors(yaml.safe_load(recipe))) == []
    (tmp_path / "mine.yaml").write_text(recipe)
    assert load_recipe("mine", tmp_path / "mine.yaml").recipe.targets["shard_fp32"].params["max_shard_bytes"] == 10**9
