"""``lsgm report``: what lies in the folder afterwards, and what goes wrong in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from reports.fake_bounds import fake_bounds
from reports.fake_rows import fake_rows, write_rows

from lsgm.cli import main
from lsgm.results.row import row_from, row_id

PLAIN = [row for row in fake_rows() if row["group"] != "curve"]
"""Rows of which no figure is drawn, which takes longer than all else."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What an evaluation of three models leaves behind, but for curves."""
    return folder_of(tmp_path / "eval one", PLAIN)


def folder_of(out: Path, rows: list[dict[str, Any]]) -> Path:
    write_rows(out / "results.jsonl", rows)
    for name in ("vae", "data", "lsgm"):
        (out / "samples").mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(out / "samples" / f"{name}.png")
    return out


def training_run(out: Path) -> None:
    """Write what a training run leaves beside its checkpoints."""
    out.mkdir()
    steps = [{"step": k, "stage": "stage1", "seconds": k, "total": 9 - k} for k in range(5)]
    (out / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    (out / "manifest.json").write_text('{"versions": {"torch": "2.13.0"}}')


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a report with everything, made by a process of its own, and the lines it printed.

    The last says whether torch was imported.
    """
    folder = folder_of(tmp_path_factory.mktemp("whole") / "eval one", fake_rows())
    training_run(folder / "lsgm")
    code = (
        "import sys; from lsgm.cli import main; "
        f"assert main(['report', {str(folder)!r}]) == 0; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return folder, done.stdout.splitlines()


def test_the_report_holds_everything_and_its_links_lead_somewhere(whole: tuple[Path, list[str]]) -> None:
    folder, printed = whole
    names = [
        "report.md",
        "report.html",
        "results.csv",
        "tables.tex",
        "figures/nfe.png",
        "figures/training.pdf",
    ]
    for name in names:
        assert (folder / name).is_file()
        assert f"wrote {folder / name}" in printed
    assert any("117.3 ± 0.4" in line for line in printed)
    page = (folder / "report.md").read_text(encoding="utf-8")
    for word in (
        "# Results: glyphs@1/quick",
        f"glyphs@1@{'ef' * 32}",
        f"glyph-net@{'ab' * 32}",
        "### Samples",
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


def test_the_page_opens_with_the_verdict_and_checksums_stand_in_its_provenance_alone(
    whole: tuple[Path, list[str]],
) -> None:
    page = (whole[0] / "report.md").read_text(encoding="utf-8")
    places = ["## What came out", "**lsgm** has the lowest", "figures/nfe.png", "### Samples", "| Model"]
    found = [page.index(place) for place in places]
    assert found == sorted(found)
    assert not re.search(r"[0-9a-f]{32}", page.partition("## Provenance")[0])


def test_a_whole_report_imports_no_torch(whole: tuple[Path, list[str]]) -> None:
    assert whole[1][-1] == "False"


def test_every_row_can_be_measured_again(whole: tuple[Path, list[str]]) -> None:
    folder, _ = whole
    first = row_id(row_from(fake_rows()[0]))
    assert re.search(rf"\| {first} \| lsgm +\| frechet_glyphs", (folder / "report.md").read_text())
    assert "`lsgm reproduce results.jsonl#ROW`" in (folder / "report.md").read_text()
    assert f"% {first} | lsgm | frechet_glyphs |" in (folder / "tables.tex").read_text()


def test_bounds_beside_quality_have_both_tables(whole: tuple[Path, list[str]]) -> None:
    page = (whole[0] / "report.md").read_text(encoding="utf-8")
    places = ["| Fréchet ↓ |", "### What the columns mean", "### Bounds on the likelihood", "### Paired"]
    found = [page.replace("  ", "").index(place) for place in places]
    assert found == sorted(found)
    assert page.count("**NELBO**") == 1
    assert "**NELBO (nats) ↓**" not in page


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
        "## What came out",
        "## omniglot-lake28@1/quick",
        "### Bounds on the likelihood",
        "### Terms of the bounds",
        "### Terms by latent groups",
        "### Paired differences",
        "### In the form of the paper's tables",
        *(section for section in sections if section.startswith("#### ")),
        "## Provenance",
        "### Every row",
    ]
    # The statement comes before any number, and again with those of the literature.
    tables = page[page.index("## omniglot") :]
    assert tables.index("of another data set") < tables.index("81.5 ± 0.4")
    assert page.count("so that the two are not comparable") == 2
    tex = (tmp_path / "tables.tex").read_text(encoding="utf-8")
    assert tex.count(r"\begin{table}") == len(re.findall(r"(?m)^\| -", page)) - 1  # every row: as comments
    assert "so that the two are not comparable" in tex


def test_csv_alone_draws_nothing(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, fake_rows())
    assert main(["report", str(folder), "--format", "csv"]) == 0
    assert not (folder / "figures").exists()


def test_lines_that_cannot_be_read_are_left_out_on_request_and_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = folder / "results.jsonl"
    number = len(results.read_text().splitlines()) + 1
    results.write_text(results.read_text() + '{"task": "glyphs@1')
    assert main(["report", str(folder)]) == 2
    assert f"line {number} is half-written" in capsys.readouterr().err
    assert main(["report", str(folder), "--skip-malformed", "--format", "md,html"]) == 0
    assert f"results.jsonl line {number} is half-written: the file ends within it: left out" in (
        capsys.readouterr().err
    )
    for name in ("report.md", "report.html"):
        page = (folder / name).read_text(encoding="utf-8")
        assert "1 line was left out:" in page
        assert f"line {number} is half-written" in page


def test_two_tiers_are_refused_then_each_in_its_own_section(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smoke = [row | {"task": "glyphs@1/smoke", "value": 77.0, "group": "quality"} for row in fake_rows()[:1]]
    smoke[0] |= {"ci_low": 76.0, "ci_high": 78.0}
    other = write_rows(tmp_path / "smoke" / "results.jsonl", smoke)
    argv = ["report", str(folder), str(other.parent), "--out", str(tmp_path / "both"), "--format", "md"]
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert f"{folder / 'results.jsonl'} line 1" in err
    assert f"{other} line 1" in err
    assert main([*argv, "--separate"]) == 0
    page = (tmp_path / "both" / "report.md").read_text(encoding="utf-8")
    first, second = page.index("## glyphs@1/quick"), page.index("## glyphs@1/smoke")
    assert "117.3 ± 0.4" in page[first:second]
    assert "77.0" not in page[first:second]
    assert "77.0 ± 1.0" in page[second : page.index("## Provenance")]


@pytest.mark.parametrize(
    ("other", "heads"),
    [
        (
            {"dataset": f"photos@64px@{'12' * 32}"},
            ("glyphs@1/quick on glyphs (efefefef)", "glyphs@1/quick on photos (12121212)"),
        ),
        (
            {"reference_sha256": "12" * 32},
            (
                "glyphs@1/quick to the reference cdcdcdcd",
                "glyphs@1/quick to the reference 12121212",
            ),
        ),
        (
            {"extractor": f"glyph-net@{'12' * 32}"},
            ("glyphs@1/quick by glyph-net (abababab)", "glyphs@1/quick by glyph-net (12121212)"),
        ),
    ],
)
def test_a_number_of_two_data_extractors_or_references_stands_in_two_sections(
    other: dict[str, str], heads: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = PLAIN
    again = [row | other | {"value": 2 * row["value"]} for row in rows if row["metric"] == "frechet_glyphs"]
    for row in again:
        row["ci_low"] = row["ci_high"] = None
    write_rows(tmp_path / "results.jsonl", rows + again)
    assert main(["report", str(tmp_path), "--format", "md,csv"]) == 0
    captured = capsys.readouterr()
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("## glyphs")] == [f"## {h}" for h in heads]
    for text in (page, captured.out):
        first, second = (text.index(head) for head in heads)
        assert first < text.index("5.21 ± 0.15") < second < text.index("10.43")
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + len(rows) + len(again)


def test_data_that_one_model_alone_was_measured_on_are_not_called_by_anothers_name(tmp_path: Path) -> None:
    rows = [row for row in PLAIN if row["metric"] == "frechet_glyphs"]
    dogs, cats = "dogs@1@0123456789ab", "cats@1@ba9876543210"
    again = [row | {"dataset": dogs, "value": 2 * row["value"]} for row in rows]
    third = rows[0] | {"dataset": cats, "model": "third", "value": 77.25, "ci_low": None, "ci_high": None}
    for row in again:
        row["ci_low"] = row["ci_high"] = None
    write_rows(tmp_path / "results.jsonl", [*rows, *again, third])
    assert main(["report", str(tmp_path), "--format", "md"]) == 0
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "77.25" in page.partition("on cats (ba987654)")[2]
    assert "77.25" not in page.partition("on cats (ba987654)")[0]


def test_repetitions_count_once_and_contradictions_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = write_rows(tmp_path / "again" / "results.jsonl", PLAIN)
    argv = ["report", str(folder), str(twice), "--format", "csv", "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    assert f"{len(PLAIN)} rows were found more than once" in capsys.readouterr().err
    assert (tmp_path / "out" / "results.csv").read_text().count("\n") == 1 + len(PLAIN)
    write_rows(twice, [fake_rows()[0] | {"value": 5.3}])
    assert main(argv) == 2
    assert "5.213" in capsys.readouterr().err
    assert main([*argv, "--keep-last"]) == 0
    assert "1 row was replaced by a later one" in capsys.readouterr().err
    assert ",5.3," in (tmp_path / "out" / "results.csv").read_text()


def test_an_unknown_metric_stands_under_its_own_name_said_once_and_hinted_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        row | {"metric": "frechte_glyphs", "higher_is_better": None}
        for row in fake_rows()
        if row["metric"] == "frechet_glyphs" and row["group"] == "quality"
    ]
    write_rows(tmp_path / "results.jsonl", rows)
    assert main(["report", str(tmp_path), "--format", "md"]) == 0
    assert "'frechte_glyphs' is unknown to this version" in capsys.readouterr().err
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    table = page[page.index("| Model") : page.index("### What")]
    assert "| frechte_glyphs |" in table
    assert "**" not in table.partition("± is half")[0]  # 5.2 leads by far; in which direction, no one said
    assert page.count("unknown to this version") == 1


def test_what_is_not_finished_is_said_in_the_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = [{"model": "sgm", "measurement": "nelbo", "state": "left", "why": None}]
    status = {"format": 1, "command": ["lsgm", "eval", "glyphs"], "state": "failed", "planned": planned}
    (folder / "status.json").write_text(json.dumps(status | {"why": "no memory is left"}))
    assert main(["report", str(folder), "--format", "md,html"]) == 0
    assert "Not finished: `lsgm eval glyphs` failed: no memory is left." in capsys.readouterr().out
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert page.index("## Not finished") < page.index("- sgm, nelbo: not begun") < page.index("## glyphs@1")
    assert "sgm, nelbo: not begun" in (folder / "report.html").read_text(encoding="utf-8")


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
        ([str(torn)], "line 1 is half-written"),
        ([str(torn), "--skip-malformed"], "holds no rows: "),
        ([str(folder), "--format", ","], "--format names nothing"),
        ([], "RUN_OR_DIR is missing"),
        ([str(folder), "--out", str(blocked / "below")], "choose another folder with --out"),
    ):
        assert main(["report", *argv]) == 2
        err = capsys.readouterr().err
        assert err.startswith("lsgm: ")
        assert err.count("\n") == 1
        assert words in err


def test_a_training_run_beside_results_adds_its_curves_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, run, out = tmp_path / "results", tmp_path / "a run", tmp_path / "out"
    results.mkdir()
    (folder / "results.jsonl").rename(results / "results.jsonl")
    training_run(run)
    (run / "config.toml").write_text('kind = "lsgm"\n')
    assert main(["report", str(run), str(results), "--format", "md", "--out", str(out)]) == 0
    assert "## Training" in (out / "report.md").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["report", str(run)]) == 2
    assert f"{run} is a training run without results" in capsys.readouterr().err


def test_the_tables_of_an_ablation_come_first(folder: Path) -> None:
    models = {"lsgm": {"VAE": "joint", "note": ""}, "vae": {"VAE": "frozen", "note": ""}}
    study = {"name": "frozen", "factors": ["VAE"], "models": models, "failed": {}}
    about = {"format": 1, "title": "Ablations of toys", "recipe": "toys", "studies": [study]}
    (folder / "ablation.json").write_text(json.dumps(about))
    assert main(["report", str(folder), "--format", "md"]) == 0
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert page.index("### In the form of the paper's tables") < page.index("### What the columns mean")
    assert "#### Ablation: VAE trained with the prior, or frozen" in page
