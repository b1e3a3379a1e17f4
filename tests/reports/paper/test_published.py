"""Published numbers: every one with its source and evidence, checked, and shown as what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lsgm.data.registry import DATASETS as KNOWN
from lsgm.errors import DataError
from lsgm_reports import published as calibration
from lsgm_reports.published import (
    ABSENT,
    DATASETS,
    NUMBERS,
    Published,
    calibration_sentence,
    calibration_table,
    calibrations,
    edition_of,
    editions,
    published,
    published_ablations,
    statement_on,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "published.txt"

MEASURED = 'measured = 112.34\nerror = 0.35\nn = 8115\nK = 5000\nbudget = "3,280 epochs"\n'


ENTRY = """[[calibration]]
dataset = "omniglot-lake28"
model = "VAE, 200-200-50 tanh"
recipe = "omniglot-flat-vae"
published = 108.1
published_on = "OMNIGLOT 28x28 of Burda et al."
"""


@pytest.fixture
def unmeasured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No calibration."""
    file = tmp_path / "calibration.toml"
    file.touch()
    monkeypatch.setattr(calibration, "FILE_CALIBRATION", file)
    return file


@pytest.fixture
def measured(unmeasured: Path) -> None:
    """The same as if one had been."""
    unmeasured.write_text(ENTRY + MEASURED, encoding="utf-8")


GOOD: dict[str, object] = {"dataset": "mnist", "model": "M", "kind": "vae", "source": "S", "nats": "1.50"}


def entry(**rest: object) -> Published:
    given = {
        "dataset": "mnist",
        "model": "M",
        "kind": "vae",
        "source": "S",
        "nats": "78.47",
        "relation": "<=",
    }
    return Published(**(given | rest))  # type: ignore[arg-type]


def line_of(each: Published) -> str:
    """Everything that an entry states of a model, recalled numbers in brackets."""
    numbers = (
        f"{name} ({number})" if name in each.recalled else f"{name} {number}"
        for name, number in each.numbers.items()
    )
    return f"{each.dataset} | {each.label} | {each.kind} | {each.relation} | {', '.join(numbers)}"


def test_every_published_number_is_known_with_its_evidence() -> None:
    """A number is added here and there together, by who has seen where it is stated."""
    assert [line_of(each) for each in published()] == GOLDEN.read_text(encoding="utf-8").splitlines()


def test_what_is_verified_of_the_paper_itself() -> None:
    """The numbers that other works cite of LSGM: none of them is from memory."""
    ours = [each for each in published() if each.model.startswith("LSGM") and each.table]
    sure = {
        (each.dataset, name, number)
        for each in ours
        for name, number in each.numbers.items()
        if name not in each.recalled
    }
    assert sure == {
        ("cifar10", "fid", "2.10"),
        ("cifar10", "nfe", "138"),
        ("cifar10", "parameters", "476 M"),
        ("cifar10", "fid", "2.17"),
        ("cifar10", "fid", "6.89"),
        ("cifar10", "bits_per_dim", "2.87"),
        ("celebahq256", "fid", "7.22"),
        ("celebahq256", "bits_per_dim", "0.70"),
        ("celebahq256", "nfe", "23"),
        ("celebahq256", "seconds", "4.15"),
        ("omniglot", "nats", "87.79"),
        ("mnist", "nats", "78.47"),
    }
    (slow,) = [each for each in published() if each.nfe == "4000"]
    assert float(slow.seconds) == 60 * 44.6
    assert [(each.study, each.levels, each.fid) for each in published_ablations()] == [
        ("frozen", ("joint",), "5.19"),
        ("frozen", ("frozen",), "9.00"),
        ("mixed-score", ("yes",), "7.60"),
        ("mixed-score", ("no",), "34.71"),
    ]


def test_every_entry_says_where_it_is_stated_and_is_of_data_that_are_known() -> None:
    assert all(each.source for each in [*published(), *published_ablations()])
    assert set(DATASETS) <= set(KNOWN)
    assert set(editions()) <= set(KNOWN)
    assert len({line_of(each) for each in published()}) == len(published())


def test_a_bound_says_so_and_nothing_else_has_a_relation() -> None:
    cell = entry(fid="2.1").cell("nats", recalled=False)
    assert (cell.text, cell.mark, cell.sort, cell.best) == ("≤ 78.47", "†", 78.47, False)
    assert entry(relation="=").cell("nats", recalled=False).text == "78.47"
    assert entry(fid="2.1").cell("fid", recalled=False).text == "2.1"
    assert entry().cell("fid", recalled=True).text == ABSENT


@pytest.mark.parametrize(
    ("name", "number", "shown"),
    [("nats", "86.84", "about 86.8"), ("fid", "128", "about 128"), ("parameters", "95.3 M", "about 95.3 M")],
)
def test_what_is_recalled_comes_when_asked_for_and_never_looks_exact(
    name: str, number: str, shown: str
) -> None:
    each = entry(**{name: number, "recalled": (name,)})
    assert each.cell(name, recalled=False).text == ABSENT
    assert each.cell(name, recalled=False).mark == ""
    cell = each.cell(name, recalled=True)
    assert (cell.text, cell.mark) == (shown, "‡")


@pytest.mark.usefixtures("unmeasured")
def test_what_was_not_measured_is_not_shown() -> None:
    assert list(calibrations()) == []
    assert calibration_table(["omniglot-lake28"]) is None
    assert calibration_sentence(["omniglot-lake28"], recalled=True) == ""
    assert statement_on("omniglot") == ""


@pytest.mark.usefixtures("unmeasured")
def test_another_edition_says_so_and_that_it_was_not_calibrated() -> None:
    assert "another data set" in statement_on("omniglot-lake28")
    assert "was not measured" in statement_on("omniglot-lake28")
    assert "not comparable" in statement_on("mnist-fixed")
    assert statement_on("glyphs") == statement_on("omniglot") == ""
    assert edition_of("mnist-fixed") == edition_of("mnist") == "mnist"
    assert edition_of("glyphs") == "glyphs"


@pytest.mark.usefixtures("measured")
def test_an_offset_from_recalled_numbers_is_shown_when_asked_for() -> None:
    for dataset in ("omniglot", "omniglot-lake28"):
        assert "108.1" not in statement_on(dataset)
        assert "`lsgm report --recalled`" in statement_on(dataset)
        assert "was not measured" not in statement_on(dataset)
    assert statement_on("mnist") == ""


@pytest.mark.usefixtures("measured")
def test_a_measured_offset_stands_wherever_omniglot_numbers_are() -> None:
    offset = "112.3 ± 0.3 against about 108.1 nats, an offset of +4.2"
    for dataset in ("omniglot", "omniglot-lake28"):
        said = statement_on(dataset, recalled=True)
        assert offset in said
        assert "recalled, unverified" in said
        assert "What a short training leaves is part of an offset." in said
    assert statement_on("mnist", recalled=True) == ""


@pytest.mark.usefixtures("measured")
def test_a_calibration_names_what_it_was_measured_with() -> None:
    table = calibration_table(["omniglot-lake28"])
    assert table is not None
    assert [cell.text for cell in table.lines[0]] == [
        "VAE, 200-200-50 tanh",
        "omniglot-lake28",
        "112.3 ± 0.3",
        "8,115",
        "5,000",
        "about 108.1",
        "OMNIGLOT 28x28 of Burda et al.",
        "+4.2",
        "omniglot-flat-vae: 3,280 epochs",
    ]


def test_the_shipped_calibrations_can_be_read_and_agree_with_what_is_published() -> None:
    recalled = {float(each.nats) for each in published() if "nats" in each.recalled}
    assert {each.published for each in calibrations()} <= recalled


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("measured = 1.0", "the key 'error' is missing"),
        (MEASURED.replace("0.35", "0.0"), "has error 0.0"),
        (MEASURED.replace("112.34", "nan"), "has measured nan"),
        (MEASURED.replace("5000", '"many"'), "'K' is 'many'; it must be a whole number"),
        ("mesured = 1.0", "unknown key 'mesured'; did you mean 'measured'?"),
        ("= 1", "is not valid TOML"),
    ],
)
def test_a_malformed_calibration_is_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "calibration.toml"
    file.write_text(ENTRY + text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        calibrations(file)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def toml_of(table: str, given: dict[str, object]) -> str:
    return f"[[{table}]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": "minst"}, "'dataset' is 'minst'; it must be one of 'cifar10'"),
        ({"kind": "guess"}, "'kind' is 'guess'; it must be one of 'latent', 'data-space'"),
        ({"relation": "<"}, "'relation' is '<'; it must be one of"),
        ({"nats": "two"}, "has nats 'two'; write a number as it was printed"),
        ({"nats": "nan"}, "has nats 'nan'"),
        ({"nats": 1.5}, "'nats' is 1.5; it must be text"),
        ({"nats": ""}, "give at least one of fid, inception_score"),
        ({"parameters": "476"}, "has parameters '476'; write a number and M, 476 M"),
        ({"recalled": ["fid"]}, "recalls 'fid'; give at least one of"),
        ({"recalled": "nats"}, "'recalled' is 'nats'; it must be a list"),
        ({"recalled": [1]}, "'recalled[0]' is 1; it must be text"),
        ({"seconds": "4.15"}, "has one of seconds and timed; give both, or none"),
        ({"kid": "2.1"}, "unknown key 'kid'"),
        ({"source": None}, "published 1: the key 'source' is missing; add it"),
    ],
)
def test_a_malformed_entry_is_one_sentence(change: dict[str, object], words: str, tmp_path: Path) -> None:
    file = tmp_path / "published.toml"
    given = {key: value for key, value in (GOOD | change).items() if value is not None}
    file.write_text(toml_of("published", given), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        published(file)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_good_entry_is_good_and_a_number_may_be_any_of_its_kind(tmp_path: Path) -> None:
    file = tmp_path / "published.toml"
    every = dict.fromkeys(NUMBERS, "2") | {"parameters": "1.5 M", "timed": "a batch", "recalled": ["fid"]}
    file.write_text(toml_of("published", GOOD | every), encoding="utf-8")
    (each,) = published(file)
    assert list(each.numbers) == list(NUMBERS)
    assert each.recalled == ("fid",)


@pytest.mark.parametrize(
    ("table", "given", "words"),
    [
        ("ablation", {"levels": []}, "has levels '' and FID '5.19'; give levels"),
        ("ablation", {"fid": "low"}, "and FID 'low'"),
        ("ablation", {"recalled": ["nats"]}, "recalls 'nats'; it has no number but fid"),
        ("edition", {"of": "minst"}, "'of' is 'minst'; it must be one of 'cifar10'"),
    ],
)
def test_malformed_ablations_and_editions_are_one_sentence_too(
    table: str, given: dict[str, object], words: str, tmp_path: Path
) -> None:
    good: dict[str, dict[str, object]] = {
        "ablation": {"study": "s", "levels": ["a"], "fid": "5.19", "source": "S", "data": "D"},
        "edition": {"dataset": "d", "of": "mnist", "statement": "S"},
    }
    file = tmp_path / "published.toml"
    file.write_text(toml_of(table, good[table] | given), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        (published_ablations if table == "ablation" else editions)(file)
    assert words in str(caught.value)


def test_a_single_table_is_no_list_of_entries(tmp_path: Path) -> None:
    file = tmp_path / "published.toml"
    file.write_text("[published]\nmodel = 'M'\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"write \[\[published\]\] before each entry"):
        published(file)
