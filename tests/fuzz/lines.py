"""The command lines that several kinds of files share, and the checksums that lie beside weights."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from fuzz.specimens import MODEL

__all__ = ["CURVE", "EVAL", "GATE", "NLL", "READERS", "RUN", "seal_checkpoints", "seal_mirrors"]

MEASURE = "--device cpu --report no"
CURVE = f"--tol none --images 40 {MEASURE}"
EVAL = f"eval task.toml --data images {MEASURE} --model"
NLL = "nll {model} --task task.toml --data images --device cpu --limit 2 --out out"
GATE = "gate {model} --golden golden.json --task task.toml --data images"
READERS = (
    f"sample {MODEL} --n 2 --out out/drawn --device cpu --sampler.name heun --sampler.steps 1",
    NLL.format(model=MODEL),
    f"compare {MODEL} run",
    f"export {MODEL} out --name x",
)
RUN = (
    "train run/config.toml --device cpu --stage2.steps 3",
    "compare run run",
    "reproduce run",
    "export run out",
    "sample run --n 2 --out out/drawn --device cpu --sampler.name heun --sampler.steps 1",
    "report scores run --out out --format md,html",
)


def seal_checkpoints(here: Path) -> None:
    """Write the size and sha256 of every file into the `state.json` beside it."""
    for state in sorted(here.rglob("state.json")):
        if not state.is_file():
            continue
        try:
            held = json.loads(state.read_bytes())
        except (ValueError, RecursionError):
            continue
        files = held.get("files") if isinstance(held, dict) else None
        for name, about in files.items() if isinstance(files, dict) else ():
            path = state.with_name(name)
            if isinstance(about, dict) and path.is_file():
                content = path.read_bytes()
                about |= {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
        state.write_text(json.dumps(held))


def seal_mirrors(here: Path) -> None:
    """Write the size and sha256 of every file of a mirror into its manifest."""
    for manifest in sorted(here.glob("mirror/*/manifest.json")):
        try:
            held = json.loads(manifest.read_bytes())
            for entry in held["files"]:
                content = manifest.with_name(entry["file"]).read_bytes()
                entry |= {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
        except (ValueError, RecursionError, LookupError, TypeError, OSError):
            continue
        manifest.write_text(json.dumps(held))
