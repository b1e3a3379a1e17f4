"""Sizes of the networks: frozen, checked, free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lsgm.config import require, require_finite, require_sizes
from lsgm.files.limits import SIZE

Decoder = Literal["auto", "bernoulli", "logistic", "mixture", "normal"]
"""p(x | z): auto takes bernoulli for binary pixels and logistic (conv, flat) or mixture (nvae) for others."""


@dataclass(frozen=True)
class ConvVAEConfig:
    """The small convolutional VAE: one latent group at 1 / 2^len(multipliers) of the image's side."""

    kind: Literal["conv"] = "conv"
    """Which VAE this is."""
    width: int = 32
    """Channels at the first level, half the image's side."""
    multipliers: tuple[int, ...] = (1, 2)
    """Channels of each level as multiples of the width; every level halves the resolution."""
    blocks: int = 1
    """Residual blocks per level, in the encoder and in the decoder."""
    latent_channels: int = 8
    """Channels of the latent z_0."""
    decoder: Decoder = "auto"
    """Distribution of the pixels."""
    dropout: float = 0.0
    """Dropout in the residual blocks."""

    def __post_init__(self) -> None:
        require(self.width >= 4, f"the VAE's width is {self.width}; give at least 4 channels")
        require(len(self.multipliers) >= 1, "the VAE needs at least one level in multipliers")
        require(min(self.multipliers) >= 1, "the VAE's multipliers must be at least 1")
        require(self.blocks >= 0, f"the VAE's blocks is {self.blocks}; it cannot be negative")
        require(self.latent_channels >= 1, "the VAE needs at least one latent channel")
        require(0 <= self.dropout < 1, f"dropout is {self.dropout}; give a probability in [0, 1)")
        require_sizes(self, SIZE, "width", "multipliers", "blocks", "latent_channels")


@dataclass(frozen=True)
class FlatVAEConfig:
    """The fully connected VAE of arXiv:1509.00519: tanh layers around one vector of latents."""

    kind: Literal["flat"] = "flat"
    """Which VAE this is."""
    hidden: tuple[int, ...] = (200, 200)
    """Units of the encoder's layers, from the image on; the decoder has them in reverse."""
    latents: int = 50
    """Length of the vector of latents."""
    decoder: Decoder = "auto"
    """Distribution of the pixels."""

    def __post_init__(self) -> None:
        require(len(self.hidden) >= 1, "the VAE needs at least one layer in hidden")
        require(min(self.hidden) >= 1, "the VAE's layers need at least 1 unit each")
        require(self.latents >= 1, "the VAE needs at least one latent")
        require_sizes(self, SIZE, "hidden", "latents")


@dataclass(frozen=True)
class NVAEConfig:
    """The hierarchical VAE of LSGM: NVAE (arXiv:2007.03898) with N(0, I) priors (arXiv:2106.05931, app. G).

    The image is halved `blocks` times before the latent hierarchy, and once more from each latent scale to
    the next; multipliers has one entry for each of these blocks + scales resolutions.
    """

    kind: Literal["nvae"] = "nvae"
    """Which VAE this is."""
    width: int = 64
    """Channels of the encoder at the image's own resolution."""
    decoder_width: int | None = None
    """The same of the decoder (none: as the encoder)."""
    multipliers: tuple[int, ...] = (1, 2)
    """Channels at each resolution as multiples of the width, from the image down; blocks + scales of them."""
    blocks: int = 1
    """Halvings outside the latent hierarchy, on either side of it."""
    pre_cells: int = 2
    """Cells of each such block in the encoder, the last of which halves the side."""
    post_cells: int = 2
    """Cells of each such block in the decoder, the first of which doubles the side."""
    scales: int = 1
    """Latent resolutions; the lowest, which stands first, is the one that the score prior models."""
    groups: int = 2
    """Latent groups at each resolution."""
    latents: int = 20
    """Latent channels of each group."""
    encoder_cells: int = 2
    """Cells per group in the encoder."""
    decoder_cells: int = 2
    """Cells per group in the decoder."""
    flows: int = 0
    """Pairs of volume-preserving autoregressive shifts that q's samples pass, per group."""
    cells: Literal["res_bnswish", "res_mbconv"] = "res_mbconv"
    """Residual cells: plain everywhere, or inverted bottlenecks in the decoder."""
    squeeze_excite: bool = True
    """Gate the channels of each cell by their means."""
    input_skip: bool = False
    """Feed a pyramid of the preprocessed input to every latent scale of the encoder."""
    log_sigma_bound: float = 5.0
    """q's log sigma lies within plus or minus this (mu always within 5)."""
    decoder: Decoder = "auto"
    """Distribution of the pixels."""
    recompute: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory, more time."""

    def __post_init__(self) -> None:
        require(min(self.width, self.decoder_width or self.width) >= 4, "the VAE's widths must be at least 4")
        require(self.blocks >= 1, f"the VAE's blocks is {self.blocks}; give at least 1")
        require(min(self.scales, self.groups, self.latents) >= 1, "scales, groups and latents start at 1")
        require(
            len(self.multipliers) == self.blocks + self.scales,
            f"multipliers has {len(self.multipliers)} entries; it needs blocks + scales = "
            f"{self.blocks + self.scales}, one for each resolution",
        )
        require(min(self.multipliers) >= 1, "the VAE's multipliers must be at least 1")
        cells = (self.pre_cells, self.post_cells, self.encoder_cells, self.decoder_cells)
        require(min(cells) >= 1, "the VAE needs at least one cell of each sort")
        require(self.flows >= 0, f"the VAE's flows is {self.flows}; it cannot be negative")
        require(self.log_sigma_bound > 0, "log-sigma-bound must be above 0")
        require_finite(self)
        sizes = ("width", "decoder_width", "multipliers", "blocks", "scales", "groups", "latents", "flows")
        require_sizes(self, SIZE, *sizes, "pre_cells", "post_cells", "encoder_cells", "decoder_cells")


@dataclass(frozen=True)
class ScoreNetConfig:
    """NCSN++ with BigGAN residual blocks (arXiv:2011.13456), for latents and pixels alike."""

    width: int = 128
    """Channels at the first level."""
    multipliers: tuple[int, ...] = (1,)
    """Channels of each level as multiples of the width; each level after the first halves the resolution."""
    blocks: int = 2
    """Residual blocks per level on the way down; one more on the way up."""
    attention: tuple[int, ...] = (16,)
    """Resolutions, by the shorter side, with self-attention after every block down; the middle has it too."""
    dropout: float = 0.0
    """Dropout in the residual blocks."""
    embedding: int = 128
    """Size of the sinusoidal time embedding."""
    embedding_hidden: int | None = None
    """Numbers that the blocks see of the time (None: four times as many as the embedding)."""
    embedding_scale: float = 1000.0
    """Factor on t before the embedding (positional), or the frequencies' standard deviation (fourier)."""
    embedding_kind: Literal["positional", "fourier"] = "positional"
    """Sinusoids at geometric frequencies, or at random ones drawn once."""
    fir: bool = False
    """Resample through the binomial filter [1, 3, 3, 1] instead of 2 x 2 means and repetition."""
    progressive: Literal["none", "output_skip", "residual"] = "none"
    """Pyramid of outputs on the way up."""
    progressive_input: Literal["none", "input_skip", "residual"] = "none"
    """Pyramid of inputs on the way down."""
    progressive_combine: Literal["sum", "cat"] = "sum"
    """How the input pyramid (input_skip) joins the features."""
    recompute: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory, more time."""

    def __post_init__(self) -> None:
        require(self.width >= 4, f"the score network's width is {self.width}; give at least 4 channels")
        require(len(self.multipliers) >= 1, "the score network needs at least one level in multipliers")
        require(min(self.multipliers) >= 1, "the score network's multipliers must be at least 1")
        require(self.blocks >= 1, f"the score network's blocks is {self.blocks}; give at least 1")
        require(0 <= self.dropout < 1, f"dropout is {self.dropout}; give a probability in [0, 1)")
        require(
            self.embedding >= 4 and self.embedding % 2 == 0, "embedding must be an even number of at least 4"
        )
        require(self.time_width >= 1, f"embedding-hidden is {self.time_width}; give at least 1")
        require_finite(self)
        require_sizes(self, SIZE, "width", "multipliers", "blocks", "embedding", "embedding_hidden")

    @property
    def time_width(self) -> int:
        """How many numbers the blocks see of the time."""
        return 4 * self.embedding if self.embedding_hidden is None else self.embedding_hidden
