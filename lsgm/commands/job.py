"""One job of a sweep: commands one after another, which a preemption ends early and which then go on.

`submitit` carries it to where it runs, and calls `Job.checkpoint` when the scheduler wants the machine back.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lsgm.errors import DataError
from lsgm.files.text import read_table
from lsgm.files.write import make_folder, replace_file, writing

SAVING = 120.0
"""Seconds that a command has to end after it was asked to."""
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""What a training's status is that has saved itself and goes on later."""
POLL = 0.2
RESTARTS = 3
"""How often torchrun starts its processes again where one has died."""
FIRST_PORT = 29400
"""Where the nodes of a job meet; its number is added, so that two jobs of a machine do not."""


@dataclass
class Job:
    """Commands of ``lsgm``, by one process or by several under torchrun; called by submitit on each node."""

    name: str
    commands: Sequence[Sequence[str]]
    note: Path
    """Where it is written how far the job is."""
    processes: int = 1
    """On each node."""
    nodes: int = 1
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def __call__(self) -> int:
        """Run the commands that no earlier call has finished; return the status of the one that ends it."""
        done = int(told(self.note, self.commands).get("done", 0))
        for index in range(done, len(self.commands)):
            words = self.commands[index]
            self._write("running", done=index)
            print(f"$ lsgm {shlex.join(words)}", flush=True)
            self._child = subprocess.Popen(
                [*self._launch(), *words], env={**os.environ, "LSGM_PROGRESS": "0"}
            )
            while (status := self._child.poll()) is None:  # not wait(), which a signal could not ask again
                time.sleep(POLL)
            if status:
                self._write("stopped" if status in STOPPED else "failed", done=index, status=status)
                return status
        self._write("finished", done=len(self.commands))
        return 0

    def checkpoint(self) -> Any:
        """Have the command save and end, and return what submitit queues in its place: the same job."""
        from submitit.helpers import DelayedSubmission

        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + SAVING
            while self._child.poll() is None and time.monotonic() < deadline:
                time.sleep(POLL)
        self._write("queued")
        return DelayedSubmission(replace(self))

    def _launch(self) -> list[str]:
        """Return what the words of a command are put behind."""
        if self.processes * self.nodes == 1:
            return [sys.executable, "-m", "lsgm"]
        meeting = ["--standalone"]
        if self.nodes > 1:
            from submitit import JobEnvironment

            job = JobEnvironment()
            digits = "".join(filter(str.isdecimal, job.job_id)) or "0"
            endpoint = f"{job.hostnames[0]}:{FIRST_PORT + int(digits) % 1000}"
            meeting = ["--nnodes", str(self.nodes), "--rdzv-backend", "c10d"]
            meeting += ["--rdzv-endpoint", endpoint, "--rdzv-id", job.job_id]
        number = ["--nproc-per-node", str(self.processes), "--max-restarts", str(RESTARTS)]
        return [sys.executable, "-m", "torch.distributed.run", *meeting, *number, "-m", "lsgm"]

    def _write(self, state: str, **more: int) -> None:
        if os.environ.get("SLURM_PROCID", "0") != "0":  # the first node speaks for all
            return
        before = told(self.note, self.commands)
        table = {"done": 0, **before, "state": state, "commands": [list(words) for words in self.commands]}
        table |= {"status": 0, "time": time.time(), **more}
        with writing(self.note):
            make_folder(self.note.parent)
            replace_file(self.note, (json.dumps(table, indent=1) + "\n").encode())


def told(note: Path, commands: Sequence[Sequence[str]]) -> Mapping[str, Any]:
    """Return what a job's note says; nothing where there is none, or one of other commands."""
    if not note.is_file():
        return {}
    try:
        table = read_table(note)
    except DataError:
        return {}
    return table if table.get("commands") == [list(words) for words in commands] else {}
