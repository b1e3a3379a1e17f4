"""``ablation.json`` beside the rows: which model has which level of which factor, and what failed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsgm.errors import DataError

__all__ = ["FILE_NAME", "Ablation", "Study", "Variant", "find_ablations", "read_ablation"]

FILE_NAME = "ablation.json"
_FORMAT = 1
_NOTE = "note"


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
    return [read_ablation(path) for folder in folders if (path := folder / FILE_NAME).is_file()]


def read_ablation(path: Path) -> Ablation:
    """Return the ablation that a file describes.

    Raises DataError naming the file where it is no JSON, of another format, has a key too many or too few, a
    model without a level of some factor, or a failure of a model that the study does not have.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}; run `lsgm ablate` again") from None
    place = str(path)
    _keys(place, given, ("format", "title", "recipe", "studies"))
    if given["format"] != _FORMAT:
        raise DataError(
            f"{place} has format {given['format']!r}, and this version reads {_FORMAT}; update one"
        )
    _text(place, given, "title", "recipe")
    if not isinstance(given["studies"], list):
        raise _wrong(place, "'studies' is no list")
    studies = tuple(_study(f"{place}, study {k}", study) for k, study in enumerate(given["studies"], start=1))
    return Ablation(given["title"], given["recipe"], studies)


def _study(place: str, given: Any) -> Study:
    _keys(place, given, ("name", "factors", "models", "failed"))
    _text(place, given, "name")
    factors, models, failed = given["factors"], given["models"], given["failed"]
    if not isinstance(factors, list) or not factors or not all(isinstance(word, str) for word in factors):
        raise _wrong(place, "'factors' is no list of texts")
    if len(set(factors)) < len(factors) or _NOTE in factors:
        raise _wrong(place, "'factors' repeats itself or has a factor called note")
    if not isinstance(models, dict) or not models:
        raise _wrong(place, "'models' names no model")
    if not isinstance(failed, dict) or not all(isinstance(why, str) and why for why in failed.values()):
        raise _wrong(place, "'failed' does not give a reason for each model")
    if unknown := [model for model in failed if model not in models]:
        raise _wrong(place, f"'{unknown[0]}' failed and is not among its models")
    variants = [
        _variant(f"{place}, model '{name}'", name, levels, factors, failed) for name, levels in models.items()
    ]
    return Study(given["name"], tuple(factors), tuple(variants))


def _variant(place: str, name: str, given: Any, factors: Sequence[str], failed: Mapping[str, str]) -> Variant:
    if isinstance(given, dict):
        given = {_NOTE: "", **given}
    _keys(place, given, (*factors, _NOTE))
    _text(place, given, *factors)
    if not isinstance(given[_NOTE], str):
        raise _wrong(place, "'note' is no text")
    return Variant(name, tuple(given[factor] for factor in factors), given[_NOTE], failed.get(name, ""))


def _keys(place: str, given: Any, keys: Sequence[str]) -> None:
    if not isinstance(given, dict):
        raise _wrong(place, "it is no JSON object")
    if missing := [key for key in keys if key not in given]:
        raise _wrong(place, f"the key '{missing[0]}' is missing")
    if unknown := [key for key in given if key not in keys]:
        raise _wrong(place, f"there is no key '{unknown[0]}'; it has {', '.join(keys)}")


def _text(place: str, given: Mapping[str, Any], *keys: str) -> None:
    for key in keys:
        if not isinstance(given[key], str) or not given[key]:
            raise _wrong(place, f"'{key}' is {given[key]!r} and no text")


def _wrong(place: str, what: str) -> DataError:
    return DataError(f"{place}: {what}; run `lsgm ablate` again, or repair it")
