"""What a benchmark ran on. A time without its machine says nothing."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from lsgm.revision import git_revision
from lsgm.train.provenance import hardware, versions

__all__ = ["describe", "machine"]


def machine(device: torch.device) -> dict[str, Any]:
    """Return processor, cores, threads, load, device, versions, revision and time as JSON values."""
    found, installed = hardware(), versions()
    on_gpu = device.type == "cuda"
    return {
        "processor": _processor() or found["processor"],
        "cores": found["cores"],
        "threads": found["threads"],
        # What else kept the processor busy when the benchmark began: shared machines are slower.
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "device": torch.cuda.get_device_name(device) if on_gpu else str(device),
        "system": found["system"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lsgm": installed["lsgm-bench"],
        "git_revision": git_revision(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe(about: dict[str, Any]) -> str:
    """Return it as one sentence under a table."""
    load = f", load {about['load']} at the start" if about["load"] is not None else ""
    commit, _, state = (about["git_revision"] or "").partition("-")
    revision = f" at {commit[:12]}{'-' if state else ''}{state}" if commit else ""
    return (
        f"{about['processor']}, {about['cores']} cores, torch threads {about['threads']}{load}; "
        f"device {about['device']}; torch {about['torch']}, Python {about['python']}, "
        f"lsgm-bench {about['lsgm']}{revision}; {about['time']}."
    )


def _processor() -> str:
    """Return the processor's name where Linux tells it; ``platform`` knows the architecture only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "")
