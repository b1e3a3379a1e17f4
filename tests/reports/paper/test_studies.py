"""Ablation tables: a line per cell with its levels, what failed says why, published FID in its own column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lsgm.errors import DataError
from lsgm.recipes.ablation import STUDIES, summary
from lsgm.results.row import Row, row_from
from lsgm_reports import published as module
from lsgm_reports.blocks import Table
from lsgm_reports.paper.studies import FILE_NAME, Ablation, find_ablations, read_ablation
from lsgm_reports.paper.tables import paper_tables
from lsgm_reports.render.text import to_latex, to_markdown

GRID = "Ablation: SDE, weighting and importance sampling"
FROZEN = "Ablation: VAE trained with the prior, or frozen"
MIXED = "Ablation: With and without the mixed score"
FAILED = {"ve-ll-is": "the loss is not finite at step 12"}


@pytest.fixture
def ablation(tmp_path: Path) -> Ablation:
    path = tmp_path / FILE_NAME
    path.write_text(json.dumps(summary("glyphs-small", list(STUDIES.values()), FAILED)), encoding="utf-8")
    return read_ablation(path)


def measure(model: str, metric: str, value: float | None, half: float = 0.5, **rest: Any) -> Row:
    bound = metric.startswith("nelbo")
    ends = {} if value is None else {"ci_low": value - half, "ci_high": value + half}
    given = {
        "task": "glyphs@1/quick",
        "dataset": "glyphs@1@00",
        "model": model,
        "metric": metric,
        "value": value,
    }
    kind = {"group": "likelihood" if bound else "quality", "higher_is_better": False, "n": 500}
    return row_from(given | kind | ends | rest)


def rows_of(ablation: Ablation) -> list[Row]:
    """NELBO and distances of every cell that did not fail; of the shared cell they are the lowest."""
    cells = sorted(ablation.models - set(FAILED), key=lambda model: (model != "vp-ll-is", model))
    found = []
    for k, model in enumerate(cells):
        found += [
            measure(model, "nelbo_nats", 100.0 + 2 * k, unit="nats/image"),
            measure(model, "nelbo_bpd", 1.0),
            measure(model, "frechet_glyphs", 5.0 + 0.1 * k),
            measure(model, "kernel_glyphs", 0.1),
        ]
    return found


def tables_of(rows: list[Row], ablation: Ablation, **options: Any) -> dict[str, Table]:
    return {table.title: table for table in paper_tables(rows, [ablation], **options)}


def test_the_grid_is_table_6_cell_by_cell(ablation: Ablation) -> None:
    table = tables_of(rows_of(ablation), ablation)[GRID]
    assert [column.head for column in table.columns] == [
        "SDE",
        "Weighting",
        "Importance sampling",
        "NELBO (nats) ↓",
        "Fréchet ↓",
        "Run, or source",
    ]
    assert len(table.lines) == 3 * 3 * 2
    assert [cell.text for cell in table.lines[0]] == [
        "VP",
        "likelihood (ll)",
        "yes",
        "100.0 ± 0.5",
        "5.0 ± 0.5",
        "vp-ll-is",
    ]
    assert table.rules == []
    assert "none of its numbers is verified" in table.caption
    assert "what another seed of the training changes is not in it" in table.caption


def test_a_lead_beyond_its_error_is_marked_and_a_smaller_one_is_not(ablation: Ablation) -> None:
    table = tables_of(rows_of(ablation), ablation)[GRID]
    # NELBO leads by 2 or more, the distance by 0.1; the error of a lead is sqrt(2) / 2.
    assert [cell.best for cell in table.lines[0]] == [False, False, False, True, False, False]
    assert sum(cell.best for line in table.lines for cell in line) == 1


def test_a_cell_that_failed_is_a_line_that_says_why(ablation: Ablation) -> None:
    table = tables_of(rows_of(ablation), ablation)[GRID]
    (line,) = [line for line in table.lines if line[-1].text == "ve-ll-is"]
    assert [cell.text for cell in line[3:5]] == ["n/a", "n/a"]
    assert dict(table.notes)[line[3].mark] == "failed: the loss is not finite at step 12"


def test_a_value_that_is_not_finite_says_what_it_was(ablation: Ablation) -> None:
    rows = [row for row in rows_of(ablation) if (row.model, row.metric) != ("vp-un-is", "nelbo_nats")]
    rows.append(measure("vp-un-is", "nelbo_nats", float("nan"), unit="nats/image"))
    table = tables_of(rows, ablation)[GRID]
    (line,) = [line for line in table.lines if line[-1].text == "vp-un-is"]
    assert dict(table.notes)[line[3].mark] == "not finite (nan)"


def test_what_was_not_measured_yet_is_a_gap(ablation: Ablation) -> None:
    rows = [row for row in rows_of(ablation) if row.model != "vp-ll-is-frozen"]
    table = tables_of(rows, ablation)[FROZEN]
    assert [cell.text for cell in table.lines[1][:3]] == ["frozen", "n/a", "n/a"]
    assert dict(table.notes)[table.lines[1][1].mark] == "not measured"


@pytest.mark.parametrize(
    ("title", "published"),
    [(FROZEN, [("joint", "5.19"), ("frozen", "9.00")]), (MIXED, [("yes", "7.60"), ("no", "34.71")])],
)
def test_published_fid_has_a_column_of_its_own_below_the_rule(
    title: str, published: list[tuple[str, str]], ablation: Ablation
) -> None:
    table = tables_of(rows_of(ablation), ablation)[title]
    assert [column.head for column in table.columns][1:4] == [
        "NELBO (nats) ↓",
        "Fréchet ↓",
        "FID, as published ↓",
    ]
    assert table.rules == [2]
    assert [line[3].text for line in table.lines[:2]] == ["–", "–"]
    assert [(line[0].text, line[3].text) for line in table.lines[2:]] == published
    assert all(line[3].mark == "†" for line in table.lines[2:])
    assert not any(cell.best or cell.row for line in table.lines[2:] for cell in line)
    assert "by how much may not" in table.caption
    assert "34.71" in to_latex(table) or title == FROZEN


def test_published_fid_from_memory_comes_when_asked_for(
    ablation: Ablation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "published.toml"
    text = module.FILE.read_text(encoding="utf-8").replace('fid = "9.00"', 'fid = "9.00"\nrecalled = ["fid"]')
    file.write_text(text, encoding="utf-8")
    monkeypatch.setattr(module, "FILE", file)
    rows = rows_of(ablation)
    assert "9.0" not in to_markdown(tables_of(rows, ablation)[FROZEN])
    assert "about 9.0" in to_markdown(tables_of(rows, ablation, recalled=True)[FROZEN])


def test_images_of_many_levels_are_compared_in_bits(ablation: Ablation) -> None:
    about: dict[str, Any] = {"task": "cifar10@1/quick", "dataset": "cifar10@1@00", "unit": "bits/dim"}
    rows = [measure("vp-ll-is", metric, 3.0, **about) for metric in ("nelbo_bpd", "nelbo_nats")]
    table = tables_of(rows, ablation)[FROZEN]
    assert [column.head for column in table.columns][1] == "NELBO (bits/dim) ↓"
    assert not any("nats" in column.head for column in table.columns)


def test_models_of_an_ablation_are_in_no_table_of_a_data_set(ablation: Ablation) -> None:
    rows = [
        measure(model, "nelbo_nats", 90.0, task="mnist@1/quick", dataset="mnist@1@00")
        for model in ("vp-ll-is", "mine")
    ]
    titles = tables_of(rows, ablation)
    assert [line[0].text for line in titles["Likelihood on MNIST"].lines][:1] == ["mine"]
    assert titles["Likelihood on MNIST"].rules == [1]
    assert FROZEN in titles


def test_a_study_without_measured_models_has_no_table(ablation: Ablation) -> None:
    assert paper_tables([measure("other", "nelbo_nats", 1.0)], [ablation]) == []


# ablation.json: what `lsgm ablate` writes is read as it is, and anything else is refused in a sentence

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


def test_models_have_levels_notes_and_failures(tmp_path: Path) -> None:
    (study,) = read_ablation(written(tmp_path, GOOD)).studies
    assert study.models == {"a": {"VAE": "joint", "note": "n"}, "b": {"VAE": "frozen"}}
    assert study.failed == {"b": "not finite at step 3"}


def test_what_the_command_writes_can_be_read(tmp_path: Path) -> None:
    failed = {"ve-un-uniform": "the loss is not finite"}
    ablation = read_ablation(written(tmp_path, summary("glyphs-small", list(STUDIES.values()), failed)))
    assert [study.name for study in ablation.studies] == list(STUDIES)
    assert [len(study.models) for study in ablation.studies] == [18, 2, 2, 2]
    assert len(ablation.models) == 21
    grid = ablation.studies[0]
    assert len({tuple(levels[factor] for factor in grid.factors) for levels in grid.models.values()}) == 18
    assert grid.failed == failed


def test_each_folder_is_looked_into_once(tmp_path: Path) -> None:
    assert find_ablations([tmp_path / "results.jsonl"]) == []
    written(tmp_path, GOOD)
    assert len(find_ablations([tmp_path / "results.jsonl", tmp_path / "more.jsonl"])) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "is not a JSON object"),
        (GOOD | {"format": 2}, "has format 2, and this version reads 1"),
        (GOOD | {"more": 1}, "unknown key 'more'"),
        ({key: GOOD[key] for key in GOOD if key != "recipe"}, "the key 'recipe' is missing"),
        (GOOD | {"title": ""}, "'title' or 'recipe' is empty"),
        (GOOD | {"studies": {}}, "'studies' is a table; it must be a list"),
        (changed(factors=[]), "in [studies[0]] 'factors' is empty"),
        (changed(factors=["VAE", "VAE"]), "'factors' repeats itself"),
        (changed(factors=["note"]), "a factor called note"),
        (changed(models={}), "'models' names no model"),
        (changed(models={"a": {"note": ""}}, failed={}), "in [studies[0]] model 'a' has no level of 'VAE'"),
        (
            changed(models={"a": {"VAE": "joint", "mixed": "yes"}}, failed={}),
            "'mixed', which is no factor",
        ),
        (
            changed(models={"a": {"VAE": True}}, failed={}),
            "models.a.VAE' is true; it must be text",
        ),
        (
            changed(models={"a": {"VAE": "joint", "note": 1}}, failed={}),
            "models.a.note' is 1; it must be text",
        ),
        (changed(models={"a": "joint"}, failed={}), "models.a' is 'joint'; it must be a table"),
        (changed(failed={"c": "why"}), "'c' failed and is not among its models"),
        (changed(failed={"b": ""}), "'failed' gives no reason for 'b'"),
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
