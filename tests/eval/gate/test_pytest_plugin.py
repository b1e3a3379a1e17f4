"""The plug-in: golden rows as tests, silent without its option, one measurement for all workers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from eval.gate.golden_rows import GOLDEN

from lsgm_eval.gate.golden import write_golden

pytest_plugins = ["pytester"]

CONFTEST = """
import sys, types
from dataclasses import dataclass
from pathlib import Path
from lsgm.errors import UserError
from lsgm_eval.gate.golden import read_golden

@dataclass
class Verdict:
    row: str
    passed: bool
    sentence: str

def check(checkpoint, golden, *, task, retrained):
    with Path("calls.txt").open("a") as file:
        print(checkpoint, task, retrained, file=file)
    if checkpoint == "other":
        raise UserError("their task is bars@1 and here it is bars@2")
    rows = read_golden(golden).rows
    verdicts = [Verdict(name, name != "frechet_glyphs", f"{name} was looked at") for name in rows]
    return types.SimpleNamespace(verdicts=verdicts)

sys.modules["lsgm_eval.gate.verdict"] = types.SimpleNamespace(check=check)
"""
"""In the place of what measures: it takes a second to import and is tested elsewhere."""

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def gate(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest with the plug-in alone, on golden rows of which the distance does not stand."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(CONFTEST)
    write_golden(pytester.path / "reports" / "golden" / "mine.json", GOLDEN)

    def call(*words: str, xdist: bool = False, apart: bool = False) -> pytest.RunResult:
        plugins = ["-p", "lsgm_eval.gate.pytest_plugin", *(("-p", "xdist.plugin") if xdist else ())]
        start = pytester.runpytest_subprocess if apart or xdist else pytester.runpytest_inprocess
        return start(*plugins, "-p", "no:cacheprovider", *words)

    return call


def calls(pytester: pytest.Pytester) -> list[str]:
    file = pytester.path / "calls.txt"
    return file.read_text().splitlines() if file.exists() else []


def test_every_golden_row_is_a_test_with_its_name(gate: Run, pytester: pytest.Pytester) -> None:
    found = gate("--lsgm-checkpoint", "runs/mine", "-v")
    found.assert_outcomes(passed=3, failed=1)
    for row, outcome in zip(GOLDEN.rows, ("PASSED", "PASSED", "PASSED", "FAILED"), strict=True):
        found.stdout.fnmatch_lines([f"*mine.json::{row} {outcome}*"])
    assert calls(pytester) == ["runs/mine  False"]
    assert found.ret == 1
    found.stdout.fnmatch_lines(["*golden row frechet_glyphs*", "frechet_glyphs was looked at"])
    found.stdout.no_fnmatch_line("*Traceback*")


def test_it_stands_beside_other_tests_and_can_be_chosen_from(gate: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_mine(): pass")
    gate("--lsgm-checkpoint", "mine", "-k", "nelbo_nats or test_mine").assert_outcomes(passed=2, deselected=3)


def test_without_its_option_nothing_is_added_and_nothing_heavy_imported(
    gate: Run, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("")
    pytester.makepyfile(
        "import sys\ndef test_mine(): assert not {'torch', 'numpy', 'scipy'} & sys.modules.keys()"
    )
    gate(apart=True).assert_outcomes(passed=1)


def test_importing_the_plug_in_imports_pytest_alone() -> None:
    code = "import sys, lsgm_eval.gate.pytest_plugin; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "scipy", "lsgm"} & set(eval(done.stdout))


def test_workers_share_one_measurement(gate: Run, pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    found = gate("--lsgm-checkpoint", "mine", "-n", "2", xdist=True)
    found.assert_outcomes(passed=3, failed=1)
    assert len(calls(pytester)) == 1


def test_options_are_handed_on_and_a_model_trained_anew_has_its_estimates_tested(
    gate: Run, pytester: pytest.Pytester
) -> None:
    write_golden(pytester.path / "g.json", GOLDEN)
    others = ("--lsgm-golden", "g.json", "--lsgm-task", "t.toml", "--lsgm-retrained")
    gate("--lsgm-checkpoint", "x", *others).assert_outcomes(passed=1, failed=1)
    assert calls(pytester) == ["x t.toml True"]


def test_rows_that_cannot_be_checked_all_fail_for_the_reason_given_once_measured(
    gate: Run, pytester: pytest.Pytester
) -> None:
    golden = str(Path("reports") / "golden" / "mine.json")
    found = gate("--lsgm-checkpoint", "other", "--lsgm-golden", golden)
    found.assert_outcomes(failed=4)
    found.stdout.fnmatch_lines(["their task is bars@1 and here it is bars@2"])
    assert len(calls(pytester)) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--lsgm-checkpoint", "absent"], "*reports/golden/absent.json cannot be read*"),
        (["--lsgm-golden", "g.json"], "*need --lsgm-checkpoint DIR*"),
    ],
)
def test_a_mistake_is_a_usage_error_of_one_sentence(gate: Run, words: list[str], says: str) -> None:
    found = gate(*words)
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    found.stderr.fnmatch_lines([says])
