"""Declarations of a recipe, as pydantic models: sources, targets, layouts, resources. Their texts are its reference."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from artifacts.validation_errors import in_series, mistake
from artifacts.web_address import LOGIN_FAULT, LOGIN_FIX, url_fault

# A name becomes a folder, a doit task and a word on a command line. The longest file name made of names is a layout's
# lock, `layout.<recipe>:<layout>`: it has at most 208 characters, and file systems allow 255.
MOST_CHARACTERS = 100
NAME = rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MOST_CHARACTERS - 1}}}"
NAME_OF_ANY_LENGTH = "[A-Za-z0-9][A-Za-z0-9_.-]*"
NAME_FIX = "use letters, digits, '_', '.' and '-', and begin with a letter or digit"
SHA256 = "[0-9a-f]{64}"

MOST_NAME_BYTES = 255


def _in_words(pattern: str, fact: str, fix: str) -> BeforeValidator:
    """Return a validator that tells a text that does not match in words: pydantic would quote the pattern."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch(pattern, value):
            raise mistake(fact, fix, kind="pattern")
        return value

    return BeforeValidator(check)


def _check_path(path: str) -> str:
    if "\0" in path:
        raise mistake("must be a path, and no path has a NUL character", "remove the NUL character")
    longest = max(len(part.encode(errors="surrogatepass")) for part in path.split("/"))
    if longest > MOST_NAME_BYTES:
        raise mistake(f"has a name of {longest} bytes, file systems allow {MOST_NAME_BYTES}", "use a shorter name")
    return path


Name = Annotated[
    str,
    StringConstraints(pattern=f"^{NAME}$", max_length=MOST_CHARACTERS),
    _in_words(NAME_OF_ANY_LENGTH, "this name is not valid", NAME_FIX),
]
Sha256 = Annotated[
    str,
    StringConstraints(pattern=f"^{SHA256}$"),
    _in_words(SHA256, "must be 64 hexadecimal digits, 0-9 and a-f", "write what sha256sum prints, or leave it out"),
]
About = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MOST_CHARACTERS, pattern=r"^[^\n\r]*$"),
    _in_words(r"[^\n\r]*", "must be one line", "write it in one line"),
]
PathText = Annotated[str, AfterValidator(_check_path)]


class Declared(BaseModel):
    """A mapping of a YAML file: frozen, with values of JSON's types and no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(Declared):
    """Input from outside: a file, a folder, a URL, or a file of a Hugging Face repository.

    A recipe contains no login: that of a URL's host is in `~/.netrc`, that of the hub is its token.
    """

    file: PathText | None = None
    """Path of a file, relative to this YAML file. Beside `hf`, the name of the file in the repository."""
    folder: PathText | None = None
    """Path of a folder, relative to this YAML file."""
    url: str | None = None
    """Address of a file: http or https."""
    hf: str | None = None
    """Repository on the Hugging Face hub with a revision, `owner/name@revision`. Name its file with `file`."""
    sha256: Sha256 | None = None
    """Pin of the bytes of the file; for a folder, its content digest. Without it, the lock file pins on first use."""
    hint: str | None = None
    """How to get the source. An error about it ends with this text."""
    trust: bool = False
    """Let this checkpoint name classes beyond those that are known to be harmless."""
    optional: bool = False
    """If the file or folder is not there, skip the targets that need it."""

    @property
    def is_local(self) -> bool:
        """Whether the source is a file or folder of this machine, so that nothing has to be fetched."""
        return self.hf is None and self.url is None

    @model_validator(mode="after")
    def _check_kind(self) -> Source:
        kinds = [kind for kind in ("file", "folder", "url") if getattr(self, kind) is not None]
        extra = kinds if self.hf is None else ["hf", *(kind for kind in kinds if kind != "file")]
        if len(extra) > 1:
            both = "both " if len(extra) == 2 else ""
            raise mistake(f"has {both}{in_series(extra)}", "keep one")
        if not extra:
            fact = "needs one of 'file', 'folder', 'url', or 'hf' with 'file'"
            raise mistake(fact, "add one, for example 'file: model.nemo'")
        if self.hf is not None:
            if not re.fullmatch(r"[\w.-]+/[\w.-]+@[\w.-]+", self.hf, re.ASCII):
                fix = "write for example 'hf: nvidia/parakeet-tdt-0.6b-v3@main'"
                raise mistake("'hf' must read 'owner/name@revision'", fix)
            if self.file is None:
                fact = "'hf' needs 'file', the file's name in that repository"
                raise mistake(fact, "add it, for example 'file: parakeet-tdt-0.6b-v3.nemo'")
            if not _is_path_in_repository(self.file):
                raise mistake("'file' must be a path inside the repository", "write it like 'folder/name'")
        if self.url is not None and (fault := url_fault(self.url)):
            fix = LOGIN_FIX if fault == LOGIN_FAULT else "write for example 'url: https://example.org/model.nemo'"
            raise mistake(f"'url' {fault}", fix)
        if self.optional and not self.is_local:
            raise mistake("'optional' is for a file or folder of this machine", "remove 'optional'")
        for kind in ("file", "folder"):
            if self.hf is None and "://" in (getattr(self, kind) or ""):
                raise mistake(f"'{kind}' is a path, and this is a web address", "use 'url'")
        return self


def _is_path_in_repository(name: str) -> bool:
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts)


class Resources(Declared):
    """Memory and time of a target's step: an unattended build must end."""

    memory_gib: float | None = Field(default=None, gt=0, le=1e6)
    """Memory that the step needs. Without it, the largest use in earlier runs counts."""
    minutes: float | None = Field(default=None, gt=0, le=1e6)
    """The step is stopped after this time; 720 by default."""
    silent_minutes: float | None = Field(default=None, gt=0, le=1e6)
    """The step is stopped after this time without progress; 60 by default."""


class Target(Declared):
    """A step, its inputs and its params."""

    step: str
    """Name of a step: a file in `artifacts/steps/`, or in the folder `steps/` of the project."""
    about: About | None = None
    """What the target is, in a few words, for `doit list`. Without it, the first line of the step's docstring."""
    inputs: dict[str, str] = {}
    """A source, target or layout for each input of the step. One of the input's own name need not be written."""
    params: dict[str, Any] = {}
    """Params of the step that differ from their defaults."""
    resources: Resources = Resources()
    """Memory and time of the step."""


class Recipe(Declared):
    """One checkpoint and its artifacts."""

    extends: str | None = None
    """A recipe to start from: a YAML file, relative to this one, or a family such as `artifacts/parakeet-tdt`."""
    default: Annotated[list[str], Field(min_length=1)] | None = None
    """Targets and layouts that the recipe's name means, also by patterns. Without it, all of them."""
    sources: dict[Name, Source] = {}
    """Inputs from outside."""
    targets: dict[Name, Target] = {}
    """Artifacts. Each is in `cache/<recipe>/<target>/` when it is built."""
    layouts: dict[Name, Target] = {}
    """Targets whose result is also copied to `dist/<recipe>/<layout>/`, for a consumer."""
    resources: Resources = Resources()
    """Defaults for each target. The default memory counts for targets that were not built before."""

    @model_validator(mode="after")
    def _check_targets(self) -> Recipe:
        if not self.targets and not self.layouts:
            raise mistake("a recipe needs a target or a layout", "add one, for example 'targets: {NAME: {step: STEP}}'")
        return self
