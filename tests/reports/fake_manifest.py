"""The manifest of a call that measured two models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["fake_manifest", "write_manifest"]


def fake_manifest(**changes: Any) -> dict[str, Any]:
    """Return a manifest as JSON values."""
    models = [
        {"name": name, "spec": f"{name}=runs/{name}", "path": f"/far/runs/{name}", "sha256": sha * 32}
        | {"parameters": {"vae": 10}, "run_id": None, "config_sha256": None}
        for name, sha in (("a b", "1f"), ("vae", "3d"))
    ]
    return {
        "format": 1,
        "id": "abcabcabcabc",
        "started": "2026-01-02T03:04:05+00:00",
        "command": ["lsgm", "eval", "glyphs", "--model", "a b=runs/a b", "--model", "vae=runs/vae"],
        "directory": "/far",
        "environment": {"LSGM_DATA": "/far/data"},
        "git_revision": "9" * 40,
        "code_version": "c0" * 32,
        "versions": {"python": "3.11.7", "torch": "2.13.0", "clean-fid": None},
        "hardware": {"cores": 2, "processor": "x86_64", "threads": 1, "processes": 1, "gpus": []},
        "device": "cpu",
        "models": models,
        "task": {
            "identity": "glyphs@1/quick",
            "sha256": "7a" * 32,
            "data": "glyphs",
            "dataset": f"glyphs@1@{'ef' * 32}",
            "extractors": ["glyphs"],
        },
    } | changes


def write_manifest(folder: Path, manifest: dict[str, Any]) -> Path:
    """Write a manifest where rows of the folder look for it, and return its path."""
    path = folder / "manifests" / f"{manifest['id']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))
    return path
