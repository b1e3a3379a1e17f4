"""The table of samplers: name, paper, order and cost of each; free of torch, so that a listing is instant."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from lsgm.config import require
from lsgm.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from lsgm.config import SamplerConfig
    from lsgm.ode import ODESolution
    from lsgm.rng import SeededNoise
    from lsgm.sampling.counted import CountedScore

    Step: TypeAlias = Callable[
        [CountedScore, Tensor, Tensor, SeededNoise, SamplerConfig], Tensor | ODESolution
    ]

__all__ = ["Sampler", "check_options", "find_sampler", "register", "sampler_names", "samplers"]


@dataclass(frozen=True)
class Sampler:
    """One entry of the table; ``run(score, z, times, noise, config)`` takes z from times[0] to times[-1]."""

    name: str
    run: Step
    summary: str
    paper: str
    order: float | None
    """Global order of convergence of the samples in the step size (None: not applicable)."""
    stochastic: bool
    adaptive: bool
    nfe_per_step: int
    nfe_offset: int
    min_steps: int
    vp_only: bool
    """Whether the sampler needs an SDE that keeps unit variance."""
    denoises: bool
    """Whether the last step already is E[z_0 | z_t], so that asking to denoise changes nothing."""
    corrects: bool
    """Whether every step begins with ``corrector_steps`` more evaluations."""
    options: frozenset[str]
    """Fields of `SamplerConfig` that it alone, or a few of its kind, have a use for: ``eta`` of ddim."""

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
        why = dict.fromkeys(sorted(own - self.options), f"the sampler {self.name} has none")
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


def register(
    name: str,
    *,
    paper: str,
    order: float | None,
    nfe_per_step: int,
    nfe_offset: int = 0,
    stochastic: bool = False,
    adaptive: bool = False,
    min_steps: int = 1,
    vp_only: bool = False,
    denoises: bool = False,
    corrects: bool = False,
    options: Iterable[str] = (),
) -> Callable[[Step], Step]:
    """Enter the decorated function in the table; the first line of its docstring is its summary.

    ``options`` are the fields of `SamplerConfig` that it reads besides those that many samplers do: times and
    their grid where steps are fixed, tolerances where not, temperature, denoise.

    Raises ValueError where the name is taken.
    """

    def enter(run: Step) -> Step:
        if name in _SAMPLERS:
            raise ValueError(f"two samplers are called '{name}'")
        summary = (run.__doc__ or "").strip().split("\n")[0].rstrip(".")
        _SAMPLERS[name] = Sampler(
            name=name,
            run=run,
            summary=summary,
            paper=paper,
            order=order,
            stochastic=stochastic,
            adaptive=adaptive,
            nfe_per_step=nfe_per_step,
            nfe_offset=nfe_offset,
            min_steps=min_steps,
            vp_only=vp_only,
            denoises=denoises,
            corrects=corrects,
            options=frozenset(options),
        )
        return run

    return enter


def sampler_names() -> tuple[str, ...]:
    """Return the names of all samplers, sorted."""
    return tuple(sorted(_SAMPLERS))


def samplers() -> tuple[Sampler, ...]:
    """Return the whole table, sorted by name."""
    return tuple(_SAMPLERS[name] for name in sampler_names())


def find_sampler(name: str) -> Sampler:
    """Return the sampler called ``name``. Raises ConfigError, with the closest name, where there is none."""
    if name not in _SAMPLERS:
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
