r"""How noisy the cross entropy and its gradient are within an image, whatever they are compared with.

For one t and eps the estimate with a control variate is the one without, less w_q || eps - eps_c ||^2, plus
what is known of the Normal law: no network occurs in the difference. So the network is evaluated, and its
gradient taken, once and without a control variate. What each law adds is the objective's own difference for a
prior that is nothing but N(0, I), in float64. That all forms share the draws takes most of the noise out of
their ratios.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lsgm.bench.measuring import Columns, Row, columns, measured, table
from lsgm.bench.options import VarianceBench
from lsgm.data import load, test_levels
from lsgm.errors import ConfigError, DataError
from lsgm.logs import log
from lsgm.model.lsgm import LSGM
from lsgm.objective.bound import Objective, Times
from lsgm.progress import bar
from lsgm.rng import SeededNoise
from lsgm.runs.load import open_checkpoint, run_name
from lsgm.score import SMALLEST_VARIANCE, NormalLatents, NormalReference, ScoreModel, standard_normal
from lsgm.sde import SDE
from lsgm.vae.base import VAE

PLAIN = "as before"
"""The form without a control variate."""
STRATA = 8
"""Times that are drawn together and cover (0, 1) evenly."""
WEIGHTINGS = ("ll", "un", "re")
NUMBERS, MOST_IMAGES = 100_000, 32
"""Latents, images times dimensions, and images that are measured unless told otherwise."""
BATCH = 32
"""Images whose draws are held at once."""

CHECKPOINTS = tuple(
    f"checkpoints/{name}"
    for name in ("glyphs-lsgm", "mnist-small/lsgm", "omniglot/lsgm", "cifar10-small/lsgm")
)
"""LSGMs that this repository keeps."""


@dataclass(frozen=True)
class VarianceProblem:
    """A trained prior, latents of held-out images, and the laws that the prior is compared with."""

    name: str
    split: str
    score: ScoreModel
    z_0: Tensor
    """[N, C, h, w], one draw of q(z_0 | x) of each image."""
    laws: Mapping[str, NormalLatents]
    fit: int
    """Training images that the laws were fitted to."""
    time_eps: float


class Variances(NamedTuple):
    """Of draws within an image, [B] each, summed over dimensions: all are unbiased."""

    one: Tensor
    """Variance of one draw."""
    together: Tensor
    """Variance of the mean of stratified draws."""
    squared_mean: Tensor
    """Square of the expectation."""


def lsgm_problem(
    path: str, *, images: int | None, fit: int, seed: int, device: torch.device
) -> VarianceProblem:
    """Return the problem of a checkpoint of an LSGM, in eval mode and with averaged weights.

    Raises ConfigError for a model of another kind, CheckpointError where there is none, and DataError where
    its dataset is not at hand.
    """
    opened = open_checkpoint(path, "ema")
    networks = opened.networks
    if not isinstance(networks, LSGM):
        raise ConfigError(f"{path} has no score prior of latents; give an LSGM")
    chosen = opened.recipe.data
    data = load(chosen.dataset, image_size=chosen.size, convert=chosen.convert)
    networks.to(device)
    shape = networks.vae.groups.z_0
    count = images or max(2, min(MOST_IMAGES, NUMBERS // torch.Size(shape).numel()))
    split = "test" if len(data.splits.get("test", ())) else "val"

    def latents(part: str, limit: int) -> Tensor:
        levels = test_levels(data, part, seed, bits=opened.pixels.bits, limit=limit)
        return _encoded(networks.vae, levels, f"variance {seed}/{part}", device)

    held_out, seen = latents(split, count), latents("train", fit)
    return VarianceProblem(
        opened.state.get("name") or run_name(opened.checkpoint),
        split,
        networks.prior,
        held_out,
        fitted_laws(networks.prior.sde, seen),
        len(seen),
        opened.recipe.prior.objective.time_eps,
    )


@torch.no_grad()
def _encoded(vae: VAE, levels: Tensor, stream: str, device: torch.device) -> Tensor:
    parts = []
    for start in range(0, len(levels), 4 * BATCH):
        batch = levels[start : start + 4 * BATCH].to(device)
        noise = SeededNoise(range(start, start + len(batch)), device=device, stream=stream)
        parts.append(vae.groups.stack(vae.posterior(batch, noise.normal).z))
    return torch.cat(parts)


def fitted_laws(sde: SDE, latents: Tensor) -> dict[str, NormalLatents]:
    """Return N(0, I) and the Normal laws that fit latents [N, C, h, w], coarsest first."""
    z = latents.double()
    reference = NormalReference(z.shape[1:], sde).to(z.device)
    # The first batch that a reference sees is all that it knows.
    coefficients = reference.latents().rotate(z)
    reference.update(coefficients.mean(dim=0), coefficients.square().mean(dim=0))

    def fit(*dims: int) -> NormalLatents:
        var, mean = torch.var_mean(z, dims, correction=0, keepdim=True)
        return NormalLatents(mean[0], var[0].clamp(min=SMALLEST_VARIANCE))

    return {
        "N(0, I)": standard_normal(sde),
        "per channel": fit(0, 2, 3),
        "per dimension": fit(0),
        "per frequency": reference.latents(),
    }


class _Silent(nn.Module):
    """A network that predicts nothing."""

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(z_t)


class _Bare(ScoreModel):
    """A prior that is nothing but N(0, I), compared with some law."""

    def __init__(self, sde: SDE, channels: int, law: NormalLatents) -> None:
        super().__init__(sde, _Silent(), channels=channels, parameterisation="velocity")
        self.law = law

    def normal_latents(self) -> NormalLatents:
        """Return that law."""
        return self.law


def _draw(
    objective: Objective, score: ScoreModel, z_0: Tensor, times: Times, eps: Tensor, gradient: bool
) -> Tensor:
    """Return one draw: the value [B] float64, or its gradient with respect to z_0, shaped like it."""
    with torch.set_grad_enabled(gradient):
        z_0 = z_0.detach().requires_grad_(gradient)
        value = objective.vae_loss(score, z_0, times, eps).sum(dim=1)
        return torch.autograd.grad(value.sum(), z_0)[0].double() if gradient else value


def paired_draws(
    score: ScoreModel,
    laws: Mapping[str, NormalLatents],
    objective: Objective,
    z_0: Tensor,
    noise: SeededNoise,
    *,
    groups: int,
    gradient: bool,
) -> dict[str, Tensor]:
    """Return draws of the value, or of its gradient, by form: float64 [groups, STRATA, B, ...].

    All forms see the same t and eps. The times of a group are (offset + i) / STRATA.
    """
    plain, channels = replace(objective, control_variate=False), z_0.shape[1]
    standard = _Bare(score.sde, channels, standard_normal(score.sde)).to(z_0.device)
    bare = {name: _Bare(score.sde, channels, law).to(z_0.device) for name, law in laws.items()}
    found: dict[str, list[Tensor]] = {name: [] for name in (PLAIN, *laws)}
    for _ in range(groups):
        offset = noise.uniform(dtype=torch.float64)
        for index in range(STRATA):
            times = objective.draw((offset + index) / STRATA)
            eps = noise.normal(*z_0.shape[1:])
            before = _draw(plain, score, z_0, times, eps.to(z_0.dtype), gradient)
            exact = z_0.double(), times, eps.double(), gradient
            rest = before - _draw(plain, standard, *exact)
            found[PLAIN].append(before)
            for name, prior in bare.items():
                found[name].append(rest + _draw(objective, prior, *exact))
    return {
        name: torch.stack(draws).reshape(groups, STRATA, *draws[0].shape) for name, draws in found.items()
    }


def within_images(draws: Tensor) -> Variances:
    """Return the variances of draws [G, S, B, ...], stratified within each of G independent groups of S.

    Neither the mean of all nor their spread is what it is for independent draws; groups are, and tell by how
    much the mean of all is off.
    """
    groups = draws.shape[0]
    mean = draws.mean(dim=(0, 1))
    away = draws - mean
    together = away.mean(dim=1).square().sum(dim=0) / (groups - 1)
    one = away.square().mean(dim=(0, 1)) + together / groups
    squared_mean = mean.square() - together / groups
    return Variances(*(x.reshape(len(x), -1).sum(dim=1) for x in (one, together, squared_mean)))


def measure(problem: VarianceProblem, *, draws: int, seed: int) -> list[dict[str, Any]]:
    """Return a row for every form of the value, and of the gradient under every weighting."""
    shared = {
        "checkpoint": problem.name,
        "split": problem.split,
        "images": len(problem.z_0),
        "fit": problem.fit,
        "latents": "x".join(map(str, problem.z_0.shape[1:])),
        "draws": draws,
        "seed": seed,
    }
    objective, _ = _objective(problem, "ll")
    rows = []
    for name, (found, plain) in _all_images(problem, objective, f"{seed}/value", draws, False).items():
        one, together = _root(found.one, plain.one), _root(found.together, plain.together)
        ends = {"one": one, "eight": together}
        numbers = {f"{key}_{end}": value for end, each in ends.items() for key, value in each.items()}
        rows.append({"what": "value", **shared, "form": name, **numbers})
    for weighting in WEIGHTINGS:
        objective, matched = _objective(problem, weighting)
        by_form = _all_images(problem, objective, f"{seed}/{weighting}", draws // STRATA, True)
        # Every form has the same expectation; the quietest knows it best.
        quietest = min((found for found, _ in by_form.values()), key=lambda each: float(each.one.mean()))
        for name, (found, plain) in by_form.items():
            numbers = _root(found.one, plain.one)
            numbers["variance"] = float(found.one.mean())
            numbers["squared_mean"] = float(quietest.squared_mean.mean())
            head = {"weighting": weighting, "importance_sampling": matched, "form": name}
            rows.append({"what": "gradient", **shared, **head, **numbers})
    return rows


def _objective(problem: VarianceProblem, weighting: str) -> tuple[Objective, bool]:
    """Return the objective of a weighting, and whether it has importance-sampled times, else uniform ones."""

    def make(matched: bool) -> Objective:
        sde, start = problem.score.sde, problem.time_eps
        return Objective.make(sde, weighting=weighting, importance_sampling=matched, time_eps=start)

    try:
        return make(True), True
    except ConfigError:
        return make(False), False


def _all_images(
    problem: VarianceProblem, objective: Objective, stream: str, groups: int, gradient: bool
) -> dict[str, tuple[Variances, Variances]]:
    """Return the variances [N] by form, each with those as before."""
    parts: dict[str, list[Variances]] = {}
    starts = range(0, len(problem.z_0), BATCH)
    for start in bar(starts, desc=f"{problem.name}, {stream.split('/')[1]}", unit="batch"):
        z_0 = problem.z_0[start : start + BATCH]
        noise = SeededNoise(range(start, start + len(z_0)), device=z_0.device, stream=f"variance {stream}")
        draws = paired_draws(
            problem.score, problem.laws, objective, z_0, noise, groups=groups, gradient=gradient
        )
        for name, each in draws.items():
            parts.setdefault(name, []).append(within_images(each))
    whole = {name: Variances(*map(torch.cat, zip(*each, strict=True))) for name, each in parts.items()}
    return {name: (each, whole[PLAIN]) for name, each in whole.items()}


def _root(variance: Tensor, before: Tensor) -> dict[str, float | None]:
    """Return the root mean variance, its relative standard error over images, and how many draws it saves."""
    mean, error = float(variance.mean()), float(variance.std()) / len(variance) ** 0.5
    return {
        "std": mean**0.5,
        "error": error / mean / 2 if mean > 0 else None,
        "fewer": float(before.mean()) / mean if mean > 0 else None,
    }


_VALUE: Columns = {
    "checkpoint": "{checkpoint}",
    "compared with": "{form}",
    "one draw, nats": lambda row: _number(row["std_one"]),
    "eight, nats": lambda row: _number(row["std_eight"]),
    "fewer draws for equal error": lambda row: _times(row["fewer_one"]),
    "fewer eights": lambda row: _times(row["fewer_eight"]),
}


def page(rows: Sequence[Row], *, about: str) -> str:
    """Return the machine, the table of values and that of gradients."""
    values = [row for row in rows if row["what"] == "value"]
    gradients = [row for row in rows if row["what"] == "gradient"]
    first = values[0]
    worst = [max(row[name] or 0.0 for row in values) for name in ("error_one", "error_eight")]
    measured = dict.fromkeys(
        f"{row['checkpoint']}: {row['images']} {row['split']} images of {row['latents']} latents, "
        f"laws fitted to those of {row['fit']:,} training images"
        for row in values
    )
    return "\n\n".join(
        [
            "# Noise of the cross entropy within an image",
            about,
            f"{'; '.join(measured)}. Seed {first['seed']}.",
            "## The value",
            columns(_VALUE, values),
            "Standard deviations over t and eps, root mean of the images' variances, with importance-sampled "
            f"times of the likelihood weighting: of one draw, and of the mean of eight stratified ones, "
            f"{first['draws']} eights of each image. Fewer draws: the variance as before over this one. "
            "Standard errors over images of the deviations are at most "
            f"{worst[0]:.0%} and {worst[1]:.0%} of them.",
            "## The gradient with respect to z_0",
            table(_heads(gradients), _gradients(gradients)),
            f"Variances over {first['draws']} draws of one time, summed over dimensions and averaged over "
            "images, for the prior's weightings, whose times the VAE shares; in brackets how many times "
            "fewer draws have the same error. Squared mean: of the expected gradient, which all forms share. "
            "Standard errors over images of the roots are at most "
            f"{max(row['error'] or 0.0 for row in gradients):.0%} of them.",
        ]
    )


def _heads(rows: Sequence[Row]) -> list[str]:
    """Return the head: a weighting whose times are not the matched ones says so, where that holds for all."""
    matched: dict[str, set[bool]] = {}
    for row in rows:
        matched.setdefault(row["weighting"], set()).add(row["importance_sampling"])
    uniform = {name for name, ways in matched.items() if ways == {False}}
    heads = (f"{name}, uniform times" if name in uniform else name for name in matched)
    return ["checkpoint", "compared with", *heads]


def _gradients(rows: Sequence[Row]) -> list[list[str]]:
    """Return a line per checkpoint and form, and one of the checkpoint's scale."""
    lines: list[list[str]] = []
    for path in dict.fromkeys(row["path"] for row in rows):
        own = [row for row in rows if row["path"] == path]
        name = own[0]["checkpoint"]
        for form in dict.fromkeys(row["form"] for row in own):
            these = [row for row in own if row["form"] == form]
            cells = [f"{_number(row['variance'])} ({_times(row['fewer'])})" for row in these]
            lines.append([name, form, *cells])
        scale = {row["weighting"]: _number(row["squared_mean"]) for row in own}
        lines.append([name, "squared mean", *scale.values()])
    return lines


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{_number(ratio)} ×"


def _number(x: float) -> str:
    """Return three digits, without powers of ten where it is large."""
    return f"{float(f'{x:.3g}'):,.0f}" if x >= 100 else f"{x:.3g}"


def run(options: VarianceBench) -> int:
    """Measure, then print; the exit status is 0."""

    def rows(device: torch.device) -> list[dict[str, Any]]:
        found = []
        how: dict[str, Any] = {"images": options.images, "fit": options.fit, "seed": options.seed}
        for path in options.checkpoints or CHECKPOINTS:
            try:
                if not options.checkpoints and not Path(path).is_dir():
                    raise DataError("it is not here")
                problem = lsgm_problem(path, device=device, **how)
            except DataError as error:
                log.warning(f"{path} is skipped: {error}")
                continue
            found += [
                {**row, "path": path} for row in measure(problem, draws=options.draws, seed=options.seed)
            ]
        if not found:
            raise ConfigError("nothing to measure; name an LSGM whose dataset is at hand")
        return found

    return measured("variance", options, rows, page)
