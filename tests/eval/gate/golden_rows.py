"""Golden rows small enough to know by heart, one of every kind."""

from __future__ import annotations

import numpy as np

from lsgm_eval.gate.golden import Change, EstimateRow, Golden, ImagesRow, Plan, ReplayRow, pack

__all__ = ["GOLDEN", "ROWS"]

ROWS = {
    "replay/nelbo": ReplayRow("replay", "nats", (1.25, -3.0), 1e-5, 5e-6, ("float64",)),
    "replay/images": ImagesRow("images", (2, 3), pack(np.arange(6, dtype=np.uint8)), 1, ("batches of 1",)),
    "nelbo_nats": EstimateRow(
        "estimate", "nats/image", False, 2.5, 0.1, 30.0, 4, 0.2, (2.0, 3.0), (0.0, 9.0)
    ),
    "frechet_glyphs": EstimateRow("estimate", "distance", False, 4.0, 0.3, 3.0, 4),
}
CHANGE = Change("2026-01-02T03:04:05+00:00", "erste Zeilen, ±", None, "a" * 64, {"torch": "2"}, {"old": 1.0})
GOLDEN = Golden(
    1, "toy", "a" * 64, "bars@1", "bars@1@b", "test", "c" * 64, {"glyphs": "x"}, Plan(), ROWS, (CHANGE,)
)
