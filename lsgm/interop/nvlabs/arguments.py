"""From the arguments of the authors' code to a recipe and the images that it models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lsgm.config import DataConfig, SDEConfig
from lsgm.errors import CheckpointError, ConfigError
from lsgm.generative import Pixels
from lsgm.interop.nvlabs.datasets import Images, images_of
from lsgm.interop.nvlabs.names import check_names
from lsgm.interop.nvlabs.training import joint_stage, vae_stage
from lsgm.interop.nvlabs.values import Arguments
from lsgm.interop.taken import brief
from lsgm.models.config import JointStage, LSGMRecipe, ObjectiveConfig, PriorConfig
from lsgm.nets.config import Decoder, NVAEConfig, ScoreNetConfig
from lsgm.structure import refuse_huge

__all__ = ["pixels_of_args", "recipe_of"]

Cells = Literal["res_bnswish", "res_mbconv"]
Weighting = Literal["ll", "un", "re", "rescale"]

CELLS: dict[str, Cells] = {"res_bnswish": "res_bnswish", "res_mbconv": "res_mbconv"}
DECODERS: dict[str, Decoder] = {
    "dml": "mixture",
    "dl": "logistic",
    "bin": "bernoulli",
    "normal": "normal",
}
EMBEDDINGS: dict[str, Literal["positional", "fourier"]] = {"positional": "positional", "fourier": "fourier"}
OUTPUTS: dict[str, Literal["none", "output_skip", "residual"]] = {
    "none": "none",
    "output_skip": "output_skip",
    "residual": "residual",
}
INPUTS: dict[str, Literal["none", "input_skip", "residual"]] = {
    "none": "none",
    "input_skip": "input_skip",
    "residual": "residual",
}
COMBINE: dict[str, Literal["sum", "cat"]] = {"sum": "sum", "cat": "cat"}

NUM_X_BITS, CHANNEL_MULT, MIXING_LOGIT_INIT = 8, (1, 2), -3.0
"""What the authors' evaluation takes where an older file lacks the argument (evaluate_vada.py)."""

PROPOSALS: dict[str, tuple[Weighting, bool]] = {
    "ll_uniform": ("ll", False),
    "ll_iw": ("ll", True),
    "drop_all_uniform": ("un", False),
    "drop_all_iw": ("un", True),
    "drop_sigma2t_uniform": ("re", False),
    "drop_sigma2t_iw": ("re", True),
    "rescale_iw": ("rescale", False),  # uniform, despite its name
}
"""The prior's weighting, and whether its times are drawn by importance."""


def recipe_of(
    args: Mapping[str, Any],
    *,
    vae_only: bool = False,
    reference_compat: bool = False,
    ignore: tuple[str, ...] = (),
    rule: Literal["adam", "adamw"] = "adamw",
) -> LSGMRecipe:
    """Return the recipe that arguments describe; with ``vae_only`` they are those of stage 1.

    Where the authors' code keeps the settings of stage 1 beside those of stage 2, both stages are told;
    where it does not, stage 1 has the published ones. ``rule`` says which Adam stepped stage 2.

    Raises CheckpointError, one sentence naming the argument, for one that is missing, not known (unless in
    ``ignore``) or of a value with no equal here.
    """
    check_names(args, ignore)
    values = Arguments(args)
    images = images_of(values)
    try:
        recipe = LSGMRecipe(
            seed=values.whole("seed", 1),
            data=_data(values, images),
            vae=_vae(values, images),
            prior=PriorConfig() if vae_only else _prior(values, images, reference_compat),
            stage1=vae_stage(values, images, alone=vae_only),
            stage2=JointStage() if vae_only else joint_stage(values, images, rule),
        )
        refuse_huge(recipe)
    except ConfigError as error:
        raise CheckpointError(f"the checkpoint's arguments describe no model: {error}") from None
    return recipe


def pixels_of_args(args: Mapping[str, Any]) -> Pixels:
    """Return the images that a model of these arguments scores, padding left out."""
    values = Arguments(args)
    images = images_of(values)
    if images.binary:
        return Pixels(images.channels, images.side, images.side, "binary", 1)
    bits = values.whole("num_x_bits", NUM_X_BITS)
    return Pixels(images.channels, images.side, images.side, "discrete", bits)


def _data(args: Arguments, images: Images) -> DataConfig:
    bits = DataConfig.bits if images.binary else args.whole("num_x_bits", NUM_X_BITS)
    size = DataConfig.image_size if images.named else images.side
    return DataConfig(images.dataset, flip=images.flip, pad=images.pad, bits=bits, image_size=size)


def _vae(args: Arguments, images: Images) -> NVAEConfig:
    decoder = args.choice("decoder_dist", DECODERS)
    if (decoder == "bernoulli") != images.binary:
        raise CheckpointError(
            f"the checkpoint's argument 'decoder_dist' is {brief(args.values['decoder_dist'])}, which does "
            f"not fit the pixels of its dataset '{args.values['dataset']}'; its model cannot be built here"
        )
    if args.whole("num_preprocess_blocks") != args.whole("num_postprocess_blocks"):
        raise CheckpointError(
            "the checkpoint's arguments 'num_preprocess_blocks' and 'num_postprocess_blocks' differ, so its "
            "images would not have the size of its data; its model cannot be built here"
        )
    args.choice("progressive_output_vae", {"none": None}, "none")
    sides = args.whole("num_preprocess_blocks") + args.whole("num_latent_scales")
    width, decoder_width = args.whole("num_channels_enc"), args.whole("num_channels_dec")
    return NVAEConfig(
        width=width,
        decoder_width=None if decoder_width == width else decoder_width,
        multipliers=args.wholes("channel_mult", CHANNEL_MULT if len(CHANNEL_MULT) == sides else None),
        blocks=args.whole("num_preprocess_blocks"),
        pre_cells=args.whole("num_preprocess_cells"),
        post_cells=args.whole("num_postprocess_cells"),
        scales=args.whole("num_latent_scales"),
        groups=args.whole("num_groups_per_scale"),
        latents=args.whole("num_latent_per_group"),
        encoder_cells=args.whole("num_cell_per_cond_enc"),
        decoder_cells=args.whole("num_cell_per_cond_dec"),
        flows=args.whole("num_nf"),
        cells=args.choice("arch_instance", CELLS),
        squeeze_excite=args.flag("use_se"),
        input_skip=args.choice("progressive_input_vae", {"none": False, "input_skip": True}),
        log_sigma_bound=args.number("log_sig_q_scale"),
        decoder=decoder,
    )


def _prior(args: Arguments, images: Images, reference_compat: bool) -> PriorConfig:
    args.choice("dae_arch", {"ncsnpp": None})
    progressive, fir = args.choice("progressive", OUTPUTS), args.flag("fir")
    if progressive == "residual" and fir:
        # Their convolution after filtered doubling reverses a tensor by a slice, which torch has not.
        raise CheckpointError(
            "the checkpoint's arguments 'progressive' = 'residual' and 'fir' = True are of a network that "
            "the authors' code builds and cannot run; give a checkpoint that their code has trained"
        )
    weighting, importance = args.choice("iw_sample_p", PROPOSALS)
    mixed = args.flag("mixed_prediction", True)
    return PriorConfig(
        sde=_sde(args),
        network=ScoreNetConfig(
            width=args.whole("num_channels_dae"),
            multipliers=images.multipliers(args),
            blocks=args.whole("num_cell_per_scale_dae"),
            attention=(16,),
            dropout=args.number("dropout"),
            embedding=args.whole("embedding_dim"),
            embedding_scale=args.number("embedding_scale"),
            embedding_kind=args.choice("embedding_type", EMBEDDINGS),
            fir=fir,
            progressive=progressive,
            progressive_input=args.choice("progressive_input", INPUTS),
            progressive_combine=args.choice("progressive_combine", COMBINE),
        ),
        objective=ObjectiveConfig(weighting, importance, args.number("time_eps"), reference_compat),
        mixing_init=args.number("mixing_logit_init", MIXING_LOGIT_INIT) if mixed else None,
    )


def _sde(args: Arguments) -> SDEConfig:
    kinds: dict[str, Literal["vp", "subvp", "ve", "geometric"]] = {
        "vpsde": "vp",
        "sub_vpsde": "subvp",
        "vesde": "ve",
        "geometric_sde": "geometric",
    }
    kind = args.choice("sde_type", kinds)
    start = args.number("sigma2_0")
    if kind in ("ve", "geometric"):
        # Of vesde the authors' code measures sigma2_max on the training data, and says it here.
        low, high = args.number("sigma2_min"), args.number("sigma2_max")
        return SDEConfig(kind, sigma2_0=start, sigma2_min=low, sigma2_max=high)
    return SDEConfig(kind, args.number("beta_start"), args.number("beta_end"), start)
