"""What rows call a sampler: its name, its budget, and every option that is not the default."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any

from lsgm.config import SamplerConfig
from lsgm.errors import UserError

__all__ = ["describe_sampler"]

BUDGET = ("steps", "rtol", "atol")


def describe_sampler(sampler: SamplerConfig) -> str:
    """Return ``heun(steps=20)`` or ``dopri5(rtol=1e-05, atol=1e-05)``, and what else is not the default.

    Configurations that draw different images have different names: ``ddim(steps=20, grid=logsnr, eta=1)``.
    """
    plain = SamplerConfig(sampler.name)
    shown: dict[str, Any] = {}
    if _adaptive(sampler.name):
        shown |= {"rtol": sampler.rtol, "atol": sampler.atol}
    else:
        shown["steps"] = len(sampler.times) - 1 if sampler.times else sampler.steps
    for field in fields(sampler):
        value = getattr(sampler, field.name)
        if field.name not in ("name", *BUDGET) and value != getattr(plain, field.name):
            shown[field.name] = value
    return f"{sampler.name}({', '.join(f'{key}={_text(value)}' for key, value in shown.items())})"


def _text(value: Any) -> str:
    if isinstance(value, tuple):  # of times: too many to read, and two lists must not look the same
        return hashlib.sha256(repr(value).encode()).hexdigest()[:8]
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _adaptive(name: str) -> bool:
    from lsgm.samplers import find_sampler

    try:
        return find_sampler(name).adaptive
    except UserError:  # a factory's own sampler
        return False
