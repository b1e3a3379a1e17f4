"""A user's own feature space as a TorchScript file."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path

import torch

from lsgm.errors import DataError
from lsgm_eval.extractors.own import OwnNetwork
from lsgm_eval.extractors.weights import open_own, read_own

__all__ = ["TorchScriptExtractor", "load_script"]


class TorchScriptExtractor(OwnNetwork):
    """Features of ``torchscript:FILE``.

    The file is a program, which torch's interpreter runs: no Python, but operators that may read and write
    files, so it must be one that you trust. Raises DataError for a file that is missing or is no TorchScript,
    UserError as `OwnNetwork` does.
    """

    def __init__(
        self, file: str, image_shape: tuple[int, int, int], *, device: torch.device | str = "cpu"
    ) -> None:
        def read(path: Path) -> tuple[str, torch.jit.ScriptModule]:
            raw = read_own(path)
            return hashlib.sha256(raw).hexdigest(), load_script(path, raw, torch.device(device))

        path, (sha256, net) = open_own(file, f"the TorchScript extractor {file}", read, runs=True)
        super().__init__("TorchScript extractor", path, sha256, net, image_shape, device)


def load_script(path: Path, raw: bytes, device: torch.device) -> torch.jit.ScriptModule:
    """Return the module that the bytes of a TorchScript file hold, in evaluation mode.

    Raises DataError where they hold none.
    """
    try:
        with warnings.catch_warnings():
            # torch.jit is deprecated in favour of torch.export, which does not read these files.
            for category in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            module = torch.jit.load(io.BytesIO(raw), map_location=device)  # type: ignore[no-untyped-call]
    # Of a damaged file torch's reader is asked for a member that is not there, or for far too much memory.
    except Exception as error:
        raise DataError(
            f"{path} is not a TorchScript file or is damaged: write it with torch.jit.save"
        ) from error
    script: torch.jit.ScriptModule = module.eval()
    return script
