"""``lsgm doctor``: what this machine has to offer, and what is missing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsgm import __version__
from lsgm.errors import UserError
from lsgm.files.names import shown
from lsgm.files.text import read_table
from lsgm.files.write import cache_dir
from lsgm.options import parse

HELP = "say what this machine has: Python, torch, devices, data, weights, disk"

_PACKAGES = (
    "numpy",
    "scipy",
    "matplotlib",
    "safetensors",
    "torch-fidelity",
    "clean-fid",
    "tensorboard",
    "wandb",
    "mlflow-skinny",
    "huggingface-hub",
)


@dataclass(frozen=True)
class DoctorOptions:
    """Options of ``lsgm doctor``."""

    json: bool = False
    """Print one JSON object instead of lines."""


def run(argv: list[str]) -> int:
    """Print the findings; 1 where something that every command needs is broken."""
    options = parse(
        DoctorOptions,
        argv,
        prog="lsgm doctor",
        description=HELP,
        examples=["lsgm doctor", "lsgm doctor --json"],
    )
    findings = examine()
    if options.json:
        print(json.dumps(findings, indent=2))
    else:
        width = max(len(name) for name in findings)
        for name, value in findings.items():
            print(f"{name:<{width}}  {_line(value)}")
    return 0 if findings["torch"] else 1


def examine() -> dict[str, Any]:
    """Return the findings by name; nothing in here raises, whatever is missing."""
    here = Path.cwd()  # where runs would be written
    return {
        "lsgm": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        **_torch(),
        "torchvision": _torchvision(),
        "packages": {name: _version(name) or "not installed" for name in _PACKAGES},
        "data": _data(),
        "cache": _cache(),
        "weights": _weights(),
        "disk": f"{shutil.disk_usage(here).free / 2**30:.1f} GiB free in {here}",
    }


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return "does not import" if value is None else str(value)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> dict[str, Any]:
    """Return version, devices, bfloat16 and threads; None as version where torch does not import."""
    try:
        import torch
    except Exception as error:  # a broken install raises OSError, RuntimeError and others
        return {"torch": None, "devices": [f"none: {error}"]}
    devices = ["cpu"]
    from lsgm.devices import computes_bfloat16

    bf16 = {"cpu": "yes" if computes_bfloat16(torch.device("cpu")) else "no: float32 is used instead"}
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        devices.append(f"cuda:{index} {torch.cuda.get_device_name(index)} {memory:.0f} GiB")
        bf16[f"cuda:{index}"] = "yes" if torch.cuda.is_bf16_supported() else "no"
    if torch.backends.mps.is_available():
        devices.append("mps")
    threads = torch.get_num_threads()
    return {"torch": torch.__version__, "devices": devices, "bfloat16": bf16, "threads": threads}


def _torchvision() -> str:
    """Return how torchvision is; only feature extractors need it, so its absence breaks nothing else."""
    version = _version("torchvision")
    if version is None:
        return "not installed"
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        if "operator torchvision::nms does not exist" in str(error):
            # PyPI's build beside a CPU-only torch; none of the missing operators is used.
            return f"{version} imports once two operator schemas are defined, which `lsgm eval` does"
        return f"{version} does not import by itself: {' '.join(str(error).split())}"
    return f"{version} imports"


def _data() -> list[str]:
    """Return where data are looked up, in order, with the datasets that lie there and their versions."""
    try:
        from lsgm.data.places import roots
    except ImportError:  # torch is broken, which has its own line
        return []
    found = []
    for place in roots():
        try:
            held = [_dataset(child) for child in sorted(place.iterdir())] if place.is_dir() else []
        except OSError as error:
            found.append(f"{place}: cannot be read ({error.strerror})")
            continue
        found.append(shown(f"{place}: {', '.join(filter(None, held)) or 'nothing yet'}"))
    return found


def _dataset(folder: Path) -> str:
    """Return name@version of a folder with a manifest, the name of another, nothing for a hidden one."""
    if folder.name.startswith(".") or not folder.is_dir():
        return ""
    try:
        manifest = read_table(folder / "manifest.json")
    except UserError:
        return folder.name
    named = [manifest.get(key) for key in ("name", "version")]
    return "@".join(map(str, named)) if all(isinstance(word, str) for word in named) else folder.name


def _cache() -> str:
    """Return the folder of derived files, with its size."""
    folder = cache_dir()
    size = 0
    for place, _, names in os.walk(folder):  # what cannot be read is passed over
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(place, name)).st_size
    return f"{folder}, {size / 2**20:.0f} MiB"


def _weights() -> list[str]:
    """Return the files of weights that ship inside the installed packages."""
    names = []
    for package in ("lsgm_eval", "lsgm_baselines", "lsgm"):
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            for file in sorted(Path(folder).rglob("*.safetensors")):
                names.append(f"{file.name} {file.stat().st_size / 2**10:.0f} KiB")
    return names
