"""Recipes as they are loaded: merged with those that they extend, with the location of each value."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from artifacts.digest import digest_json
from artifacts.errors import RecipeError
from artifacts.recipe.declarations import Recipe, Source
from artifacts.recipe.families import families, family_file
from artifacts.recipe.validate import did_you_mean, validate
from artifacts.recipe.yaml_locations import Location, YamlDocument, merge, read_yaml
from artifacts.web_address import shown_url

# Bound on a chain of `extends`: each recipe in it is read as a whole.
MOST_LAYERS = 32


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
    def address(self) -> str:
        """Where the source comes from, without secrets: its path, URL, or `hf:` with repository, revision and file.

        Two URLs that differ only in what is not shown have two addresses: a digest tells them apart.
        """
        url = self.declared.url
        if self.declared.hf is not None:
            return f"hf:{self.declared.hf}/{self.declared.file}"
        if url is None:
            return str(self.path)
        return url if shown_url(url) == url else f"{shown_url(url)} ({digest_json(url)[:12]})"

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
    _check_removals(document)
    recipe = validate(Recipe, document)
    sections: dict[str, Iterable[str]] = {
        "sources": recipe.sources,
        "targets": recipe.targets,
        "layouts": recipe.layouts,
    }
    seen: dict[str, str] = {}
    for section, names in sections.items():
        for declared in names:
            if declared in seen:
                where = f"{document.location((section, declared, '<key>'))}: {section}"
                fact = f"{where}: '{declared}' is in {seen[declared]} too"
                raise RecipeError(fact, "rename one of the two: sources, targets and layouts share their names")
            seen[declared] = section
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


def _check_removals(document: YamlDocument) -> None:
    """Raise RecipeError for a source, target or layout without a value, which no base has: nothing is removed."""
    for section in ("sources", "targets", "layouts"):
        names = document.value.get(section)
        for name, value in names.items() if isinstance(names, dict) else ():
            if value is None:
                where = f"{document.location((section, name, '<key>'))}: {section}.{name}"
                kind, fix = section.removesuffix("s"), "write its keys, or delete it"
                if document.value.get("extends") is None:
                    raise RecipeError(f"{where}: has no keys, and no base has a {kind} of this name", fix)
                known = [other for other, keys in names.items() if keys is not None]
                raise RecipeError(f"{where}: its base has no {kind} of this name", did_you_mean(name, known, fix))


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
