"""The options of a U-Net as the diffusers library's `UNet2DModel` names them, and a DDPM's. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lsgm.config import DataConfig, require, require_finite

DownBlock = Literal["DownBlock2D", "AttnDownBlock2D"]
UpBlock = Literal["UpBlock2D", "AttnUpBlock2D"]

MOST_LEVELS = 16
"""Resolutions, each half of the one before."""
LARGEST_SIDE = 2**14
"""Pixels along a side."""


@dataclass(frozen=True)
class UNet2DConfig:
    """A U-Net of residual blocks with attention at some of its resolutions (arXiv:2006.11239, appendix B).

    Names and defaults are those of the library's config.json, whose missing keys mean its defaults.
    """

    sample_size: int = 32
    """Side of the square images."""
    in_channels: int = 3
    """Channels of the images."""
    out_channels: int = 3
    """Channels of the prediction."""
    center_input_sample: bool = False
    """The network maps its input x to 2 x - 1 first."""
    time_embedding_type: Literal["positional", "fourier"] = "positional"
    """Waves of the timestep with geometric frequencies, or of its logarithm with random ones."""
    time_embedding_dim: int | None = None
    """Width of the embedding (None: 4 times the first of block-out-channels)."""
    freq_shift: float = 0
    """Positional: frequencies are 10^(-4 i / (half - freq-shift))."""
    flip_sin_to_cos: bool = True
    """Positional: cosines before sines."""
    down_block_types: tuple[DownBlock, ...] = (
        "DownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
    )
    """What each resolution is made of, from the highest down."""
    up_block_types: tuple[UpBlock, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    """What each resolution is made of, from the lowest up."""
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    """Channels at each resolution, from the highest down."""
    layers_per_block: int = 2
    """Residual blocks at each resolution on the way down; on the way up there is one more."""
    mid_block_scale_factor: float = 1.0
    """What sums in the middle block are divided by."""
    downsample_padding: int = 1
    """Zeros around the features before a convolution that halves the side; 0: one on the far sides alone."""
    dropout: float = 0.0
    """Probability in residual blocks, while training."""
    attention_head_dim: int | None = 8
    """Channels of an attention head (None: a single head)."""
    norm_num_groups: int = 32
    """Groups of every GroupNorm."""
    attn_norm_num_groups: int | None = None
    """Groups in the middle block's attention (None: norm-num-groups)."""
    norm_eps: float = 1e-5
    """Added to the variance in every GroupNorm."""
    add_attention: bool = True
    """The middle block attends."""

    def __post_init__(self) -> None:
        levels, widths = len(self.block_out_channels), self.block_out_channels
        require_finite(self)
        require(
            levels <= MOST_LEVELS, f"block_out_channels has {levels} levels; at most {MOST_LEVELS} are built"
        )
        require(levels >= 1 and min(widths) >= 2, "block_out_channels needs a width of 2 or more per level")
        require(
            len(self.down_block_types) == levels == len(self.up_block_types),
            "down_block_types, up_block_types and block_out_channels must be of the same length; they have "
            f"{len(self.down_block_types)}, {len(self.up_block_types)} and {levels} entries",
        )
        require(0 <= self.dropout < 1, f"dropout is {self.dropout}; it is a probability below 1")
        require(
            self.norm_eps > 0 and self.mid_block_scale_factor > 0,
            "norm_eps and mid_block_scale_factor are above 0",
        )
        groups, heads = (self.norm_num_groups, self.attn_norm_num_groups), (self.attention_head_dim,)
        require(
            all(count is None or count >= 1 for count in (*groups, *heads, self.time_embedding_dim)),
            "norm_num_groups, attn_norm_num_groups, attention_head_dim and time_embedding_dim start at 1",
        )
        require(self.layers_per_block >= 1, "layers_per_block must be at least 1")
        require(self.downsample_padding in (0, 1), "downsample_padding must be 0 or 1, else sides do not fit")
        halvings = 2 ** (levels - 1)
        require(
            self.sample_size <= LARGEST_SIDE,
            f"sample_size is {self.sample_size}; at most {LARGEST_SIDE} is built",
        )
        require(
            self.sample_size >= halvings and self.sample_size % halvings == 0,
            f"sample_size is {self.sample_size}; it must be a multiple of {halvings}, which the levels halve",
        )
        require(
            all(width % self.norm_num_groups == 0 for width in widths),
            f"norm_num_groups is {self.norm_num_groups}, which does not divide all of {list(widths)}",
        )
        require(
            widths[-1] % (self.attn_norm_num_groups or self.norm_num_groups) == 0,
            f"attn_norm_num_groups is {self.attn_norm_num_groups}, which does not divide {widths[-1]}",
        )
        for width in self.attended:
            require(
                width % (self.attention_head_dim or width) == 0,
                f"attention_head_dim is {self.attention_head_dim}, which does not divide {width} channels",
            )

    @property
    def attended(self) -> tuple[int, ...]:
        """Widths at which there is attention."""
        widths = self.block_out_channels
        down = zip(widths, self.down_block_types, strict=True)
        up = zip(widths[::-1], self.up_block_types, strict=True)
        middle = widths[-1:] if self.add_attention else ()
        return (*(width for width, block in (*down, *up) if "Attn" in block), *middle)


# The recipe of a DDPM of the diffusers library: its U-Net, its betas and what it predicts

Prediction = Literal["epsilon", "v_prediction", "sample"]
"""The noise; v = m eps - sigma x_0 (arXiv:2202.00512); the clean image."""


MOST_STEPS = 10**6
"""Training times of a schedule: it is kept as a table of numbers."""


@dataclass(frozen=True)
class BetaConfig:
    """The betas of the training process, by the name of their schedule or one by one."""

    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "trained"] = "linear"
    """Even in beta, even in its root, a cosine, or the numbers in ``betas``."""
    steps: int = 1000
    """Number N of training times."""
    start: float = 1e-4
    """First beta of linear and scaled_linear."""
    end: float = 0.02
    """Last beta of linear and scaled_linear."""
    betas: tuple[float, ...] = ()
    """The betas themselves, with the schedule trained."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps is {self.steps}; a schedule needs at least 1 training time")
        require(
            self.steps <= MOST_STEPS,
            f"steps is {self.steps}; a schedule has at most {MOST_STEPS} training times",
        )
        require(
            bool(self.betas) == (self.schedule == "trained"),
            "betas are given with the schedule trained, and with no other",
        )
        require(
            not self.betas or len(self.betas) == self.steps,
            f"there are {len(self.betas)} betas for {self.steps} training times; give as many as steps",
        )


@dataclass(frozen=True)
class DDPMRecipe:
    """A DDPM that was trained by the diffusers library: it is sampled and measured here, never trained."""

    kind: Literal["ddpm"] = "ddpm"
    """The model's kind."""
    seed: int = 1
    """Seed of an initialisation that the imported weights replace."""
    data: DataConfig = field(default_factory=DataConfig)
    network: UNet2DConfig = field(default_factory=UNet2DConfig)
    betas: BetaConfig = field(default_factory=BetaConfig)
    prediction: Prediction = "epsilon"
    """What the network returns: the noise, v = m eps - sigma x_0, or the clean image."""
    clip: float | None = None
    """Clamp every predicted clean image to [-clip, clip], as clip_sample of a scheduler does (None: not)."""
    remark: str = ""
    """What must be said beside the model's numbers."""

    def __post_init__(self) -> None:
        require(self.clip is None or self.clip > 0, f"clip is {self.clip}; it must be above 0")

    @property
    def first_timestep(self) -> int:
        """The smallest timestep that the network is asked for: a logarithm of the timestep has none at 0."""
        return 1 if self.network.time_embedding_type == "fourier" else 0

    @property
    def time_end(self) -> float:
        """The time t = (n + 1) / N of that timestep n, where sampling ends and the levels' noise stands."""
        return (self.first_timestep + 1) / self.betas.steps
