"""``lsgm report`` of folders that somebody prepared: a report, or one sentence, and nothing elsewhere."""

from __future__ import annotations

import errno
import json
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_files import SPECIAL, place_special, says
from matplotlib.figure import Figure
from reports.fake_rows import fake_rows, write_rows
from reports.render.reader import read_page

from lsgm.errors import DataError
from lsgm.files import regular
from lsgm.results.files import find_results, from_csv, parse_lines
from lsgm.results.labels import sampler_label
from lsgm.results.row import row_from
from lsgm_reports.commands import report
from lsgm_reports.commands.report import run
from lsgm_reports.figures.cost import crowded
from lsgm_reports.render.html import inline_svg
from lsgm_reports.tables.points import reach_table

ROW: dict[str, Any] = {"task": "t@1", "model": "a", "metric": "fid", "value": 1.0, "group": "quality"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path / "received" / "results.jsonl", [ROW])
    return tmp_path / "received"


def pages(folder: Path) -> dict[str, str]:
    names = ("report.md", "report.html", "results.csv", "tables.tex")
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}


# What is no file, or no text, in the place of one.


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize(
    "name", ["results.jsonl", "status.json", "ablation.json", "metrics.jsonl", "samples/a.png"]
)
def test_what_is_no_file_is_refused_at_once_by_its_name(name: str, kind: str, folder: Path) -> None:
    (folder / "samples").mkdir()
    (folder / name).unlink(missing_ok=True)
    place_special(folder / name, kind)
    with says(Path(name).name, "not a file"):
        run([str(folder), "--format", "html"])


def test_links_in_a_circle_are_said(folder: Path) -> None:
    (folder / "samples").mkdir()
    for name in ("samples/a.png", "status.json", "results.jsonl"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(folder / name)
        with says(Path(name).name, "Too many levels"):
            run([str(folder), "--format", "html"])
    (folder / "results.jsonl").unlink()
    (folder / "around").symlink_to(folder)
    with says("there is no results.jsonl"):
        find_results(folder)


DEEP = 3000 * "[" + 3000 * "]"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("results.jsonl", b"\xff\xfe{}", "not text in UTF-8"),
        ("results.jsonl", DEEP.encode() + b"\n", "nests"),
        ("results.jsonl", b'{"n": ' + 5000 * b"1" + b"}\n", "is not valid JSON"),
        ("results.jsonl", b"[" + 2**20 * b"1" + b"]\n", "letters long"),
        ("status.json", DEEP.encode(), "nests"),
        ("status.json", b'{"format": 1, "command": 3, "state": "failed", "planned": []}', "must be a list"),
        ("status.json", b'{"format": 1, "command": [], "state": [], "planned": []}', "'state' is a list"),
        ("ablation.json", DEEP.encode(), "nests"),
        ("ablation.json", b"\xff", "not text in UTF-8"),
        ("metrics.jsonl", b'{"seconds": {}}\n{}\n', "line 1 is not a row of metrics"),
        ("metrics.jsonl", b'{"seconds": 1e999}\n{}\n', "line 1 is not a row of metrics"),
        ("metrics.jsonl", DEEP.encode() + b"\n{}\n", "line 1 is not a row of metrics"),
        ("metrics.jsonl", b"\xff\n", "not text in UTF-8"),
        ("samples/a.png", b"GIF89a", "is no PNG image"),
        (
            "samples/a.png",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 2**31, 1) + 20 * b"\0",
            "pixels",
        ),
    ],
)
def test_what_is_malformed_is_one_sentence(name: str, content: bytes, words: str, folder: Path) -> None:
    (folder / "samples").mkdir()
    (folder / name).write_bytes(content)
    with says(Path(name).name, words):
        run([str(folder), "--format", "html"])


def test_a_folder_that_is_shut_is_named_and_not_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "results.jsonl").rename(folder.parent / "results.jsonl")
    scandir = os.scandir

    def shut(path: Path) -> Any:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(regular.os, "scandir", shut)
    (folder.parent / "results.jsonl").rename(folder.parent / "rows.jsonl")
    with says(str(folder), "cannot be looked into (Permission denied)"):
        find_results(folder.parent)


def test_a_damaged_manifest_takes_no_number_away_and_is_named(folder: Path) -> None:
    (folder / "run").mkdir()
    os.mkfifo(folder / "run" / "manifest.json")
    (folder / "manifest.json").write_text('{"versions": [1]}')
    assert run([str(folder), "--format", "md"]) == 0
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "run/manifest.json is a named pipe" in page
    assert "'versions' is a list; it must be a table" in page


# Names that are more than words.

NAMES = (
    "=HYPERLINK(1)",
    "\x1b[31mred\x07",
    "\u202egnp.exe",
    "a\r\nb\u2028c\x85",
    "x](javascript:alert(1)) | <script>alert(1)</script>",
    "$\\input{/etc/passwd}$ %",
    "'=1+1",
    "# heading",
)


def test_names_stay_words_in_every_view(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row | {"model": name, "note": name} for row in fake_rows()[:6] for name in NAMES]
    write_rows(folder / "results.jsonl", rows)
    planned = [{"model": NAMES[2], "measurement": NAMES[1], "state": "left", "why": NAMES[4]}]
    status = {"format": 1, "command": ["lsgm", "eval", NAMES[1]], "state": "failed", "planned": planned}
    (folder / "status.json").write_text(json.dumps(status | {"why": NAMES[1], "updated": NAMES[2]}))
    (folder / "manifest.json").write_text(json.dumps({"versions": {NAMES[1]: NAMES[2]}}))
    assert run([str(folder)]) == 0
    said = capsys.readouterr()
    texts = pages(folder) | {"out": said.out, "err": said.err}
    texts["svg"] = "".join(file.read_text(encoding="utf-8") for file in folder.glob("figures/*.svg"))
    for name, text in texts.items():
        assert not set(text) & set("\x1b\x07\r\x85\u2028\u202e"), name
        assert "<script>alert" not in text.replace("\\<", "&lt;") or name in (
            "results.csv",
            "tables.tex",
            "out",
        )
    page = read_page(texts["report.html"])
    assert {link["href"][:1] for link in page.all("a")} == {"#"}
    assert "](javascript" not in texts["report.md"].replace("\\]", "")
    assert not [line for line in texts["report.md"].splitlines() if line.startswith(("- # ", "# heading"))]
    assert (
        "\\input" not in texts["tables.tex"].replace("\\textbackslash{}input", "")
        or "% " in texts["tables.tex"]
    )
    assert from_csv(texts["results.csv"]) == [row_from(row) for row in rows]
    assert not any(field.startswith(("=", "\t")) for field in texts["results.csv"].split(","))


EXTREMES = (0.0, 5e-324, 1.7e308, 1e-31, 1e31)


def test_numbers_beyond_every_axis_are_in_the_tables_and_not_in_the_way_of_the_figure(folder: Path) -> None:
    rows = [
        ROW
        | {"group": "curve", "metric": "frechet_x", "sampler": f"heun(steps={index})", "n": 2**63 - 1}
        | {"value": sign * value, "ci_low": -1.7e308, "ci_high": 1.7e308}
        | {"nfe_mean": cost, "seconds": cost, "flops_per_image": value}
        for index, (value, cost) in enumerate((a, b) for a in EXTREMES for b in EXTREMES)
        for sign in (1, -1)
        if sign == 1 or index % 2
    ]
    rows = [row | {"model": f"m{index % 3}", "seeds": str(index)} for index, row in enumerate(rows)]
    write_rows(folder / "results.jsonl", rows)
    text = '{"seconds": 1e30, "total": NaN, "val_x": 1e400}\n{"seconds": 2, "total": true, "val_y": 1e31}\n'
    (folder / "metrics.jsonl").write_text(text + '{"seconds": 3, "stage": [], "total": -1e30}\n')
    assert run([str(folder)]) == 0
    assert len(pages(folder)["results.csv"].splitlines()) == 1 + len(rows)
    assert (folder / "figures" / "nfe.png").is_file()


def test_a_note_of_an_older_version_that_is_no_number_is_no_bias() -> None:
    for said in ("1.2.3", "...", "1e999", "-"):
        assert row_from(ROW | {"note": f"upward bias at this n about {said}"}).upward_bias in (0.0, 1.2)


# Sizes.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": 5000 * "m"}, "'model' is"),
        ({"note": 20_000 * "n"}, "20,000 letters long"),
        ({"sampler": {"a": 2000 * "b"}}, "letters long"),
        ({"task": "t\0"}, "zero byte"),
    ],
)
def test_texts_beyond_measure_are_refused(changes: dict[str, Any], words: str) -> None:
    with says(words):
        parse_lines(json.dumps(ROW | changes) + "\n", "rows.jsonl")


def test_rows_lines_and_pictures_have_a_most_which_a_variable_raises(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(folder / "results.jsonl", [ROW | {"model": str(k)} for k in range(4)])
    (folder / "samples").mkdir()
    (folder / "samples" / "a.png").write_bytes(png(8, 8))
    (folder / "metrics.jsonl").write_text('{"seconds": 1}\n' * 4)
    for variable, limit in (
        ("LSGM_MOST_ROWS", 3),
        ("LSGM_LARGEST_RESULTS", 20),
        ("LSGM_LARGEST_PAGE", 20),
        ("LSGM_MOST_LOGGED", 3),
        ("LSGM_LARGEST_TABLE", 2),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, str(limit))
            with says(f"at most {limit} are read", f"set {variable}="):
                run([str(folder), "--format", "html"])
    assert run([str(folder), "--format", "html"]) == 0


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    image = chunk(b"IDAT", zlib.compress((b"\0" + width * b"\0") * height))
    return b"\x89PNG\r\n\x1a\n" + head + image + chunk(b"IEND", b"")


def test_a_figure_without_room_is_left_out_and_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        ROW | {"group": "curve", "nfe_mean": 2.0, "model": f"m{k}", "metric": f"frechet_{k % 9}"}
        for k in range(200)
    ]
    write_rows(folder / "results.jsonl", rows)
    assert run([str(folder), "--format", "md"]) == 0
    assert "the figure of t@1 is left out: 200 points of 200 models" in capsys.readouterr().err
    assert not (folder / "figures").exists()
    assert crowded([row_from(row) for row in rows[:20]]) == ""


KINDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "models": lambda k: {"model": f"m{k}"},
    "metrics": lambda k: {"metric": f"frechet_s{k}"},
    "unknown metrics": lambda k: {"metric": f"odd{k}"},
    "tasks": lambda k: {"task": f"t{k}@1"},
    "samplers": lambda k: {"sampler": f"heun(steps={k})"},
    "data": lambda k: {"dataset": f"d{k}@1@{k:064x}"},
    "bounds": lambda k: {"metric": f"b{k}_nats", "group": "likelihood"},
    "terms": lambda k: {"metric": f"nelbo_term_tail/{k}_nats", "group": "terms"},
    "notes": lambda k: {"model": f"m{k}", "value": None, "note": "; ".join(map(str, range(k, k + 200)))},
}


@pytest.mark.parametrize("kind", KINDS)
def test_time_grows_as_the_rows_do(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count calls, not seconds: twice the rows may take little more than twice of them."""
    counts = []
    # Tasks and data sets have a section each, of all tables: half as many show as much.
    small = 75 if kind in ("tasks", "data") else 150
    for index, size in enumerate((small, 2 * small)):
        folder = tmp_path / str(index)
        write_rows(folder / "results.jsonl", [ROW | KINDS[kind](k) for k in range(size)])
        counts.append(counted(lambda folder=folder: run([str(folder)])))  # type: ignore[misc]
    assert counts[1] < 2.6 * counts[0]


def counted(call: Callable[[], object]) -> int:
    found = 0

    def count(*_: object) -> None:
        nonlocal found
        found += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(before)
    return found


def test_texts_that_make_expressions_slow_do_not() -> None:
    for text in ("rtol=" * 199, ", " * 499, " " * 900 + "x", "steps=1," * 124, "(" * 999, "9" * 999):
        row = row_from(
            ROW | {"sampler": text, "target": f"a{text}", "group": "reach", "metric": "nfe_to_reach"}
        )
        assert sampler_label(row.sampler)
        assert reach_table([row]) is not None


# Where it is written.


def test_nothing_is_written_through_a_link(folder: Path, tmp_path: Path) -> None:
    (folder / "metrics.jsonl").write_text('{"seconds": 1, "total": 1}\n{"seconds": 2, "total": 0}\n')
    mine = tmp_path / "mine"
    mine.mkdir()
    written = ("report.md", "report.html", "results.csv", "tables.tex")
    for name in written:
        (mine / name).write_text("mine")
        (folder / name).symlink_to(mine / name)
    (folder / "figures").mkdir()
    (mine / "training.png").write_text("mine")
    (folder / "figures" / "training.png").symlink_to(mine / "training.png")
    assert run([str(folder)]) == 0
    assert {file.name: file.read_text() for file in mine.iterdir()} == dict.fromkeys(
        ("report.md", "report.html", "results.csv", "tables.tex", "training.png"), "mine"
    )
    assert "Provenance" in (folder / "report.md").read_text(encoding="utf-8")
    assert not (folder / "report.md").is_symlink()


def test_a_folder_for_figures_that_leads_elsewhere_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "metrics.jsonl").write_text('{"seconds": 1, "total": 1}\n{"seconds": 2, "total": 0}\n')
    (tmp_path / "elsewhere").mkdir()
    (folder / "figures").symlink_to(tmp_path / "elsewhere")
    with says("figures is a link"):
        run([str(folder)])
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_full_disk_is_said_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with says("cannot write", "results.csv (No space left on device); make room", "(--out)", error=DataError):
        run([str(folder)])
    assert [file.name for file in folder.iterdir()] == ["results.jsonl"]


def test_a_task_s_name_leads_nowhere_and_two_never_share_a_figure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is drawn is of no concern here, and the longest part.
    monkeypatch.setattr(report, "cost_figure", lambda rows: Figure(figsize=(0.1, 0.1)))
    names = ("../../x", "glyphs@1.2/quick", "glyphs@1.3/quick", "/etc/x", "..")
    rows = [
        ROW | {"task": name, "group": "curve", "nfe_mean": nfe, "value": nfe, "seeds": str(nfe)}
        for name in names
        for nfe in (1.0, 2.0)
    ]
    write_rows(folder / "results.jsonl", rows)
    assert run([str(folder), "--format", "md", "--separate", "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out" / "figures").glob("*.png"))) == len(names)
    assert {file.name for file in tmp_path.iterdir()} == {"received", "out"}


# Drawings.


def test_a_drawing_that_came_with_samples_does_not_enter_the_page(folder: Path) -> None:
    (folder / "samples").mkdir()
    (folder / "samples" / "a.png").write_bytes(png(8, 8))
    (folder / "samples" / "a.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><text>theirs</text></svg>'
    )
    assert run([str(folder), "--format", "html"]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "theirs" not in page
    assert "data:image/png" in page


@pytest.mark.parametrize(
    "inside",
    [
        "<g>" * 500 + "</g>" * 500,
        '<rect style="position: fixed; inset: 0; fill: url(http://a/b); stroke: url( #x)"/>',
        '<rect clip-path="url(http://a/b)" fill="url(//a)"/>',
    ],
)
def test_what_no_drawing_of_ours_has_is_refused_or_stays_out(inside: str) -> None:
    text = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">{inside}</svg>'
    try:
        drawn = inline_svg(text, "d-", "label", {})
    except ValueError:
        return
    assert not any(word in drawn for word in ("position", "inset", "http://a", "//a)"))


@pytest.mark.parametrize("box", ["", "0 0", "0 0 nan 1", "0 0 0 1", "a b c d", "0 0 1e9 1"])
def test_a_drawing_without_a_size_is_none(box: str) -> None:
    with pytest.raises(ValueError, match=r"viewBox|width"):
        inline_svg(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}"/>', "d-", "label", {})
    bomb = '<!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
    with pytest.raises(ValueError, match="entities"):
        inline_svg(bomb, "d-", "label", {})
