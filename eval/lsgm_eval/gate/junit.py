"""Verdicts as JUnit XML, which continuous integration shows test by test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from lsgm.files.shown import shown
from lsgm.files.write import atomic_path
from lsgm_eval.gate.verdict import Verdict

__all__ = ["write_junit"]


def write_junit(path: Path, suite: str, verdicts: Sequence[Verdict]) -> None:
    """Write one test case for every verdict, atomically; a failing row's sentence is its message.

    A link at ``path`` is replaced, not followed. Raises DataError where the file cannot be written.
    """
    suite = shown(suite)
    failing = sum(not verdict.passed for verdict in verdicts)
    root = ElementTree.Element(
        "testsuite", name=suite, tests=str(len(verdicts)), failures=str(failing), errors="0"
    )
    for verdict in verdicts:
        case = ElementTree.SubElement(root, "testcase", classname=suite, name=shown(verdict.row))
        if not verdict.passed:
            ElementTree.SubElement(case, "failure", message=shown(verdict.sentence))
        else:
            ElementTree.SubElement(case, "system-out").text = shown(verdict.sentence)
    with atomic_path(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
