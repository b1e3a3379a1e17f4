"""The authors' priors, tensor for tensor: every name is met, and what they compute is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import FOLDERS, golden, needs_golden
from torch import Tensor

from lsgm.config import SDEConfig
from lsgm.interop.nvlabs.prior_table import Source, prior_table
from lsgm.nets.config import ScoreNetConfig
from lsgm.nets.ncsnpp import NCSNpp
from lsgm.score import ScoreModel
from lsgm.sde import make_sde

MULTIPLIERS = {2: (1, 1), 3: (1, 1, 1), 4: (1, 2, 2, 2)}


def prior_of(args: dict[str, Any], channels: int, side: int) -> tuple[ScoreNetConfig, ScoreModel]:
    network = ScoreNetConfig(
        width=args["num_channels_dae"],
        multipliers=MULTIPLIERS[args["num_scales_dae"]],
        blocks=args["num_cell_per_scale_dae"],
        embedding=args["embedding_dim"],
        fir=args["fir"],
    )
    geometric = args["sde_type"] == "geometric_sde"
    limits = {f"sigma2_{name}": args[f"sigma2_{name}"] for name in ("0", "min", "max")} if geometric else {}
    sde = make_sde(SDEConfig("geometric" if geometric else "vp", **limits))
    return network, ScoreModel(sde, NCSNpp(network, channels=channels, resolution=side), channels=channels)


def assembled(table: dict[str, Source], theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: source.assemble([theirs[n] for n in source.names]) for name, source in table.items()}


def error(ours: Tensor, golden: Tensor) -> float:
    return float((ours - golden).abs().max() / golden.abs().max().clamp(min=1))


@needs_golden
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_prior_computes_what_the_authors_code_does(folder: str) -> None:
    checkpoint, meta, io = golden(folder)
    z_t, t = io["prior/z_t"], io["prior/t"]
    config, model = prior_of(meta["args"], *z_t.shape[1:3])
    table = dict(prior_table(config, *z_t.shape[1:3]))
    theirs = checkpoint["dae_state_dict"]
    assert sorted(name for source in table.values() for name in source.names) == sorted(theirs)
    model.load_state_dict({**assembled(table, theirs), "active": model.active})
    model.double().eval()
    with torch.no_grad():
        # Against its own size: the last convolutions are near zero at random weights, and so is the output.
        output = io["prior/network_output"]
        assert float((model.network(z_t, t) - output).abs().max() / output.abs().max()) < 1e-11
        assert error(model.eps(z_t, t), io["prior/eps_prediction"]) < 1e-9
        assert error(model.drift(z_t, t), io["prior/ode_drift"]) < 1e-9
