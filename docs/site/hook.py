"""What the site adds to the pages, which are written to be read in the repository as they are.

The address of the repository comes from `[project.urls]` of pyproject.toml. Links that lead out of docs/
become links to the repository, but for those to files that are pages of the site as well.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the repository's root that are pages, and what these are called."""
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take the repository's address from where the package has it."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config.repo_url = about["urls"]["Source"]
    config.repo_name = about["name"]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie at the root of the repository."""
    for source, name in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Turn links between files of the repository into links of the site."""
    named = {site: source for source, site in PAGES.items()}
    name = page.file.src_uri
    source = named.get(name, f"docs/{name}")

    def turned(link: re.Match[str]) -> str:
        before, target, after = link.groups()
        return f"{before}{site_link(source, name, target, str(config.repo_url))}{after}"

    # What stands between backticks is shown as it is.
    return "".join(
        part if index % 2 else LINK.sub(turned, part) for index, part in enumerate(CODE.split(markdown))
    )


def site_link(source: str, page: str, target: str, repository: str) -> str:
    """Return where a link of a file leads on the site.

    Args:
        source: The file in the repository, ``docs/cost.md``.
        page: The page on the site, ``cost.md``.
        target: As the file has it: relative to the file, or an address.
        repository: The address of the repository.
    """
    target = re.sub(rf"^{re.escape(repository)}/(?:blob|tree)/main/", "/", target)
    if re.match(r"[a-z]+:|#", target):
        return target
    path, mark, anchor = target.partition("#")
    inside = path.lstrip("/") if path.startswith("/") else posixpath.join(posixpath.dirname(source), path)
    inside = posixpath.normpath(inside)
    if inside in PAGES or inside.startswith("docs/"):
        goal = PAGES.get(inside, inside.removeprefix("docs/"))
        return posixpath.relpath(goal, posixpath.dirname(page) or ".") + mark + anchor
    kind = "tree" if (ROOT / inside).is_dir() else "blob"
    return f"{repository}/{kind}/main/{inside}{mark}{anchor}"
