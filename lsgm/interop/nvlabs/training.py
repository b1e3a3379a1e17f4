"""The two stages that a checkpoint's arguments describe: budgets, optimisers, penalties, schedules.

What the arguments leave open is what the authors published (arXiv:2106.05931, appendix G, and their code):
Adamax with eps 1e-3 for the VAE alone, then Adam with eps 1e-3 for the VAE and 1e-4 for the prior. Apex's
fused Adam, the one of their container, decouples weight decay; torch's, which their code takes where there is
no apex, adds it to the gradient.
"""

from __future__ import annotations

from typing import Any, Literal

from lsgm.config import OptimConfig, StageConfig
from lsgm.errors import CheckpointError
from lsgm.interop.nvlabs.datasets import Images
from lsgm.interop.nvlabs.values import Arguments
from lsgm.models.config import JointStage, KLConfig, NormPenaltyConfig, VAEStage

__all__ = ["joint_stage", "vae_stage"]

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
    steps = images.steps(args, epochs)
    processes = args.whole("num_proc_node", 1) * args.whole("num_process_per_node", 1)
    return {
        "steps": StageConfig.steps if steps is None else steps,
        "batch_size": args.whole("batch_size") * processes,
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
    peak, end = (
        args.number(f"learning_rate_{part}", lr),
        args.number(f"learning_rate_min_{part}", lr_min),
    )
    return OptimConfig(name, peak, end, eps=eps, weight_decay=args.number("weight_decay"))
