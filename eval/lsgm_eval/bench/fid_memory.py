"""Peak memory of a pass over free images, measured in a process that does nothing else.

``python -m lsgm_eval.bench.fid_memory COUNT`` prints what a pass of COUNT images took as JSON;
`measure_memory` starts it once for each number.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lsgm.bench.targets import towards
from lsgm.config import DensityConfig, SamplerConfig
from lsgm.devices import peak_bytes, reset_peak
from lsgm.errors import ConfigError
from lsgm.generative import Density, Pixels, Samples
from lsgm_eval.features.extractor import ImageShape
from lsgm_eval.samples.collect import CAPACITY
from lsgm_eval.samples.gather import run_pass

BATCH = 250
WARM = 2 * BATCH
DIM = 512


class FreeImages:
    """A model whose images are rows of a table, all but free to draw: image k is row k mod the table."""

    sha256 = "0" * 64
    has_prior, remark = False, ""

    def __init__(self, table: Tensor, name: str = "ready images") -> None:
        self.table, self.name = table, name
        channels, height, width = table.shape[1:]
        self.pixels = Pixels(channels, height, width, "discrete")
        self.parameters: Mapping[str, int] = {}

    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        """Return the rows of the seeds."""
        rows = torch.as_tensor(seeds) % len(self.table)
        return Samples(self.table[rows], torch.zeros(len(seeds), dtype=torch.int64), 0.0)

    def density(self, levels: Tensor, seeds: Sequence[int], config: DensityConfig) -> Density:
        """Raise NotImplementedError: a table has none."""
        raise NotImplementedError("ready images have no density")


class FreeFeatures:
    """Features that are a random linear map of the pixels, float32 [N, dim]."""

    name, sha256, resize = "free features", "0" * 64, ""

    def __init__(self, image_shape: tuple[int, int, int], dim: int) -> None:
        self.image_shape: ImageShape = image_shape
        self.dim = dim
        inputs = image_shape[0] * image_shape[1] * image_shape[2]
        self.weight = torch.randn(inputs, dim, generator=torch.Generator().manual_seed(0))

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features."""
        return images.flatten(1).float() @ self.weight


def measure_memory(counts: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each number of images: bytes of memory that the pass added.

    Raises ConfigError where a process does not end.
    """
    # Arrays of 64 KiB and more are given back when they are freed, so that resident memory is what is held.
    quiet = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "LSGM_PROGRESS": "0"}
    rows = []
    for count in counts:
        command = [sys.executable, "-m", "lsgm_eval.bench.fid_memory", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise ConfigError(f"a pass of {count:,} images failed ({last}); give smaller --counts")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    if len(rows) > 1 and rows[0]["images"] < rows[-1]["images"]:
        of = f"{rows[-1]['images']:,} over {rows[0]['images']:,} free images, peak of the process"
        rows[-1] |= towards("flat-memory", rows[-1]["peak_bytes"] / rows[0]["peak_bytes"], of)
    return rows


def _work(count: int) -> dict[str, Any]:
    """Run a pass of ``count`` images; return its row."""
    table = torch.randint(256, (1000, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    model, extractor = FreeImages(table), FreeFeatures((3, 8, 8), DIM)
    sampler = SamplerConfig("heun", steps=1)
    # A small pass first: libraries load and threads start, which are not what is asked about.
    run_pass(model, range(WARM), sampler, [extractor], batch_size=BATCH)
    reset_peak()
    before = peak_bytes() or 0
    started = time.perf_counter()
    found = run_pass(model, range(count), sampler, [extractor], batch_size=BATCH)
    seconds = time.perf_counter() - started
    peak = found.peak_bytes or 0
    return {
        "images": count,
        "dim": extractor.dim,
        "before_bytes": before,
        "peak_bytes": peak,
        "rise_bytes": peak - before,
        # Rows that the pass keeps for metrics of neighbours; it keeps no more than CAPACITY.
        "rows_bytes": 4 * extractor.dim * min(count, CAPACITY),
        "seconds": seconds,
    }


if __name__ == "__main__":
    print(json.dumps(_work(int(sys.argv[1]))))
