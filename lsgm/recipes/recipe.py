"""Recipes of the models: what a TOML file may say, as frozen dataclasses free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lsgm.config import (
    DataConfig,
    OptimConfig,
    SDEConfig,
    StageConfig,
    require,
    require_finite,
    require_sizes,
)
from lsgm.files.limits import DRAWS
from lsgm.nets.config import ConvVAEConfig, FlatVAEConfig, NVAEConfig, ScoreNetConfig
from lsgm.structure import BEFORE

VAEConfig = ConvVAEConfig | NVAEConfig | FlatVAEConfig
"""A VAE of any kind; a table says which by its key `kind`, and conv may be left out."""


@dataclass(frozen=True)
class KLConfig:
    """KL annealing: after `hold`, k rises linearly from `start` to `end` over a share of the stage."""

    start: float = 1e-4
    """Coefficient at the stage's beginning."""
    end: float = 1.0
    """Coefficient after annealing."""
    portion: float = 0.3
    """Share of the stage over which it rises."""
    hold: float = 0.0
    """Share of the stage before it begins to rise."""
    balance: bool = False
    """While k < 1, weight the groups so that each is used (NVAE, arXiv:2007.03898, appendix A)."""

    def __post_init__(self) -> None:
        require(0 <= self.start <= self.end, "kl.start must lie between 0 and kl.end")
        require(0 < self.end <= 1, f"kl.end is {self.end}; it must lie in (0, 1]")
        require(0 <= self.portion <= 1, f"kl.portion is {self.portion}; give a share in [0, 1]")
        require(0 <= self.hold < 1, f"kl.hold is {self.hold}; give a share in [0, 1)")
        require_finite(self)

    def at(self, progress: float) -> float:
        """Return the coefficient when a share ``progress`` of the stage is done."""
        since = progress - self.hold
        risen = since / self.portion if self.portion > 0 else float(since >= 0)
        return self.start + (self.end - self.start) * min(max(risen, 0.0), 1.0)


@dataclass(frozen=True)
class NormPenaltyConfig:
    """Penalty on the networks' Lipschitz constants: spectral * sum sigma_max(W) + gain * sum max |gamma|.

    As in NVAE (arXiv:2007.03898, section 3.2): W over the convolutions, gamma over the normalisations.
    """

    spectral: float = 0.0
    """Coefficient on the largest singular values of the convolutions."""
    gain: float = 0.0
    """Coefficient on the largest gains of the normalisation layers."""
    anneal_from: float | None = None
    """Multiple of both coefficients to come down from, geometrically, as k rises to its end."""

    def __post_init__(self) -> None:
        require(self.spectral >= 0 and self.gain >= 0, "the penalty's coefficients cannot be negative")
        require(self.anneal_from is None or self.anneal_from > 0, "anneal-from must be above 0")
        require_finite(self)


@dataclass(frozen=True)
class ObjectiveConfig:
    """The prior's weighting, and how t is drawn (arXiv:2106.05931, sections 3.3 and 3.4)."""

    weighting: Literal["ll", "un", "re", "rescale", "edm"] = "ll"
    """ll: likelihood g^2 / (2 var); un: unweighted 1/2; re: reweighted g^2 / 2; rescale: 1 / (2 (1 - var));
    edm: the lognormal noise levels of arXiv:2206.00364. The VAE always gets ll."""
    importance_sampling: bool = True
    """Draw t in proportion to the weighting's share of the Normal prior's loss, instead of uniformly."""
    time_eps: float = 1e-2
    """Smallest time of training and of the bound."""
    reference_compat: bool = False
    """Repeat the slips of the authors' code (docs/corrections.md); for parity with it and nothing else."""
    sigma_data: float = 0.5
    """Root mean square of the data, of the weighting and the preconditioning edm: about 0.5 for photographs
    on [-1, 1], 1 for binary pixels."""
    control_variate: bool = field(default=True, metadata={BEFORE: False})
    """Take the Normal prior's share of the noise out of the VAE's gradient (docs/mathematics.md); with
    reference-compat there is none."""

    def __post_init__(self) -> None:
        require(0 <= self.time_eps < 1, f"time-eps is {self.time_eps}; it must lie in [0, 1)")
        require(self.sigma_data > 0, f"sigma-data is {self.sigma_data}; it must be above 0")
        require_finite(self)


@dataclass(frozen=True)
class PriorConfig:
    """The score prior: diffusion, network, and the mixing with the Normal prior (section 3.2)."""

    sde: SDEConfig = field(default_factory=SDEConfig)
    network: ScoreNetConfig = field(default_factory=ScoreNetConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    parameterisation: Literal["mixed", "velocity"] = "mixed"
    """How the network stands on the Normal prior: mixed in, with a share that is learnt per channel (section
    3.2), or added as a velocity, eps = c(t) z_t + m_t F(z_t, t)."""
    mixing_init: float | None = -3.0
    """Of a mixed score: logit of the network's share at the start; none leaves the network alone, as in data
    space. A velocity has no share."""
    preconditioning: Literal["none", "edm", "scaled-score"] = "none"
    """What the network predicts: the noise; (edm) what arXiv:2206.00364 leaves it beside the prediction for
    N(0, sigma_data^2) data, from an input of unit variance, its time being log(sigma) / 4; or (scaled-score)
    sigma times the score, its time being log(sigma / sigma-unit), as NCSN++ with the ve SDE."""
    sigma_unit: float = 1.0
    """The length in which scaled-score counts sigma: 2 where it is one of pixels in [0, 1]."""

    def __post_init__(self) -> None:
        require_finite(self)
        require(
            abs(self.mixing_init or 0.0) <= 1000,
            f"mixing-init is {self.mixing_init}; give a logit from -1000 to 1000",
        )
        require(
            self.preconditioning == "none" or self.sde.sigma2_max != "data",
            f"preconditioning {self.preconditioning} needs an SDE that is known beforehand; give sigma2-max "
            'a number, not "data"',
        )
        require(
            self.preconditioning == "none" or self.parameterisation == "mixed",
            f"preconditioning {self.preconditioning} is a parameterisation of its own and does not go with "
            "velocity; leave one of the two out",
        )

    @property
    def has_normal_part(self) -> bool:
        """Whether the network stands on the Normal prior's prediction."""
        return self.parameterisation == "velocity" or self.mixing_init is not None


@dataclass(frozen=True)
class VAEStage(StageConfig):
    """Stage 1: the VAE alone with a Normal prior."""

    importance_samples: int = 1
    """Draws of z per image, k: above 1 the loss is the importance-weighted bound (arXiv:1509.00519)."""
    kl: KLConfig = field(default_factory=KLConfig)
    vae: OptimConfig = field(default_factory=OptimConfig)
    vae_penalty: NormPenaltyConfig = field(default_factory=NormPenaltyConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.importance_samples >= 1,
            f"importance-samples is {self.importance_samples}; it must be at least 1",
        )
        require_sizes(self, DRAWS, "importance_samples")
        require(
            self.importance_samples == 1 or (self.kl.start == self.kl.end == 1 and not self.kl.balance),
            "importance-samples above 1 weigh the terms by themselves; set kl.start and kl.end to 1 and "
            "kl.balance to false",
        )


@dataclass(frozen=True)
class PriorStage(StageConfig):
    """Between stages 1 and 2: the prior alone learns, on the VAE as it is."""

    steps: int = 0
    """Optimiser steps; the horizon of every schedule unless `seconds` is set. 0 skips the stage."""
    cached_draws: int = 4
    """Encode the training set this many times once, fewer where memory has no room for them, and train on
    these latents; 0 encodes each batch anew."""
    drop_inactive: bool = False
    """Before the first step, leave channels of z_0 whose KL to N(0, 1) is at most 0.1 nats to that prior."""
    inactive_batches: int = 1000
    """Batches over which that KL is averaged, at most one pass over the data."""

    prior: OptimConfig = field(default_factory=OptimConfig)
    prior_penalty: NormPenaltyConfig = field(default_factory=NormPenaltyConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.cached_draws >= 0, f"cached-draws is {self.cached_draws}; it cannot be negative")
        require(self.inactive_batches >= 1, "inactive-batches must be at least 1")
        require_sizes(self, DRAWS, "cached_draws")
        require(
            type(self) is not PriorStage or self.steps > 0 or self.seconds is None,
            "prior-stage has a budget in seconds and 0 steps, which skip it; give it steps above 0 as well",
        )


@dataclass(frozen=True)
class JointStage(PriorStage):
    """Stage 2: VAE and score prior end to end, or, without `train-vae`, the prior alone once more."""

    steps: int = 1000
    """Optimiser steps; the horizon of every schedule unless `seconds` is set. 0 skips the stage."""
    cached_draws: int = 0
    """With train-vae off: encode the training set this many times once, and train on these latents; 0 encodes
    each batch anew."""
    vae_times: Literal["shared", "own", "disjoint"] = "shared"
    """Times of the VAE's objective: the prior's own draw, reweighted (algorithm 3 of arXiv:2106.05931); a
    second draw with the same noise; or a second draw with noise of its own (algorithm 2)."""
    vae_importance_sampling: bool = True
    """With own or disjoint times: draw the VAE's by importance instead of uniformly."""
    ema_prior: bool = False
    """With own or disjoint times: the VAE's objective sees the prior's averaged weights."""
    train_vae: bool = True
    """Off: the VAE stays as it is, in eval mode, and only the prior learns."""

    kl: KLConfig = field(default_factory=lambda: KLConfig(start=1.0, end=1.0, portion=0.0))
    vae: OptimConfig = field(default_factory=OptimConfig)
    vae_penalty: NormPenaltyConfig = field(default_factory=NormPenaltyConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.vae_times != "shared" or not self.ema_prior,
            "ema-prior needs times of the VAE's own; set vae-times to own or disjoint",
        )
        require(
            self.train_vae or self.vae_times == "shared",
            "without train-vae there is no objective of the VAE; leave vae-times at shared",
        )
        require(
            not (self.sharded and self.ema_prior),
            "ema-prior needs the averaged prior in one piece in every step, and sharded keeps it in pieces; "
            "leave one of them out",
        )
        require(self.cached_draws == 0 or not self.train_vae, "cached-draws needs train-vae = false")


@dataclass(frozen=True)
class LSGMRecipe:
    """An LSGM: its data, its networks and its stages."""

    kind: Literal["lsgm"] = "lsgm"
    """The model's kind."""
    seed: int = 1
    """Seed of initialisation, data order and noise."""
    data: DataConfig = field(default_factory=DataConfig)
    vae: VAEConfig = field(default_factory=ConvVAEConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    stage1: VAEStage = field(default_factory=VAEStage)
    prior_stage: PriorStage = field(default_factory=PriorStage)
    stage2: JointStage = field(default_factory=JointStage)

    def __post_init__(self) -> None:
        refuse_compiled_recompute(self.vae, self.stage1, self.prior_stage, self.stage2)
        drops = self.prior_stage.drop_inactive or self.stage2.drop_inactive
        require(
            not drops or self.prior.has_normal_part,
            "drop-inactive leaves channels to the Normal part of the prior, and this one has none; set "
            'prior.mixing-init, or prior.parameterisation = "velocity"',
        )


def refuse_compiled_recompute(vae: VAEConfig, *stages: StageConfig) -> None:
    """Refuse torch.compile where it would meet the guard of batch statistics, which it cannot trace."""
    guarded = isinstance(vae, NVAEConfig) and vae.recompute
    require(
        not guarded or not any(stage.compile for stage in stages),
        "vae.recompute and a stage's compile do not go together; leave one of them out",
    )
