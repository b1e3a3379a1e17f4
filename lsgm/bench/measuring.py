"""How benchmarks measure and tell: ways in turn, medians with quartiles, the machine, rows and pages."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lsgm.bench.options import OnDevice
from lsgm.config import StageConfig, require
from lsgm.devices import clock, pick_device
from lsgm.errors import ConfigError
from lsgm.files.write import make_folder, replace_file, writing
from lsgm.kinds import recipe_from
from lsgm.progress import bar, markdown_table
from lsgm.recipes import load_recipe
from lsgm.runs.provenance import git_revision, hardware, versions

Row = Mapping[str, Any]
Columns = Mapping[str, str | Callable[[Row], str]]
"""Head -> a format of a row's values, ``{seconds:.2f}``, or what makes a cell of the row."""

WARM_UP = 2
"""Rounds that do not count."""


def time_in_turn(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    *,
    desc: str,
    before: Callable[[], object] | None = None,
    switch: Callable[[str], object] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return each way's seconds by round; ``before`` runs ahead of every one and is not timed.

    No more is ``switch``, which takes the name of the way to come.

    A round times every way once and each round begins with another one, so that a machine that gets slower
    slows all of them.
    """
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in bar(range(WARM_UP + rounds), desc=desc, unit="round"):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            if before is not None:
                before()
            if switch is not None:
                switch(name)
            started = clock(device)
            ways[name]()
            took = clock(device) - started
            if index >= WARM_UP:
                seconds[name].append(took)
    return {name: np.array(each) for name, each in seconds.items()}


def quartiles(name: str, values: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    """Return the median of at least one value as ``name``, its quartiles as ``name_q1`` and ``name_q3``.

    A busy machine's outliers leave them alone.
    """
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return {name: median, f"{name}_q1": low, f"{name}_q3": high}


def spread(row: Row, name: str, form: str) -> str:
    """Return the median of a row's value with its quartiles; ``form`` is a format, ``.0f`` for one."""
    low, middle, high = row[f"{name}_q1"], row[name], row[f"{name}_q3"]
    if name.endswith("_ms") and middle < 10 and form.endswith("f"):
        form = f".{int(form[1:-1]) + 2}f"  # two digits more where the whole is a few milliseconds
    return f"{middle:{form}} ({low:{form}}–{high:{form}})"


def labelled(row: Row) -> str:
    """Return a row's recipe, with the share of its width where that is not all."""
    return str(row["recipe"]) + (f", width x {row['width']:g}" if row["width"] != 1 else "")


def table(heads: Sequence[str], rows: Iterable[Iterable[str]], left: int = 2) -> str:
    """Return a Markdown table, its first ``left`` columns to the left."""
    return markdown_table(heads, rows, left)


def columns(heads: Columns, rows: Iterable[Row], left: int = 2) -> str:
    """Return rows as a `table`."""
    lines = (
        [cell.format_map(row) if isinstance(cell, str) else cell(row) for cell in heads.values()]
        for row in rows
    )
    return table(list(heads), lines, left)


def measured(
    bench: str,
    options: OnDevice,
    measure: Callable[[torch.device], Sequence[Row]],
    page: Callable[..., str],
) -> int:
    """Measure on the options' device, then print rows or page, or write both; the exit status is 0.

    ``page`` takes the rows, and ``about`` the machine. That a file can be put there is seen to before minutes
    are spent on what it shall say.
    """
    out = options.out
    if out is not None:
        require(
            not out.is_dir(), f"--out is {out}, which is a folder; give the path of a file, bench.md for one"
        )
        with writing(out):
            make_folder(out.parent)
    device = pick_device(options.device)
    about = machine(device)
    width = {"width": options.width} if hasattr(options, "width") else {}
    rows = [{**width, **row, **about} for row in measure(device)]
    publish(bench, rows, page(rows, about=describe(about)), as_json=options.json, out=out)
    return 0


def publish(bench: str, rows: Iterable[Row], page: str, *, as_json: bool, out: Path | None = None) -> None:
    """Print the rows as JSON lines, or the Markdown page; with ``out`` write both, the rows as .jsonl."""
    lines = "\n".join(json.dumps({"bench": bench, **row}, ensure_ascii=False) for row in rows)
    if out is not None:
        for path, text in ((out, page), (out.with_suffix(".jsonl"), lines)):
            with writing(path):
                replace_file(path, f"{text}\n".encode())
    print(lines if as_json else page)


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
        **(_gpu(device) if on_gpu else {}),
        "system": found["system"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lsgm": installed["lsgm-bench"],
        "git_revision": git_revision(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _gpu(device: torch.device) -> dict[str, Any]:
    """Return what moves the times of a GPU: memory, driver where nvidia-smi tells it, CUDA's versions."""
    question = [
        "nvidia-smi",
        f"--id={device.index or 0}",
        "--query-gpu=driver_version",
        "--format=csv,noheader",
    ]
    try:
        done = subprocess.run(question, capture_output=True, text=True, check=True, timeout=20)
        driver = done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        driver = ""
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu_gib": round(properties.total_memory / 2**30, 1),
        "gpu_capability": f"{properties.major}.{properties.minor}",
        "driver": driver or None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "tf32": torch.backends.cudnn.allow_tf32,
    }


def describe(about: Row) -> str:
    """Return a machine as one sentence under a table."""
    load = f", load {about['load']} at the start" if about["load"] is not None else ""
    commit, dirty, _ = (about["git_revision"] or "").partition("+")
    device = str(about["device"])
    if "gpu_gib" in about:
        driver = f", driver {about['driver']}" if about["driver"] else ""
        device += f" ({about['gpu_gib']:g} GiB{driver}, CUDA {about['cuda']}, cuDNN {about['cudnn']})"
    revision = f" at {commit[:12]}{dirty and '+dirty'}" if commit else ""
    return (
        f"{about['processor']}, {about['cores']} cores, torch threads {about['threads']}{load}; "
        f"device {device}; torch {about['torch']}, Python {about['python']}, "
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


_WIDTHS = ("width", "decoder_width")


def read_recipes(names: str, *, width: float = 1.0, batch: int | None = None) -> dict[str, Any]:
    """Return the recipes between commas, `narrowed`, by the name that a table shows.

    Raises ConfigError where one does not exist or is wrong, and where none is named.
    """
    found = {}
    for name in filter(None, map(str.strip, names.split(","))):
        short = Path(name).stem if name.endswith(".toml") else name
        recipe = recipe_from(load_recipe(name), f"recipe '{name}'")
        found[name if short in found else short] = narrowed(recipe, width, batch)
    if not found:
        raise ConfigError("--recipes names no recipe; `lsgm ls recipes` shows the ones there are")
    return found


def narrowed(recipe: Any, share: float, batch: int | None = None) -> Any:
    """Return a recipe whose networks have a share of their width, so that a smaller machine can run them.

    Every width is multiplied by ``share`` and rounded to what group normalisation divides: multiples of 4,
    above 128 of 32. Depth, latents and resolutions stay, and with them the ratio of the parts' costs, more
    or less. ``batch`` replaces the batch size of every stage.
    """
    require(0 < share <= 1, f"width is {share}; give a share of the recipes' own widths in (0, 1]")
    require(batch is None or batch >= 1, f"batch is {batch}; it must be at least 1")
    return _changed(recipe, share, batch)


def _changed(config: Any, share: float, batch: int | None) -> Any:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in _WIDTHS and isinstance(value, int) and share < 1:
            changes[field.name] = _width(value * share)
        elif dataclasses.is_dataclass(value):
            changes[field.name] = _changed(value, share, batch)
    if batch is not None and isinstance(config, StageConfig):
        changes["batch_size"] = batch
    return dataclasses.replace(config, **changes)


def _width(wanted: float) -> int:
    unit = 4 if wanted <= 128 else 32
    return max(unit, round(wanted / unit) * unit)
