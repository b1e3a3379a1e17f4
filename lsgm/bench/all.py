"""Every benchmark and the tests of a device in one run: each in a process of its own, within a budget.

A part that is done is kept in the folder, beside what it was measured with; the next call goes on with the
others. The page is written anew after every part.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from lsgm.bench.measuring import Row, describe, machine, table
from lsgm.bench.options import BENCHMARKS, AllBench
from lsgm.bench.targets import verdicts
from lsgm.config import require
from lsgm.devices import pick_device
from lsgm.discovery import offers
from lsgm.errors import did_you_mean
from lsgm.files.write import make_folder, replace_file, writing
from lsgm.options import between_commas
from lsgm.progress import say, warn

TESTS = "tests"
"""The part that is no benchmark: the tests of a device."""


@dataclass(frozen=True)
class Part:
    """A benchmark and its arguments, the words after ``lsgm bench``."""

    name: str
    full: str
    """On a GPU with at least `FULL` seconds for all parts."""
    short: str
    """On a GPU with fewer; none: as with them."""
    cpu: str
    """On one core, a minute at most; none: not on a CPU."""
    share: float
    """Its weight in the budget, of which it gets as much as its share of the weights of all that are left."""


FULL = 300.0
"""Seconds from which a GPU gets the full sizes."""

PARTS = (
    Part(TESTS, "", "", "", 110),
    Part(
        "train",
        "train --recipes cifar10-fid --batch 32 --steps 8 --measure passes,profile",
        "train --recipes cifar10-fid --batch 32 --steps 3 --measure passes,profile",
        "train --recipes mnist-small --width 0.25 --batch 4 --steps 2",
        60,
    ),
    Part(
        "ways",
        "train --recipes cifar10-fid --batch 32 --steps 8 --measure ways",
        "train --recipes cifar10-small --batch 64 --steps 5 --measure ways",
        "",
        110,
    ),
    Part(
        "sample",
        "sample --recipes cifar10-small --batches 16,256 --rounds 3 --overhead cifar10-small",
        "sample --recipes cifar10-small --batches 64 --rounds 3 --overhead cifar10-small --no-compiled",
        "sample --recipes glyphs-small --batches 1,16 --rounds 2 --nfe 4 --overhead glyphs --no-compiled",
        70,
    ),
    Part(
        "nll",
        "nll --batch 64",
        "nll --batch 16 --tols 1e-3,1e-4 --own-tols 1e-3,1e-4,1e-5 --no-isolate",
        "nll --batch 8 --tols 1e-3 --own-tols 1e-3 --probes 1,4 --repeats 1 --truth-tol 1e-7 --no-isolate",
        40,
    ),
    Part(
        "fold",
        "fold --recipes omniglot,cifar10-fid --batch 64",
        "fold --recipes omniglot --batch 64",
        "fold --recipes omniglot --width 0.125 --batch 4 --rounds 3",
        20,
    ),
    Part(
        "memory",
        "memory --recipes omniglot,cifar10-fid --batch 16",
        "memory --recipes omniglot --batch 16",
        "memory --recipes omniglot --width 0.125 --batch 8",
        30,
    ),
    Part(
        "fid",
        "fid --only distance,pass --repeats 2 --images 1024 --batch 128 --rows 3000",
        "fid --only distance,pass --repeats 1 --images 256 --batch 128 --dim 1024 --rows 1500",
        "fid --only distance,memory --repeats 1 --dim 256 --rows 500 --counts 1000,4000",
        40,
    ),
    Part(
        "reading",
        "fid --only reading --files 10000 --repeats 2",
        "fid --only reading --files 4000 --repeats 1",
        "fid --only reading --files 4000 --repeats 1",
        20,
    ),
    Part(
        "processes",
        "processes --only train --rounds 3 --steps 13",
        "processes --only train --rounds 1 --steps 8",
        "processes --recipe glyphs --only train --rounds 2 --steps 6",
        30,
    ),
)
"""All parts, in the order in which they are measured."""


def sizes(part: Part, device: torch.device, budget: float) -> list[list[str]]:
    """Return the arguments that a part may have on a device, first those for the seconds of all parts."""
    if part.name == TESTS:
        return [["-m", "not cuda" if device.type == "cpu" else "cuda", "tests/cuda"]]
    if device.type == "cpu":
        return [shlex.split(part.cpu)] if part.cpu else []
    both = [shlex.split(part.full), shlex.split(part.short or part.full)]
    return both if budget >= FULL else both[::-1]


Outcome = Literal["done", "failed", "overran", "absent"]


@dataclass(frozen=True)
class Record:
    """How a part went, and what it was measured with."""

    name: str
    words: list[str]
    outcome: Outcome
    seconds: float
    note: str
    device: str
    torch: str
    git_revision: str | None
    rows: list[dict[str, Any]] = field(default_factory=list)
    page: str = ""

    @property
    def command(self) -> str:
        """What was run."""
        return f"{'pytest' if self.name == TESTS else 'lsgm bench'} {shlex.join(self.words)}"


@dataclass(frozen=True)
class Place:
    """The folder of a run of all parts."""

    folder: Path

    def file(self, name: str, ending: str) -> Path:
        """Return the path of a part's file."""
        return self.folder / f"{name}{ending}"

    def kept(self, name: str) -> Record | None:
        """Return what an earlier call left of a part; None where that is nothing, or cannot be read."""
        try:
            found: Record = Record(**json.loads(self.file(name, ".json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return found

    def keep(self, record: Record) -> None:
        """Write a part's record."""
        self.write(self.file(record.name, ".json"), json.dumps(asdict(record), ensure_ascii=False, indent=1))

    def write(self, path: Path, text: str) -> None:
        """Write a file."""
        with writing(path):
            replace_file(path, f"{text}\n".encode())


def run(options: AllBench) -> int:
    """Measure what is not there yet, then print; the exit status is 1 where a part failed or overran."""
    deadline = time.monotonic() + options.budget - GRACE
    chosen, device = _chosen(options.only), pick_device(options.device)
    parts = [part for part in chosen if sizes(part, device, options.budget)]
    require(bool(parts), f"none of {options.only} is measured on a {device.type}; name others")
    about = machine(device)
    place = Place(options.out)
    with writing(options.out):
        make_folder(options.out)
    kept = {} if options.anew else _kept(place, parts, device, options.budget, about)
    records = dict(kept)
    for index, part in enumerate(parts):
        if part.name in kept:
            say(f"{part.name}: kept from an earlier call")
            continue
        left = [other for other in parts[index:] if other.name not in kept]
        seconds = max(deadline - time.monotonic(), 0) * part.share / sum(other.share for other in left)
        records[part.name] = _measure(part, place, device, seconds, options.budget, about)
        place.keep(records[part.name])
        _publish(place, [records[other.name] for other in parts if other.name in records], about)
    found = [records[part.name] for part in parts]
    page, lines = _publish(place, found, about)
    print(lines if options.json else page)
    return int(any(record.outcome in ("failed", "overran") for record in found))


def _chosen(only: str) -> list[Part]:
    """Return the parts between commas, all unless given. Raises ConfigError for one that does not exist."""
    known = {part.name: part for part in PARTS}
    names = between_commas(only) or list(known)
    for name in names:
        hint = did_you_mean(name, known) or f"; there is {', '.join(known)}"
        require(name in known, f"there is no part '{name}'{hint}")
    return [part for part in PARTS if part.name in names]


def _kept(
    place: Place, parts: Sequence[Part], device: torch.device, budget: float, about: Row
) -> dict[str, Record]:
    """Return the parts that are done by arguments of today, on the same device with the same torch."""
    kept, other = {}, set()
    for part in parts:
        record = place.kept(part.name)
        if record is None or record.outcome != "done" or record.words not in sizes(part, device, budget):
            continue
        if (record.device, record.torch) != (about["device"], about["torch"]):
            warn(
                f"{part.name} was measured on {record.device} with torch {record.torch}, and is measured anew"
            )
            continue
        if record.git_revision != about["git_revision"]:
            other.add(f"{part.name} at {_short(record.git_revision)}")
        kept[part.name] = record
    if other:
        warn(
            f"the code is at {_short(about['git_revision'])}, and what is kept was measured by others: "
            f"{', '.join(sorted(other))}; --anew measures all of it again"
        )
    return kept


def _short(revision: str | None) -> str:
    commit, dirty, _ = (revision or "an unknown revision").partition("+")
    return commit[:12] if not dirty else f"{commit[:12]}+dirty"


def _measure(
    part: Part, place: Place, device: torch.device, seconds: float, budget: float, about: Row
) -> Record:
    words = sizes(part, device, budget)[0]
    head: dict[str, Any] = {"name": part.name, "words": words}
    head |= {key: about[key] for key in ("device", "torch", "git_revision")}
    command, missing = _command(part, words, place, device)
    if missing:
        warn(f"{part.name} is left out: {missing}")
        return Record(**head, outcome="absent", seconds=0.0, note=missing)
    say(f"{part.name}: {seconds:.0f} s at most")
    for ending in (".md", ".jsonl"):
        place.file(part.name, ending).unlink(missing_ok=True)
    log = place.file(part.name, ".log")
    started = time.monotonic()
    status = _in_time(command, log, seconds)
    took = time.monotonic() - started
    rows, page = _results(part, place)
    if status is None:
        warn(f"{part.name} overran its {seconds:.0f} s and was stopped; {log} has what it said")
        note = f"stopped after {took:.0f} s"
        return Record(**head, outcome="overran", seconds=took, note=note, rows=rows, page=page)
    if status:
        warn(f"{part.name} failed; {log} has what it said")
        note = _last_line(log)
        return Record(**head, outcome="failed", seconds=took, note=note, rows=rows, page=page)
    return Record(**head, outcome="done", seconds=took, note="", rows=rows, page=page)


def _command(part: Part, words: list[str], place: Place, device: torch.device) -> tuple[list[str], str]:
    """Return the command line of a part, and why there is none."""
    if part.name != TESTS:
        if words[0] not in {*BENCHMARKS, *offers("lsgm.bench")}:
            return [], f"no installed package has the benchmark '{words[0]}'"
        out = str(place.file(part.name, ".md").resolve())
        return [sys.executable, "-m", "lsgm", "bench", *words, "--device", str(device), "--out", out], ""
    root = Path(__file__).parents[2]
    if not (root / "tests" / "cuda").is_dir():
        return [], "the tests are not part of an installed package; run it in a clone of the repository"
    options = ["--rootdir", str(root), "-p", "no:cacheprovider", "-vv", "-rfEs"]
    return [sys.executable, "-m", "pytest", *words[:-1], str(root / words[-1]), *options], ""


GRACE = 5.0
"""Seconds that a process has between being asked to end and being ended."""


def _in_time(command: Sequence[str], log: Path, seconds: float) -> int | None:
    """Run a command with its children, all it says into a file; return its status, None where it overran."""
    group: dict[str, Any] = {"start_new_session": True} if os.name == "posix" else {}
    # What is said is a file's, whole lines as they come.
    group["env"] = os.environ | {"PYTHONUNBUFFERED": "1", "LSGM_PROGRESS": "0", "COLUMNS": "240"}
    with writing(log), log.open("wb") as said:
        child = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **group
        )
        try:
            return child.wait(timeout=max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started."""
    if os.name != "posix":
        child.kill()
        child.wait()
        return
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=GRACE)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it said nothing"


def _results(part: Part, place: Place) -> tuple[list[dict[str, Any]], str]:
    """Return the rows and the page that a part has written, as far as it came."""
    if part.name == TESTS:
        return _tested(place.file(part.name, ".log"))
    rows, page = place.file(part.name, ".jsonl"), place.file(part.name, ".md")
    if not rows.is_file() or not page.is_file():
        return [], ""
    lines = rows.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], page.read_text(encoding="utf-8").strip()


_OUTCOME = re.compile(r"^(\S+?::.+?)(?: (PASSED|FAILED|ERROR|SKIPPED)\b.*)?$")
_WHY = re.compile(r"^(?:FAILED|ERROR) (\S+?::.+?) - (.*)$")


def _tested(log: Path) -> tuple[list[dict[str, Any]], str]:
    """Return a row for each test that pytest began, and their page; one without an outcome was stopped."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    told = {found[1]: found[2] for found in map(_WHY.match, lines) if found}
    found = {each[1].rpartition("/")[2]: each for each in map(_OUTCOME.match, lines) if each}
    outcomes = {
        "PASSED": "passed",
        "SKIPPED": "skipped",
        "FAILED": "failed",
        "ERROR": "failed",
        None: "stopped",
    }
    rows = [
        {
            "bench": TESTS,
            "test": name.strip(),
            "outcome": outcomes[each[2]],
            "note": told.get(each[1], "")[:200],
        }
        for name, each in found.items()
    ]
    if not rows:
        return [], ""
    counts = Counter(row["outcome"] for row in rows)
    shown = [
        [row["test"], row["outcome"], row["note"]] for row in rows if row["outcome"] in ("failed", "stopped")
    ]
    page = "# Tests of the device\n\n" + ", ".join(f"{count} {way}" for way, count in counts.items()) + "."
    return rows, page + ("\n\n" + table(["test", "", "what it said"], shown, 3) if shown else "")


def _publish(place: Place, records: Sequence[Record], about: Row) -> tuple[str, str]:
    """Write the page and the rows of all parts so far; return both."""
    rows = [row for record in records for row in record.rows]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    page = page_of(records, rows, about)
    place.write(place.file("all", ".md"), page)
    place.write(place.file("all", ".jsonl"), lines)
    return page, lines


def page_of(records: Sequence[Record], rows: Sequence[Mapping[str, Any]], about: Row) -> str:
    """Return the page: the machine, how the parts went, the targets, and every part's own page."""
    heads = ["part", "outcome", "seconds", "revision", "command"]
    went = [
        [
            record.name,
            record.outcome + (record.note and f": {record.note}").replace("|", "/"),
            f"{record.seconds:.0f}",
            _short(record.git_revision),
            f"`{record.command}`",
        ]
        for record in records
    ]
    return "\n\n".join(
        [
            "# All benchmarks in one run",
            describe(about),
            "## Parts",
            table(heads, went, 2),
            "## Targets",
            verdicts(rows),
            *(_below(record.page) for record in records if record.page),
        ]
    )


def _below(page: str) -> str:
    """Return a page with its headings one level down."""
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in page.splitlines())
