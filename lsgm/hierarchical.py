"""The hierarchical VAE of LSGM as a VAE: q(z_l | x, z_<l) group by group, p(x | z)."""

from __future__ import annotations

from torch import Tensor, nn

from lsgm.generative import Pixels
from lsgm.nets.config import NVAEConfig
from lsgm.pixels import PixelDistribution
from lsgm.vae import LatentGroups, Noise, Posterior

__all__ = ["HierarchicalVAE"]


class HierarchicalVAE(nn.Module):
    """NVAE with N(0, I) priors (arXiv:2106.05931, appendix G)."""

    groups: LatentGroups

    def __init__(self, config: NVAEConfig, pixels: Pixels, *, pad: int = 0) -> None:
        super().__init__()
        self.config = config
        self.pixels = pixels
        self.pad = pad

    def posterior(self, levels: Tensor, noise: Noise) -> Posterior:
        """Draw z ~ q(z | x)."""
        raise NotImplementedError

    def likelihood(self, z: tuple[Tensor, ...]) -> PixelDistribution:
        """Return p(x | z)."""
        raise NotImplementedError
