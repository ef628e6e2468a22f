"""What is declared: `pipeline.yaml` with its pins, and the recipes with their sources and targets."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from artifacts.errors import RecipeError
from artifacts.marked_yaml import Marked, merge, read_yaml
from artifacts.validate import did_you_mean, validate

PIPELINE_FILE = Path("pipeline.yaml")

# The store's own folders: a recipe of such a name would have its targets among them.
RESERVED = ("actions", "artifacts", "downloads", "locks", "logs", "staging")

# A name becomes a folder, a doit task and a word on a command line.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(_Declared):
    """Where bytes come from that no step makes: one of a file, a folder, a URL, or a file of a Hugging Face repository.

    `file` and `folder` are relative to the YAML file they are written in. `sha256` pins the file's bytes (for a folder:
    its content digest); without it the recipe's lock file does, from the first use on. `hint` tells how to get it.
    `trust` lets a checkpoint name classes beyond those that are known to be harmless.
    """

    file: str | None = None
    folder: str | None = None
    url: str | None = None
    hf: str | None = None
    sha256: Sha256 | None = None
    hint: str | None = None
    trust: bool = False

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine already: nothing has to be fetched."""
        return self.hf is None and self.url is None

    @model_validator(mode="after")
    def _check_kind(self) -> Source:
        given = [kind for kind in ("file", "folder", "url") if getattr(self, kind) is not None]
        if self.hf is not None:
            if not re.fullmatch(r"[\w.-]+/[\w.-]+@[\w.-]+", self.hf):
                raise ValueError("'hf' must read 'owner/name@revision'")
            if given != ["file"]:
                raise ValueError("'hf' needs 'file', the file's name in that repository, and nothing else")
        elif len(given) != 1:
            raise ValueError("give one of 'file', 'folder', 'url', or 'hf' with 'file'")
        if self.url is not None and not re.match(r"https?://[^/]", self.url):
            raise ValueError("'url' must begin with 'https://'")
        return self


class Resources(_Declared):
    """What a target needs while it is built. Where no memory is declared, earlier runs are the guide.

    A step is stopped after `minutes`, or after `silent_minutes` without progress: a build that nobody watches must end.
    """

    memory_gib: float | None = Field(default=None, gt=0, le=1e6)
    minutes: float | None = Field(default=None, gt=0, le=1e6)
    silent_minutes: float | None = Field(default=None, gt=0, le=1e6)


class Target(_Declared):
    """A step, what goes into it and its parameters. The word after `step:` is a file in `artifacts/steps/`."""

    step: str
    inputs: dict[str, str] = {}
    params: dict[str, Any] = {}
    resources: Resources = Resources()


class Recipe(_Declared):
    """One checkpoint and all that is made of it. `layouts` are targets that are laid out under `dist/<recipe>/`.

    `resources` holds for each target that does not declare the same itself; its memory, for those not built before.
    """

    extends: str | None = None
    sources: dict[Name, Source] = {}
    targets: dict[Name, Target] = {}
    layouts: dict[Name, Target] = {}
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _check_names(self) -> Recipe:
        for one, other in ((self.sources, self.targets), (self.sources, self.layouts), (self.targets, self.layouts)):
            for name in set(one) & set(other):
                raise ValueError(f"the name '{name}' is used twice; sources, targets and layouts share their names")
        if not self.targets and not self.layouts:
            raise ValueError("a recipe needs a target or a layout")
        return self


class Pipeline(_Declared):
    """`pipeline.yaml`: which recipes there are, which is the default, where results lie, and the pinned tools."""

    default: str
    recipes: dict[Name, str]
    cache: str = "cache"
    dist: str = "dist"
    tools: dict[str, str]

    @model_validator(mode="after")
    def _check_places(self) -> Pipeline:
        cache, dist = (Path(os.path.abspath(place)) for place in (self.cache, self.dist))  # noqa: PTH100  # no link followed
        for name, place in (("cache", cache), ("dist", dist)):
            if Path.cwd().is_relative_to(place):
                raise ValueError(f"'{name}' must be a folder of its own: what does not belong there is removed")
        if cache.is_relative_to(dist) or dist.is_relative_to(cache):
            raise ValueError("'cache' and 'dist' must lie apart")
        return self


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe with its name, its file, and the places of all it says."""

    name: str
    file: Path
    recipe: Recipe
    marked: Marked

    @property
    def lock_file(self) -> Path:
        """Where the digests of sources lie that the recipe itself does not pin."""
        return self.file.with_suffix(".lock.yaml")

    def source_path(self, name: str) -> Path:
        """The path of a `file` or `folder` source, seen from the YAML file that names it."""
        source = self.recipe.sources[name]
        kind = "file" if source.file is not None else "folder"
        said_in = self.marked.place(("sources", name, kind)).file
        return Path(os.path.normpath(said_in.parent / (source.file or source.folder or "")))


def load_pipeline(path: Path = PIPELINE_FILE) -> Pipeline:
    """Read `pipeline.yaml`. Raises `RecipeError`."""
    marked = read_yaml(path)
    pipeline = validate(Pipeline, marked)
    if pipeline.default not in pipeline.recipes:
        fix = did_you_mean(pipeline.default, pipeline.recipes, "name one of the recipes, or add it to them")
        raise RecipeError(f"{marked.place(('default',))}: default: no recipe is called '{pipeline.default}'", fix)
    for name in set(RESERVED) & set(pipeline.recipes):
        place = marked.place(("recipes", name, "<key>"))
        raise RecipeError(f"{place}: recipes: the name '{name}' is the store's own", "call the recipe something else")
    return pipeline


def load_recipe(name: str, file: Path) -> LoadedRecipe:
    """Read a recipe and those it extends, the nearest winning. Raises `RecipeError`."""
    marked = _read_extended(file, ())
    return LoadedRecipe(name, file, validate(Recipe, marked), marked)


def _read_extended(file: Path, seen: tuple[Path, ...]) -> Marked:
    marked = read_yaml(file)
    if not isinstance(marked.value, dict):
        fix = "begin with 'sources:', 'targets:' or 'extends:'"
        raise RecipeError(f"{marked.place(())}: a recipe is a mapping of keys", fix)
    base = marked.value.get("extends")
    if base is None:
        return marked
    place = marked.place(("extends",))
    if not isinstance(base, str):
        raise RecipeError(f"{place}: extends: must be the path of a recipe", "name one YAML file, relative to this one")
    path = Path(os.path.normpath(file.parent / base))
    if path.resolve() in (known.resolve() for known in (*seen, file)):
        raise RecipeError(f"{place}: extends: '{base}' leads back to itself", "break the circle")
    if not path.exists():
        raise RecipeError(f"{place}: extends: no such file: '{base}'", "name one YAML file, relative to this one")
    return merge(_read_extended(path, (*seen, file)), marked)
