"""Samplers and estimators: in rows ``heun(steps=20)``, in tables ``heun, 20 steps``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise

from lsgm.config import SamplerConfig
from lsgm.errors import UserError

_BUDGET = ("steps", "rtol", "atol")
"""Settings that move along a curve; all others tell one curve from another."""


# How rows call them


def described(name: str, settings: Mapping[str, object]) -> str:
    """Return ``iw(samples=10, solver=dopri5)``: a name and its settings, in their order."""
    return f"{name}({', '.join(f'{key}={_text(value)}' for key, value in settings.items())})"


def _text(value: object) -> str:
    if isinstance(value, tuple):  # of times: too many to read, and two lists must not look the same
        return hashlib.sha256(repr(value).encode()).hexdigest()[:8]
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def sampler_name(sampler: SamplerConfig) -> str:
    """Return ``heun(steps=20)`` or ``dopri5(rtol=1e-05, atol=1e-05)``, and what else is not the default.

    Configurations that draw different images have different names: ``ddim(steps=20, grid=logsnr, eta=1)``.
    """
    plain = SamplerConfig(sampler.name)
    settings: dict[str, object] = {}
    if _chooses_steps(sampler.name):
        settings |= {"rtol": sampler.rtol, "atol": sampler.atol}
    else:
        settings["steps"] = len(sampler.times) - 1 if sampler.times else sampler.steps
    for field in fields(sampler):
        value = getattr(sampler, field.name)
        if field.name not in ("name", *_BUDGET) and value != getattr(plain, field.name):
            settings[field.name] = value
    return described(sampler.name, settings)


def _chooses_steps(name: str) -> bool:
    from lsgm.sampling import find_sampler  # here: those who read rows need no samplers

    try:
        return find_sampler(name).adaptive
    except UserError:  # a factory's own sampler
        return False


# How tables show estimators


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


# How tables show samplers


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
