"""How estimators of a bound are called: rows name them with their settings, ``iw(samples=1000)``."""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = ["curve_name", "estimator_label", "family", "is_adaptive", "sampler_label", "settings_of"]


def settings_of(estimator: str | None) -> dict[str, str]:
    """Return the settings of an estimator: ``{"samples": "1000"}`` of ``iw(samples=1000)``."""
    inside = (estimator or "").partition("(")[2].rstrip(")")
    pairs = (part.partition("=") for part in inside.split(", ") if part)
    return {key.strip(): value for key, _, value in pairs}


def estimator_label(estimator: str | None) -> str:
    """Return an estimator in words: ``K = 1,000``, ``16 times``, ``dopri5, tol 1e-5, 1 probe``.

    What is not known is shown as it is written.
    """
    if not estimator:
        return "not stated"
    name, settings = estimator.partition("(")[0], settings_of(estimator)
    if settings.get("rtol") and settings.get("rtol") == settings.get("atol"):
        settings = {("tol" if key == "rtol" else key): value for key, value in settings.items()}
        del settings["atol"]
    return ", ".join(_words(name, key, value) for key, value in settings.items()) or name


def _words(name: str, key: str, value: str) -> str:
    match key, value:
        case "solver", _:
            return value
        case (("tol" | "rtol" | "atol"), _):
            return f"{key} {_short(value)}"
        case "samples", _ if name == "iw":
            return f"K = {_grouped(value)}"
        case "control_variate", "off":
            return "no control variate"
        case "step_control", "density":
            return "log-density in the step control"
        case "divergence", "exact":
            return "exact trace"
        case "divergence", "hutchinson":
            return "Hutchinson's trace"
        case "dequantise", "uniform":
            return "uniform dequantisation"
        case "dequantise", "noise":
            return "dequantised by the first noise"
        case (("times" | "steps" | "probes" | "samples"), _):
            noun = "draws" if key == "samples" else key
            return f"{_grouped(value)} {noun.removesuffix('s') if value == '1' else noun}"
    return f"{key}={value}"


def _grouped(value: str) -> str:
    return f"{int(value):,}" if value.isdecimal() and len(value) < 20 else value


def _short(number: str) -> str:
    """Return a tolerance as it is spoken of: ``1e-5`` for ``1e-05``, ``1e-3`` for ``0.001``."""
    try:
        mantissa, exponent = f"{float(number):e}".split("e")
    except ValueError:
        return number
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


# How samplers are called: rows name them with their settings, ``heun(steps=20)``

_BUDGET = ("steps", "rtol", "atol")
"""Settings that move along a curve; all others tell one curve from another."""


def family(sampler: str | None) -> str:
    """Return the name of a sampler without its settings: ``heun`` of ``heun(steps=20)``."""
    return (sampler or "none").partition("(")[0]


def curve_name(sampler: str | None) -> str:
    """Return what the points of one curve share: ``ddim, eta=1`` of ``ddim(steps=20, eta=1)``."""
    name, _, inside = (sampler or "none").partition("(")
    settings = [part for part in inside.removesuffix(")").split(", ") if part]
    kept = [part for part in settings if part.partition("=")[0] not in _BUDGET]
    return ", ".join([name, *kept])


def is_adaptive(sampler: str | None) -> bool:
    """Say whether a solver chose its own steps, to a tolerance."""
    return "rtol=" in (sampler or "")


def sampler_label(sampler: str | None) -> str:
    """Return a sampler as a table shows it: ``heun, 20 steps`` for ``heun(steps=20)``."""
    name, _, inside = (sampler or "none").partition("(")
    settings = inside.removesuffix(")")
    settings = re.sub(r"steps=1\b", "1 step", settings)
    settings = re.sub(r"steps=(\d+)", r"\1 steps", settings)
    parts = settings.split(", ")
    for place, (one, other) in enumerate(pairwise(parts)):
        if one.startswith("rtol=") and other == f"atol={one[5:]}":
            parts[place : place + 2] = [f"tol {one[5:]}"]
            break
    settings = ", ".join(parts)
    return f"{name}, {settings}" if settings else name
