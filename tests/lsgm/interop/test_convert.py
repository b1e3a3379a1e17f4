"""From the authors' tensors to ours: every one of them lands where it belongs, or is named and refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import FOLDERS, golden, golden_args, needs_golden
from official import averaged, raw, vae_alone
from torch import Tensor

from lsgm.errors import CheckpointError
from lsgm.interop.nvlabs.arguments import pixels_of_args, recipe_of
from lsgm.interop.nvlabs.convert import INACTIVE_BELOW, convert, empty_networks
from lsgm.interop.nvlabs.read import official_of
from lsgm.interop.taken import Native
from lsgm.model.lsgm import LSGM, build_lsgm, parameter_counts
from lsgm.sde import VESDE

pytestmark = needs_golden


def native(content: dict[str, Any], **options: Any) -> Native[Any]:
    return convert(official_of(content, Path("checkpoint.pt")), **options)


def loaded(model: Native[Any], state: dict[str, Tensor]) -> LSGM:
    """The networks in float64; every tensor must be there."""
    networks = build_lsgm(model.recipe, model.pixels)
    networks.load_state_dict(state)
    return networks.double().eval()


# Of the other families `lsgm conformance` says the same, in tests/lsgm/conformance.
@pytest.mark.parametrize("name", ["omniglot", "cifar10_fid"])
def test_the_prior_predicts_what_the_authors_does(name: str) -> None:
    model, io = native(averaged(name)), golden(name)[2]
    prior = loaded(model, model.ema).prior
    with torch.no_grad():
        eps = prior.eps(io["prior/z_t"], io["prior/t"].flatten())
    wanted = io["prior/eps_prediction"]
    # Two orders of summation in float64, through some twenty layers.
    assert float((eps - wanted).abs().max()) <= 1e-9 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("name", ["omniglot", "cifar10_fid"])
def test_the_vae_draws_what_the_authors_does(name: str) -> None:
    model, io = native(averaged(name)), golden(name)[2]
    vae = loaded(model, model.ema).vae
    pad = model.recipe.data.pad
    x = io["x_uint8"].round().to(torch.uint8)
    levels = x[..., pad : x.shape[-2] - pad, pad : x.shape[-1] - pad]
    levels = (
        levels.bool().to(torch.uint8) if model.pixels.kind == "binary" else levels >> 8 - model.pixels.bits
    )
    noises = iter([io[key] for key in sorted(io) if key.startswith("vae_eval/encoder_noise/")])
    with torch.no_grad():
        z = vae.posterior(levels, lambda *_: next(noises)).z
    for group, drawn in enumerate(z):
        wanted = io[f"vae_eval/z/{group:02d}"]
        assert float((drawn - wanted).abs().max()) <= 1e-9 * max(1.0, float(wanted.abs().max()))


def _widths(width: int, latents: tuple[int, int, int], cells: tuple[int, int]) -> dict[str, Any]:
    (scales, groups, channels), (outer, inner) = latents, cells
    both = {f"num_channels_{side}": width for side in ("enc", "dec")}
    both |= {f"num_{side}process_cells": outer for side in ("pre", "post")}
    both |= {f"num_cell_per_cond_{side}": inner for side in ("enc", "dec")}
    both |= {"num_latent_scales": scales, "num_groups_per_scale": groups, "num_latent_per_group": channels}
    return {**both, "num_cell_per_scale_dae": 8, "embedding_dim": 128}


@pytest.mark.parametrize(
    ("name", "changes", "vae", "prior"),
    [
        ("cifar10_fid", {**_widths(128, (1, 20, 9), (2, 2)), "num_channels_dae": 512}, 100.87, 375.56),
        ("cifar10_nll", {**_widths(256, (1, 4, 45), (3, 3)), "num_channels_dae": 512}, 130.62, 375.56),
        ("mnist", {**_widths(64, (1, 2, 20), (3, 1)), "num_channels_dae": 256}, 3.01, 63.77),
        ("omniglot", {**_widths(64, (1, 3, 20), (2, 3)), "num_channels_dae": 256}, 5.38, 97.80),
        ("celeba_256", {**_widths(64, (3, 8, 20), (2, 2)), "num_channels_dae": 256}, 51.30, 408.37),
    ],
)
def test_the_published_arguments_give_models_of_the_published_size(
    name: str, changes: dict[str, Any], vae: float, prior: float
) -> None:
    args = {**golden_args(name), **changes}
    counts = parameter_counts(empty_networks(recipe_of(args), pixels_of_args(args)))
    assert {part: round(count / 1e6, 2) for part, count in counts.items()} == {"vae": vae, "prior": prior}


def test_the_averages_go_to_the_averaged_weights_and_the_last_ones_to_the_others() -> None:
    plain, model = native(averaged("mnist")), native(raw("mnist"))
    assert model.raw.keys() == model.ema.keys() == plain.raw.keys()
    for name, tensor in plain.ema.items():
        assert torch.equal(model.raw[name], tensor), name
        learned = name.startswith(("prior.network.", "prior.logit"))
        assert torch.equal(model.ema[name], 2 * tensor if learned else tensor), name
    assert all(torch.equal(plain.raw[name], plain.ema[name]) for name in plain.raw)


def test_without_averaging_the_last_weights_are_both() -> None:
    content = raw("mnist", ema_decay=0.0)
    model = native(content)
    assert torch.equal(model.ema["prior.logit"], model.raw["prior.logit"])


def test_a_variance_exploding_prior_has_the_variance_that_its_arguments_say() -> None:
    ends = {"sigma2_0": 1e-3, "sigma2_min": 1e-3, "sigma2_max": 812.5}
    model = native(averaged("cifar10_fid", sde_type="vesde", **ends))
    assert loaded(model, model.raw).prior.sde == VESDE(1e-3, 812.5)


def test_a_file_of_stage_1_gives_the_vae() -> None:
    alone, whole = native(vae_alone("omniglot")), native(averaged("omniglot"))
    assert alone.recipe.vae == whole.recipe.vae
    assert alone.raw.keys() == {name for name in whole.raw if name.startswith("vae.")}
    assert all(torch.equal(alone.raw[name], whole.raw[name]) for name in alone.raw)


def dropped(name: str, logits: tuple[float, ...], **args: Any) -> dict[str, Any]:
    content = averaged(name, **args)
    logit = content["dae_state_dict"]["mixing_logit"].clone()
    logit[0, : len(logits), 0, 0] = torch.tensor(logits)
    content["dae_state_dict"]["mixing_logit"] = logit
    return content


def test_dropped_channels_are_masked_again() -> None:
    content = dropped("mnist", (-14.9, -3.0, -15.1, INACTIVE_BELOW + 0.1))
    active = native(content).ema["prior.active"].flatten().tolist()
    assert active == [False, True, False, True, True, True, True, True]
    compat = native(content, reference_compat=True)
    assert bool(compat.ema["prior.active"].all())
    assert compat.recipe.prior.objective.reference_compat
    # Where nothing was dropped, a low logit is one that was learned.
    assert bool(native(dropped("mnist", (-14.9,), drop_inactive_var=False)).ema["prior.active"].all())


def test_dropped_channels_do_not_reach_the_network() -> None:
    model = native(dropped("mnist", (-15.0,)))
    prior = loaded(model, model.ema).prior
    z, t = torch.randn(2, 8, 8, 8, dtype=torch.float64), torch.tensor([0.3, 0.8])
    other = z.clone()
    other[:, 0] += 1.0
    with torch.no_grad():
        assert torch.equal(prior.eps(z, t)[:, 1:], prior.eps(other, t)[:, 1:])


def test_logits_that_start_as_low_as_dropped_ones_tell_nothing() -> None:
    content = averaged("mnist", mixing_logit_init=-12.0)
    with pytest.raises(
        CheckpointError, match=r"'mixing_logit_init' is -12\.0, so that dropped channels cannot"
    ):
        native(content)
    assert bool(native(content, reference_compat=True).ema["prior.active"].all())


def test_the_order_of_keys_says_nothing() -> None:
    content, wanted = averaged("cifar10_fid"), native(averaged("cifar10_fid"))
    for part in ("vae_state_dict", "dae_state_dict"):
        items = list(content[part].items())
        content[part] = dict(random.Random(4).sample(items, len(items)))
    found = native(content)
    assert found.recipe == wanted.recipe
    assert list(found.ema) == list(wanted.ema)
    assert all(torch.equal(found.ema[key], wanted.ema[key]) for key in wanted.ema)


def test_copies_of_kernels_are_left_aside() -> None:
    content, wanted = averaged("mnist"), native(averaged("mnist"))
    copies = [key for key in content["vae_state_dict"] if key.endswith("weight_normalized")]
    assert copies
    for key in copies:
        del content["vae_state_dict"][key]
    found = native(content)
    assert all(torch.equal(found.ema[key], wanted.ema[key]) for key in wanted.ema)


def _tensors(count: int) -> list[tuple[str, str, str]]:
    """Some (folder, part, tensor), the same at every run."""
    chosen: list[tuple[str, str, str]] = []
    for name in FOLDERS if needs_golden.args[0] is False else ():
        for part in ("vae_state_dict", "dae_state_dict"):
            keys = sorted(key for key in averaged(name)[part] if not key.endswith("weight_normalized"))
            chosen += [(name, part, key) for key in random.Random(name + part).sample(keys, count)]
    return chosen


@pytest.mark.parametrize(("name", "part", "key"), _tensors(1))
def test_a_tensor_that_is_missing_surplus_or_misshapen_is_named(name: str, part: str, key: str) -> None:
    content = averaged(name)
    tensor = content[part].pop(key)
    with pytest.raises(CheckpointError, match=f"{part} lacks '{key}'") as refused:
        native(content)
    assert "\n" not in str(refused.value)
    content[part] |= {key: tensor, f"{key}.shadow": tensor}
    with pytest.raises(CheckpointError, match=f"{part} has '{key}.shadow'"):
        native(content)
    del content[part][f"{key}.shadow"]
    content[part][key] = tensor[None]
    with pytest.raises(CheckpointError, match=f"tensor '{key}' is "):
        native(content)
    if tensor.ndim > 0:
        content[part][key] = torch.cat([tensor, tensor[:1]])
        with pytest.raises(CheckpointError, match=f"tensor '{key}' is "):
            native(content)


def test_a_misshapen_tensor_of_a_stack_is_told_from_its_neighbours() -> None:
    content = averaged("mnist")
    stacked = [key for key in content["dae_state_dict"] if "Dense_0" in key or "NIN_" in key]
    for key in stacked[::3]:
        tensor = content["dae_state_dict"][key]
        content["dae_state_dict"][key] = tensor[:-1]
        with pytest.raises(CheckpointError, match=f"tensor '{key}' is "):
            native(content)
        content["dae_state_dict"][key] = tensor


def test_arguments_of_another_model_are_refused_by_the_first_tensor_that_differs() -> None:
    with pytest.raises(CheckpointError, match="dae_state_dict lacks 'all_modules"):
        native(averaged("cifar10_fid", num_cell_per_scale_dae=2))
    with pytest.raises(CheckpointError, match="tensor 'prior_ftr0' is"):
        native(averaged("cifar10_fid", num_channels_dec=16))
    with pytest.raises(CheckpointError, match="vae_state_dict lacks 'nf_cells"):
        native(averaged("cifar10_fid", num_nf=1))
