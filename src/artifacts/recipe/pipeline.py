"""A project's pipeline: recipes, default, folders (`pipeline.yaml`), and versions of tools (`constraints.txt`)."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import model_validator

from artifacts.errors import RecipeError
from artifacts.recipe.declarations import NAME, NAME_FIX, Declared, PathText
from artifacts.recipe.recipe import check_case
from artifacts.recipe.validate import did_you_mean, validate
from artifacts.recipe.yaml_locations import YamlDocument, read_text, read_yaml
from artifacts.validation_errors import mistake

PIPELINE_FILE = Path("pipeline.yaml")
CONSTRAINTS_FILE = Path("constraints.txt")
PACKAGED_CONSTRAINTS = Path(__file__).parents[1] / CONSTRAINTS_FILE
LOCK_SUFFIX = ".lock.yaml"

# Folders of the store: a recipe with such a name would have its targets among them.
RESERVED = ("actions", "artifacts", "downloads", "locks", "logs", "staging")
RESERVED_FILES = ("guard", "journal.jsonl", "digests.sqlite", "digests.sqlite-wal", "digests.sqlite-shm")

# A line of a pip constraints file that fixes a version: `name==1.2.3`, perhaps with extras, a marker or a comment.
_FIXED_VERSION = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*==\s*([^\s;#]+)")


@dataclass(frozen=True)
class Pipeline:
    """Files of recipes by name, the default recipe, the folders of artifacts and layouts, and versions of tools.

    A recipe has the name of its file. `tools` has the package's versions. The project's constraints override them.
    """

    default: str
    recipes: dict[str, Path]
    cache: str
    dist: str
    tools: dict[str, str]

    def version_of(self, tool: str) -> str | None:
        """Return the version of a tool in the constraints, or None."""
        return self.tools.get(_canonical(tool))


class DeclaredPipeline(Declared):
    """The file `pipeline.yaml`."""

    default: str
    """The recipe that `doit` alone builds."""
    recipes: tuple[PathText, ...] = ("recipes/*.yaml",)
    """Files of recipes, also by patterns."""
    cache: PathText = "cache"
    """The folder of the store."""
    dist: PathText = "dist"
    """The folder to which layouts are copied."""

    @model_validator(mode="after")
    def _check_folders(self) -> DeclaredPipeline:
        cache, dist = (Path(os.path.abspath(folder)) for folder in (self.cache, self.dist))  # noqa: PTH100  # no link followed
        for name, folder in (("cache", cache), ("dist", dist)):
            if Path.cwd().is_relative_to(folder):
                fact = f"'{name}' must be a folder of its own, because other files in it are removed"
                raise mistake(fact, f"name a folder for it alone, for example '{name}: {name}'")
        if cache.is_relative_to(dist) or dist.is_relative_to(cache):
            raise mistake("'cache' and 'dist' must not be inside one another", "move one of the two")
        return self


def load_pipeline(path: Path = PIPELINE_FILE) -> Pipeline:
    """Read `pipeline.yaml` and the constraints, and find the recipes. Raises `RecipeError`."""
    document = read_yaml(path)
    declared = validate(DeclaredPipeline, document)
    recipes = _find_recipes(document, declared.recipes, path.parent)
    if declared.default not in recipes:
        fix = did_you_mean(declared.default, recipes, f"the recipes are: {', '.join(recipes)}")
        raise RecipeError(f"{document.location(('default',))}: default: no recipe is called '{declared.default}'", fix)
    tools = _read_constraints(PACKAGED_CONSTRAINTS) | _read_constraints(path.parent / CONSTRAINTS_FILE)
    return Pipeline(declared.default, recipes, declared.cache, declared.dist, tools)


def _find_recipes(document: YamlDocument, patterns: tuple[str, ...], folder: Path) -> dict[str, Path]:
    """Return the files that the patterns match, by name. Raises `RecipeError` for two of one name, and a bad name."""
    found: dict[str, Path] = {}
    for index, pattern in enumerate(patterns):
        location = document.location(("recipes", index))
        for name in sorted(glob.glob(pattern, root_dir=folder)):  # noqa: PTH207  # a Path takes no absolute pattern
            file = folder / name
            if not name.endswith(".yaml") or name.endswith(LOCK_SUFFIX) or file in found.values():
                continue
            if not re.fullmatch(NAME, file.stem):
                raise RecipeError(f"{file}: '{file.stem}' is not a valid name of a recipe", f"rename it: {NAME_FIX}")
            if file.stem.lower() in (*RESERVED, *RESERVED_FILES):
                raise RecipeError(f"{file}: the name '{file.stem}' is reserved for the store", "rename the recipe")
            if file.stem in found:
                fact = f"{location}: recipes: '{file}' and '{found[file.stem]}' have the same name"
                raise RecipeError(fact, "rename one of the two")
            found[file.stem] = file
    if not found:
        fact = f"{document.location(('recipes',))}: recipes: no recipe matches {' or '.join(patterns)}"
        raise RecipeError(fact, "write a recipe there, or name where recipes are")
    check_case((name, f"{file}") for name, file in found.items())
    return found


def _read_constraints(path: Path) -> dict[str, str]:
    """Return the versions that a pip constraints file fixes, by canonical name. A file may be lacking.

    Raises RecipeError for a file that is too large, not regular or not UTF-8.
    """
    if not os.path.lexists(path):
        return {}
    pins = (_FIXED_VERSION.match(line) for line in read_text(path).splitlines())
    return {_canonical(pin[1]): pin[2] for pin in pins if pin}


def _canonical(name: str) -> str:
    """Return a distribution's name as the package index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
