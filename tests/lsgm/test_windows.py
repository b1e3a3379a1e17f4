"""Nothing that only Unix has is needed to import the packages, nor to draw images and read a dataset."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import importlib, os, pkgutil, signal, subprocess, sys, types, unittest.mock

ours = ("lsgm", "lsgm_eval", "lsgm_baselines", "lsgm_reports")

def modules():
    for name in ours:
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                yield importlib.import_module(module.name)

def remembered():
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ours}

# What others import, they import as on this system, and so starts Python processes.
count = sum(1 for _ in modules())
import torch._dynamo
subprocess.os, subprocess.signal = (types.SimpleNamespace(**vars(module)) for module in (os, signal))
for name in remembered():
    del sys.modules[name]

for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "readline", "syslog", "curses"):
    sys.modules[name] = None
ABSENT = {
    os: "fork forkpty sysconf getuid geteuid getgid getpgid setsid killpg uname getloadavg sched_getaffinity "
    "nice posix_fallocate posix_fadvise pread pwrite fchown chown mkfifo statvfs wait WNOHANG "
    "O_NOFOLLOW O_NONBLOCK O_CLOEXEC O_DIRECTORY O_SYNC",
    signal: "SIGKILL SIGHUP SIGALRM SIGUSR1 SIGUSR2 SIGCHLD SIGPIPE SIGSTOP setitimer",
}
for module, names in ABSENT.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)

assert sum(1 for _ in modules()) == count > 200
from lsgm.cli import main
from lsgm.devices import UNTOLD, free_bytes
assert free_bytes() > 0
with unittest.mock.patch("pathlib.Path.read_text", side_effect=FileNotFoundError):
    assert free_bytes() == UNTOLD
sys.exit(
    main(["sample", sys.argv[1], "--n", "2", "--device", "cpu", "--out", "drawn.npz"])
    or main(["data", "ls"])
    or main(["fid", "drawn.npz", "drawn.npz", "--extractor", "glyphs", "--json", "--out", "rows"])
)
"""


def test_nothing_needs_what_only_unix_has(tmp_path: Path, glyphs_cache: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "LSGM_CACHE": str(glyphs_cache)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT / "checkpoints" / "glyphs-vae")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
