"""The bounds of a flat VAE with two hidden layers, in matrix products of numpy and scipy's densities."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp
from scipy.stats import bernoulli, norm
from torch import Tensor

__all__ = ["flat_log_weight", "importance_bound"]

Array = NDArray[np.float64]


def flat_log_weight(state: Mapping[str, Tensor], x: Array, n: Array) -> Array:
    """Return log p(x | z) + log N(z; 0, I) - log q(z | x) at z = mu(x) + sigma(x) n, nats [B, K].

    Binary x [B, D], standard normal n [B, K, L]; the weights by their names in `lsgm.vae.small`.
    """
    w = {name: value.detach().double().numpy() for name, value in state.items()}
    latents = n.shape[2]
    h = np.tanh(x @ w["encoder.layers.0.weight"].T + w["encoder.layers.0.bias"])
    h = np.tanh(h @ w["encoder.layers.2.weight"].T + w["encoder.layers.2.bias"])
    mu = h @ w["encoder.head.weight"][:latents].T + w["encoder.head.bias"][:latents]
    sigma = np.exp(h @ w["encoder.head.weight"][latents:].T + w["encoder.head.bias"][latents:])
    z = mu[:, None] + sigma[:, None] * n
    h = np.tanh(z @ w["decoder.layers.0.weight"].T + w["decoder.layers.0.bias"])
    h = np.tanh(h @ w["decoder.layers.2.weight"].T + w["decoder.layers.2.bias"])
    p = expit(h @ w["decoder.head.weight"].T + w["decoder.head.bias"])
    log_q = norm.logpdf(z, mu[:, None], sigma[:, None]).sum(axis=2)
    weight: Array = bernoulli.logpmf(x[:, None], p).sum(axis=2) + norm.logpdf(z).sum(axis=2) - log_q
    return weight


def importance_bound(log_weight: Array) -> Array:
    """Return -log (1/K) sum_k w_k [B] of log w [B, K]."""
    bound: Array = np.log(log_weight.shape[1]) - logsumexp(log_weight, axis=1)
    return bound
