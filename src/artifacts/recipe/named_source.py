"""A source of a recipe, with its name and its location."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from artifacts.recipe.recipe import LoadedRecipe, Source
from artifacts.recipe.yaml_locations import Location
from artifacts.web_address import shown_url


@dataclass(frozen=True)
class NamedSource:
    """A source, as one recipe declares it under `sources.<name>`."""

    loaded: LoadedRecipe
    name: str

    @property
    def declared(self) -> Source:
        """What the recipe declares."""
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
    def label(self) -> str:
        """Location and name, as an error begins."""
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
        """Return where the recipe declares the source, or one of its keys."""
        return self.loaded.document.location(("sources", self.name, key))
