"""Checkpoints as a stranger would make them: whatever is in a file, its size and sha256 are right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


def seal(checkpoint: Path, name: str, content: bytes) -> None:
    """Replace a file of a checkpoint, and what state.json says of it."""
    (checkpoint / name).write_bytes(content)
    state = json.loads((checkpoint / "state.json").read_text())
    state["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (checkpoint / "state.json").write_text(json.dumps(state))


def restate(checkpoint: Path, **changes: Any) -> None:
    """Change keys of state.json; those that are None go."""
    state = json.loads((checkpoint / "state.json").read_text()) | changes
    kept = {key: value for key, value in state.items() if value is not None}
    (checkpoint / "state.json").write_text(json.dumps(kept))


def safetensors_of(entries: Mapping[str, tuple[str, list[int], bytes]], **extra: Any) -> bytes:
    """Return a safetensors file of (type, shape, bytes), also of types that no library would write."""
    header: dict[str, Any] = {}
    body = b""
    for name, (dtype, shape, raw) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header | extra).encode()
    return len(text).to_bytes(8, "little") + text + body


def reoptimise(checkpoint: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what optimizer.pt holds."""
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    change(saved)
    torch.save(saved, checkpoint / "optimizer.pt")
    seal(checkpoint, "optimizer.pt", (checkpoint / "optimizer.pt").read_bytes())
