"""A pass over ready images against what its extractor alone takes for them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.generative import GenerativeModel
from lsgm_eval.bench.fid_memory import FreeImages
from lsgm_eval.bench.inception_weights import write_random_state
from lsgm_eval.bench.turns import take_turns
from lsgm_eval.extractors.base import Extractor
from lsgm_eval.extractors.inception_fidelity import FidelityInception
from lsgm_eval.extractors.torchscript import TorchScriptExtractor
from lsgm_eval.features import FeatureStats
from lsgm_eval.passes import run_pass

if TYPE_CHECKING:
    from lsgm_eval.bench.fid import Options

__all__ = ["SAMPLER", "extract", "measure_pass", "pass_over", "pictures", "state_file"]

SAMPLER = SamplerConfig("heun", steps=1)
"""Ready images do not ask for it."""
FAST = 32
"""How many times as many images a TorchScript of one's own gets, which is faster than Inception."""


def measure_pass(options: Options) -> list[dict[str, Any]]:
    """Return for each extractor the seconds of extraction alone and of a pass over the same ready images."""
    with state_file(options) as state:
        extractors: list[tuple[Extractor, int]] = [(FidelityInception(str(state)), options.images)]
    if options.script is not None:
        shape = (3, options.size, options.size)
        extractors.append((TorchScriptExtractor(options.script, shape), FAST * options.images))
    return [row for extractor, count in extractors for row in _compare(extractor, count, options)]


def _compare(extractor: Extractor, count: int, options: Options) -> list[dict[str, Any]]:
    images = pictures(count, options.size, options.seed)
    ways: dict[str, Callable[[], object]] = {
        "extractor alone": partial(extract, extractor, images, options.batch),
        "whole pass": partial(pass_over, FreeImages(images), count, extractor, options.batch),
    }
    extract(extractor, images[:2], 2)
    timed = take_turns(ways, options.repeats, desc=f"pass, {extractor.name}")
    head = {"extractor": extractor.name, "images": count, "batch": options.batch, "repeats": options.repeats}
    alone = timed["extractor alone"]
    return [head | {"way": name, **times.as_row(alone)} for name, times in timed.items()]


def pictures(count: int, size: int, seed: int) -> Tensor:
    """Return images uint8 [count, 3, size, size] of smooth noise, which PNG compresses as it does photos."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, max(size // 4, 1), max(size // 4, 1), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (smooth * 255).round().to(torch.uint8)


def extract(extractor: Extractor, images: Tensor, batch: int) -> Tensor:
    """Return the features of all images."""
    return torch.cat([extractor(images[at : at + batch]) for at in range(0, len(images), batch)])


def pass_over(model: GenerativeModel, count: int, extractor: Extractor, batch: int) -> FeatureStats:
    """Return what a pass over the first ``count`` images of a model finds."""
    return run_pass(model, range(count), SAMPLER, [extractor], batch_size=batch).stats[extractor.name]


@contextmanager
def state_file(options: Options) -> Iterator[Path]:
    """Yield the file of Inception's weights: those given, or random ones in a folder that goes at the end."""
    if options.weights is not None:
        yield Path(options.weights)
        return
    with tempfile.TemporaryDirectory(prefix="lsgm-bench-") as folder:
        path = Path(folder) / "random.pth"
        write_random_state(path, options.seed)
        yield path
