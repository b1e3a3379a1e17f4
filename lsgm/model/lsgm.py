"""An LSGM's networks: built from a recipe, sketched as shapes, counted; its VAE as the diffusion's coder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from lsgm.errors import ConfigError
from lsgm.files.limits import LAYERS, MODEL, Limit
from lsgm.generative import Pixels
from lsgm.kinds import find_kind
from lsgm.nets.config import FlatVAEConfig, NVAEConfig
from lsgm.nets.ncsnpp import NCSNpp
from lsgm.pixels import PixelDistribution
from lsgm.recipes.recipe import LSGMRecipe, PriorConfig, VAEConfig
from lsgm.score import EDMPreconditioned, ScaledScore, ScoreModel
from lsgm.sde import make_sde
from lsgm.vae.base import VAE, Noise, Shape, normal_log_prob, repeated, sum_per_sample
from lsgm.vae.hierarchical import HierarchicalVAE
from lsgm.vae.small import ConvVAE, FlatVAE


class Encoded(NamedTuple):
    """Images' way into the diffusion, one row per draw; all log-densities in nats, [B]."""

    z_0: Tensor
    """Where the score-matching cross entropy starts from."""
    z_start: Tensor
    """Where the probability flow starts from, at the coder's ``ode_start``."""
    log_q: Tensor
    """log q of ``z_start`` given the image."""
    log_q_mean: Tensor
    """The same, in expectation over the noise that the score-matching cross entropy averages over too."""
    reconstruction: Tensor
    """-log p(x | z_start, lower groups), padding not counted."""
    lower: tuple[Tensor, ...] = ()
    """-log p of every group below the top scale; their prior is N(0, I)."""
    is_mass: bool = True
    """Whether ``reconstruction`` is of a probability of levels, and so the bound one too."""
    log_q_groups: tuple[Tensor, ...] = ()
    """``log_q`` of every group, the top scale's first; none where the coder has no groups."""
    is_clean: bool = False
    """Whether ``log_q`` and ``reconstruction`` stand at ``z_0``, not at the diffusion's smallest time."""

    @property
    def top(self) -> int:
        """How many groups ``z_0`` is stacked from, of equally many channels each; 0 where there are none."""
        return len(self.log_q_groups) - len(self.lower)


class Coder(Protocol):
    """Between images and the space a score model lives in: a VAE, or nothing but noise."""

    pixels: Pixels
    latent_shape: Shape
    ode_start: float
    """Time at which ``z_start`` stands, and at which sampling stops unless told otherwise."""
    step_control: Literal["state", "density"]
    """What the steps of a flow from ``z_start`` should follow where nothing else is asked. Data stand within
    the first noise's width of their levels: there z all but rests while its density changes by the nat."""

    def encode(self, levels: Tensor, noise: Noise, draws: int = 1) -> Encoded:
        """Draw the latents of images given as levels, uint8 [B, C, H, W].

        With several ``draws`` of each image, those of image 0 first, noise and results have B * draws rows.
        """

    def decode(self, z: Tensor, noise: Noise) -> PixelDistribution:
        """Return p(x | z) for latents at time ``ode_start``; ``noise`` is for latents below the top scale."""


class LSGM(nn.Module):
    """A VAE and the score model that is the prior of its latents."""

    vae: VAE

    def __init__(self, vae: VAE, prior: ScoreModel) -> None:
        super().__init__()
        self.vae = vae
        self.prior = prior


class VAECoder:
    """The VAE of an LSGM as a coder.

    The flow starts at the clean z_0 at ``ode_start``: its density there is that of the very process that
    samples, which makes the bound by probability flow strict for the model as it is sampled. A posterior is
    as wide as the prior needs it, so that steps which follow z follow its density too.
    """

    step_control: Literal["state", "density"] = "state"

    def __init__(self, vae: VAE, ode_start: float) -> None:
        self.vae = vae
        self.pixels = vae.pixels
        self.latent_shape = vae.groups.z_0
        self.ode_start = ode_start

    def encode(self, levels: Tensor, noise: Noise, draws: int = 1) -> Encoded:
        """Draw z_0 ~ q(z_0 | x), and the groups below it."""
        z, log_q_groups = self.vae.posterior(levels, noise, draws)
        z_0, log_q = self.vae.groups.stack(z), torch.stack(log_q_groups).sum(dim=0)
        likelihood = self.vae.likelihood(z)
        reconstruction = -sum_per_sample(likelihood.log_prob(repeated(levels, draws)))
        lower = tuple(-sum_per_sample(normal_log_prob(z_l)) for z_l in z[self.vae.groups.top :])
        is_mass = likelihood.is_mass
        return Encoded(z_0, z_0, log_q, log_q, reconstruction, lower, is_mass, log_q_groups, is_clean=True)

    def decode(self, z: Tensor, noise: Noise) -> PixelDistribution:
        """Return p(x | z_0, z_lower) with z_lower ~ N(0, I)."""
        groups = self.vae.groups
        return self.vae.likelihood((*groups.split(z), *(noise(*shape) for shape in groups.lower)))


def make_prior(config: PriorConfig, shape: Sequence[int], *, latent: bool = False) -> ScoreModel:
    """Return a freshly initialised score model for latents or pixels of ``shape`` = (C, h, w).

    A ``latent`` one, and one that stands on a Normal part, keeps the moments that its control variate takes.
    """
    channels, height, width = shape
    sde = make_sde(config.sde)
    network: nn.Module = NCSNpp(config.network, channels=channels, resolution=(height, width))
    if config.preconditioning == "edm":
        network = EDMPreconditioned(network, sde, config.objective.sigma_data)
    elif config.preconditioning == "scaled-score":
        network = ScaledScore(network, sde, config.sigma_unit)
    velocity = config.parameterisation == "velocity"
    normal_part = velocity or config.mixing_init is not None
    return ScoreModel(
        sde,
        network,
        channels=channels if normal_part else None,
        parameterisation=config.parameterisation,
        mixing_init=0.0 if config.mixing_init is None else config.mixing_init,
        reference_shape=shape if latent or normal_part else None,
    )


def build_lsgm(recipe: LSGMRecipe, pixels: Pixels) -> LSGM:
    """Return the networks of an LSGM for these pixels, initialised from torch's global generator."""
    vae = build_vae(recipe.vae, pixels, pad=recipe.data.pad)
    return LSGM(vae, make_prior(recipe.prior, vae.groups.z_0, latent=True))


def build_vae(config: VAEConfig, pixels: Pixels, *, pad: int) -> VAE:
    """Return the VAE of any kind, freshly initialised."""
    if isinstance(config, NVAEConfig):
        return HierarchicalVAE(config, pixels, pad=pad)
    if isinstance(config, FlatVAEConfig):
        return FlatVAE(config, pixels, pad=pad)
    return ConvVAE(config, pixels, pad=pad)


def parameter_counts(networks: nn.Module) -> dict[str, int]:
    """Return the number of parameters of each child, by its name."""
    return {
        name: sum(p.numel() for p in child.parameters())
        for name, child in networks.named_children()
        if any(True for _ in child.parameters())
    }


def sketch(recipe: Any, pixels: Pixels) -> nn.Module:
    """Return a recipe's networks on the meta device, which holds shapes alone; generators stay as they are.

    Raises ConfigError once there are more layers or numbers than `LAYERS` and `MODEL` let pass, and where
    sizes are beyond what a tensor can have.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), ShapesAlone(), _counted():
            networks: nn.Module = find_kind(recipe.kind).build(recipe, pixels)
            return networks
    except (RuntimeError, OverflowError, MemoryError, RecursionError) as error:
        why = str(error).split("\n")[0][:160] or type(error).__name__
        raise ConfigError(f"networks of these sizes cannot be built ({why}); give smaller ones") from error


class ShapesAlone(TorchFunctionMode):
    """Have what keeps a tensor's shape leave a tensor of the meta device as it is.

    There it would say the same, and take up to a millisecond for it: torch puts a norm together there from
    what it is made of, in Python. No operation is counted of these (`operations`).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return what a function of torch returns, or its first argument."""
        if func in _KEEP_THE_SHAPE and args and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


_KEEP_THE_SHAPE = frozenset(
    {
        *(torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.zero_, torch.Tensor.fill_),
        *(functional.group_norm, functional.batch_norm, functional.silu, functional.elu),
    }
)


@contextmanager
def _counted() -> Iterator[None]:
    """Count modules, and the numbers that any is given meanwhile, and stop where they are too many."""
    counts = Counter[Limit]()

    def add(limit: Limit, count: int) -> None:
        counts[limit] += count
        if counts[limit] > limit.value:
            raise ConfigError(
                f"the networks have at least {counts[limit]:,} {limit.unit}, and {limit.value:,} at most are "
                f"built; give smaller ones, or raise {limit.variable}"
            )

    def of_tensor(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        add(MODEL, 0 if tensor is None else tensor.numel())

    def of_module(module: nn.Module, name: str, part: nn.Module | None) -> None:
        add(LAYERS, 1)

    with ExitStack() as stack:
        stack.callback(hooks.register_module_parameter_registration_hook(of_tensor).remove)
        stack.callback(hooks.register_module_buffer_registration_hook(of_tensor).remove)
        stack.callback(hooks.register_module_module_registration_hook(of_module).remove)
        yield


@torch.no_grad()
def operations(compute: Callable[[], Any]) -> int:
    """Return the operations of one call: 2 per multiply-add of matrix products, convolutions and attention.

    What acts number by number (activations, norms, the sampler's own arithmetic) is not counted, as is usual.
    """
    with FlopCounterMode(display=False) as counter:
        compute()
    return int(counter.get_total_flops())
