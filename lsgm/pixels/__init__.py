"""Distributions of pixels given a decoder's output: log-probability of levels, mean, draws."""

from __future__ import annotations

from lsgm.pixels.base import PixelDistribution, network_input
from lsgm.pixels.bernoulli import Bernoulli
from lsgm.pixels.choose import outputs_for, pixel_distribution, resolve, uniforms_for
from lsgm.pixels.logistic import DiscretizedLogistic
from lsgm.pixels.mixture import LogisticMixture
from lsgm.pixels.normal import NormalPixels

__all__ = [
    "Bernoulli",
    "DiscretizedLogistic",
    "LogisticMixture",
    "NormalPixels",
    "PixelDistribution",
    "network_input",
    "outputs_for",
    "pixel_distribution",
    "resolve",
    "uniforms_for",
]
