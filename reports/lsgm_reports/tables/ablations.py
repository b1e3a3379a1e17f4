"""``ablation.json`` beside the rows: which model has which level of which factor, and what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsgm.errors import DataError
from lsgm.files.names import brief, shown
from lsgm.files.regular import present
from lsgm.files.text import read_table

__all__ = ["FILE_NAME", "Ablation", "Study", "Variant", "find_ablations", "read_ablation"]

FILE_NAME = "ablation.json"
_FORMAT = 1
_NOTE = "note"
_REPAIR = "run `lsgm ablate` again, or repair it"
_LONGEST = 1_000
"""Letters of a text."""
_MOST = {"studies": 100, "factors": 50, "models": 10_000}


@dataclass(frozen=True)
class Variant:
    """One trained model of a study."""

    model: str
    """As rows name it."""
    levels: tuple[str, ...]
    """Level of each of the study's factors, in their order."""
    note: str = ""
    failed: str = ""
    """Why there is no such model, in words."""


@dataclass(frozen=True)
class Study:
    """Models that differ in some factors and in nothing else."""

    name: str
    factors: tuple[str, ...]
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Ablation:
    """The studies of one recipe."""

    title: str
    recipe: str
    studies: tuple[Study, ...]

    @property
    def models(self) -> set[str]:
        """The models of all studies."""
        return {variant.model for study in self.studies for variant in study.variants}


def find_ablations(results: Sequence[Path]) -> list[Ablation]:
    """Return what lies beside result files, each folder's once; DataError as `read_ablation`."""
    folders = dict.fromkeys(file.parent for file in results)
    return [read_ablation(path) for folder in folders if present(path := folder / FILE_NAME)]


def read_ablation(path: Path) -> Ablation:
    """Return the ablation that a file describes.

    Raises DataError naming the file where it is no JSON, of another format, has a key too many or too few, a
    model without a level of some factor, or a failure of a model that the study does not have.
    """
    given = read_table(path, repair=_REPAIR)
    place = shown(str(path))
    _keys(place, given, ("format", "title", "recipe", "studies"))
    if given["format"] != _FORMAT:
        raise DataError(
            f"{place} has format {brief(given['format'])}, and this version reads {_FORMAT}; update one"
        )
    _text(place, given, "title", "recipe")
    if not isinstance(given["studies"], list):
        raise _wrong(place, "'studies' is no list")
    _few(place, given, "studies")
    studies = tuple(_study(f"{place}, study {k}", study) for k, study in enumerate(given["studies"], start=1))
    return Ablation(given["title"], given["recipe"], studies)


def _study(place: str, given: Any) -> Study:
    _keys(place, given, ("name", "factors", "models", "failed"))
    _text(place, given, "name")
    factors, models, failed = given["factors"], given["models"], given["failed"]
    if not isinstance(factors, list) or not factors or not all(isinstance(word, str) for word in factors):
        raise _wrong(place, "'factors' is no list of texts")
    for factor in factors:
        _short(place, factor)
    _few(place, given, "factors")
    if len(set(factors)) < len(factors) or _NOTE in factors:
        raise _wrong(place, "'factors' repeats itself or has a factor called note")
    if not isinstance(models, dict) or not models:
        raise _wrong(place, "'models' names no model")
    _few(place, given, "models")
    if not isinstance(failed, dict) or not all(isinstance(why, str) and why for why in failed.values()):
        raise _wrong(place, "'failed' does not give a reason for each model")
    if unknown := [model for model in failed if model not in models]:
        raise _wrong(place, f"{brief(unknown[0])} failed and is not among its models")
    variants = [
        _variant(f"{place}, model {brief(name)}", name, levels, factors, failed)
        for name, levels in models.items()
    ]
    return Study(given["name"], tuple(factors), tuple(variants))


def _variant(place: str, name: str, given: Any, factors: Sequence[str], failed: Mapping[str, str]) -> Variant:
    if isinstance(given, dict):
        given = {_NOTE: "", **given}
    _keys(place, given, (*factors, _NOTE))
    _text(place, given, *factors)
    if not isinstance(given[_NOTE], str):
        raise _wrong(place, "'note' is no text")
    for words in (name, *given.values(), failed.get(name, "")):
        _short(place, words)
    return Variant(name, tuple(given[factor] for factor in factors), given[_NOTE], failed.get(name, ""))


def _keys(place: str, given: Any, keys: Sequence[str]) -> None:
    if not isinstance(given, dict):
        raise _wrong(place, "it is no JSON object")
    if missing := [key for key in keys if key not in given]:
        raise _wrong(place, f"the key {brief(missing[0])} is missing")
    if unknown := [key for key in given if key not in keys]:
        raise _wrong(place, f"there is no key {brief(unknown[0])}; it has {shown(', '.join(keys))[:200]}")


def _text(place: str, given: Mapping[str, Any], *keys: str) -> None:
    for key in keys:
        if not isinstance(given[key], str) or not given[key]:
            raise _wrong(place, f"'{key}' is {brief(given[key])} and no text")
        _short(place, given[key])


def _short(place: str, words: str) -> None:
    if len(words) > _LONGEST:
        raise _wrong(
            place, f"{brief(words)} is {len(words):,} letters long, and at most {_LONGEST:,} are read"
        )


def _few(place: str, given: Mapping[str, Any], key: str) -> None:
    if len(given[key]) > _MOST[key]:
        raise _wrong(place, f"it has {len(given[key]):,} {key}, and at most {_MOST[key]:,} are read")


def _wrong(place: str, what: str) -> DataError:
    return DataError(f"{place}: {what}; {_REPAIR}")
