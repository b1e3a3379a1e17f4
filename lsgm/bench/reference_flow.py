"""The log-density by probability flow as the reference implementation of LSGM computes it, written out.

The whole batch and its log-densities are one float64 vector for SciPy's RK45 on the CPU, rtol and atol shared
by both; the divergence is n^T (dv/dz) n with a Gaussian n drawn anew at every evaluation. The step size is
thus one for all images, depends on the batch, and follows the noise of n. The code published with
arXiv:2011.13456 draws n once instead. Written from a description, not from the code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Generator, Tensor

from lsgm.errors import UserError
from lsgm.samplers.base import ScoreFunction

__all__ = ["ReferenceLogProb", "reference_log_prob"]


@dataclass(frozen=True)
class ReferenceLogProb:
    """``log_p`` float64 [B] in nats; ``nfe`` evaluations of the batch, ``times`` where its steps ended."""

    log_p: Tensor
    nfe: int
    times: NDArray[np.float64]


def reference_log_prob(
    score: ScoreFunction, z0: Tensor, *, tol: float, time_eps: float, seed: int
) -> ReferenceLogProb:
    """Return log p(z0) of z0 [B, ...] with rtol = atol = ``tol``; the network runs in the dtype of z0.

    Raises UserError where SciPy's solver gives up.
    """
    shape, size, batch = z0.shape, z0.numel(), len(z0)
    generator = Generator().manual_seed(seed)

    def field(t: float, vector: NDArray[Any]) -> NDArray[np.float64]:
        z = torch.from_numpy(vector[:size].reshape(shape)).to(z0)
        probe = torch.randn(shape, generator=generator, dtype=torch.float64).to(z0)
        with torch.enable_grad():
            z.requires_grad_()
            velocity = score.drift(z, torch.full((batch,), t, dtype=torch.float64, device=z0.device))
            (pulled,) = torch.autograd.grad(velocity, z, probe)
        divergence = (pulled * probe).flatten(1).sum(dim=1)
        parts = (velocity.detach().flatten(), divergence)
        return np.concatenate([part.double().cpu().numpy() for part in parts])

    start = np.concatenate([z0.detach().double().cpu().numpy().ravel(), np.zeros(batch)])
    solution = solve_ivp(field, (time_eps, 1.0), start, method="RK45", rtol=tol, atol=tol)
    if not solution.success:
        raise UserError(f"the reference procedure stopped: {solution.message} Loosen its tolerance.")
    end = torch.from_numpy(solution.y[:, -1])
    log_prior = score.sde.log_prior(end[:size].reshape(shape))
    return ReferenceLogProb(log_prior + end[size:], int(solution.nfev), np.asarray(solution.t))
