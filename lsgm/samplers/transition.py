r"""The forward transition between two times of a grid, which every reverse step with noise needs.

.. math:: q(z_k | z_j) = N(r z_j, v I), \quad r = m_k / m_j, \; v = \sigma_k^2 - r^2 \sigma_j^2

with t_k > t_j, for every linear SDE; 1 - r^2 = v = beta where unit variance is preserved (arXiv:2006.11239).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsgm.samplers.nodes import Nodes

__all__ = ["posterior_var", "transition"]


def transition(nodes: Nodes, k: int) -> tuple[float, float]:
    """Return r and v of the transition from node k + 1, the earlier time, to node k."""
    ratio, s, s_next = nodes.m[k] / nodes.m[k + 1], nodes.s[k], nodes.s[k + 1]
    return ratio, nodes.m[k] ** 2 * (s - s_next) * (s + s_next)


def posterior_var(nodes: Nodes, k: int) -> float:
    """Return the variance of q(z_j | z_k, z_0), v sigma_j^2 / sigma_k^2, where j = k + 1."""
    return transition(nodes, k)[1] * (nodes.sigma[k + 1] / nodes.sigma[k]) ** 2
