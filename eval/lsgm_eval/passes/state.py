"""What a pass has done so far, in one file under the key of everything it depends on."""

from __future__ import annotations

import hashlib
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.config import SamplerConfig
from lsgm.distributed import World
from lsgm.files.write import atomic_path
from lsgm.generative import GenerativeModel
from lsgm.structure import to_dict
from lsgm_eval.cells import cell_key
from lsgm_eval.code_version import code_version
from lsgm_eval.features import CAPACITY
from lsgm_eval.model_specs import packages_of
from lsgm_eval.passes.plan import Branch

__all__ = ["Arrays", "StateFile", "pass_key"]

Arrays = Mapping[str, NDArray[Any]]
KEY = "key"
DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What NumPy and zipfile answer to a file that is cut short, overwritten or empty."""


@dataclass(frozen=True)
class StateFile:
    """A file of named arrays; only those that were written under the same key are ever read."""

    path: Path
    key: str

    def write(self, arrays: Arrays) -> None:
        """Replace the file: by all of the arrays or, after a crash, not at all."""
        whole: dict[str, Any] = {KEY: np.array(self.key), **arrays}
        with atomic_path(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, **whole)

    def read(self) -> dict[str, NDArray[Any]] | None:
        """Return the arrays, or None where there is no file or one that is of no use.

        A file that is damaged, or of another pass, is named on standard error.
        """
        if not self.path.exists():
            return None
        try:
            # The archive carries a checksum of every member, which reading verifies.
            with np.load(self.path, allow_pickle=False) as file:
                if str(file[KEY]) != self.key:
                    self._begin_again(
                        "is of another pass: its model, seeds, sampler, extractors or code differ"
                    )
                    return None
                return {name: file[name] for name in file.files if name != KEY}
        except DAMAGE as error:
            self._begin_again(f"is damaged ({error})")
            return None

    def _begin_again(self, why: str) -> None:
        print(f"lsgm: the interrupted pass {self.path} {why}; beginning again", file=sys.stderr)


def pass_key(
    model: GenerativeModel,
    seeds: Sequence[int],
    sampler: SamplerConfig,
    branches: Mapping[str, Branch],
    world: World,
    save: Path | None,
) -> str:
    """Return the sha256 of all that a pass depends on but for its batches, which only round differently."""
    return cell_key(
        {
            "model": model.sha256,
            "sampler": to_dict(sampler),
            "seeds": hashlib.sha256(np.asarray(seeds, dtype=np.int64).tobytes()).hexdigest(),
            "processes": world.size,
            "device": world.device.type,
            "branches": {name: _identity(branch) for name, branch in branches.items()},
            "capacity": CAPACITY,
            "save": str(save.resolve()) if save else None,
            "code": code_version("lsgm", "lsgm_eval", *packages_of(model)),
        }
    )


def _identity(branch: Branch) -> list[Any]:
    extractor = branch.extractor
    return [extractor.sha256, extractor.dim, extractor.resize, sorted(branch.parts())]
