"""docs/environment.md names every environment variable that the code reads or sets, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from lsgm.logs import LEVELS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "environment.md"

WRITTEN_SO = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+_?|RANK|TERM|COLUMNS|MPLCONFIGDIR|PYTHONUNBUFFERED")
NO_VARIABLES = re.compile(r"O_[A-Z]+|SC_[A-Z_]+|F8_\w+|(CPU|GPU)_RATE|RUN_(A|B|OR_DIR)|TCP_KEEP\w+")
"""Flags, names of types and of constants, and what stands for an argument in a line of usage."""
READ_BY_OTHERS = {"HF_TOKEN", "HF_ENDPOINT"}
"""By huggingface_hub."""
OF_TESTS = {"LSGM_SHARED", "LSGM_WRITE_GOLDEN", "LSGM_CHROME"}


def in_code() -> set[str]:
    """Return the texts of the code that are written as variables are."""
    found = set()
    for home in ("lsgm", "eval", "baselines", "reports"):
        for path in (ROOT / home).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    return {text for text in found if WRITTEN_SO.fullmatch(text) and not NO_VARIABLES.fullmatch(text)}


def test_the_page_on_the_environment_names_every_variable_of_the_code() -> None:
    named = set(re.findall(r"`([A-Z][A-Z_0-9]+)`", PAGE.read_text(encoding="utf-8")))
    assert named - READ_BY_OTHERS - OF_TESTS == in_code()
    assert named >= READ_BY_OTHERS | OF_TESTS


def test_the_levels_of_the_page_are_those_of_the_code() -> None:
    (line,) = (line for line in PAGE.read_text(encoding="utf-8").splitlines() if "`LSGM_LOG`" in line)
    assert set(re.findall(r"`([a-z]+)`", line)) == set(LEVELS)
