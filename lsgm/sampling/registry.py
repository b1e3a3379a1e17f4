r"""The table of samplers: name, paper, order and cost of each; and the score model as samplers see it.

Its evaluations are counted, and it is straightened out on a grid of times. With u = z / m_t and
s = sigma_t / m_t the flow of any linear SDE is du/ds = eps_theta(z, t) (Song et al., arXiv:2010.02502,
section 4.3; Zhang & Chen, arXiv:2204.13902), so that a solver needs no more of the SDE than s and m at the
nodes of its grid. Steps are taken on z itself: u reaches 1/m_1, where float32 would lose what z keeps.

Nothing here imports torch before a sampler runs, so that a listing is instant. A package adds a sampler by a
module in the entry-point group ``lsgm.samplers`` that enters it with `register`, and that imports torch
inside of its functions alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from lsgm.config import require
from lsgm.discovery import offers
from lsgm.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lsgm.config import SamplerConfig
    from lsgm.ode import ODESolution
    from lsgm.rng import SeededNoise
    from lsgm.sde import SDE

    T = TypeVar("T")
    Walk: TypeAlias = Callable[["Descent", Tensor], Tensor | ODESolution]


class ScoreFunction(Protocol):
    """What sampling and likelihood know of a model; t is [B] float64, results have z_t's shape and dtype."""

    @property
    def sde(self) -> SDE:
        """The forward diffusion."""

    def eps(self, z_t: Tensor, t: Tensor, /) -> Tensor:
        """Predicted noise eps_theta(z_t, t); the score is -eps_theta / sigma_t."""

    def drift(self, z_t: Tensor, t: Tensor, /) -> Tensor:
        """Probability-flow velocity dz/dt = f z + g^2 eps_theta / (2 sigma_t), arXiv:2106.05931 section 2."""


class CountedScore:
    """A score function that counts its evaluations, sample by sample (`nfe`, int64 [B])."""

    def __init__(self, score: ScoreFunction, batch: int, device: torch.device | str = "cpu") -> None:
        import torch

        self._score = score
        self.sde = score.sde
        self._whole = 0
        self._nfe = torch.zeros(batch, dtype=torch.int64, device=device)

    @property
    def nfe(self) -> Tensor:
        """Evaluations of each sample so far."""
        return self._nfe + self._whole

    def eps(self, z_t: Tensor, t: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the predicted noise of the batch, or of its ``rows`` only."""
        self._count(rows)
        return self._score.eps(z_t, t)

    def drift(self, z_t: Tensor, t: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the probability-flow velocity of the batch, or of its ``rows`` only."""
        self._count(rows)
        return self._score.drift(z_t, t)

    def _count(self, rows: Tensor | None) -> None:
        if rows is None:
            self._whole += 1
        else:
            self._nfe[rows] += 1


def kept(times: Tensor, key: object, make: Callable[[], T]) -> T:
    """Return what ``make`` gives, once for a tensor of times, which keeps it for the batches to come."""
    found: dict[object, T] = times.__dict__.setdefault("kept", {})
    if key not in found:
        found[key] = make()
    return found[key]


def node_times(times: Tensor, batch: int) -> tuple[Tensor, ...]:
    """Return each of the times [N + 1] for a batch, [B]; they keep a model's coefficients (`lsgm.score`)."""

    def make() -> tuple[Tensor, ...]:
        found = tuple(t.expand(batch) for t in times)
        for t in found:
            t.__dict__["kept"] = {}
        return found

    return kept(times, ("nodes", batch), make)


@dataclass(frozen=True)
class Nodes:
    """A grid of N + 1 times with what solvers need at each of them, as numbers in float64."""

    score: CountedScore
    times: Tensor
    m: tuple[float, ...]
    """Coefficient m_t of z_0 in the mean of q(z_t | z_0)."""
    sigma: tuple[float, ...]
    """Standard deviation sigma_t of q(z_t | z_0)."""
    s: tuple[float, ...]
    """sigma_t / m_t, falling along the grid."""

    @classmethod
    def of(cls, score: CountedScore, times: Tensor) -> Nodes:
        """Return the nodes at ``times``, float64 [N + 1]."""
        sde = score.sde

        def values() -> tuple[SDE, tuple[tuple[float, ...], ...]]:
            m, sigma = sde.mean(times), sde.sigma(times)
            return sde, tuple(tuple(each.tolist()) for each in (m, sigma, sigma / m))

        return cls(score, times, *kept(times, ("values", id(sde)), values)[1])

    @cached_property
    def lam(self) -> tuple[float, ...]:
        """lambda = log(m / sigma) = -log s of each node."""
        return tuple(-math.log(s) for s in self.s)

    @property
    def steps(self) -> int:
        """N."""
        return len(self.m) - 1

    def eps(self, z: Tensor, k: int) -> Tensor:
        """Return eps_theta(z, t_k) of a batch: one evaluation."""
        return self.score.eps(z, node_times(self.times, len(z))[k])

    def clean(self, z: Tensor, k: int, eps: Tensor) -> Tensor:
        """Return the prediction of z_0 from z at t_k: (z - sigma_k eps) / m_k."""
        return (z - self.sigma[k] * eps) / self.m[k]

    def step(self, z: Tensor, k: int, j: int, slope: Tensor) -> Tensor:
        """Return z at t_j from z at t_k by du/ds = ``slope``: m_j (z / m_k + (s_j - s_k) slope)."""
        return (self.m[j] / self.m[k]) * z + (self.m[j] * (self.s[j] - self.s[k])) * slope


@dataclass(frozen=True)
class Descent:
    """The way down from times[0] to times[-1], and what a sampler may use on it besides the z it is given."""

    score: CountedScore
    times: Tensor
    """Float64 [N + 1], falling."""
    noise: SeededNoise
    config: SamplerConfig

    @cached_property
    def nodes(self) -> Nodes:
        """What solvers in (u, s) need at each of the times."""
        return Nodes.of(self.score, self.times)

    def nodes_of(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return each of the times for a batch, [B]."""
        return node_times(self.times, len(z))

    def fresh(self, z: Tensor) -> Tensor:
        """Return the next N(0, 1) noise, shape and dtype of z; row k's from seed k alone."""
        return self.noise.normal(*z.shape[1:], dtype=z.dtype)


@dataclass(frozen=True)
class Sampler:
    """One entry of the table; ``walk(descent, z)`` takes z from the first of the times to the last."""

    name: str
    walk: Walk
    summary: str
    paper: str
    order: float | None
    """Global order of convergence of the samples in the step size (None: not applicable)."""
    nfe_per_step: int
    nfe_offset: int = 0
    stochastic: bool = False
    adaptive: bool = False
    min_steps: int = 1
    vp_only: bool = False
    """Whether the sampler needs an SDE that keeps unit variance."""
    denoises: bool = False
    """Whether the last step already is E[z_0 | z_t], so that asking to denoise changes nothing."""
    corrects: bool = False
    """Whether every step begins with ``corrector_steps`` more evaluations."""
    options: Collection[str] = ()
    """Fields of `SamplerConfig` that it alone, or a few of its kind, have a use for: ``eta`` of ddim. Times
    and their grid where steps are fixed, tolerances where not, temperature and denoise are everyone's."""

    def run(
        self, score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
    ) -> Tensor | ODESolution:
        """Take z from times[0] to times[-1]."""
        return self.walk(Descent(score, times, noise, config), z)

    def nfe(self, steps: int) -> int | None:
        """Network evaluations of a run of ``steps`` steps; None where the solver decides."""
        return None if self.adaptive else self.nfe_per_step * steps + self.nfe_offset

    def evaluations(self, config: SamplerConfig) -> int | None:
        """Network evaluations under a configuration; None where the solver decides."""
        if self.adaptive:
            return None
        steps = len(config.times) - 1 if config.times else config.steps
        return self._per_step(config) * steps + self._fixed(config)

    def steps_within(self, nfe: int, config: SamplerConfig) -> int:
        """Return the most steps that take at most ``nfe`` evaluations, the options as in ``config``.

        Raises ConfigError where even the fewest steps take more.
        """
        steps = (nfe - self._fixed(config)) // self._per_step(config)
        fewest = self._per_step(config) * self.min_steps + self._fixed(config)
        require(
            steps >= self.min_steps,
            f"sampler '{self.name}' takes at least {fewest} evaluations, not {nfe}; ask for more",
        )
        return steps

    def _per_step(self, config: SamplerConfig) -> int:
        return self.nfe_per_step + (config.corrector_steps if self.corrects else 0)

    def _fixed(self, config: SamplerConfig) -> int:
        return self.nfe_offset + (config.denoise and not self.denoises)

    def without_effect(self, config: SamplerConfig) -> dict[str, str]:
        """Return the options that have no effect under a configuration, whatever their values, and why."""
        own = {"eta", "churn", "churn_min", "churn_max", "churn_noise", "corrector_steps", "snr"}
        why = dict.fromkeys(sorted(own.difference(self.options)), f"the sampler {self.name} has none")
        if self.adaptive:
            chooses = f"the sampler {self.name} chooses its own steps by rtol and atol"
            why |= dict.fromkeys(("steps", "grid", "rho", "times"), chooses)
        else:
            why |= dict.fromkeys(
                ("rtol", "atol"), f"the sampler {self.name} has fixed steps and no tolerance"
            )
            if config.grid != "edm":
                why["rho"] = "it is the exponent of the grid edm alone"
            if config.times:
                why |= dict.fromkeys(("steps", "time_end"), "the times say it")
        if config.churn == 0 and "churn" in self.options:
            why |= dict.fromkeys(("churn_min", "churn_max", "churn_noise"), "without churn no noise is added")
        if config.corrector_steps == 0 and self.corrects:
            why["snr"] = "without corrector steps there is nothing whose length it sets"
        return why

    @property
    def nfe_formula(self) -> str:
        """The cost of N steps (of an adaptive solver: attempted ones) with C corrector steps in each."""
        slope = "N" if self.nfe_per_step == 1 else f"{self.nfe_per_step}N"
        slope = f"({self.nfe_per_step}+C)N" if self.corrects else slope
        return f"{slope}{self.nfe_offset:+d}" if self.nfe_offset else slope


_SAMPLERS: dict[str, Sampler] = {}


def register(name: str, **about: Any) -> Callable[[Walk], Walk]:
    """Enter the decorated function in the table; the first line of its docstring is its summary.

    ``about`` are the other fields of `Sampler`. Raises ValueError where the name is taken.
    """

    def enter(walk: Walk) -> Walk:
        if name in _SAMPLERS:
            raise ValueError(f"two samplers are called '{name}'")
        summary = (walk.__doc__ or "").strip().split("\n")[0].rstrip(".")
        _SAMPLERS[name] = Sampler(name, walk, summary, **about)
        return walk

    return enter


@cache
def _enter_those_of_others() -> None:
    for point in offers("lsgm.samplers").values():
        point.load()


def sampler_names() -> tuple[str, ...]:
    """Return the names of all samplers, sorted."""
    _enter_those_of_others()
    return tuple(sorted(_SAMPLERS))


def samplers() -> tuple[Sampler, ...]:
    """Return the whole table, sorted by name."""
    return tuple(_SAMPLERS[name] for name in sampler_names())


def find_sampler(name: str) -> Sampler:
    """Return the sampler called ``name``. Raises ConfigError, with the closest name, where there is none."""
    if name not in _SAMPLERS and name not in sampler_names():
        raise ConfigError(
            f"unknown sampler '{name}'{did_you_mean(name, _SAMPLERS)}; there are {', '.join(sampler_names())}"
        )
    return _SAMPLERS[name]


def check_options(config: SamplerConfig, where: str = "--sampler.", *, given: Collection[str] = ()) -> None:
    """Raise ConfigError where an option is set that has no effect, or there is no such sampler.

    Set are the options ``given`` and those that are not at their default, which says nothing and is no
    mistake. ``where`` stands before the option's name, as the user wrote it.
    """
    why = find_sampler(config.name).without_effect(config)
    names = [field.name for field in dataclasses.fields(config)]
    plain = type(config)()
    for name in names:
        value = getattr(config, name)
        if name in why and (name in given or value != getattr(plain, name)):
            option = name.replace("_", "-")
            raise ConfigError(
                f"{where}{option} is {value} and would have no effect: {why[name]}; leave it out"
            )
