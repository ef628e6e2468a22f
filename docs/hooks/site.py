"""Pages of the site that are not files in docs/: those of the repository, and the reference.

MkDocs calls `on_files` and `on_page_markdown`. A link to a file of the repository stays a link on the site: to its
page, or to a copy of the file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import reference
from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

# Pages of the repository, and their paths in the site.
PAGES = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "embedded/tiny/README.md": "embedded-tiny.md",
}
COPIES = "repository"
LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository, the reference, and copies of files that pages link to."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text(encoding="utf-8")))
    for uri, text in reference.pages():
        files.append(File.generated(config, uri, content=text))
    copied = {target for page in files.documentation_pages() for target in _linked(page) if site_path(target) is None}
    for target in sorted(copied):
        files.append(File.generated(config, f"{COPIES}/{target}", content=(ROOT / target).read_bytes()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links of a page lead to the pages and copies of the site."""
    here = repository_path(page.file.src_uri)

    def replace(match: re.Match[str]) -> str:
        target = linked_file(here, match[2])
        if target is None:
            return match[0]
        uri = site_path(target) or f"{COPIES}/{target}"
        relative = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
        return f"{match[1]}{relative}{match[3] or ''}{match[4]}"

    return LINK.sub(replace, markdown)


def _linked(page: File) -> Iterator[str]:
    here = repository_path(page.src_uri)
    for match in LINK.finditer(page.content_string):
        target = linked_file(here, match[2])
        if target is not None:
            yield target


def repository_path(uri: str) -> str:
    """Return the path in the repository of a page of the site. A written page has one as if it were in docs/."""
    return next((source for source, page in PAGES.items() if page == uri), f"docs/{uri}")


def linked_file(here: str, link: str) -> str | None:
    """Return the file of the repository that a page links to; of a folder, its README. None where there is none."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
    if (ROOT / target).is_dir():
        target = posixpath.join(target, "README.md")
    return target if (ROOT / target).is_file() else None


def site_path(target: str) -> str | None:
    """Return the path in the site of a file of the repository, if it has one."""
    return target.removeprefix("docs/") if target.startswith("docs/") else PAGES.get(target)
