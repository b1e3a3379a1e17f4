"""``lsgm report``: what lies in the folder afterwards, and what goes wrong in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from reports.fake_bounds import fake_bounds
from reports.fake_rows import fake_rows, write_rows

from lsgm.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What an evaluation of three models leaves behind."""
    out = tmp_path / "eval one"
    write_rows(out / "results.jsonl", fake_rows())
    for name in ("vae", "data", "lsgm"):
        (out / "samples").mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(out / "samples" / f"{name}.png")
    (out / "lsgm").mkdir()
    (out / "lsgm" / "metrics.jsonl").write_text(
        "".join(
            json.dumps({"step": k, "stage": "stage1", "seconds": k, "total": 9 - k}) + "\n" for k in range(5)
        )
    )
    (out / "lsgm" / "manifest.json").write_text('{"versions": {"torch": "2.13.0"}}')
    return out


def test_the_report_holds_everything_and_its_links_lead_somewhere(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(folder)]) == 0
    printed = capsys.readouterr().out
    for name in ("report.md", "results.csv", "tables.tex", "figures/nfe.png", "figures/training.pdf"):
        assert (folder / name).is_file()
        assert f"wrote {folder / name}" in printed
    assert "117.3 ± 0.4" in printed
    page = (folder / "report.md").read_text(encoding="utf-8")
    for word in (
        "# Results: glyphs@1/quick",
        f"glyphs@1@{'ef' * 32}",
        f"glyph-net@{'ab' * 32}",
        "## Samples",
        "### Paired differences",
        "## Training",
        "Software: torch 2.13.0.",
        "1f1f1f1f1f1f",
    ):
        assert word in page
    links = [part.split(")")[0] for part in page.split("](")[1:]]
    assert links == [
        "figures/nfe.png",
        "samples/data.png",
        "samples/lsgm.png",
        "samples/vae.png",
        "figures/training.png",
    ]
    assert all((folder / link).is_file() for link in links)


def test_links_from_another_folder_are_relative_too(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    assert main(["report", str(folder / "results.jsonl"), "--format", "md", "--out", str(out)]) == 0
    page = (out / "report.md").read_text(encoding="utf-8")
    assert "](../eval%20one/samples/data.png)" in page
    assert not (out / "results.csv").exists()


def test_bounds_alone_are_printed_as_such_with_what_must_be_said_of_their_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = fake_bounds(task="omniglot-lake28@1/quick", dataset=f"omniglot-lake28@1@{'ab' * 32}")
    write_rows(tmp_path / "results.jsonl", rows)
    assert main(["report", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert any(line.split()[:6] == ["vae", "IW", "bound", "K", "=", "1,000"] for line in printed.splitlines())
    assert "of another data set" in " ".join(printed.split())
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    sections = [line for line in page.splitlines() if line.startswith("##")]
    assert [section for section in sections if not section.startswith("### Calibration")] == [
        "## omniglot-lake28@1/quick",
        "### Bounds on the likelihood",
        "### Terms of the bounds",
        "### Terms by latent groups",
        "### Published numbers, not measured here, of another data set and not comparable",
        "### Paired differences",
        "## Provenance",
    ]
    # The statement comes before any number, and again with those of the literature.
    assert page.index("of another data set") < page.index("81.5 ± 0.4")
    assert page.count("so that the two are not comparable") == 2
    tex = (tmp_path / "tables.tex").read_text(encoding="utf-8")
    assert tex.count(r"\begin{table}") == 5 + tex.count("Calibration against")
    assert "so that the two are not comparable" in tex


def test_bounds_beside_quality_have_both_tables(tmp_path: Path) -> None:
    write_rows(tmp_path / "results.jsonl", fake_rows())
    assert main(["report", str(tmp_path), "--format", "md"]) == 0
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    places = ["| Fréchet ↓ |", "### What the columns mean", "### Bounds on the likelihood", "### Paired"]
    found = [page.replace("  ", "").index(place) for place in places]
    assert found == sorted(found)
    assert page.count("**NELBO**") == 1
    assert "**NELBO (nats) ↓**" not in page


def test_csv_alone_draws_nothing(folder: Path) -> None:
    assert main(["report", str(folder), "--format", "csv"]) == 0
    assert not (folder / "figures").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--format", "pdf"], "there is no format 'pdf'"),
        (["--fromat", "md"], "did you mean '--format'?"),
    ],
)
def test_bad_options_are_one_line(
    argv: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(folder), *argv]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert words in err


def test_bad_input_is_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = write_rows(tmp_path / "empty" / "results.jsonl", [])
    torn = tmp_path / "torn.jsonl"
    torn.write_text('{"task"')
    blocked = tmp_path / "file"
    blocked.write_text("")
    for argv, words in (
        ([str(tmp_path / "gone")], "there is no"),
        ([str(empty)], "holds no rows"),
        ([str(torn)], "line 1 is not JSON"),
        ([], "RUN_OR_DIR is missing"),
        ([str(folder), "--out", str(blocked / "below")], "choose another folder with --out"),
    ):
        assert main(["report", *argv]) == 2
        err = capsys.readouterr().err
        assert err.startswith("lsgm: ")
        assert err.count("\n") == 1
        assert words in err


def test_a_whole_report_imports_no_torch(folder: Path) -> None:
    code = (
        "import sys; from lsgm.cli import main; "
        f"assert main(['report', {str(folder)!r}]) == 0; print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False"
