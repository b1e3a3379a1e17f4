"""``lsgm data``: which image sets and weights are here, fetching official ones, hashing what lies on disk."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lsgm.discovery import choose
from lsgm.errors import ConfigError, DataError, did_you_mean
from lsgm.options import Positional, arg, parse

if TYPE_CHECKING:
    from lsgm.data.download import Weights

HELP = "list, fetch and verify image datasets, and the weights that measure them"

_PAGE = f"""usage: lsgm data ls | fetch | verify [OPTIONS]

{HELP.capitalize()}. Files are looked for in the folders of $LSGM_DATA, then in the cache
($LSGM_CACHE, else ~/.cache/lsgm); only `fetch` uses the network.

  ls      the datasets and published weights, and where each one is
  fetch   get official archives and weights (inception, inception-clean) that are not here, checked; a
          broken download goes on where it stopped
  verify  hash every file of the datasets and weights that are here

examples:
  lsgm data ls
  lsgm data fetch mnist cifar10
  lsgm data fetch cifar10 inception inception-clean    # all that `lsgm eval cifar10` needs
  LSGM_DATA=/mnt/datasets lsgm data verify cifar10 --json
  lsgm train --data ./photos      # a folder or zip of images needs no preparation"""


@dataclass(frozen=True)
class ListOptions:
    """Options of ``lsgm data ls``."""

    json: bool = False
    """Print one JSON object per line."""


@dataclass(frozen=True)
class FetchOptions:
    """Options of ``lsgm data fetch``."""

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="NAME...")]
    """Datasets, and published weights, to download where they are not here."""
    to: Path | None = None
    """Folder that will hold the datasets, a sub-folder each, wherever else they are (default: the cache)."""


@dataclass(frozen=True)
class VerifyOptions:
    """Options of ``lsgm data verify``."""

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="[NAME...]")] = ()
    """Datasets and weights to check (default: every one that is here)."""
    json: bool = False
    """Print one JSON object per line."""


def run(argv: list[str]) -> int:
    """Run one of the three; 0 where all is well, 1 where `verify` found a damaged file."""
    actions = {"ls": _ls, "fetch": _fetch, "verify": _verify}
    action, rest = choose(
        argv,
        dict.fromkeys(actions, ""),
        page=_PAGE,
        what="action of `lsgm data`",
        otherwise="; `lsgm data --help` lists them",
    )
    return actions[action](rest) if action else 0


def _ls(argv: list[str]) -> int:
    options = parse(
        ListOptions,
        argv,
        prog="lsgm data ls",
        description="List the datasets and published weights, and where each one is.",
        examples=["lsgm data ls", "lsgm data ls --json"],
    )
    from lsgm.data.download import published_weights
    from lsgm.data.registry import DATASETS

    rows = [_row(name) for name in DATASETS]
    rows += [_weights_row(name, weights) for name, weights in published_weights().items()]
    if options.json:
        for row in rows:
            print(json.dumps(row))
        return 0
    for row in rows:
        shape = " x ".join(map(str, row["image_shape"] or ()))
        what = row["pixels"] or row["kind"]
        print(f"{row['name']:<16} {what:<7} {shape:<14} {row['summary']}\n{'':<16} {_state(row)}")
    return 0


def _row(name: str) -> dict[str, Any]:
    from lsgm.data.places import find_mirror, roots
    from lsgm.data.registry import DATASETS, find_dataset

    dataset = DATASETS[name]
    found = find_dataset(name, roots())
    mirror = find_mirror(name, found) if found is not None and found.is_dir() else None
    return {
        "name": name,
        "summary": dataset.summary,
        "pixels": dataset.pixels,
        "image_shape": list(dataset.image_shape),
        "available": dataset.bundled or found is not None,
        "path": str(found) if found else None,
        "mirror": mirror.version if mirror else None,
        "fetchable": bool(dataset.files),
        "kind": "dataset",
    }


def _weights_row(name: str, weights: Weights) -> dict[str, Any]:
    """Return what is said of weights, in the fields of a dataset; those of images are null."""
    found = weights.find()
    return {
        "name": name,
        "summary": weights.remote.file,
        "pixels": None,
        "image_shape": None,
        "available": found is not None,
        "path": str(found) if found else None,
        "mirror": None,
        "fetchable": True,
        "kind": "weights",
    }


def _state(row: dict[str, Any]) -> str:
    from lsgm.data.registry import DATASETS

    if row["path"]:
        return f"in {row['path']}" + (f" ({row['mirror']})" if row["mirror"] else "")
    if row["available"]:
        return "always here"
    return (
        f"absent: lsgm data fetch {row['name']}"
        if row["fetchable"]
        else f"absent: {DATASETS[row['name']].how}"
    )


def _fetch(argv: list[str]) -> int:
    options = parse(
        FetchOptions,
        argv,
        prog="lsgm data fetch",
        description="Download official archives and published weights that are nowhere here. A broken "
        "download goes on where it stopped.",
        examples=[
            "lsgm data fetch mnist",
            "lsgm data fetch cifar10 inception inception-clean",
            "lsgm data fetch cifar10 omniglot --to /mnt/datasets",
        ],
    )
    if not options.names:
        raise DataError("name a dataset or weights to fetch; `lsgm data ls` lists them")
    from lsgm.data.download import fetch_dataset, fetch_weights, published_weights
    from lsgm.files.write import claim

    weights = published_weights()
    for name in options.names:  # a slip at the end of the line is said before the first download
        _known(name, weights)
        if options.to is not None and name in weights:
            raise ConfigError(f"--to is of datasets; the weights {name} go into the cache: leave it out")
    if options.to is not None:
        claim(options.to)
    for name in options.names:
        published = weights.get(name)
        lines = fetch_weights(name, published) if published else fetch_dataset(name, options.to)
        print("\n".join(lines), flush=True)
    return 0


def _known(name: str, weights: Iterable[str]) -> None:
    from lsgm.data.registry import DATASETS

    known = [*DATASETS, *weights]
    if name not in known:
        hint = did_you_mean(name, known) or f"; it is one of {', '.join(known)}"
        raise DataError(f"unknown dataset '{name}'{hint}")


def _verify(argv: list[str]) -> int:
    options = parse(
        VerifyOptions,
        argv,
        prog="lsgm data verify",
        description="Hash every file of the datasets and weights that are here, and read the datasets.",
        examples=["lsgm data verify", "lsgm data verify cifar10 inception --json"],
    )
    from lsgm.data.download import published_weights, verify, verify_weights
    from lsgm.data.registry import DATASETS

    weights = published_weights()
    for name in options.names:
        _known(name, weights)
    names, named = options.names or (*DATASETS, *weights), bool(options.names)
    broken = 0
    for finding in chain.from_iterable(
        verify_weights(name, weights[name], required=named)
        if name in weights
        else verify(name, required=named)
        for name in names
    ):
        broken += bool(finding.problem)
        if options.json:
            print(json.dumps(finding.__dict__))
        else:
            print(f"{finding.dataset:<16} {finding.item}: {finding.problem or 'good'}")
        sys.stdout.flush()
    return 1 if broken else 0
