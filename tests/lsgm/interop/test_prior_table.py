"""The authors' priors, tensor for tensor: every name is met, and what they compute is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import FOLDERS, golden, needs_golden
from torch import Tensor
from upstream import arguments, slow_network

from lsgm.config import SDEConfig
from lsgm.errors import CheckpointError
from lsgm.interop.nvlabs.arguments import recipe_of
from lsgm.interop.nvlabs.tables import Assembly, prior_table
from lsgm.nets.config import ScoreNetConfig
from lsgm.nets.ncsnpp import NCSNpp
from lsgm.score import ScoreModel
from lsgm.sde import make_sde

MULTIPLIERS = {2: (1, 1), 3: (1, 1, 1), 4: (1, 2, 2, 2)}


def prior_of(args: dict[str, Any], channels: int, side: int) -> ScoreModel:
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
    return ScoreModel(sde, NCSNpp(network, channels=channels, resolution=side), channels=channels)


def assembled(table: dict[str, Assembly], theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: source.assemble([theirs[n] for n in source.names]) for name, source in table.items()}


def error(ours: Tensor, golden: Tensor) -> float:
    return float((ours - golden).abs().max() / golden.abs().max().clamp(min=1))


@needs_golden
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_prior_computes_what_the_authors_code_does(folder: str) -> None:
    checkpoint, meta, io = golden(folder)
    z_t, t = io["prior/z_t"], io["prior/t"]
    model = prior_of(meta["args"], *z_t.shape[1:3])
    table = dict(prior_table(model.network))
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


OUTPUTS = ("none", "output_skip", "residual")
INPUTS = (("none", "sum"), ("input_skip", "sum"), ("input_skip", "cat"), ("residual", "sum"))
EMBEDDINGS = (("positional", 1000.0), ("fourier", 16.0))
RUNNING = [
    (progressive, progressive_input, fir)
    for progressive in OUTPUTS
    for progressive_input in INPUTS
    for fir in (False, True)
    if not (fir and progressive == "residual")  # refused, see below: the authors' code cannot run it
]


def branches(progressive: str, progressive_input: tuple[str, str], fir: bool) -> dict[str, Any]:
    kind, combine = progressive_input
    return {
        "progressive": progressive,
        "progressive_input": kind,
        "progressive_combine": combine,
        "fir": fir,
    }


@pytest.mark.parametrize(("embedding", "scale"), EMBEDDINGS)
@pytest.mark.parametrize(("progressive", "progressive_input", "fir"), RUNNING)
def test_every_network_that_the_originals_can_run_computes_what_its_slow_copy_does(
    progressive: str, progressive_input: tuple[str, str], fir: bool, embedding: str, scale: float
) -> None:
    """The slow copy numbers its layers as the authors' code does, and knows nothing of the table."""
    args = arguments(
        **branches(progressive, progressive_input, fir),
        embedding_type=embedding,
        embedding_scale=scale,
        num_latent_per_group=1,
        dataset="omniglot",
        num_scales_dae=3,
    )
    slow, config = slow_network(args), recipe_of(args).prior.network
    network = NCSNpp(config, channels=2, resolution=8).double().eval()
    table = {name: row for name, row in prior_table(network).items() if name != "logit"}
    assert sorted(name for row in table.values() for name in row.names) == sorted(slow.weights)
    theirs = assembled(table, slow.weights)
    network.load_state_dict({name.removeprefix("network."): value for name, value in theirs.items()})
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2, 2, 8, 8, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    with torch.no_grad():
        # Two orders of summation in float64; the angles of times reach a thousand.
        torch.testing.assert_close(network(z, t), slow.forward(z, t), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("progressive_input", INPUTS, ids="-".join)
def test_a_network_that_the_originals_cannot_run_is_refused(progressive_input: tuple[str, str]) -> None:
    with pytest.raises(CheckpointError, match=r"'progressive' = 'residual' and 'fir' = True .*cannot run"):
        recipe_of(arguments(**branches("residual", progressive_input, True)))


@pytest.mark.parametrize(
    ("dataset", "scales", "levels"), [("mnist", 1, (1,)), ("cifar10", 2, (1, 1)), ("omniglot", 3, (1, 1, 1))]
)
def test_fewer_scales_leave_out_the_lowest_resolutions(
    dataset: str, scales: int, levels: tuple[int, ...]
) -> None:
    args = arguments(
        dataset=dataset, num_scales_dae=scales, decoder_dist="dml" if dataset == "cifar10" else "bin"
    )
    assert recipe_of(args).prior.network.multipliers == levels
    with pytest.raises(CheckpointError, match="'num_scales_dae' is 4, and the authors' code has at most"):
        recipe_of({**args, "num_scales_dae": 4})
