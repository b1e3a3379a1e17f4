"""From the arguments of the authors' code to a recipe and the images that it models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lsgm.config import DataConfig, OptimConfig, SDEConfig, StageConfig
from lsgm.errors import CheckpointError, ConfigError
from lsgm.generative import Pixels
from lsgm.interop.nvlabs.read import Arguments, check_names
from lsgm.interop.taken import brief
from lsgm.nets.config import Decoder, NVAEConfig, ScoreNetConfig
from lsgm.recipes.recipe import (
    JointStage,
    KLConfig,
    LSGMRecipe,
    NormPenaltyConfig,
    ObjectiveConfig,
    PriorConfig,
    VAEStage,
)
from lsgm.structure import refuse_huge

Weighting = Literal["ll", "un", "re", "rescale"]

DECODERS: dict[str, Decoder] = {
    "dml": "mixture",
    "dl": "logistic",
    "bin": "bernoulli",
    "normal": "normal",
}


def _same(*words: str) -> dict[str, Any]:
    """Return words that mean the same here."""
    return {word: word for word in words}


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
    size = images.side if images.dataset.startswith("./") else DataConfig.image_size
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
        cells=args.choice("arch_instance", _same("res_bnswish", "res_mbconv")),
        squeeze_excite=args.flag("use_se"),
        input_skip=args.choice("progressive_input_vae", {"none": False, "input_skip": True}),
        log_sigma_bound=args.number("log_sig_q_scale"),
        decoder=decoder,
    )


def _prior(args: Arguments, images: Images, reference_compat: bool) -> PriorConfig:
    args.choice("dae_arch", {"ncsnpp": None})
    progressive, fir = args.choice("progressive", _same("none", "output_skip", "residual")), args.flag("fir")
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
            embedding_kind=args.choice("embedding_type", _same("positional", "fourier")),
            fir=fir,
            progressive=progressive,
            progressive_input=args.choice("progressive_input", _same("none", "input_skip", "residual")),
            progressive_combine=args.choice("progressive_combine", _same("sum", "cat")),
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


# The datasets of the authors' code by its names: shape, padding, and what hangs on them

Levels = tuple[tuple[int, ...], ...]

_FACES: Levels = ((1, 1, 1), (1, 2, 2, 2), (1, 1, 2, 2, 2))


@dataclass(frozen=True)
class Images:
    """A dataset: its name or path here, its images, and the score network's levels that go with it."""

    dataset: str
    """A name of `lsgm data ls`, or the path of a folder that the user brings."""
    channels: int
    side: int
    """Height and width without padding."""
    pad: int
    binary: bool
    flip: bool
    levels: Levels
    """Channel multipliers of the score network, which the authors' code fixes by dataset; where there are
    several, the number of scales chooses."""
    train: int | None
    """Training images, None where there is no agreed number."""

    def multipliers(self, args: Arguments) -> tuple[int, ...]:
        """Return the channel multipliers of the score network's levels. Raises CheckpointError."""
        scales = args.whole("num_scales_dae")
        if len(self.levels) == 1 and 1 <= scales <= len(self.levels[0]):
            return self.levels[0][:scales]  # the authors' code leaves out the lowest resolutions
        for levels in self.levels:
            if len(levels) == scales:
                return levels
        known = " or ".join(str(len(levels)) for levels in self.levels)
        known = known if len(self.levels) > 1 else f"at most {known}"
        raise CheckpointError(
            f"the checkpoint's argument 'num_scales_dae' is {scales}, and the authors' code has {known} "
            f"levels for '{args.values['dataset']}'; its model cannot be built here"
        )


_IMAGES = {
    "mnist": Images("mnist", 1, 28, 2, True, False, ((1, 1),), 60_000),
    "omniglot": Images("omniglot", 1, 28, 2, True, False, ((1, 1, 1),), 24_345),
    "cifar10": Images("cifar10", 3, 32, 0, False, True, ((1, 1, 1),), 50_000),
    "celeba_256": Images("celebahq256", 3, 256, 0, False, True, _FACES, 27_000),
    "ffhq": Images("./ffhq", 3, 256, 0, False, True, _FACES, None),
    "lsun_church_256": Images("./lsun_church_256", 3, 256, 0, False, True, _FACES, None),
}


def images_of(args: Arguments) -> Images:
    """Return the images that a model was trained on. Raises CheckpointError for a dataset without levels."""
    return args.choice("dataset", _IMAGES)


# The two stages that a checkpoint's arguments describe: budgets, optimisers, penalties, schedules

Q_TIMES: dict[str, bool | None] = {"reweight_p_samples": None, "ll_uniform": False, "ll_iw": True}
"""Whether the VAE's times are drawn by importance; None shares the prior's."""


def vae_stage(args: Arguments, images: Images, *, alone: bool) -> VAEStage:
    """Return stage 1; its budget and rates are in the file only where the VAE is ``alone`` there."""
    weight = args.number("weight_decay_norm", 1e-2)
    penalty = NormPenaltyConfig(weight, weight)
    if args.flag("weight_decay_norm_anneal", False) and weight > 0:
        start = args.number("weight_decay_norm_init", 10.0)
        penalty = NormPenaltyConfig(weight, weight, anneal_from=start / weight)
    kl = KLConfig(
        start=args.number("kl_const_coeff", 1e-4),
        end=args.number("kl_max_coeff", 1.0),
        portion=args.number("kl_anneal_portion", 0.3),
        hold=args.number("kl_const_portion", 1e-4),
        balance=True,
    )
    if alone:
        optimiser = _rates(args, "vae", name="adamax", eps=1e-3, lr=1e-2, lr_min=1e-4)
        return VAEStage(**_budget(args, images), ema=0.0, kl=kl, vae=optimiser, vae_penalty=penalty)
    optimiser = OptimConfig("adamax", 1e-2, 1e-4, eps=1e-3, weight_decay=args.number("weight_decay"))
    # Its steps are not known, and the weights are past them: 0 lets training go on from here with stage 2.
    return VAEStage(steps=0, ema=0.0, clip=0.0, kl=kl, vae=optimiser, vae_penalty=penalty)


def joint_stage(args: Arguments, images: Images, rule: Literal["adam", "adamw"] = "adamw") -> JointStage:
    """Return the stage in which the prior learns, with the VAE or on a frozen one; ``rule`` stepped it."""
    train_vae = args.flag("train_vae")
    by_importance = args.choice("iw_sample_q", Q_TIMES)
    norm_vae = args.number("weight_decay_norm_vae") if train_vae else 0.0
    norm_prior = args.number("weight_decay_norm_dae")
    return JointStage(
        **_budget(args, images),
        ema=args.number("ema_decay"),
        # Without an objective of the VAE its times mean nothing, whatever the arguments say.
        vae_times=_times(args, by_importance) if train_vae else "shared",
        vae_importance_sampling=by_importance is not False or not train_vae,
        ema_prior=train_vae and args.flag("disjoint_training") and args.flag("update_q_ema"),
        train_vae=train_vae,
        drop_inactive=args.flag("drop_inactive_var"),
        kl=_kl(args),
        vae=_rates(args, "vae", name=rule, eps=1e-3),
        prior=_rates(args, "dae", name=rule, eps=1e-4),
        vae_penalty=NormPenaltyConfig(norm_vae, norm_vae),
        # With custom_conv_dae the authors' penalty finds no convolution, only the normalisations' gains.
        prior_penalty=NormPenaltyConfig(0.0 if args.flag("custom_conv_dae") else norm_prior, norm_prior),
    )


def _times(args: Arguments, by_importance: bool | None) -> Literal["shared", "own", "disjoint"]:
    disjoint = args.flag("disjoint_training")
    if by_importance is None and disjoint:
        raise CheckpointError(
            "the checkpoint's arguments 'disjoint_training' and 'iw_sample_q' = 'reweight_p_samples' exclude "
            "each other in the authors' code; give the file as that code wrote it"
        )
    if by_importance is None:
        return "shared"
    return "disjoint" if disjoint else "own"


def _kl(args: Arguments) -> KLConfig:
    if not args.flag("cont_kl_anneal"):
        return KLConfig(start=1.0, end=1.0, portion=0.0)
    return KLConfig(
        start=args.number("kl_const_coeff_vada"),
        end=args.number("kl_max_coeff_vada"),
        portion=args.number("kl_anneal_portion_vada"),
        hold=args.number("kl_const_portion_vada"),
        balance=args.flag("kl_balance_vada"),
    )


def _budget(args: Arguments, images: Images) -> dict[str, Any]:
    epochs, warmup = args.whole("epochs"), args.whole("warmup_epochs")
    if not 0 <= warmup < max(epochs, 1):
        raise CheckpointError(
            f"the checkpoint's argument 'warmup_epochs' is {warmup} of {epochs} epochs; give the file as the "
            "authors' code wrote it"
        )
    processes = args.whole("num_proc_node", 1) * args.whole("num_process_per_node", 1)
    batch, steps = args.whole("batch_size"), StageConfig.steps
    if images.train is not None:
        if min(processes, batch) < 1:
            raise CheckpointError(
                f"the checkpoint's argument 'batch_size' is {batch} on {processes} processes; give the file "
                "as the authors' code wrote it"
            )
        # Every process sees whole batches of its share alone.
        steps = epochs * (math.ceil(images.train / processes) // batch)
    return {
        "steps": steps,
        "batch_size": batch * processes,
        "warmup": warmup / max(epochs, 1),
        "clip": args.number("grad_clip_max_norm", 0.0),
        "precision": "bfloat16" if args.flag("autocast_train", True) else "float32",
    }


def _rates(
    args: Arguments,
    part: str,
    *,
    name: Literal["adam", "adamw", "adamax"],
    eps: float,
    lr: float | None = None,
    lr_min: float | None = None,
) -> OptimConfig:
    """Return one part's optimiser; ``lr`` and ``lr_min`` stand for rates that the file does not give."""
    peak, end = args.number(f"learning_rate_{part}", lr), args.number(f"learning_rate_min_{part}", lr_min)
    return OptimConfig(name, peak, end, eps=eps, weight_decay=args.number("weight_decay"))
