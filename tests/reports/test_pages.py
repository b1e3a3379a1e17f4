"""Tables in pages of somebody's own are what the rows say, and the words around them stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from reports.fake_rows import fake_rows, write_rows

from lsgm.cli import main

END = "<!-- end of lsgm report -->"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Three models' rows, in a folder beside the pages."""
    plain = [row for row in fake_rows() if row["group"] != "curve"]
    return write_rows(tmp_path / "the rows" / "results.jsonl", plain)


def page(folder: Path, asked: str, between: str = "") -> Path:
    file = folder / "page.md"
    file.write_text(f"# Mine\n\n<!-- lsgm report 'the rows'{asked} -->\n{between}{END}\n\nlast words\n")
    return file


def test_a_block_becomes_the_table_of_the_report(rows: Path, tmp_path: Path) -> None:
    written = page(tmp_path, "")
    assert main(["report", "--refresh", str(written)]) == 0
    assert main(["report", str(rows), "--format", "md", "--out", str(tmp_path / "report")]) == 0
    text = written.read_text()
    table = text.split(f"\n\n{END}")[0].split("-->\n\n")[1]
    assert table in (tmp_path / "report" / "report.md").read_text()
    assert text.startswith("# Mine\n\n<!-- lsgm report 'the rows' -->\n\n|")
    assert text.endswith(f"{END}\n\nlast words\n")


def test_old_numbers_go_and_a_second_time_changes_nothing(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = page(tmp_path, "", "| Model |\n| --- |\n| gone |\n")
    assert main(["report", "--refresh", str(written)]) == 0
    first = written.read_text()
    assert "gone" not in first
    assert main(["report", "--refresh", str(written)]) == 0
    assert written.read_text() == first
    assert capsys.readouterr().out.splitlines()[-1] == f"nothing to change in {written}"


def test_columns_and_models_are_those_asked_for_in_their_order(rows: Path, tmp_path: Path) -> None:
    written = page(tmp_path, " --columns 'NFE, Model' --models 'sgm, lsgm' --no-caption")
    assert main(["report", "--refresh", str(written)]) == 0
    lines = [line for line in written.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["NFE ↓", "Model"]
    assert [cell[1] for cell in cells[2:]] == ["sgm", "lsgm"]
    assert "±" not in written.read_text().split("last words")[0].split("| lsgm")[1].partition("\n")[2]


def test_another_table_is_named_by_its_title(rows: Path, tmp_path: Path) -> None:
    written = page(tmp_path, ' --table "Paired differences"')
    assert main(["report", "--refresh", str(written)]) == 0
    assert "Difference of" in written.read_text()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (" --table Paired", "there is no table 'Paired'"),
        (" --columns Modell", "there is no column 'Modell' in the table"),
        (" --models nobody", "there is no line of 'nobody' in the table"),
        (" --tables x", "there is no option '--tables'; did you mean"),
        (" --columns 'Model", "No closing quotation"),
        (" elsewhere", "there is no"),
    ],
)
def test_a_block_that_asks_for_what_there_is_not_is_named_in_a_sentence(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: str, words: str
) -> None:
    written = page(tmp_path, asked)
    before = written.read_bytes()
    assert main(["report", "--refresh", str(written)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lsgm: {written}: `lsgm report 'the rows'")
    assert words in line
    assert written.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!-- lsgm report rows -->\n| a |\n", "has no end"),
        (f"<!-- lsgm report rows -->\n<!-- lsgm report rows -->\n{END}\n", "has no end"),
        ("nothing here\n", "has no block to write"),
    ],
)
def test_a_page_without_whole_blocks_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    written = tmp_path / "page.md"
    written.write_text(text)
    assert main(["report", "--refresh", str(written)]) == 2
    assert words in capsys.readouterr().err
    assert written.read_text() == text
