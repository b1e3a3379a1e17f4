"""What a pass has done so far, in one file under the key of everything it depends on."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lsgm.config import SamplerConfig
from lsgm.distributed import World
from lsgm.files.arrays import Arrays
from lsgm.files.shown import shown
from lsgm.generative import GenerativeModel
from lsgm.structure import to_dict
from lsgm_eval.cells import cell_key
from lsgm_eval.code_version import code_version
from lsgm_eval.features import CAPACITY
from lsgm_eval.kept import read_kept, room_for, write_kept
from lsgm_eval.model_specs import packages_of
from lsgm_eval.passes.plan import Branch

__all__ = ["StateFile", "pass_key"]

T = TypeVar("T")
KEY = "key"
OTHER = "is of another pass: its model, seeds, sampler, extractors or code differ"


@dataclass(frozen=True)
class StateFile:
    """A file of named arrays; only those that were written under the same key are ever read."""

    path: Path
    key: str

    def write(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Replace the file: by all of the arrays or, after a crash, not at all."""
        write_kept(self.path, {KEY: np.array(self.key), **arrays})

    def read(self, use: Callable[[Arrays], T], *, room: int = 0) -> T | None:
        """Return what ``use`` makes of the arrays, or None where there is no file or one that is of no use.

        A file that is damaged, of another pass, or refused by a DataError of ``use``, is named on standard
        error. ``room`` is what its arrays may take in bytes beyond the usual limit.
        """

        def ours(arrays: Arrays) -> T | None:
            if arrays.text(KEY) != self.key:
                print(
                    f"lsgm: the interrupted pass {shown(str(self.path))} {OTHER}; beginning again",
                    file=sys.stderr,
                )
                return None
            return use(Arrays(arrays.where, {name: arrays[name] for name in arrays if name != KEY}))

        said = "the interrupted pass {path} is damaged ({why}); beginning again"
        return read_kept(self.path, ours, damaged=said, limit=room_for(room))


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
