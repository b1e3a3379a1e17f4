"""Which device a command runs on, and the clock of what runs there."""

from __future__ import annotations

import os
import time

import torch

from lsgm.errors import ConfigError

__all__ = ["clock", "pick_device"]


def pick_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is this process's GPU where there is one, else the CPU.

    Raises ConfigError where the name is not a device or the device is not here.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds shapes and no numbers")
        torch.empty(0, device=device)
    # torch answers with any of these; an absent backend's answer goes on for a page after its first sentence.
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")
        raise ConfigError(f"there is no device '{name}' here ({reason}); try --device cpu") from None
    return device


def clock(device: torch.device) -> float:
    """Return the wall clock in seconds once the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
