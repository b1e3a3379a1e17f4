"""``python -m fuzz``: so many inputs over all kinds of files, their figures as a table, failures kept.

python -m fuzz --inputs 20000 --seed 0 --table fuzz.md
python -m fuzz --kind state --kind weights --inputs 500 --seed 7
python -m fuzz --repeat fuzz-failures/state-7-12
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuzz.campaign import BATCH, repeat, run, valid, world_of
from fuzz.kinds import KINDS
from fuzz.table import table, total


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=300, help="over all kinds")
    parser.add_argument("--each", type=int, default=0, help="of every kind, in place of --inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", default=[], choices=list(KINDS), metavar="KIND")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-failures"), help="folder of the inputs that fail"
    )
    parser.add_argument("--table", type=Path, help="write the figures to this Markdown file")
    parser.add_argument(
        "--json", type=Path, help="write what came of every input to this file, as JSON lines"
    )
    parser.add_argument("--repeat", type=Path, help="run one kept input again, and print what comes of it")
    parser.add_argument("--list", action="store_true", help="print the kinds")
    parser.add_argument("--check", action="store_true", help="run every command on the valid files only")
    return parser.parse_args(words)


def _plan(options: argparse.Namespace) -> list[tuple[str, int, int]]:
    """Return batches of inputs: kind, seed, number; every kind has its share, a dear one a third of it."""
    names = _names(options)
    weights = {name: 1.0 if KINDS[name].dear else 3.0 for name in names}
    one = options.each / 3 if options.each else options.inputs / sum(weights.values())
    plan: list[tuple[str, int, int]] = []
    for name in names:
        share = max(1, round(weights[name] * one))
        for batch, first in enumerate(range(0, share, BATCH)):
            plan.append((name, options.seed * 100_000 + batch, min(BATCH, share - first)))
    # All kinds first once, then all a second time: an interrupted campaign has seen each of them.
    return sorted(plan, key=lambda entry: entry[1])


def _names(options: argparse.Namespace) -> list[str]:
    return [name for name in KINDS if name in (options.kind or KINDS)]


def _work(options: argparse.Namespace, world: dict[str, Path], scratch: Path, job: int) -> None:
    """Judge every so-manieth batch and write what came of each input to a file."""
    with (scratch / f"found-{job}.jsonl").open("w") as out:
        for found in run(world, _plan(options)[job :: options.jobs], scratch, options.keep):
            out.write(json.dumps(found) + "\n")
            out.flush()
            if found["verdict"] == "failure":
                last = " / ".join(found["wrong"]) or found["said"].strip().splitlines()[-1][:200]
                print(
                    f"{found['kind']} {found['seed']}-{found['number']}: {last}", file=sys.stderr, flush=True
                )


def _campaign(options: argparse.Namespace, world: dict[str, Path], scratch: Path) -> list[dict[str, Any]]:
    children = []
    for job in range(options.jobs):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _work(options, world, scratch, job)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    files = [scratch / f"found-{job}.jsonl" for job in range(options.jobs)]
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    if any(ends):
        raise SystemExit(f"a campaign's process ended with {ends}, after {len(found)} inputs")
    order = {name: place for place, name in enumerate(KINDS)}
    return sorted(found, key=lambda each: (order[each["kind"]], each["seed"], each["number"]))


def main(words: Sequence[str]) -> int:
    """Run a campaign; 1 where an input failed."""
    options = _options(words)
    if options.list:
        print("\n".join(KINDS))
        return 0
    if options.repeat is not None:
        options.kind = [json.loads((options.repeat / "case.json").read_text())["kind"]]
    options.keep = options.keep.absolute()
    scratch = Path(tempfile.mkdtemp(prefix="lsgm-fuzz-"))
    sys.dont_write_bytecode = (
        True  # bytecode of a module that an input imports first is no misdeed of the input
    )
    os.environ["MPLCONFIGDIR"] = str(scratch / "fonts")  # searched for once, not by every input
    try:
        names = _names(options)
        world = world_of(scratch / "world" / "files", names)
        if options.repeat is not None:
            found = repeat(options.repeat, world, scratch)
            print("\n".join([found["verdict"], *found["wrong"], found["said"]]))
            return int(found["verdict"] == "failure")
        bad = valid(world, names, scratch) if options.check else []
        for each in bad:
            print(f"NOT VALID {each['kind']}: lsgm {' '.join(each['words'])}")
            print(f"{each['wrong']} {each['said'][-1500:]}\n")
        if options.check:
            return int(bool(bad))
        everything = _campaign(options, world, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if options.json is not None:
        options.json.write_text("".join(json.dumps(each) + "\n" for each in everything))
    text = table(everything)
    if options.table is not None:
        options.table.write_text(text)
    print(text)
    return int(total(everything, "failure") > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
