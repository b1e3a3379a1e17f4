"""The site: every page has one place in it, and links of the repository lead somewhere on it."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
REPOSITORY = "https://example.org/owner/name"


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs" / "site" / "hook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_page_stands_in_the_navigation_once() -> None:
    listed = re.findall(r"^ +- .*?: (\S+\.(?:md|ipynb))$", SETTINGS, flags=re.MULTILINE)
    docs = ROOT / "docs"
    pages = [
        path.relative_to(docs).as_posix() for suffix in ("md", "ipynb") for path in docs.rglob(f"*.{suffix}")
    ]
    assert sorted(listed) == sorted([*pages, "changes.md", "contributing.md"])


@pytest.mark.parametrize(
    ("source", "page", "target", "leads_to"),
    [
        (
            "docs/howto/extend.md",
            "howto/extend.md",
            "../../lsgm/sde.py",
            f"{REPOSITORY}/blob/main/lsgm/sde.py",
        ),
        ("docs/a.md", "a.md", "../tests/lsgm", f"{REPOSITORY}/tree/main/tests/lsgm"),
        ("docs/a.md", "a.md", "cost.md#samplers", "cost.md#samplers"),
        ("docs/howto/a.md", "howto/a.md", "../cost.md", "../cost.md"),
        (
            "docs/howto/a.md",
            "howto/a.md",
            "../../CONTRIBUTING.md#how-to-add",
            "../contributing.md#how-to-add",
        ),
        ("CHANGELOG.md", "changes.md", "docs/results/mnist.md", "results/mnist.md"),
        ("CHANGELOG.md", "changes.md", f"{REPOSITORY}/blob/main/docs/cost.md", "cost.md"),
        ("docs/a.md", "a.md", "https://arxiv.org/abs/2106.05931", "https://arxiv.org/abs/2106.05931"),
        ("docs/a.md", "a.md", "#below", "#below"),
    ],
)
def test_links_of_the_repository_are_links_of_the_site(
    hook: ModuleType, source: str, page: str, target: str, leads_to: str
) -> None:
    assert hook.site_link(source, page, target, REPOSITORY) == leads_to


@pytest.mark.parametrize("package", ["lsgm", "lsgm_eval", "lsgm_reports", "lsgm.results"])
def test_every_public_name_stands_in_the_reference(package: str) -> None:
    pages = (ROOT / "docs" / "api").glob("*.md")
    listed = {
        name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text("utf-8"), re.MULTILINE)
    }
    module = importlib.import_module(package)
    for name in set(module.__all__) - {"__version__"}:
        offered = getattr(module, name)
        assert {f"{package}.{name}", f"{offered.__module__}.{name}"} & listed, name
