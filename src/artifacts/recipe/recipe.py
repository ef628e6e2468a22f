"""Declarations: recipes with their sources, targets and layouts."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from artifacts.errors import RecipeError
from artifacts.recipe.families import families, family_file
from artifacts.recipe.validate import did_you_mean, validate
from artifacts.recipe.yaml_locations import Location, YamlDocument, merge, read_yaml
from artifacts.web_address import LOGIN_FAULT, LOGIN_FIX, shown_url, url_fault

# Bound on a chain of `extends`: each recipe in it is read as a whole.
MOST_LAYERS = 32

# A name becomes a folder, a doit task and a word on a command line. The longest file name made of names is a layout's
# lock, `layout.<recipe>:<layout>`: it has at most 208 characters, and file systems allow 255.
MOST_CHARACTERS = 100
NAME = rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MOST_CHARACTERS - 1}}}"
Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$", max_length=MOST_CHARACTERS)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _check_path(path: str) -> str:
    if "\0" in path:
        raise ValueError("must be a path, and no path has a NUL character")
    return path


About = Annotated[str, StringConstraints(min_length=1, max_length=MOST_CHARACTERS, pattern=r"^[^\n\r]*$")]
PathText = Annotated[str, AfterValidator(_check_path)]


class Declared(BaseModel):
    """A mapping of a YAML file: frozen, with values of JSON's types and no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(Declared):
    """Input from outside: a file, a folder, a URL, or a file of a Hugging Face repository.

    `file` and `folder` are relative to the YAML file that contains them. `sha256` pins the file's bytes (for a folder:
    its content digest); without it, the recipe's lock file does from the first use on. `hint` says how to get it.
    `trust` lets a checkpoint name classes beyond those that are known to be harmless. Without an `optional` file or
    folder, the targets that need it are skipped.
    A recipe contains no login: that of a URL's host is in `~/.netrc`, that of the hub is its token.
    """

    file: PathText | None = None
    folder: PathText | None = None
    url: str | None = None
    hf: str | None = None
    sha256: Sha256 | None = None
    hint: str | None = None
    trust: bool = False
    optional: bool = False

    @property
    def is_local(self) -> bool:
        """Whether the source is a file or folder of this machine, so that nothing has to be fetched."""
        return self.hf is None and self.url is None

    @model_validator(mode="after")
    def _check_kind(self) -> Source:
        kinds = [kind for kind in ("file", "folder", "url") if getattr(self, kind) is not None]
        if self.hf is not None:
            if not re.fullmatch(r"[\w.-]+/[\w.-]+@[\w.-]+", self.hf, re.ASCII):
                raise ValueError("'hf' must read 'owner/name@revision'")
            if kinds != ["file"]:
                raise ValueError("'hf' needs 'file', the file's name in that repository, and nothing else")
            if not _is_path_in_repository(self.file or ""):
                raise ValueError("'file' must be a path inside the repository, like 'folder/name'")
        elif len(kinds) != 1:
            raise ValueError("needs one of 'file', 'folder', 'url', or 'hf' with 'file'")
        if self.url is not None and (fault := url_fault(self.url)):
            fix = LOGIN_FIX if fault == LOGIN_FAULT else None
            raise PydanticCustomError("value_error", "'url' {fault}", {"fault": fault, "fix": fix})
        if self.optional and not self.is_local:
            raise ValueError("'optional' is for a file or folder of this machine")
        for kind in ("file", "folder"):
            if self.hf is None and "://" in (getattr(self, kind) or ""):
                raise ValueError(f"'{kind}' is a path, and this is a web address: use 'url'")
        return self


def _is_path_in_repository(name: str) -> bool:
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts)


class Resources(Declared):
    """Memory and time of a target's step. Without declared memory, that of earlier runs counts.

    A step is stopped after `minutes`, or after `silent_minutes` without progress: an unattended build must end.
    """

    memory_gib: float | None = Field(default=None, gt=0, le=1e6)
    minutes: float | None = Field(default=None, gt=0, le=1e6)
    silent_minutes: float | None = Field(default=None, gt=0, le=1e6)


class Target(Declared):
    """A step, its inputs and its parameters. The word after `step:` is a file in `artifacts/steps/`.

    `doit list` shows `about`; without it, the first line of the step's docstring.
    """

    step: str
    about: About | None = None
    inputs: dict[str, str] = {}
    params: dict[str, Any] = {}
    resources: Resources = Resources()


class Recipe(Declared):
    """One checkpoint and its artifacts. `layouts` are targets that are laid out under `dist/<recipe>/`.

    `default` names the targets and layouts that the recipe's name means, also by patterns; without it, all of them.
    `resources` are defaults for each target. The default memory counts for targets that were not built before.
    """

    extends: str | None = None
    default: Annotated[list[str], Field(min_length=1)] | None = None
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


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe with its name, its file, and the location of each of its values."""

    name: str
    file: Path
    recipe: Recipe
    document: YamlDocument

    def is_default(self, name: str) -> bool:
        """Whether the recipe's name means this target, layout or source among others."""
        words = self.recipe.default
        return words is None or (
            name not in self.recipe.sources and any(fnmatch.fnmatchcase(name, word) for word in words)
        )

    @property
    def lock_file(self) -> Path:
        """File with the digests of sources that the recipe itself does not pin."""
        return self.file.with_suffix(".lock.yaml")


@dataclass(frozen=True)
class NamedSource:
    """Declaration of a source in one recipe, under `sources.<name>`."""

    loaded: LoadedRecipe
    name: str

    @property
    def declared(self) -> Source:
        """The declaration."""
        return self.loaded.recipe.sources[self.name]

    @property
    def full_name(self) -> str:
        """`recipe:name`, as on the command line."""
        return f"{self.loaded.name}:{self.name}"

    @property
    def path(self) -> Path:
        """Path of a local source's file or folder, relative to the YAML file that declares it."""
        kind = "file" if self.declared.file is not None else "folder"
        declared_in = self.location(kind).file
        return Path(os.path.normpath(declared_in.parent / (self.declared.file or self.declared.folder or "")))

    @property
    def absence(self) -> str | None:
        """That an optional source is not there, in words, with its hint; None for any other source."""
        if not self.declared.optional or os.path.lexists(self.path):
            return None
        kind = "file" if self.declared.file is not None else "folder"
        hint = f"; {self.declared.hint}" if self.declared.hint else ""
        return f"{self.full_name}: no {kind} at '{self.path}'{hint}"

    @property
    def label(self) -> str:
        """Location and name: the beginning of an error."""
        return f"{self.location()}: sources.{self.name}"

    @property
    def shown(self) -> str:
        """Address without its secrets, or path, as the recipe writes it."""
        declared = self.declared
        if declared.hf is not None:
            return f"{declared.file} of {declared.hf}"
        return declared.file or declared.folder or shown_url(declared.url or "")

    @property
    def doc(self) -> str:
        """The source in a few words, for `doit list`."""
        return f"Source: {self.shown}"

    def location(self, key: str = "<key>") -> Location:
        """Return the location of the source in its recipe, or of one of its keys."""
        return self.loaded.document.location(("sources", self.name, key))


def load_recipe(name: str, file: Path) -> LoadedRecipe:
    """Read a recipe and those it extends; the nearest value wins. Raises `RecipeError`."""
    document = _read_extended(file)
    recipe = validate(Recipe, document)
    sections: dict[str, Iterable[str]] = {
        "sources": recipe.sources,
        "targets": recipe.targets,
        "layouts": recipe.layouts,
    }
    check_case(
        (name, f"{document.location((section, name, '<key>'))}: {section}")
        for section, names in sections.items()
        for name in names
    )
    built = [*recipe.targets, *recipe.layouts]
    for index, word in enumerate(recipe.default or ()):
        if not fnmatch.filter(built, word):
            fact = f"{document.location(('default', index))}: default: no target or layout is called '{word}'"
            raise RecipeError(fact, did_you_mean(word, built, "name targets or layouts of this recipe"))
    return LoadedRecipe(name, file, recipe, document)


def check_case(names: Iterable[tuple[str, str]]) -> None:
    """Raise RecipeError for two names that differ by case alone: to some file systems they are one.

    Each name comes with the beginning of an error about it.
    """
    seen: dict[str, str] = {}
    for name, where in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise RecipeError(f"{where}: '{name}' and '{other}' differ by case alone", "rename one of the two")


def _read_extended(file: Path) -> YamlDocument:
    """Return a recipe merged over the one that it extends, and so on, down to one that extends none."""
    layers = [read_yaml(file)]
    read = {os.path.realpath(file)}
    while True:
        document = layers[-1]
        if not isinstance(document.value, dict):
            fix = "begin with 'sources:', 'targets:' or 'extends:'"
            raise RecipeError(f"{document.location(())}: a recipe is a mapping of keys", fix)
        base = document.value.get("extends")
        if base is None:
            break
        location = document.location(("extends",))
        fix = "name one YAML file, relative to this one, or a family: artifacts/parakeet-tdt"
        if not isinstance(base, str) or "\0" in base:
            raise RecipeError(f"{location}: extends: must be the path of a recipe", fix)
        path = family_file(base) or Path(os.path.normpath(location.file.parent / base))
        if os.path.realpath(path) in read:
            raise RecipeError(f"{location}: extends: '{base}' leads back to itself", "break the cycle")
        if not os.path.exists(path):  # noqa: PTH110  # false also for a name that is too long
            raise RecipeError(f"{location}: extends: no such file: '{base}'", did_you_mean(base, families(), fix))
        if len(layers) == MOST_LAYERS:
            fact = f"{location}: extends: the chain has more than {MOST_LAYERS} recipes"
            raise RecipeError(fact, "merge some of them")
        read.add(os.path.realpath(path))
        layers.append(read_yaml(path))
    document = layers.pop()
    while layers:
        document = merge(document, layers.pop())
    return document
