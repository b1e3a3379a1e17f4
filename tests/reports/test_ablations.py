"""ablation.json: what `lsgm ablate` writes is read as it is, and anything else is refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lsgm.errors import DataError
from lsgm.recipes.ablation import STUDIES, summary
from lsgm_reports.tables.ablations import FILE_NAME, find_ablations, read_ablation

GOOD: dict[str, Any] = {
    "format": 1,
    "title": "T",
    "recipe": "glyphs-small",
    "studies": [
        {
            "name": "frozen",
            "factors": ["VAE"],
            "models": {"a": {"VAE": "joint", "note": "n"}, "b": {"VAE": "frozen"}},
            "failed": {"b": "not finite at step 3"},
        }
    ],
}


def written(folder: Path, given: Any) -> Path:
    path = folder / FILE_NAME
    path.write_text(json.dumps(given), encoding="utf-8")
    return path


def changed(**study: Any) -> dict[str, Any]:
    return GOOD | {"studies": [GOOD["studies"][0] | study]}


def test_models_have_levels_in_the_order_of_the_factors(tmp_path: Path) -> None:
    (study,) = read_ablation(written(tmp_path, GOOD)).studies
    assert [(each.model, each.levels, each.note, each.failed) for each in study.variants] == [
        ("a", ("joint",), "n", ""),
        ("b", ("frozen",), "", "not finite at step 3"),
    ]


def test_what_the_command_writes_can_be_read(tmp_path: Path) -> None:
    failed = {"ve-un-uniform": "the loss is not finite"}
    ablation = read_ablation(written(tmp_path, summary("glyphs-small", list(STUDIES.values()), failed)))
    assert [study.name for study in ablation.studies] == list(STUDIES)
    assert [len(study.variants) for study in ablation.studies] == [18, 2, 2]
    assert len(ablation.models) == 20
    grid = ablation.studies[0]
    assert len({variant.levels for variant in grid.variants}) == 18
    assert {variant.model: variant.failed for variant in grid.variants if variant.failed} == failed


def test_each_folder_is_looked_into_once(tmp_path: Path) -> None:
    assert find_ablations([tmp_path / "results.jsonl"]) == []
    written(tmp_path, GOOD)
    assert len(find_ablations([tmp_path / "results.jsonl", tmp_path / "more.jsonl"])) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "is not a JSON object"),
        (GOOD | {"format": 2}, "has format 2, and this version reads 1"),
        (GOOD | {"more": 1}, "there is no key 'more'"),
        ({key: GOOD[key] for key in GOOD if key != "recipe"}, "the key 'recipe' is missing"),
        (GOOD | {"title": ""}, "'title' is '' and no text"),
        (GOOD | {"studies": {}}, "'studies' is no list"),
        (changed(factors=[]), "study 1: 'factors' is no list of texts"),
        (changed(factors=["VAE", "VAE"]), "'factors' repeats itself"),
        (changed(factors=["note"]), "a factor called note"),
        (changed(models={}), "'models' names no model"),
        (changed(models={"a": {"note": ""}}, failed={}), "model 'a': the key 'VAE' is missing"),
        (changed(models={"a": {"VAE": "joint", "mixed": "yes"}}, failed={}), "there is no key 'mixed'"),
        (changed(models={"a": {"VAE": True}}, failed={}), "'VAE' is True and no text"),
        (changed(models={"a": {"VAE": "joint", "note": 1}}, failed={}), "'note' is no text"),
        (changed(models={"a": "joint"}, failed={}), "model 'a': it is no JSON object"),
        (changed(failed={"c": "why"}), "'c' failed and is not among its models"),
        (changed(failed={"b": ""}), "'failed' does not give a reason"),
    ],
)
def test_what_is_malformed_is_refused_in_one_sentence(given: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_ablation(written(tmp_path, given))
    assert words in str(caught.value)
    assert FILE_NAME in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_a_file_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"format": 1, ', encoding="utf-8")
    with pytest.raises(DataError, match=r"ablation\.json is not valid JSON"):
        read_ablation(tmp_path / FILE_NAME)
