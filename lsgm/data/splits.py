"""Which images: a uniform subset named by a seed; the splits, by folders' names or a hash of the files' own.

Stored images have an order that means something (by class, by date, by quality), so that the first n of them
are a sample of nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lsgm.data.listing import ImageFile, Listing, once
from lsgm.errors import DataError
from lsgm.files.names import shown
from lsgm.rng import derive_seed

STEP = np.uint64(0x9E3779B97F4A7C15)
"""The golden ratio's odd 64-bit step, by which SplitMix64 counts."""


def mixed(words: NDArray[Any]) -> NDArray[np.uint64]:
    """Return a well-mixed 64-bit hash of each integer: the finaliser of SplitMix64 (Steele et al., 2014)."""
    z = words.astype(np.uint64) + STEP
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def drawn_order(total: int, seed: int = 0) -> NDArray[np.int64]:
    """Return the numbers 0..total-1 in the order in which `subset` takes them: those of any count come first.

    Raises ValueError for a negative ``total``.
    """
    if total < 0:
        raise ValueError(f"there are no {total} numbers")
    numbers = np.arange(total, dtype=np.uint64)
    return np.argsort(mixed(np.uint64(derive_seed("subset", seed)) + numbers * STEP), kind="stable")


def subset(total: int, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Return ``count`` of the numbers 0..total-1, ascending: a uniform subset without replacement.

    Each number has a word of a SplitMix64 stream that ``seed`` begins, and the numbers with the lowest words
    are taken. Integer arithmetic alone decides, so that it is the same subset on every platform and under
    every version of NumPy; the subset of a smaller ``count`` lies within that of a larger one. All numbers
    where ``count >= total``. Raises ValueError for a negative ``count`` or ``total``.
    """
    if total < 0 or count < 0:
        raise ValueError(f"no subset of {count} of {total} numbers")
    if count >= total:
        return np.arange(total, dtype=np.int64)
    return np.sort(drawn_order(total, seed)[:count])


# Which images train, which validate, which test

Role = Literal["train", "val", "test"]
ROLES: dict[Role, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst", "eval", "evaluation"),
}
"""The names of folders (in any case) that decide a split."""
_OF = {name: role for role, names in ROLES.items() for name in names}
_LARGEST_SHARE = 5000
_FOLDERS_NAMED = 5
_SHARE = "5 % by hash of the names"


class TooFewError(DataError):
    """A flat set from which nothing can be taken for train, val and test, though it may be measured whole."""


@dataclass(frozen=True)
class Split:
    """The images of a set by split.

    Attributes:
        parts: Rows by split, in ascending order.
        origin: Where each part comes from, in words: ``val/``, or a share of train.
        carved: The parts that no name gives, and that were taken from train.
    """

    parts: dict[str, list[int]]
    origin: dict[str, str]
    carved: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Return the sizes and their origins on one line."""
        return ", ".join(f"{len(rows):,} {role} ({self.origin[role]})" for role, rows in self.parts.items())


def role_of(name: str) -> Role | None:
    """Return the split that a folder's name stands for, None for any other name."""
    return _OF.get(name.lower())


def _roles(names: Iterable[str]) -> dict[str, Role]:
    """Return the splits that folders side by side stand for, by their names.

    Those are names of `ROLES`, and where these are not train and another one, names that are such a word and
    the same rest, as ``train2017`` and ``val2017`` or ``seg_train`` and ``seg_test``.
    """
    names = sorted(set(names))
    exact = {name: role for name in names if (role := role_of(name))}
    if {"train"} < set(exact.values()):
        return exact
    families: dict[str, dict[str, Role]] = {}
    for name in names:
        for word in sorted(_OF, key=len, reverse=True):
            low = name.lower()
            if low != word and (low.startswith(word) or low.endswith(word)):
                rest = f"{low[len(word) :]}<" if low.startswith(word) else f">{low[: -len(word)]}"
                families.setdefault(rest, {})[name] = _OF[word]
                break
    alike = [family for family in families.values() if {"train"} < set(family.values())]
    return exact | {name: role for family in alike for name, role in family.items()}


def split_files(listing: Listing) -> tuple[list[ImageFile], Split]:
    """Return the files of a set that are used, in order of name, and their split.

    Folders named as in `_roles` decide, at the top or, where none is there, one level below (``cats/train``):
    those of train and test, of train and val, or of val or test beside others, which train then. What has no
    such folder's name beside train is left out. A part that is missing (test, val) is taken from train: 5 %,
    at least one and at most 5,000, those whose names hash lowest; so are both of a set
    without such folders. No image of a test folder is ever trained on.

    Raises DataError for two folders of one role, for a set without training images, and for one folder that
    links make part of two splits; TooFewError for a flat set of fewer than three or of test images alone.
    """
    for level in (0, 1):
        folders = [_folder_at(file, level) for file in listing.files]
        known = _roles(name for _, name in folders if name)
        roles = [(known.get(name), folder) for folder, name in folders]
        if {"val", "test"} & {role for role, _ in roles}:
            return _named(listing, roles)
    around = [role for folder in listing.wrapper if (role := role_of(folder))]
    if around and around[-1] != "train":
        raise TooFewError(
            f"{listing.path} has images in {shown('/'.join(listing.wrapper))}/ only and none to train on: "
            "give that folder itself if they are meant for it"
        )
    files = once(listing, listing.files)
    return files, split_rows(listing.path, [file.name for file in files], {"train": range(len(files))})


def _folder_at(file: ImageFile, level: int) -> tuple[str, str]:
    """Return the path of the folder in which a file is at a level, and its name; empty where none is."""
    folders = PurePosixPath(file.name).parts[:-1]
    return "/".join(folders[: level + 1]), folders[level] if len(folders) > level else ""


def _named(listing: Listing, roles: Sequence[tuple[Role | None, str]]) -> tuple[list[ImageFile], Split]:
    """Return files and split where folders are named after val or test."""
    rest: Role | None = None if any(role == "train" for role, _ in roles) else "train"
    parts: dict[Role, list[ImageFile]] = {role: [] for role in ROLES}
    origin: dict[Role, str] = {}
    places: dict[Role, set[str]] = {role: set() for role in ROLES}
    beside: dict[str, list[str]] = {}
    for file, (role, folder) in zip(listing.files, roles, strict=True):
        if role is None and rest is None:
            beside.setdefault(folder, []).append(listing.place(file))
            continue
        used = role or "train"
        parts[used].append(file)
        if role is not None:
            places[used].add(folder)
            origin[used] = f"{PurePosixPath(folder).name}/"
    # By folder, the largest first, few of them by name.
    ranked = sorted(beside.items(), key=lambda item: (-len(item[1]), item[0]))
    for rank, (folder, names) in enumerate(ranked):
        where = f"images in {shown(folder)}/" if folder else "images beside the splits' folders"
        for name in names:
            listing.leave_out(where if rank < _FOLDERS_NAMED else "images in other folders", name)
    if rest is not None:
        origin["train"] = "all that is not named so"
    _refuse_twins(listing, places)
    if not parts["train"]:
        raise DataError(
            f"{listing.path} has folders for {' and '.join(r for r in ('val', 'test') if parts[r])} and no "
            "image to train on: put these into train/"
        )
    kept = {role: once(listing, files) for role, files in parts.items()}
    _refuse_shared(listing, kept)
    files = [file for role in parts for file in kept[role]]
    rows: dict[Role, range] = {}
    start = 0
    for role, found in kept.items():
        if found:
            rows[role] = range(start, start + len(found))
        start += len(found)
    return files, split_rows(listing.path, [file.name for file in files], rows, origin)


def _refuse_twins(listing: Listing, places: dict[Role, set[str]]) -> None:
    """Raise DataError for two names of one role in the same place."""
    for role, folders in places.items():
        seen: dict[str, str] = {}
        for folder in sorted(folders):
            above = str(PurePosixPath(folder).parent)
            if above in seen:
                raise DataError(
                    f"{listing.path} has two folders for {role}, {shown(seen[above])} and {shown(folder)}: "
                    "keep one of them"
                )
            seen[above] = folder


def _refuse_shared(listing: Listing, parts: dict[Role, list[ImageFile]]) -> None:
    """Raise DataError for a file that linked folders make part of two splits."""
    seen: dict[str, str] = {}
    for files in parts.values():
        for file in files:
            if file.real and file.real in seen:
                one, other = shown(seen[file.real]), shown(listing.place(file))
                raise DataError(
                    f"{listing.path}: {one} and {other} are one file, by a linked folder, in two splits: "
                    "no image may train and test"
                )
            seen[file.real] = listing.place(file)


def split_rows(
    path: Path,
    names: Sequence[str],
    parts: Mapping[Role, Sequence[int]],
    origin: Mapping[Role, str] | None = None,
) -> Split:
    """Return a split in which the parts that are missing are taken from train.

    Raises DataError where nothing is left to train on, TooFewError where the set names no splits.
    """
    train = list(parts["train"])
    share, needed = max(1, min(_LARGEST_SHARE, len(train) // 20)), 4 - len(parts)
    if len(train) < needed:
        raise (TooFewError if set(parts) == {"train"} else DataError)(
            f"{path} has {images_of(len(train))} to train on; at least {needed} are needed, because each of "
            "train, val and test has one"
        )
    # In the order of the sha256 of their names, which adding images hardly changes.
    digests = {row: hashlib.sha256(names[row].encode("utf-8", "surrogateescape")).digest() for row in train}
    ranked = sorted(train, key=digests.__getitem__)
    found: dict[Role, list[int]] = {role: list(rows) for role, rows in parts.items()}
    words: dict[Role, str] = {"train": "the rest", "val": _SHARE, "test": _SHARE, **(origin or {})}
    for role in reversed(ROLES):
        if role not in parts:
            found[role], ranked = sorted(ranked[:share]), ranked[share:]
    found["train"] = sorted(ranked)
    carved = tuple(role for role in ROLES if role not in parts)
    return Split({role: found[role] for role in ROLES}, {role: words[role] for role in ROLES}, carved)


def images_of(count: int) -> str:
    """Return ``1 image`` or ``20 images``."""
    return f"{count:,} image{'s' if count != 1 else ''}"


def role_in(name: str) -> Role | None:
    """Return the split that a word of an array's name stands for: ``x_train``, ``test_images``."""
    return next((role for word in re.split(r"[^A-Za-z]+", name) if (role := role_of(word))), None)
