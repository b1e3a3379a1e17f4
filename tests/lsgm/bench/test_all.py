"""All benchmarks in one run: what is kept, what is stopped, what the page says; and the table of targets."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lsgm.bench import all as every
from lsgm.bench.all import PARTS, TESTS, Part, sizes
from lsgm.bench.options import BENCHMARKS
from lsgm.bench.targets import TARGETS, towards, verdicts
from lsgm.cli import main
from lsgm.options import parse
from lsgm.recipes import find_recipes
from lsgm_eval.bench.options import FidBenchOptions, ProcessesBenchOptions

OF_OTHERS = {"fid": FidBenchOptions, "processes": ProcessesBenchOptions}
WRITES = """
import json, pathlib
page = pathlib.Path({page!r})
page.write_text("# Costs\\n\\n## More\\n")
page.with_suffix(".jsonl").write_text(json.dumps({row!r}) + "\\n")
"""
HANGS = (
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
)

Bench = Callable[..., tuple[int, str]]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Bench:
    """Return what runs all parts, of which there are two, by scripts of a line instead of benchmarks."""
    monkeypatch.setattr(
        every, "PARTS", (Part("train", "", "", "train a", 1), Part("fold", "", "", "fold", 1))
    )

    def run(*words: object, **scripts: str) -> tuple[int, str]:
        def command(part: Part, words: list[str], place: Any, device: torch.device) -> tuple[list[str], str]:
            row = {"bench": part.name, **towards("joint-step", 1.5, "a tiny recipe", "narrow")}
            usual = WRITES.format(page=str(place.file(part.name, ".md")), row=row)
            return [sys.executable, "-c", scripts.get(part.name, usual)], ""

        monkeypatch.setattr(every, "_command", command)
        capsys.readouterr()
        status = main(["bench", "all", "--device", "cpu", "--out", str(tmp_path / "all"), *map(str, words)])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def test_one_page_has_the_parts_the_targets_and_what_each_part_wrote(bench: Bench, tmp_path: Path) -> None:
    status, said = bench()
    assert status == 0
    page = (tmp_path / "all" / "all.md").read_text()
    assert page.strip() in said
    assert "| train | done |" in page
    assert "`lsgm bench train a`" in page
    assert page.count("## Costs\n\n### More") == 2
    assert "| ≥ 1.6 × | 1.5 × | missed: narrow |" in page
    rows = [json.loads(line) for line in (tmp_path / "all" / "all.jsonl").read_text().splitlines()]
    assert [row["bench"] for row in rows] == ["train", "fold"]


def test_a_second_call_goes_on_with_what_failed(bench: Bench, tmp_path: Path) -> None:
    status, said = bench(fold="raise SystemExit('no room for it')")
    assert status == 1
    assert "fold failed" in said
    assert "| fold | failed: no room for it |" in said
    assert "| train | done |" in said
    status, said = bench(train="raise SystemExit('not again')")
    assert status == 0
    assert "train: kept" in said
    assert "| fold | done |" in said


def test_a_part_that_overruns_is_stopped_with_its_children(bench: Bench) -> None:
    began = time.monotonic()
    status, said = bench("--budget", 6.0, "--only", "train", train=f"{HANGS}; time.sleep(60)")
    assert status == 1
    assert time.monotonic() - began < 20
    assert "train overran its 1 s" in said
    assert "| train | overran: stopped after 1 s |" in said


def test_another_revision_is_said_and_another_device_measured_anew(bench: Bench, tmp_path: Path) -> None:
    bench()
    path = tmp_path / "all" / "train.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"git_revision": "0123456789abcdef"}))
    _, said = bench()
    assert "measured by others: train at 0123456789ab; --anew measures all" in said
    assert "train: kept" in said
    path.write_text(json.dumps(record | {"device": "another GPU"}))
    _, said = bench()
    assert "train was measured on another GPU" in said
    assert "train: kept" not in said


def test_a_damaged_record_is_measured_anew(bench: Bench, tmp_path: Path) -> None:
    bench()
    (tmp_path / "all" / "train.json").write_text('{"name": 3')
    status, said = bench()
    assert status == 0
    assert "train: kept" not in said


def test_a_part_that_is_not_there_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = bench("--only", "trian")
    assert status == 2
    assert "did you mean 'train'" in said
    monkeypatch.setattr(every, "PARTS", (Part("ways", "train", "", "", 1),))
    status, said = bench("--only", "ways")
    assert status == 2
    assert "none of ways is measured on a cpu" in said


def test_outcomes_of_tests_are_rows_and_failures_are_told(tmp_path: Path) -> None:
    log = tmp_path / "tests.log"
    log.write_text(
        "collecting ... collected 4 items\n\n"
        "tests/cuda/test_step.py::test_a[cuda-bfloat16, compiled] PASSED          [ 25%]\n"
        "tests/cuda/test_step.py::test_b[cuda] FAILED  [ 50%]\n"
        "tests/cuda/test_step.py::test_c SKIPPED (not here) [ 75%]\n"
        "tests/cuda/test_step.py::test_d[cuda] \n"
        "FAILED tests/cuda/test_step.py::test_b[cuda] - assert 1 == 2\n"
    )
    rows, page = every._tested(log)
    assert [row["outcome"] for row in rows] == ["passed", "failed", "skipped", "stopped"]
    assert "1 passed, 1 failed, 1 skipped, 1 stopped." in page
    assert "| test_step.py::test_b[cuda] | failed | assert 1 == 2 |" in page
    assert "| test_step.py::test_d[cuda] | stopped |  |" in page
    assert every._tested(tmp_path / "none.log") == ([], "")


@pytest.mark.parametrize("part", [part for part in PARTS if part.name != TESTS], ids=lambda part: part.name)
def test_the_arguments_of_every_part_are_those_of_its_benchmark(part: Part) -> None:
    full, short = sizes(part, torch.device("cuda"), 480.0)
    assert sizes(part, torch.device("cuda"), 100.0) == [short, full]
    for name, *words in (full, short, *sizes(part, torch.device("cpu"), 480.0)):
        kind: Any = {**BENCHMARKS, **OF_OTHERS}[name]
        options = parse(kind, [*words, "--device", "cpu", "--out", "x.md"], prog="bench", description="")
        named = getattr(options, "recipes", "") + "," + getattr(options, "overhead", "")
        assert set(filter(None, named.split(","))) <= set(find_recipes())


def test_a_target_is_met_from_its_side_and_named_where_nothing_was_measured() -> None:
    assert TARGETS["joint-step"].met(1.6)
    assert not TARGETS["adaptive-nll"].met(0.51)
    page = verdicts([towards("sampling-overhead", 0.012, "heun, batch 16")])
    assert "| heun, batch 16 | ≤ 3 % | 1.2 % | met |" in page
    assert page.count("not measured") == len(TARGETS) - 1
    assert "not measured" not in verdicts([], every=False)
    with pytest.raises(KeyError, match="there is no target 'speed'"):
        towards("speed", 1.0, "")
