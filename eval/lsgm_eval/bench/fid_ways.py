"""What ``lsgm bench fid`` times and tells: a distance by several ways, a pass, other packages, the page.

Ways to one result are run in turn, on the clock and on the processor. Weights of Inception-v3 are random
unless given, in the formats of both official files: the cost is that of real ones.
"""

from __future__ import annotations

import io
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg
import torch
from PIL import Image
from torch import Tensor, nn

from lsgm.bench.measuring import Columns, Row, columns, quartiles, spread
from lsgm.bench.targets import towards
from lsgm.config import SamplerConfig
from lsgm.data import load
from lsgm.generative import GenerativeModel
from lsgm.progress import bar
from lsgm_eval.bench.fid_memory import FreeImages
from lsgm_eval.features.extractor import Extractor
from lsgm_eval.features.own import TorchScriptExtractor
from lsgm_eval.features.published import CleanInception, FidelityInception, ensure_torchvision
from lsgm_eval.metrics.frechet import frechet_distance, frechet_to
from lsgm_eval.metrics.moments import Array, FeatureStats, Moments
from lsgm_eval.models import open_model
from lsgm_eval.samples.gather import run_pass

if TYPE_CHECKING:
    from lsgm_eval.bench.options import FidBenchOptions

PACKAGES = ("numpy", "scipy", "torch-fidelity", "clean-fid")
OURS = "this package"
EIGVALS = "eigvals of the product"
SIDE = 299
SAMPLER = SamplerConfig("heun", steps=1)
"""Ready images do not ask for it."""
FAST = 32
"""How many times as many images a TorchScript of one's own gets, which is faster than Inception."""
LETTERS, FEW = "a layer on letters", "1/k, half as many images as dimensions"
SPECTRA: dict[str, Callable[[int], Array]] = {
    "1/k": lambda dim: np.arange(1, dim + 1, dtype=np.float64) ** -1,
    "1/k²": lambda dim: np.arange(1, dim + 1, dtype=np.float64) ** -2,
    "geometric": lambda dim: np.logspace(0, -6, dim),
    "flat": lambda dim: np.ones(dim),
    "random": lambda dim: np.exp(np.random.default_rng(dim).normal(size=dim)),
    "1/k, an eighth next to nothing": lambda dim: np.where(
        np.arange(dim) < dim - max(1, dim // 8), 1 / np.arange(1, dim + 1), 1e-14
    ),
    FEW: lambda dim: np.arange(1, dim + 1, dtype=np.float64) ** -1,
}
"""Variances along the axes: they fall by powers as those of image features do, from 1 to 10⁻⁶ in equal
ratios, not at all, or are log-normal. In the last but one the covariance is all but singular, in the last
it is."""


def measure_distance(options: FidBenchOptions) -> list[dict[str, Any]]:
    """Return a row for each spectrum and way: seconds, processor seconds, how many times as long as ours,
    and the relative difference of its value from that of singular values."""
    found: list[dict[str, Any]] = []
    for spectrum in (*SPECTRA, LETTERS):
        a, b = feature_moments(spectrum, options.dim, options.rows, options.seed)
        truth = _by_singular_values(a, b)
        ways: dict[str, Callable[[], float]] = {
            OURS: partial(frechet_distance, a, b),
            "this package, reference factored before": partial(frechet_to(b), a),
            "this package, singular values": partial(_by_singular_values, a, b),
            EIGVALS: partial(_by_product, a, b, _trace_by_eigvals),
            "sqrtm of the product": partial(_by_product, a, b, _trace_by_sqrtm),
        }
        # What comes first with a run is lost in what the others take.
        warm = [] if found else [name for name in ways if name.startswith(OURS)]
        timed = take_turns(ways, options.repeats, desc=f"distance, {spectrum}", warm=warm)
        head = {"spectrum": spectrum, "dim": options.dim, "rows": options.rows, "repeats": options.repeats}
        found += [
            head
            | {"way": name, **times.as_row(timed[OURS])}
            | {"value": times.value, "difference": abs(times.value - truth) / truth}
            | _towards(name, spectrum, options.dim, times.as_row(timed[OURS])["cpu_over_ours"])
            for name, times in timed.items()
        ]
    return found


def _towards(way: str, spectrum: str, dim: int, ratio: float) -> dict[str, Any]:
    """Return what a row says of the target, which is of one way and of Inception's features."""
    of_target = way == EIGVALS and dim == 2048
    return towards("frechet", ratio, f"spectrum {spectrum}, processor seconds") if of_target else {}


def _by_singular_values(a: Moments, b: Moments) -> float:
    return frechet_to(b, accuracy=0.0)(a)


def _by_product(a: Moments, b: Moments, trace_of_root: Callable[[Array], float]) -> float:
    cov_a, cov_b = a.covariance, b.covariance
    shift = a.mean - b.mean
    root = trace_of_root(cov_a @ cov_b)
    return float(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * root)


def _trace_by_eigvals(product: Array) -> float:
    return float(np.sqrt(np.linalg.eigvals(product).astype(np.complex128)).real.sum())


def _trace_by_sqrtm(product: Array) -> float:
    with warnings.catch_warnings():
        # Of a product close to singular, whose root the other packages take as well.
        warnings.simplefilter("ignore")
        return float(np.trace(scipy.linalg.sqrtm(product)).real)


def measure_pass(options: FidBenchOptions, device: torch.device) -> list[dict[str, Any]]:
    """Return for each extractor the seconds of extraction alone and of a pass over the same ready images."""
    with _state_file(options) as state:
        extractors: list[tuple[Extractor, int]] = [
            (FidelityInception(str(state), device=device), options.images)
        ]
    if options.script is not None:
        shape = (3, options.size, options.size)
        extractors.append((TorchScriptExtractor(options.script, shape, device=device), FAST * options.images))
    rows = []
    for extractor, count in extractors:
        images = pictures(count, options.size, options.seed)
        ways: dict[str, Callable[[], object]] = {
            "extractor alone": partial(_extract, extractor, images, options.batch),
            "whole pass": partial(_pass_over, FreeImages(images), count, extractor, options.batch),
        }
        _extract(extractor, images[:2], 2)
        timed = take_turns(ways, options.repeats, desc=f"pass, {extractor.name}")
        head = {"extractor": extractor.name, "images": count, "batch": options.batch}
        rows += [
            head | {"repeats": options.repeats, "way": name, **times.as_row(timed["extractor alone"])}
            for name, times in timed.items()
        ]
    return rows


def measure_packages(options: FidBenchOptions) -> list[dict[str, Any]]:
    """Return the seconds of each package and of this one: files to features, with the network at hand, and
    files and weights to a distance.

    ``difference`` is the largest of any feature relative to the largest feature, or that of the distances.
    """
    ensure_torchvision()
    with _state_file(options) as state, tempfile.TemporaryDirectory(prefix="lsgm-bench-") as place:
        script = Path(place) / "inception-2015-12-05.pt"
        write_script(state, script)
        folders = [Path(place) / name for name in ("first", "second")]
        for number, folder in enumerate(folders):
            _write_pngs(pictures(options.images, options.size, options.seed + number), folder)
        rows = _package_features(state, script, folders[0], options)
        return rows + _package_distances(state, folders, options)


def _package_features(
    state: Path, script: Path, folder: Path, options: FidBenchOptions
) -> list[dict[str, Any]]:
    """Return rows of torch-fidelity's and clean-fid's features beside ours, each network run before."""
    from cleanfid.fid import get_folder_features
    from cleanfid.inception_torchscript import InceptionV3W
    from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id

    fidelity, clean = FidelityInception(str(state)), CleanInception(str(script))
    theirs = create_feature_extractor("inception-v3-compat", ["2048"], **_torch_fidelity(state))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit
        their_clean = InceptionV3W(str(script.parent), download=False)
    batch = options.batch

    def by_torch_fidelity() -> Any:
        given = _torch_fidelity(state) | {"input1": str(folder), "batch_size": batch}
        return extract_featuresdict_from_input_id(1, theirs, **given)["2048"].numpy()

    def by_clean_fid() -> Any:
        given = {"num_workers": 0, "batch_size": batch, "device": torch.device("cpu"), "verbose": False}
        return get_folder_features(str(folder), their_clean, mode="clean", **given)

    rows = []
    ours: Extractor
    for ours, package, way in (
        (fidelity, "torch-fidelity", by_torch_fidelity),
        (clean, "clean-fid", by_clean_fid),
    ):
        # TorchScript compiles in its first runs.
        for _ in range(2):
            _extract(ours, torch.zeros(2, 3, options.size, options.size, dtype=torch.uint8), 2)
            if package == "clean-fid":
                their_clean(torch.zeros(2, 3, 299, 299))
        by_us = partial(_rows_of, ours, folder, options)
        rows += _beside({OURS: by_us, package: way}, "features", options)
    return rows


def _package_distances(state: Path, folders: list[Path], options: FidBenchOptions) -> list[dict[str, Any]]:
    from torch_fidelity import calculate_metrics

    def by_us() -> float:
        extractor = FidelityInception(str(state))
        a, b = (_pass_over(open_model(str(f)), options.images, extractor, options.batch) for f in folders)
        return frechet_distance(a.moments, b.moments)

    def by_torch_fidelity() -> float:
        inputs = {f"input{k + 1}": str(folder) for k, folder in enumerate(folders)}
        given = _torch_fidelity(state) | inputs | {"batch_size": options.batch, "fid": True}
        return float(calculate_metrics(**given)["frechet_inception_distance"])

    return _beside({OURS: by_us, "torch-fidelity": by_torch_fidelity}, "distance", options)


def _beside(
    pair: dict[str, Callable[[], Any]], result: str, options: FidBenchOptions
) -> list[dict[str, Any]]:
    ours, theirs = pair
    timed = take_turns(pair, options.repeats, desc=f"{theirs}, {result}")
    mine, others = (np.asarray(timed[name].value, dtype=np.float64) for name in pair)
    images = options.images * (1 if result == "features" else 2)
    head = {"with": theirs, "result": result, "images": images, "repeats": options.repeats}
    difference = {"difference": float(np.abs(mine - others).max() / np.abs(others).max())}
    return [head | {"way": name, **times.as_row(timed[ours]), **difference} for name, times in timed.items()]


def _rows_of(extractor: Extractor, folder: Path, options: FidBenchOptions) -> Any:
    return _pass_over(open_model(str(folder)), options.images, extractor, options.batch).rows


def _torch_fidelity(state: Path) -> dict[str, Any]:
    weights = {"feature_extractor_weights_path": str(state)}
    return {"cuda": False, "verbose": False, "cache": False, "save_cpu_ram": True, **weights}


def _write_pngs(images: Tensor, folder: Path) -> None:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:06d}.png")


@dataclass
class Timed:
    """Seconds of one way, by round, and what it returned last."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Of all threads of this process: what other work on a busy machine lengthens least."""
    value: Any = None

    def as_row(self, ours: Timed) -> dict[str, float]:
        """Return medians and quartiles of seconds, and of ratios to ``ours`` within rounds."""
        row = quartiles("seconds", self.wall) | quartiles("cpu_seconds", self.cpu)
        for name, mine, other in (("over_ours", self.wall, ours.wall), ("cpu_over_ours", self.cpu, ours.cpu)):
            row |= quartiles(name, [a / max(b, 1e-9) for a, b in zip(mine, other, strict=True)])
        return row


def take_turns(
    ways: Mapping[str, Callable[[], Any]], repeats: int, *, desc: str, warm: Collection[str] = ()
) -> dict[str, Timed]:
    """Return the times of ``repeats`` rounds; a round runs every way once, each round from another one on.

    Those named in ``warm`` run once before, because libraries load and memory is new the first time.
    """
    names = list(ways)
    timed = {name: Timed() for name in names}
    for name in warm:
        ways[name]()
    for index in bar(range(repeats), desc=desc, unit="round"):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            wall, cpu = time.perf_counter(), time.process_time()
            timed[name].value = ways[name]()
            timed[name].wall.append(time.perf_counter() - wall)
            timed[name].cpu.append(time.process_time() - cpu)
    return timed


def feature_moments(spectrum: str, dim: int, rows: int, seed: int) -> tuple[Moments, Moments]:
    """Return the moments of two sets of ``rows`` features: the axes of the second are turned a little, its
    spread is a tenth larger, and its mean lies a tenth of the largest spread away.

    Or of features of images: a layer of random weights and its nonlinearity, on letters of two halves.
    """
    rng = np.random.default_rng(seed)
    if spectrum == LETTERS:
        images = load("glyphs").split("train").flatten(1).numpy() / 255.0
        weights = rng.standard_normal((images.shape[1], dim)) / np.sqrt(images.shape[1])
        rows = min(rows, len(images) // 2)
        return Moments.of(np.maximum(images[:rows] @ weights, 0)), Moments.of(
            np.maximum(images[-rows:] @ weights, 0)
        )
    rows = max(dim // 2, 3) if spectrum == FEW else rows
    spread = np.sqrt(SPECTRA[spectrum](dim))
    axes = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    turned = np.linalg.qr(axes + 0.1 / np.sqrt(dim) * rng.standard_normal((dim, dim)))[0]
    first = (rng.standard_normal((rows, dim)) * spread) @ axes.T
    second = (rng.standard_normal((rows, dim)) * spread * 1.1 + 0.1 / np.sqrt(dim)) @ turned.T
    return Moments.of(first), Moments.of(second)


def pictures(count: int, size: int, seed: int) -> Tensor:
    """Return images uint8 [count, 3, size, size] of smooth noise, which PNG compresses as it does photos."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, max(size // 4, 1), max(size // 4, 1), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (smooth * 255).round().to(torch.uint8)


def _extract(extractor: Extractor, images: Tensor, batch: int) -> Tensor:
    """Return the features of all images."""
    return torch.cat([extractor(images[at : at + batch]) for at in range(0, len(images), batch)])


def _pass_over(model: GenerativeModel, count: int, extractor: Extractor, batch: int) -> FeatureStats:
    """Return what a pass over the first ``count`` images of a model finds."""
    return run_pass(model, range(count), SAMPLER, [extractor], batch_size=batch).of(extractor).stats


@contextmanager
def _state_file(options: FidBenchOptions) -> Iterator[Path]:
    """Yield the file of Inception's weights: those given, or random ones in a folder that goes at the end."""
    if options.weights is not None:
        yield Path(options.weights)
        return
    with tempfile.TemporaryDirectory(prefix="lsgm-bench-") as folder:
        path = Path(folder) / "random.pth"
        torch.save(random_state(options.seed), path)
        yield path


def random_state(seed: int) -> dict[str, Tensor]:
    """Return a state dict with torch-fidelity's names and shapes.

    Convolutions keep the variance of what they see (He et al. 2015), so that features depend on the image.
    """
    state: dict[str, Tensor] = _blank().state_dict()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if name.endswith("conv.weight"):
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.startswith("fc."):
            tensor.normal_(0, 0.05, generator=generator)
        elif name.endswith(("bn.bias", "running_mean")):
            tensor.normal_(0, 0.1, generator=generator)
    return state


def write_script(state: Path, path: Path) -> None:
    """Write the network of a state dict as the TorchScript ``inception-2015-12-05.pt`` of clean-fid.

    Its ``layers`` take images [N, 3, 299, 299] in [-1, 1) to features [N, 2048, 1, 1].
    """
    net = _blank()
    net.load_state_dict(torch.load(state, map_location="cpu", weights_only=True), strict=True)
    with warnings.catch_warnings():
        # torch.jit is deprecated in favour of torch.export, which clean-fid does not read.
        warnings.simplefilter("ignore")
        script: Any = torch.jit
        module = script.script(_Script(net.eval()))
        script.save(module, str(path))


class _Script(nn.Module):
    def __init__(self, net: Any) -> None:
        super().__init__()
        trunk = nn.Sequential(*(layer for name, layer in net.named_children() if name != "fc"))
        trace: Any = torch.jit.trace
        self.layers = trace(trunk, torch.zeros(2, 3, SIDE, SIDE))
        self.output = net.fc

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.layers((x.float() - 128) / 128)
        return pooled.view(-1, 2048)


def _blank() -> Any:
    """Return torch-fidelity's network without its weights, which it would download."""
    ensure_torchvision()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Blank(FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *args: Any, **kwargs: Any) -> None:
            if "strict" in kwargs:
                super().load_state_dict(*args, **kwargs)

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    return Blank("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)


# The rows as a Markdown page


def installed() -> dict[str, str]:
    """Return the versions of what is compared."""
    return {name: version(name) for name in PACKAGES}


def page(rows: Sequence[Row], *, about: str, versions: Mapping[str, str]) -> str:
    """Return a table for each part that was measured, and what its columns are."""
    software = ", ".join(f"{name} {number}" for name, number in versions.items())
    parts = ["# What sample quality costs", f"{about} {software}."]
    for part, (title, heads, note) in _PARTS.items():
        mine = [row for row in rows if row["part"] == part]
        if mine:
            parts += [f"## {title}", columns(heads, mine), note]
    return "\n\n".join(parts) + "\n"


def _spread(name: str) -> Callable[[Row], str]:
    return lambda row: spread(row, name, ".2f")


def _mebibytes(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[name] / 2**20:.0f}"


_TIMES: Columns = {"s": _spread("seconds"), "processor, s": _spread("cpu_seconds")}
_OVER: Columns = {"/ ours": _spread("over_ours"), "/ ours, processor": _spread("cpu_over_ours")}
_PARTS: dict[str, tuple[str, Columns, str]] = {
    "distance": (
        "A Frechet distance of given moments",
        {"way": "{way}", "spectrum": "{spectrum}", **_TIMES, **_OVER, "difference": "{difference:.0e}"},
        "Medians with quartiles, ratios within rounds; *processor* counts the seconds of this process alone. "
        "*Spectrum* is how variances fall along the axes; *difference* is relative to singular values.",
    ),
    "reading": (
        "Reading image files",
        {
            "way": "{way}",
            "files": "{files:,}",
            "size": "{size}",
            "s": _spread("seconds"),
            "PIL loop /": _spread("loop_over"),
            "images/s": "{rate:,.0f}",
        },
        "PNG files in a folder, from the start of a call to the last image; processes are started within it. "
        "The loop opens one after the other with Pillow. Every way gives the same bytes.",
    ),
    "memory": (
        "Peak memory of a pass",
        {
            "images": "{images:,}",
            "features": "{dim}",
            **{f"{name}, MiB": _mebibytes(f"{name}_bytes") for name in ("before", "peak", "rise", "rows")},
            "s": "{seconds:.1f}",
        },
        "Free images, each number in a process of its own. *Rows* is what is kept of features for metrics of "
        "neighbours, of at most 10,000 images.",
    ),
    "pass": (
        "A pass against its extractor",
        {
            "way": "{way}",
            "extractor": "{extractor}",
            "images": "{images}",
            **_TIMES,
            **{head.replace("ours", "alone"): cell for head, cell in _OVER.items()},
        },
        "Ready images in memory. The pass also sums the moments of pooled and spatial features and the class "
        "probabilities of the Inception Score.",
    ),
    "packages": (
        "Files end to end",
        {
            "way": "{way}",
            "result": "{result}",
            "images": "{images}",
            **_TIMES,
            **_OVER,
            "difference": "{difference:.0e}",
        },
        "The same PNG files and weights. *Features* are with the network at hand, *distance* reads it first.",
    ),
}
