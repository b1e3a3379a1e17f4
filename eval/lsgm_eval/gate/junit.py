"""Verdicts as JUnit XML, which continuous integration shows test by test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from lsgm_eval.gate.verdict import Verdict

__all__ = ["write_junit"]


def write_junit(path: Path, suite: str, verdicts: Sequence[Verdict]) -> None:
    """Write one test case for every verdict, atomically; a failing row's sentence is its message."""
    from lsgm.files.write import atomic_path

    failing = sum(not verdict.passed for verdict in verdicts)
    root = ElementTree.Element(
        "testsuite", name=suite, tests=str(len(verdicts)), failures=str(failing), errors="0"
    )
    for verdict in verdicts:
        case = ElementTree.SubElement(root, "testcase", classname=suite, name=verdict.row)
        if not verdict.passed:
            ElementTree.SubElement(case, "failure", message=verdict.sentence)
        else:
            ElementTree.SubElement(case, "system-out").text = verdict.sentence
    with atomic_path(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
