"""What score_sde_pytorch's configurations say, which its checkpoints do not, under its names."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lsgm.config import DataConfig, OptimConfig, SDEConfig, require
from lsgm.errors import ConfigError, did_you_mean
from lsgm.files.names import shown
from lsgm.files.text import read_toml
from lsgm.generative import Pixels
from lsgm.nets.config import ScoreNetConfig
from lsgm.recipes.recipe import ObjectiveConfig, PriorConfig
from lsgm.structure import from_dict
from lsgm_baselines.recipe import ScoreStage, SGMRecipe

PUBLISHED = tuple(
    f"{sde}/cifar10_{network}{deep}_continuous"
    for sde, networks in (("vp", ("ddpmpp", "ncsnpp")), ("subvp", ("ddpmpp", "ncsnpp")), ("ve", ("ncsnpp",)))
    for network in networks
    for deep in ("", "_deep")
)
"""Names of the configurations on CIFAR-10 whose checkpoints were published, folder included."""

LARGE: dict[str, tuple[str, float]] = {
    "ve/celebahq_256_ncsnpp_continuous": ("./celebahq_256", 348.0),
    "ve/ffhq_256_ncsnpp_continuous": ("./ffhq_256", 348.0),
    "ve/bedroom_ncsnpp_continuous": ("./lsun_bedroom", 378.0),
    "ve/church_ncsnpp_continuous": ("./lsun_church", 380.0),
    "ve/ffhq_ncsnpp_continuous": ("./ffhq_1024", 1348.0),
    "ve/celebahq_ncsnpp_continuous": ("./celebahq_1024", 1348.0),
}
"""Names of the configurations on larger images: the folder of images that goes with each, and sigma_max."""

SAME = {"ve/ffhq_1024_ncsnpp_continuous": "ve/ffhq_ncsnpp_continuous"}
"""The checkpoint's folder has another name than its configuration."""


@dataclass(frozen=True)
class ScoreSDEConfig:
    """A model of score_sde_pytorch. What cannot be built here is refused by its name: ConfigError.

    Their settings of the network, of the SDE and of training; the defaults are those of DDPM++ on CIFAR-10.
    """

    sde: Literal["vpsde", "subvpsde", "vesde"] = "vpsde"
    """The forward diffusion."""
    continuous: bool = True
    """Whether t is drawn from an interval in training, and not from a table of steps."""
    likelihood_weighting: bool = False
    """Whether the loss is weighted by g^2, and not by sigma^2."""
    dataset: str = "cifar10"
    """What `lsgm data ls` calls the training images."""
    image_size: int = 32
    """Side of the images."""
    num_channels: int = 3
    """Channels of the images."""
    binary: bool = False
    """Whether pixels have two levels instead of 256."""
    random_flip: bool = True
    """Mirror training images at random."""
    centered: bool = True
    """Whether the SDE runs on pixels on [-1, 1], and not on [0, 1]."""
    uniform_dequantization: bool = False
    """Train on points drawn uniformly from the cells of the levels."""
    sigma_min: float = 0.01
    """Smallest sigma of vesde, in units of the pixels."""
    sigma_max: float = 50.0
    """Largest sigma of vesde."""
    beta_min: float = 0.1
    """beta(0) of vpsde and subvpsde."""
    beta_max: float = 20.0
    """beta(1) of vpsde and subvpsde."""
    name: str = "ncsnpp"
    """The network's class."""
    scale_by_sigma: bool = False
    """Whether the network's output is divided by sigma."""
    ema_rate: float = 0.9999
    """Decay of the averaged weights."""
    nf: int = 128
    """Channels of the first level."""
    ch_mult: tuple[int, ...] = (1, 2, 2, 2)
    """Channels of each level in multiples of nf."""
    num_res_blocks: int = 4
    """Residual blocks per level."""
    attn_resolutions: tuple[int, ...] = (16,)
    """Sides with self-attention."""
    dropout: float = 0.1
    """Dropout in the residual blocks."""
    conditional: bool = True
    """Whether the network is told the time."""
    fir: bool = False
    """Resample through the filter fir_kernel."""
    fir_kernel: tuple[int, ...] = (1, 3, 3, 1)
    """The filter."""
    skip_rescale: bool = True
    """Divide sums of two branches by sqrt(2)."""
    resblock_type: str = "biggan"
    """The kind of residual block."""
    progressive: Literal["none", "output_skip", "residual"] = "none"
    """Pyramid of outputs."""
    progressive_input: Literal["none", "input_skip", "residual"] = "none"
    """Pyramid of inputs."""
    progressive_combine: Literal["sum", "cat"] = "sum"
    """How the pyramid of inputs joins the features."""
    embedding_type: Literal["positional", "fourier"] = "positional"
    """Sinusoids of the time, or of the logarithm of sigma at random frequencies."""
    fourier_scale: float = 16.0
    """Standard deviation of these."""
    batch_size: int = 128
    """Images per step."""
    lr: float = 2e-4
    """Learning rate."""
    warmup: int = 5000
    """Steps over which it rises."""
    n_iters: int = 1_300_000
    """Steps of the whole training."""

    def __post_init__(self) -> None:
        exploding = self.sde == "vesde"
        require(self.continuous, _discrete("the configuration with continuous = false"))
        for key, only in (
            ("name", "ncsnpp"),
            ("conditional", True),
            ("skip_rescale", True),
            ("resblock_type", "biggan"),
            ("fir_kernel", (1, 3, 3, 1)),
            ("embedding_type", "fourier" if exploding else "positional"),
            ("scale_by_sigma", exploding),
        ):
            value = getattr(self, key)
            require(
                value == only,
                f"{key} is {value!r}, and with {self.sde} only {only!r} can be built here; take a checkpoint "
                f"of one of {', '.join(PUBLISHED)}",
            )
        require(
            self.centered or exploding,
            f"centered is False, and {self.sde} of pixels on [0, 1] has no equal here; take a checkpoint "
            "that was trained with centered = True",
        )
        require(
            not (self.fir and self.progressive == "residual"),
            "progressive is 'residual' with fir = True, a network that score_sde_pytorch builds and cannot "
            "run; take the settings of a checkpoint that it has trained",
        )
        require(
            0 < self.sigma_min < self.sigma_max,
            f"sigma_min is {self.sigma_min} and sigma_max {self.sigma_max}; give 0 < sigma_min < sigma_max",
        )
        require(self.n_iters >= 1 and self.warmup >= 0, "n_iters starts at 1 and warmup at 0")


def find_config(word: str) -> ScoreSDEConfig:
    """Return the published configuration of that name, or the one that a TOML file of such settings says.

    Raises ConfigError for a name that is not known, one of a model trained at discrete times, and a file that
    cannot be read or says something that is not known.
    """
    word = SAME.get(word, word)
    if word in PUBLISHED:
        return _published(word)
    if word in LARGE:
        return _large(word)
    if word.endswith(".toml"):
        table = read_toml(Path(word), ConfigError, "give a file of settings")
        return from_dict(ScoreSDEConfig, table, str(Path(word)))
    if re.fullmatch(r"(\w+/)*\w*cifar10\w*", word) and not word.endswith("_continuous"):
        raise ConfigError(_discrete(f"the configuration '{word}'"))
    known = (*PUBLISHED, *LARGE)
    hint = did_you_mean(word[:200], known) or f"; there is {', '.join(known)}, or a TOML file of settings"
    raise ConfigError(f"there is no configuration '{shown(word[:200])}'{hint}")


def _published(name: str) -> ScoreSDEConfig:
    """Return DDPM++ or NCSN++ on CIFAR-10 (arXiv:2011.13456, table 2 and appendix H)."""
    config = ScoreSDEConfig()
    if "_deep_" in name:
        config = replace(config, num_res_blocks=8, n_iters=950_000)
    if "ncsnpp" in name:
        config = replace(config, fir=True, progressive_input="residual")
    if name.startswith("subvp/"):
        return replace(config, sde="subvpsde")
    if name.startswith("ve/"):
        return replace(
            config,
            sde="vesde",
            centered=False,
            scale_by_sigma=True,
            embedding_type="fourier",
            ema_rate=0.999,
        )
    return config


def _large(name: str) -> ScoreSDEConfig:
    """Return NCSN++ on images of 256 x 256 or 1024 x 1024 (arXiv:2011.13456, appendix H.3)."""
    images, sigma_max = LARGE[name]
    config = replace(
        _published("ve/cifar10_ncsnpp_continuous"),
        dataset=images,
        sigma_max=sigma_max,
        image_size=256,
        ch_mult=(1, 1, 2, 2, 2, 2, 2),
        num_res_blocks=2,
        dropout=0.0,
        progressive="output_skip",
        progressive_input="input_skip",
        batch_size=64,
        n_iters=2_400_001,
    )
    if not images.endswith("1024"):
        return config
    return replace(
        config,
        image_size=1024,
        nf=16,
        ch_mult=(1, 2, 4, 8, 16, 32, 32, 32),
        num_res_blocks=1,
        ema_rate=0.9999,
        batch_size=8,
    )


def _discrete(what: str) -> str:
    return (
        f"{what} is of a model trained at discrete times, which knows none between them; take one whose name "
        "ends in _continuous"
    )


# From score_sde_pytorch's settings to a recipe and the images that it models

TIME_EPS = 1e-5
"""Smallest time of their training, and of their likelihoods."""

TIME_SCALE = 999.0
"""What their networks are told of t = 1 where they are told the time."""


def recipe_of(config: ScoreSDEConfig) -> SGMRecipe:
    """Return the recipe of a model with these settings, its training as far as it can be said here.

    Their pixels are levels / 255, on [0, 1]; ours lie on [-1, 1], twice as far from each other. A variance
    exploding SDE that runs on theirs is the same on ours with twice the sigma, but for its prior at t = 1,
    which is centred on black there and on grey here: a hundredth of its standard deviation.
    """
    warmup = min(config.warmup / config.n_iters, 0.99)
    return SGMRecipe(
        seed=42,
        dequantise="uniform" if config.uniform_dequantization else "none",
        data=DataConfig(config.dataset, flip=config.random_flip, image_size=max(config.image_size, 8)),
        prior=_prior(config),
        stage=ScoreStage(
            steps=config.n_iters,
            batch_size=config.batch_size,
            warmup=warmup,
            ema=config.ema_rate,
            prior=OptimConfig(lr=config.lr, lr_min=config.lr),
        ),
    )


def pixels_of(config: ScoreSDEConfig) -> Pixels:
    """Return the images that a model with these settings draws."""
    side = config.image_size
    return Pixels(config.num_channels, side, side, *(("binary", 1) if config.binary else ("discrete", 8)))


def _prior(config: ScoreSDEConfig) -> PriorConfig:
    weighting: Literal["ll", "un"] = "ll" if config.likelihood_weighting else "un"
    prior = PriorConfig(
        sde=SDEConfig("vp" if config.sde == "vpsde" else "subvp", config.beta_min, config.beta_max),
        network=_network(config),
        objective=ObjectiveConfig(weighting, importance_sampling=False, time_eps=TIME_EPS),
        mixing_init=None,
    )
    if config.sde != "vesde":
        return prior
    unit = unit_of(config)
    ends = {"sigma2_min": (unit * config.sigma_min) ** 2, "sigma2_max": (unit * config.sigma_max) ** 2}
    return replace(prior, sde=SDEConfig("ve", **ends), preconditioning="scaled-score", sigma_unit=unit)


def unit_of(config: ScoreSDEConfig) -> float:
    """Return the length of their pixels' unit on ours."""
    return 1.0 if config.centered else 2.0


def _network(config: ScoreSDEConfig) -> ScoreNetConfig:
    fourier = config.embedding_type == "fourier"
    return ScoreNetConfig(
        width=config.nf,
        multipliers=config.ch_mult,
        blocks=config.num_res_blocks,
        attention=config.attn_resolutions,
        dropout=config.dropout,
        # Of nf random frequencies they take sine and cosine, and of nf / 2 geometric ones.
        embedding=2 * config.nf if fourier else config.nf,
        embedding_hidden=4 * config.nf,
        embedding_scale=config.fourier_scale if fourier else TIME_SCALE,
        embedding_kind=config.embedding_type,
        fir=config.fir,
        progressive=config.progressive,
        progressive_input=config.progressive_input,
        progressive_combine=config.progressive_combine,
    )
