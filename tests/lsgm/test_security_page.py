"""The page on security names every bound of files as it is in the code, and the kinds of code that run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from lsgm.discovery import offers
from lsgm.files import limits
from lsgm.files.limits import Limit
from lsgm_reports.reproduce.allowed import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
PACKAGES = ("lsgm", "eval/lsgm_eval", "baselines/lsgm_baselines", "reports/lsgm_reports")


def bounds() -> Iterator[tuple[Limit, str]]:
    """Yield every bound that a module sets, with what is written below it."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            body = ast.parse(source).body if "Limit(" in source else []
            for node, after in pairwise([*body, ast.Pass()]):
                made = node.value if isinstance(node, ast.Assign) else None
                if isinstance(made, ast.Call) and isinstance(made.func, ast.Name) and made.func.id == "Limit":
                    limit = eval(compile(ast.Expression(made), str(path), "eval"), dict(vars(limits)))
                    held = after.value if isinstance(after, ast.Expr) else None
                    yield limit, str(held.value) if isinstance(held, ast.Constant) else ""


def size(limit: Limit) -> str:
    """Return a bound as the page writes it."""
    if limit.unit == "bytes":
        power, name = (2**30, "GiB") if limit.default % 2**30 == 0 else (2**20, "MiB")
        assert limit.default % power == 0
        return f"{limit.default // power} {name}"
    return f"{limit.default:,} {limit.unit}"


def table() -> str:
    """Return the page's table of bounds."""
    rows = [
        f"| `{limit.variable}` | {size(limit)} | {' '.join(what.split()).split('. ')[0].rstrip('.')} |"
        for limit, what in sorted(bounds(), key=lambda bound: bound[0].variable)
    ]
    return "\n".join(["| variable | at most | of |", "|---|---|---|", *rows])


def test_the_table_of_bounds_is_that_of_the_code() -> None:
    written = PAGE[PAGE.index("| variable | at most | of |") :].split("\n\n")[0]
    assert written == table()


def test_every_bound_of_files_is_in_the_table() -> None:
    known = {value.variable for value in vars(limits).values() if isinstance(value, Limit)}
    assert known <= set(re.findall(r"^\| `(LSGM_\w+)` \|", PAGE, re.MULTILINE))
    assert len(known) > 20


@pytest.mark.parametrize("group", sorted({"lsgm.commands", "lsgm.kinds", "lsgm.importers", "lsgm.bench"}))
def test_the_page_names_the_groups_of_plug_ins_that_run(group: str) -> None:
    assert offers(group)
    assert f"`{group}`" in PAGE


def test_the_page_names_the_commands_that_reproduce_may_run() -> None:
    said = re.search(r"the measuring commands \(([^)]*)\)", " ".join(PAGE.split()))
    assert said is not None
    assert set(re.findall(r"`(\w+)`", said.group(1))) == set(OPTIONS)
