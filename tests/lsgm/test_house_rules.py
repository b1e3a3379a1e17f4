"""What is beside the code agrees with it: hosted checks, hooks, forms, and the page of the package index."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: pip install '.[test]'")

ROOT = Path(__file__).resolve().parents[2]
ABOUT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = ABOUT["project"]
ADDRESS = PROJECT["urls"]["Source"]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints" / "ci.txt").read_text(), re.MULTILINE))
PYTHONS = [
    found[1] for each in PROJECT["classifiers"] if (found := re.fullmatch(r".* :: Python :: (3\.\d+)", each))
]


def parsed(path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    return found


def tox() -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.read(ROOT / "tox.ini", encoding="utf-8")
    return found


def test_the_hosted_checks_run_on_the_pythons_that_the_package_names() -> None:
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    matrix = parsed(".github/workflows/ci.yml")["jobs"]["tox"]["strategy"]["matrix"]
    assert matrix["python"] == PYTHONS
    assert {"ubuntu-latest", "macos-latest"} <= set(matrix["os"])
    assert {each["python"] for each in matrix["include"]} <= set(PYTHONS)


def test_the_hosted_checks_run_what_tox_has_with_no_more_rights_than_reading() -> None:
    flow = parsed(".github/workflows/ci.yml")
    assert flow["permissions"] == {"contents": "read"}
    matrix = flow["jobs"]["tox"]["strategy"]["matrix"]
    named = {*matrix["env"], *(each["env"] for each in matrix["include"])}
    assert {f"testenv:{name}" for name in named} <= set(tox().sections())
    # What `tox` alone runs, all of it.
    assert {name.strip() for name in tox()["tox"]["env_list"].split(",")} <= named
    for job in flow["jobs"].values():
        assert "permissions" not in job
        assert 0 < job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/none@v0"))
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False
    (line,) = (step["run"] for step in flow["jobs"]["windows"]["steps"] if "pytest" in step.get("run", ""))
    assert all((ROOT / word).exists() for word in re.findall(r"tests/\S+", line))


def test_hooks_have_the_versions_that_the_checks_have() -> None:
    hooks = parsed(".pre-commit-config.yaml")["repos"]
    (ruff,) = (repo for repo in hooks if repo["repo"].endswith("ruff-pre-commit"))
    assert ruff["rev"] == f"v{PINS['ruff']}"
    (local,) = (repo for repo in hooks if repo["repo"] == "local")
    lines = [line.strip() for line in tox()["testenv:lint"]["commands"].splitlines()]
    assert {hook["entry"] for hook in local["hooks"]} <= {"mypy", *lines}
    assert {hook["id"] for repo in hooks for hook in repo["hooks"]} >= {"mypy", "ruff-format", "check-toml"}


@pytest.mark.parametrize("form", ["bug", "number", "wish"])
def test_forms_ask_for_something(form: str) -> None:
    asked = parsed(f".github/ISSUE_TEMPLATE/{form}.yml")
    assert asked["name"]
    assert asked["description"]
    fields = [field for field in asked["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_the_policy_on_security_leads_to_the_page() -> None:
    assert "(docs/security.md)" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def shown_by_the_index() -> str:
    """Return README.md as hatch-fancy-pypi-readme makes it, by the same function of `re`."""
    hook = ABOUT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    assert [part["path"] for part in hook["fragments"]] == ["README.md"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for each in hook["substitutions"]:
        text = re.sub(each["pattern"], each["replacement"], text)
    return text


def test_links_of_the_page_of_the_index_are_absolute_and_lead_to_files_of_this_repository() -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", shown_by_the_index())
    assert len(targets) > 20
    assert all(target.startswith(("https://", "#")) for target in targets)
    raw = ADDRESS.replace("https://github.com/", "https://raw.githubusercontent.com/")
    places = [re.match(rf"(?:{ADDRESS}/blob|{raw})/main/([^#]+)", target) for target in targets]
    files = [place[1] for place in places if place]
    assert len(files) > 20
    assert all((ROOT / file).exists() for file in files)


def test_the_projects_address_stands_in_one_file() -> None:
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} <= set(PROJECT["urls"])
    assert all(url.startswith(ADDRESS) for url in PROJECT["urls"].values())
    pages = [
        ROOT / "README.md",
        ROOT / "mkdocs.yml",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
    assert not [page for page in pages if ADDRESS in page.read_text(encoding="utf-8")]
