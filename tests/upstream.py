"""Files of our own making, laid out as the original codes write theirs: tiny and drawn at random.

What the score network computes is known from `oracles.ncsnpp`. Its weights are stepped as the authors'
training steps them, under either Adam: apex's, which decouples weight decay, or torch's, which adds it to
the gradient.
"""

from __future__ import annotations

import argparse
import ast
import copy
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from oracles.ncsnpp import SlowNCSNpp
from safetensors.torch import save_file
from torch import Tensor

from lsgm.generative import Pixels
from lsgm.interop.nvlabs.arguments import pixels_of_args, recipe_of
from lsgm.interop.nvlabs.tables import vae_table
from lsgm.model.lsgm import build_lsgm, sketch
from lsgm.nets.config import NVAEConfig
from lsgm.recipes.recipe import LSGMRecipe

__all__ = ["arguments", "slow_network", "stage1", "stage2", "without_optimisers", "write_folder"]

IMAGES_AND_VAE = """
    dataset='mnist' num_x_bits=8 decoder_dist='bin' seed=1 num_total_iter=1600
    arch_instance='res_mbconv' use_se=True num_nf=0 log_sig_q_scale=5.0
    num_latent_scales=1 num_groups_per_scale=2 num_latent_per_group=2
    num_channels_enc=4 num_channels_dec=4 channel_mult=[1,2,2]
    num_preprocess_blocks=2 num_preprocess_cells=1 num_cell_per_cond_enc=1
    num_postprocess_blocks=2 num_postprocess_cells=1 num_cell_per_cond_dec=1
    progressive_input_vae='none'
    epochs=800 warmup_epochs=20 batch_size=2 num_process_per_node=1
    learning_rate_vae=1e-4 learning_rate_min_vae=1e-5 weight_decay=3e-4
"""
"""What both stages say: binary digits, z_0 of 2 x 2 channels at 8 x 8."""

PRIOR = """
    dae_arch='ncsnpp' num_channels_dae=8 num_scales_dae=2 num_cell_per_scale_dae=1
    embedding_dim=8 embedding_type='positional' embedding_scale=1000.0 fir=False
    progressive='none' progressive_input='none' progressive_combine='sum' dropout=0.2
    mixed_prediction=True mixing_logit_init=-6.0 drop_inactive_var=True
    sde_type='vpsde' beta_start=0.1 beta_end=20.0 time_eps=0.01
    sigma2_0=0.0 sigma2_min=1e-4 sigma2_max=0.99
    iw_sample_p='ll_iw' iw_sample_q='reweight_p_samples'
    train_vae=True disjoint_training=False update_q_ema=False
    learning_rate_dae=1e-2 learning_rate_min_dae=1e-2 custom_conv_dae=False ema_decay=0.95
    weight_decay_norm_vae=0.01 weight_decay_norm_dae=0.0 cont_kl_anneal=True
    kl_anneal_portion_vada=0.1 kl_const_portion_vada=0.0 kl_const_coeff_vada=0.7
    kl_max_coeff_vada=1.0 kl_balance_vada=False
"""
"""What stage 2 says besides."""


def _parsed(words: str) -> dict[str, Any]:
    return {name: ast.literal_eval(value) for name, value in (word.split("=") for word in words.split())}


Adam = Literal["torch", "apex"]
STEM = "all_modules.2.weight"


def arguments(**changes: Any) -> dict[str, Any]:
    """Return the arguments of stage 2 with some of them changed."""
    return {**_parsed(IMAGES_AND_VAE + PRIOR), **changes}


def slow_network(args: Mapping[str, Any], seed: int = 0) -> SlowNCSNpp:
    """Return the slow copy of the arguments' score network, its weights drawn; float32 can hold them."""
    recipe, pixels = recipe_of(args), pixels_of_args(args)
    slow = SlowNCSNpp(recipe.prior.network, seed)
    slow.weights = {name: value.clone() for name, value in _drawn(recipe, pixels, seed).items()}
    return slow


@cache
def _drawn(recipe: LSGMRecipe, pixels: Pixels, seed: int) -> Mapping[str, Tensor]:
    """Return the weights that the slow copy draws when it is first run: once for each network."""
    shape = sketch(recipe, pixels).vae.groups.z_0
    slow = SlowNCSNpp(recipe.prior.network, seed)
    slow.forward(torch.zeros(1, *shape).double(), torch.tensor([0.5]).double())
    return {name: value.detach().float().double() for name, value in slow.weights.items()}


def stage1(**changes: Any) -> dict[str, Any]:
    """Return what `checkpoint.pt` of the VAE alone holds."""
    args = {**_parsed(IMAGES_AND_VAE), **changes}
    weights = _vae(arguments(**changes))
    state = {
        index: {"step": 5, "exp_avg": 0 * value, "exp_inf": 0 * value + 1e-3}
        for index, value in enumerate(weights.values())
    }
    group = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-3, "weight_decay": 3e-4, "initial_lr": 1e-2}
    return {
        "epoch": 5,
        "global_step": 10,
        "args": argparse.Namespace(**args),
        "grad_scalar": {"scale": 1024.0},
        "best_score": 123.0,
        "vae_state_dict": weights,
        "vae_optimizer": {"state": state, "param_groups": [{**group, "params": list(state)}]},
        "vae_scheduler": {"last_epoch": 1},
        "sn_calculator": {"sr_u": {}, "sr_v": {}},
    }


def stage2(
    *, adam: Adam = "apex", dropped: tuple[int, ...] = (), steps: int = 60, resumed: int = 0, **changes: Any
) -> dict[str, Any]:
    """Return what `checkpoint.pt` of the LSGM holds after so many steps; channels are ``dropped`` before.

    ``resumed`` of the steps come after the run was started again, when the authors' code has no mask.
    """
    key = repr((adam, dropped, steps, resumed, sorted(changes.items())))
    if key not in _MADE:
        _MADE[key] = _stage2(arguments(**changes), adam, dropped, steps, resumed)
    return copy.deepcopy(_MADE[key])


_MADE: dict[str, dict[str, Any]] = {}
"""Files of stage 2 by what was asked for, each stepped once."""


def _stage2(
    args: dict[str, Any], adam: Adam, dropped: tuple[int, ...], steps: int, resumed: int
) -> dict[str, Any]:
    slow = slow_network(args)
    channels = slow.weights[STEM].shape[1]
    logit = torch.full((1, channels, 1, 1), args["mixing_logit_init"])
    logit[0, list(dropped)] = -15.0
    prior = OrderedDict(mixing_logit=logit, **{k: slow.weights[k].float() for k in _in_order(slow.weights)})
    optimizer = _trained(prior, dropped, args, adam, steps, resumed)
    return {
        "epoch": 40,
        "global_step": steps,
        "args": argparse.Namespace(**args),
        "grad_scalar": {"scale": 1024.0},
        "best_score_fid": 1e10,
        "best_score_nll": torch.tensor(300.0),
        "dae_state_dict": prior,
        "dae_optimizer": optimizer,
        "dae_scheduler": {"last_epoch": 1},
        "vae_state_dict": _vae(args),
        "vae_optimizer": {"state": {}, "param_groups": [_group(args, adam, steps, eps=1e-3)]},
        "vae_scheduler": {"last_epoch": 1},
        "vae_sn_calculator": {"sr_u": {}, "sr_v": {}},
        "dae_sn_calculator": {"sr_u": {}, "sr_v": {}},
    }


def without_optimisers(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `checkpoint_fid.pt` holds beside a `checkpoint.pt`: the averaged weights alone."""
    kept = ("epoch", "global_step", "args", "best_score_fid", "best_score_nll", "vae_state_dict")
    averages = [entry["ema"] for entry in content["dae_optimizer"]["state"].values()]
    prior = OrderedDict(zip(content["dae_state_dict"], averages, strict=True))
    return {**{key: content[key] for key in kept}, "dae_state_dict": prior}


def write_folder(folder: Path, content: Mapping[str, Any], dropped: tuple[int, ...] = ()) -> Path:
    """Write a stage-2 checkpoint and, as far as it is known without the authors' code, its expected values.

    The prior's values follow from the slow copy of its network and the formulas of the linear VPSDE; the mask
    is that of training, the logits the file's.
    """
    folder.mkdir()
    torch.save(dict(content), folder / "checkpoint.pt")
    args = vars(content["args"])
    generator = torch.Generator().manual_seed(11)
    raw = content["dae_state_dict"]
    channels = raw[STEM].shape[1]

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    z_0, noise, t = drawn(2, channels, 8, 8), drawn(2, channels, 8, 8), torch.tensor([0.1, 0.8]).double()
    low, high = args["beta_start"], args["beta_end"]
    mean = torch.exp(-(low * t + (high - low) * t**2 / 2) / 2).reshape(-1, 1, 1, 1)
    var, g2 = 1 - mean**2, (low + (high - low) * t).reshape(-1, 1, 1, 1)
    z_t = mean * z_0 + var.sqrt() * noise
    values = {"prior/t": t, "prior/z0": z_0, "prior/noise": noise}
    values |= {"prior/var_t": var, "prior/mean_coef": mean, "prior/z_t": z_t}
    mask = torch.ones(1, channels, 1, 1, dtype=torch.float64)
    mask[0, list(dropped)] = 0.0
    averages = [entry["ema"] for entry in content["dae_optimizer"]["state"].values()]
    for weights, tensors in {"raw": raw, "ema": dict(zip(raw, averages, strict=True))}.items():
        slow = slow_network(args)
        slow.weights = {name: tensors[name].double() for name in slow.weights}
        share = torch.sigmoid(tensors["mixing_logit"].double())
        for suffix, seen in (("", torch.ones_like(mask)), ("_masked", mask)):
            output = slow.forward(z_t * seen, t)
            eps = (1 - share) * var.sqrt() * z_t + share * output
            drift = g2 / 2 * (eps / var.sqrt() - z_t)
            found = {"network_output": output, "eps_prediction": eps, "ode_drift": drift}
            values |= {f"prior/{weights}{suffix}/{name}": value for name, value in found.items()}
    images = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    masks = {"prior/is_active": mask.flatten().to(torch.uint8)}
    save_file({"x_uint8": images, **masks, **values}, folder / "expected.safetensors")
    return folder


def _vae(args: Mapping[str, Any]) -> OrderedDict[str, Tensor]:
    """Return a fresh VAE's weights under the authors' names."""
    recipe = recipe_of(args)
    assert isinstance(recipe.vae, NVAEConfig)
    own = _vae_weights(recipe, pixels_of_args(args))
    return OrderedDict((theirs, own[ours].clone()) for theirs, ours in vae_table(recipe.vae).items())


@cache
def _vae_weights(recipe: LSGMRecipe, pixels: Pixels) -> Mapping[str, Tensor]:
    torch.manual_seed(3)
    return build_lsgm(recipe, pixels).vae.state_dict()


def _in_order(names: Mapping[str, Any]) -> list[str]:
    """Return the network's tensors in a state dict's order: frequencies, then layers by number."""

    def place(name: str) -> tuple[int, ...]:
        return (-1,) if name.startswith("temb_fun") else (int(name.split(".")[1]),)

    return sorted(names, key=place)


def _group(args: Mapping[str, Any], adam: Adam, steps: int, *, eps: float) -> dict[str, Any]:
    """Return an optimiser's one group, without the list of what it steps."""
    lr = args["learning_rate_dae"]
    both = {"lr": lr, "betas": (0.9, 0.999), "eps": eps, "weight_decay": args["weight_decay"]}
    own = {"amsgrad": False} if adam == "torch" else {"bias_correction": True, "step": steps}
    return {**both, **own, "initial_lr": lr, "params": []}


def _trained(
    prior: dict[str, Tensor],
    dropped: tuple[int, ...],
    args: Mapping[str, Any],
    adam: Adam,
    steps: int,
    resumed: int,
) -> dict[str, Any]:
    """Step the weights in place on random gradients, and return the optimiser's state with the averages.

    As in their network a dropped channel is zero where it comes in, so that what it meets there has no
    gradient, and its share a of the output is that of its logit, whose gradient is a (1 - a) of the others'.
    """
    generator = torch.Generator().manual_seed(5)
    state: dict[int, dict[str, Any]] = {}
    for index, (name, value) in enumerate(prior.items()):
        if name in ("mixing_logit", STEM):
            mean, square, average = _stepped(name, value, dropped, args, adam, (steps, resumed), generator)
        elif name == "temb_fun.w":
            continue
        else:  # any numbers will do
            gradient = 0.1 * torch.randn(value.shape, generator=generator)
            mean, square, average = gradient, gradient**2, value + 0.01 * gradient
        step = {"step": steps} if adam == "torch" else {}
        state[index] = {**step, "exp_avg": mean, "exp_avg_sq": square, "ema": average}
    group = {**_group(args, adam, steps, eps=1e-4), "params": list(range(len(prior)))}
    return {"state": state, "param_groups": [group]}


def _stepped(
    name: str,
    weight: Tensor,
    dropped: tuple[int, ...],
    args: Mapping[str, Any],
    adam: Adam,
    steps: tuple[int, int],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Step one tensor in place; return Adam's two moments and the average of the weights."""
    rule = torch.optim.Adam if adam == "torch" else torch.optim.AdamW
    parameter = torch.nn.Parameter(weight)
    optimiser = rule(
        [parameter], args["learning_rate_dae"], eps=1e-4, weight_decay=args["weight_decay"], foreach=False
    )
    average = weight.clone()
    for step in range(steps[0]):
        gradient = 0.1 * torch.randn(weight.shape, generator=generator)
        if name == "mixing_logit":
            share = torch.sigmoid(weight)
            gradient *= 100 * share * (1 - share)
        else:
            if step < steps[0] - steps[1]:
                gradient[:, list(dropped)] = 0.0
            if args["weight_decay_norm_dae"] > 0:
                gradient += args["weight_decay_norm_dae"] * _norm_gradient(weight)
        parameter.grad = gradient
        optimiser.step()
        average.lerp_(weight, 1 - args["ema_decay"])
    entry = optimiser.state[parameter]
    return entry["exp_avg"], entry["exp_avg_sq"], average


def _norm_gradient(weight: Tensor) -> Tensor:
    """Return the gradient u v^T of a convolution's spectral norm."""
    u, _, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    return torch.outer(u[:, 0], v[0]).reshape(weight.shape)
