"""Published numbers: every one with its evidence, marked, never of another data set without saying so."""

from __future__ import annotations

from pathlib import Path

import pytest
from reports.fake_bounds import fake_bounds

from lsgm.errors import DataError
from lsgm_reports import calibration
from lsgm_reports.calibration import calibration_sentence, calibration_table, calibrations
from lsgm_reports.document import likelihood_tables
from lsgm_reports.formats import to_latex, to_markdown
from lsgm_reports.published import editions, published, published_table, statement_on
from lsgm_reports.rows import row_from

VERIFIED, RECALLED = "verified", "recalled"
FLOW = "NELBO, prior by probability flow"

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
    """Calibrations of which none was measured."""
    file = tmp_path / "calibration.toml"
    file.write_text(ENTRY, encoding="utf-8")
    monkeypatch.setattr(calibration, "FILE", file)
    return file


@pytest.fixture
def measured(unmeasured: Path) -> None:
    """The same as if one had been."""
    unmeasured.write_text(ENTRY + MEASURED, encoding="utf-8")


def test_every_published_number_is_known_with_its_evidence() -> None:
    """A number is added here and there together, by who has seen where it is stated."""
    assert [(e.dataset, e.model, e.relation, e.value, e.unit, e.evidence) for e in published()] == [
        ("mnist", "LSGM", "<=", 78.47, "nats", VERIFIED),
        ("mnist", "VAE, 200-200-50 tanh", "<=", 86.8, "nats", RECALLED),
        ("mnist", "IWAE (k = 50), 200-200-50 tanh", "<=", 84.8, "nats", RECALLED),
        ("omniglot", "LSGM", "<=", 87.79, "nats", VERIFIED),
        ("omniglot", "VAE, 200-200-50 tanh", "<=", 108.1, "nats", RECALLED),
        ("omniglot", "IWAE (k = 50), 200-200-50 tanh", "<=", 104.7, "nats", RECALLED),
        ("cifar10", "LSGM (best NLL)", "<=", 2.87, "bits/dim", VERIFIED),
        ("cifar10", "NVAE", "<=", 2.91, "bits/dim", VERIFIED),
        ("cifar10", "Improved DDPM", "<=", 2.94, "bits/dim", VERIFIED),
        ("cifar10", "Improved DDPM", "<=", 2.90, "bits/dim", VERIFIED),
        ("cifar10", "Score SDE", "=", 2.99, "bits/dim", VERIFIED),
        ("cifar10", "ScoreFlow", "=", 2.83, "bits/dim", VERIFIED),
        ("cifar10", "ScoreFlow", "=", 2.90, "bits/dim", VERIFIED),
        ("celebahq256", "LSGM", "<=", 0.70, "bits/dim", VERIFIED),
        ("celebahq256", "NVAE", "<=", 0.70, "bits/dim", VERIFIED),
        ("celebahq256", "Glow", "=", 1.03, "bits/dim", VERIFIED),
    ]


def test_recalled_numbers_are_marked_otherwise_and_never_look_exact() -> None:
    table = published_table("mnist")
    assert table is not None
    shown = {line[0].text: (line[1].text, line[1].mark, line[-1].text) for line in table.lines}
    assert shown["LSGM"] == ("≤ 78.47 nats", "†", "verified")
    assert shown["VAE, 200-200-50 tanh"] == ("about 86.8 nats", "‡", "recalled, unverified")
    assert dict(table.notes)["†"].startswith("Published, not measured here")
    assert dict(table.notes)["‡"].startswith("Published, not measured here; recalled")
    assert r"\textsuperscript{$\dagger$}" in to_latex(table)
    assert not any(cell.best for line in table.lines for cell in line)


def test_published_lines_are_in_no_table_of_measured_ones() -> None:
    rows = [row_from(row) for row in fake_bounds()]
    *measured, last = likelihood_tables(rows, "mnist@1/full")
    assert last.title == "Published numbers, not measured here"
    for table in measured:
        assert "78.47" not in to_markdown(table)


@pytest.mark.usefixtures("unmeasured")
def test_another_edition_says_so_in_title_caption_and_data() -> None:
    table = published_table("omniglot-lake28")
    assert table is not None
    assert table.title.endswith("of another data set and not comparable")
    assert "of another data set" in table.caption
    assert "was not measured" in table.caption
    assert {line[2].text for line in table.lines} == {"OMNIGLOT 28x28 of Burda et al."}
    assert "another data set" not in to_markdown(published_table("omniglot") or table)


def test_fixed_bits_are_another_edition_of_mnist_and_glyphs_have_no_literature() -> None:
    assert "not comparable" in statement_on("mnist-fixed")
    assert published_table("mnist-fixed") is not None
    assert published_table("glyphs") is None
    assert statement_on("glyphs") == ""
    assert {edition.of for edition in editions().values()} <= {entry.dataset for entry in published()}


@pytest.mark.usefixtures("unmeasured")
def test_what_was_not_measured_is_not_shown() -> None:
    assert calibrations() == []
    assert calibration_table(["omniglot-lake28"]) is None
    assert calibration_sentence(["omniglot-lake28"]) == ""
    assert statement_on("omniglot") == ""


@pytest.mark.usefixtures("measured")
def test_a_measured_offset_stands_wherever_omniglot_numbers_are() -> None:
    offset = "112.3 ± 0.3 against about 108.1 nats, an offset of +4.2"
    for dataset in ("omniglot", "omniglot-lake28"):
        assert offset in statement_on(dataset)
        assert "recalled, unverified" in statement_on(dataset)
        assert "What a short training leaves is part of an offset." in statement_on(dataset)
        table = published_table(dataset)
        assert table is not None
        assert offset in table.caption
        rows = [row_from(row) for row in fake_bounds(task=f"{dataset}@1/quick", dataset=f"{dataset}@1@00")]
        titles = [table.title for table in likelihood_tables(rows, "t")]
        assert "Calibration against the literature" in titles
    assert statement_on("mnist") == ""


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
    recalled = {entry.value for entry in published() if entry.evidence == RECALLED}
    assert {entry.published for entry in calibrations()} <= recalled


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("measured = 1.0", "is incomplete; give measured, error, n, K and budget, or none"),
        (MEASURED.replace("0.35", "0.0"), "has error 0.0"),
        (MEASURED.replace("112.34", "nan"), "'measured' is nan, not a number"),
        (MEASURED.replace("5000", '"many"'), "'K' is 'many', not a whole number"),
        ("mesured = 1.0", "there is no key 'mesured'"),
        ("= 1", "cannot read"),
    ],
)
def test_a_malformed_calibration_is_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "calibration.toml"
    file.write_text(ENTRY + text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        calibrations(file)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_malformed_published_number_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "published.toml"
    keys = ("dataset", "data", "model", "unit", "what", "source", "note")
    head = "[[published]]\nvalue = 1.5\n" + "".join(f'{key} = "x"\n' for key in keys)
    file.write_text(head + 'relation = "<="\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"published 1: the key 'evidence' is missing; add it"):
        published(file)
    file.write_text(head + 'relation = "<="\nevidence = "heard"\n', encoding="utf-8")
    with pytest.raises(DataError, match="evidence 'heard'; write one of <=, = and one of verified, recalled"):
        published(file)
