"""A pytest plug-in: ``pytest --lsgm-checkpoint DIR`` makes a test of every golden row.

    pytest --lsgm-checkpoint runs/mine --lsgm-golden mine.json
    pytest --lsgm-checkpoint runs/new --lsgm-golden mine.json --lsgm-retrained

Measuring happens once, when the first of the tests runs: the workers of pytest-xdist take turns at a file
that the first of them fills. Without its option the plug-in does nothing, and imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = "lsgm_gate_folder"
"""What workers are told by the process that started them: where verdicts are shared."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, in a group of their own."""
    group = parser.getgroup("lsgm", "golden rows of lsgm-bench")
    group.addoption(
        "--lsgm-checkpoint",
        metavar="DIR",
        help="a checkpoint whose golden rows are tests: a run directory or what `lsgm gate` takes",
    )
    group.addoption(
        "--lsgm-golden",
        metavar="FILE",
        help="its golden rows (default: reports/golden/NAME.json, NAME being the checkpoint's folder)",
    )
    group.addoption(
        "--lsgm-task", metavar="FILE", default="", help="the TOML file of golden rows of a task of one's own"
    )
    group.addoption(
        "--lsgm-retrained",
        action="store_true",
        help="the checkpoint was trained anew: leave replays out, fail where an estimate is worse",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let the gate answer pytest's further questions where it is asked for."""
    options = config.option
    if options.lsgm_checkpoint:
        config.pluginmanager.register(_Gate(config), "lsgm-gate-session")
    elif options.lsgm_golden or options.lsgm_retrained or options.lsgm_task:
        raise pytest.UsageError("--lsgm-golden, --lsgm-task and --lsgm-retrained need --lsgm-checkpoint DIR")


class _Gate:
    """The gate of one pytest session, or of one of its workers."""

    def __init__(self, config: pytest.Config) -> None:
        from lsgm_eval.gate.golden import default_golden

        option = self.option = config.option
        with _usage_errors():
            self.golden = Path(option.lsgm_golden or default_golden(Path(option.lsgm_checkpoint)))
        given = getattr(config, "workerinput", {}).get(FOLDER)
        self.owner = given is None
        self.folder = Path(given or tempfile.mkdtemp(prefix="lsgm-gate-"))
        self._verdicts: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of pytest-xdist where verdicts are shared."""
        node.workerinput[FOLDER] = str(self.folder)

    def pytest_unconfigure(self) -> None:
        """Remove the shared folder once all workers are done."""
        if self.owner:
            shutil.rmtree(self.folder, ignore_errors=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add a test for every golden row, before -k and -m choose."""
        from lsgm.files.names import shown
        from lsgm_eval.gate.golden import EstimateRow, read_golden

        with _usage_errors():
            rows = read_golden(self.golden).rows
        gate = GateFile.from_parent(session, path=self.golden.absolute())
        items += [
            GateItem.from_parent(gate, name=shown(name), row=name, gate=self)
            for name, row in rows.items()
            if isinstance(row, EstimateRow) or not self.option.lsgm_retrained
        ]

    def verdict(self, row: str) -> dict[str, Any]:
        """Return the verdict of a row; whoever asks first of all workers measures, the others wait."""
        from lsgm.files.text import read_table
        from lsgm.files.write import atomic_path, exclusive

        if not self._verdicts:
            # In a folder that this session alone may open; whole or not there, if a worker is killed.
            shared = self.folder / "verdicts.json"
            with exclusive(shared):
                if not shared.exists():
                    with atomic_path(shared) as temporary:
                        temporary.write_text(json.dumps(self._measured()), encoding="utf-8")
            self._verdicts = read_table(shared)
        if error := self._verdicts.get(""):
            raise GateError(str(error["sentence"]))
        return self._verdicts[row]

    def _measured(self) -> dict[str, dict[str, Any]]:
        """Return verdicts by rows, or under an empty name the reason why there are none."""
        from dataclasses import asdict

        from lsgm.errors import UserError
        from lsgm.files.names import shown
        from lsgm_eval.gate.verdict import check

        asked = self.option
        how = {"task": asked.lsgm_task, "retrained": asked.lsgm_retrained}
        try:
            outcome = check(asked.lsgm_checkpoint, self.golden, **how)
        except UserError as error:
            return {"": {"sentence": shown(str(error))}}
        # As they print: JSON has no word for a byte of a path that is no UTF-8.
        return {each.row: asdict(each) | {"sentence": shown(each.sentence)} for each in outcome.verdicts}


@contextlib.contextmanager
def _usage_errors() -> Iterator[None]:
    """Let an error for the user end the session in a line."""
    from lsgm.errors import UserError
    from lsgm.files.names import shown

    try:
        yield
    except UserError as error:
        raise pytest.UsageError(shown(str(error))) from None


class GateError(Exception):
    """A golden row that does not stand, or rows that cannot be checked; the message is for the reader."""


class GateFile(pytest.File):
    """The golden file as the parent of its rows' tests."""

    def collect(self) -> list[pytest.Item]:
        """Return nothing: the rows are added to the session at once."""
        return []


class GateItem(pytest.Item):
    """One golden row as a test; its name is the row's, as it prints."""

    def __init__(self, *, row: str, gate: _Gate, **others: Any) -> None:
        super().__init__(**others)
        self.row, self.gate = row, gate

    def runtest(self) -> None:
        """Raise GateError with the row's sentence where it does not stand."""
        verdict = self.gate.verdict(self.row)
        sentence = str(verdict["sentence"])
        self.add_report_section("call", "lsgm gate", sentence)
        if not verdict["passed"]:
            raise GateError(sentence)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return the sentence alone for what the gate says, and a traceback for everything else."""
        if isinstance(excinfo.value, GateError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return where the row stands, for the report's heading."""
        return self.path, 0, f"golden row {self.name}"
