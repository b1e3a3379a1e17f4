"""Mutated files of all kinds: a command ends in a result or in one sentence, and does no harm.

`tox -e fuzz` runs as many as one likes. The same seeds give the same inputs; one that fails is kept below the
test's temporary folder, and the message says what came of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.kinds import KINDS

EACH = 4
"""Inputs of a kind, and one of a dear kind: an input costs a sixth of a second."""
SEED = 17
PENDING: tuple[str, ...] = ()
"""Kinds whose readers do not hold yet: each leaves this list with its mend."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="every input runs in a forked process")


def test_whatever_a_file_holds_a_command_ends_in_a_result_or_in_one_sentence(tmp_path: Path) -> None:
    """All kinds in one process: valid files are written once, and what commands import is imported once."""
    names = [name for name in KINDS if name not in PENDING]
    words = [sys.executable, "-m", "fuzz", "--each", str(EACH), "--seed", str(SEED)]
    words += [word for name in names for word in ("--kind", name)]
    words += ["--keep", str(tmp_path / "failures"), "--json", str(tmp_path / "found.jsonl")]
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join([str(tests), *filter(None, sys.path)])
    done = subprocess.run(
        words,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert {each["kind"] for each in found} == set(names)
