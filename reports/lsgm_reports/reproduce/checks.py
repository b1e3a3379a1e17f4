"""What must hold for a number to come out again: code, versions, data, hardware, told without torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from lsgm_reports.provenance import REVISION, Manifest

__all__ = [
    "Check",
    "check_code",
    "check_data",
    "check_hardware",
    "check_versions",
    "thread_setting",
]


@dataclass(frozen=True)
class Check:
    """One thing that must hold, and whether it does."""

    subject: str
    state: Literal["ok", "differs", "missing", "unknown"]
    text: str

    @property
    def line(self) -> str:
        """One line for a terminal."""
        return f"  {self.state:<8} {self.subject:<9} {self.text}"


def check_code(recorded: str | None, here: str | None) -> Check:
    """Compare revisions; local changes leave open what the code was."""
    if recorded is not None and REVISION.fullmatch(recorded) is None:
        return Check("code", "unknown", f"what is recorded is no revision of git: {recorded[:60]!r}")
    if recorded is None:
        return Check("code", "unknown", "measured outside of a git checkout: no revision is recorded")
    clean = recorded[:40]
    if here is None:
        return Check("code", "unknown", f"measured at {clean[:12]}, and this code is in no git checkout")
    if here[:40] != clean:
        said = f"measured at {clean[:12]}, this checkout is at {here[:12]}: `git checkout {clean}`"
        return Check("code", "differs", said)
    changed = [where for where, it in (("then", recorded), ("now", here)) if it != clean]
    if changed:
        said = f"at {clean[:12]} as recorded, with local changes {' and '.join(changed)}"
        return Check("code", "unknown", said)
    return Check("code", "ok", f"this checkout is at {clean[:12]}, as recorded")


def check_versions(recorded: Mapping[str, str | None]) -> Check:
    """Compare the versions of Python and of the packages that move numbers with those installed here."""
    others = [
        f"{name} {_version(name) or 'absent'} (was {version or 'absent'})"
        for name, version in recorded.items()
        if _version(name) != version
    ]
    if others:
        return Check("versions", "differs", ", ".join(others))
    if not recorded:
        return Check("versions", "unknown", "none are recorded")
    return Check("versions", "ok", f"python and {len(recorded) - 1} packages as recorded")


def check_data(name: str, identity: str | None, roots: Sequence[Path], directory: Path) -> Check:
    """Say whether a task's images are at hand; whether they are the same is seen when they are loaded."""
    called = identity or name
    version, _, sha256 = called.rpartition("@")
    called = f"{version}, sha256 {sha256[:12]}" if version else called
    if name == "glyphs":
        return Check("data", "ok", f"{called}: rendered here, no file needed")
    path = directory / os.path.expanduser(name)
    if "/" in name or path.suffix == ".zip":
        there = os.path.exists(path)
        return Check("data", "ok" if there else "missing", f"{called} at {path}")
    found = next((root / name for root in roots if os.path.exists(root / name)), None)
    if found is not None:
        return Check("data", "ok", f"{called} in {found}")
    looked = ", ".join(map(str, roots))
    return Check("data", "unknown", f"{called}: no folder {name} in {looked}; see `lsgm data ls`")


def check_hardware(manifest: Manifest) -> Check:
    """Compare what can be seen of the machine; sums round otherwise on other hardware, and seconds differ."""
    was = manifest.hardware
    gpus = was.get("gpus")
    said = ", ".join(
        [
            *(map(str, gpus) if isinstance(gpus, list) else ()),
            f"{was.get('cores', '?')} cores ({was.get('processor', '?')})",
            "1 thread" if manifest.threads == 1 else f"{manifest.threads or '?'} threads",
            "1 process" if manifest.processes == 1 else f"{manifest.processes} processes",
        ]
    )
    same = (was.get("cores"), was.get("processor")) == (
        os.cpu_count(),
        platform.processor() or platform.machine(),
    )
    if manifest.device.startswith("cuda"):
        return Check("hardware", "unknown", f"measured on {manifest.device} of {said}")
    if same:
        return Check("hardware", "ok", f"as recorded: {said}")
    here = f"{os.cpu_count()} cores ({platform.processor() or platform.machine()})"
    return Check("hardware", "differs", f"measured with {said}; here are {here}")


def thread_setting(threads: int) -> dict[str, str]:
    """Return the variable that divides sums among so many threads, nothing where it is set so already."""
    asked = str(threads)
    return {} if os.environ.get("OMP_NUM_THREADS") == asked else {"OMP_NUM_THREADS": asked}


def _version(name: str) -> str | None:
    if name == "python":
        return platform.python_version()
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):  # of a name that no package can have
        return None
