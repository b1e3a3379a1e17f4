"""Published sample quality: verified unless asked, in a table of its own, with what keeps it from ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from reports.fake_quality import fake_quality, fake_run

from lsgm.cli import main
from lsgm.errors import DataError
from lsgm_reports import published_quality as module
from lsgm_reports.document import quality_tables
from lsgm_reports.formats import to_markdown
from lsgm_reports.headline import headline
from lsgm_reports.published import published
from lsgm_reports.published_quality import published_quality, published_quality_table
from lsgm_reports.rows import Row, row_from
from lsgm_reports.table import Table

ENTRY = '[[quality]]\ndataset = "cifar10"\nmodel = "M"\nsource = "S"\n'


def rows_of(*names: str, dataset: str = "cifar10") -> list[Row]:
    return [row_from(row | {"dataset": f"{dataset}@1@00"}) for row in fake_quality(*names)]


def table_of(rows: list[Row], *, recalled: bool = False) -> Table:
    table = published_quality_table(rows, recalled=recalled)
    assert table is not None
    return table


def texts(table: Table) -> dict[str, list[str]]:
    return {line[0].text: [cell.text for cell in line[1:-1]] for line in table.lines}


def test_every_number_is_known_with_its_evidence() -> None:
    """A number is added here and there together, by who has seen where it is stated."""
    assert [(e.dataset, e.model, " ".join(e.numbers.values()), e.recalled) for e in published_quality()] == [
        ("cifar10", "LSGM (best FID)", "2.10 138 3.43", "bits_per_dim"),
        ("cifar10", "LSGM (best FID), measured again", "2.10 9.87 0.61 147", ""),
        ("cifar10", "LSGM (balanced)", "2.17 2.95", "bits_per_dim"),
        ("cifar10", "LSGM (best NLL)", "6.89 2.87", ""),
        ("cifar10", "LSGM, about 100 M parameters", "4.60 131", ""),
        ("cifar10", "VAE backbone of LSGM", "43.18 2.96", "fid, bits_per_dim"),
        ("cifar10", "NCSN++ VE (data space)", "2.20 2000", ""),
        ("cifar10", "DDPM++ VP, ODE (data space)", "3.08 140", ""),
        ("cifar10", "Score SDE, DDPM++ (data space)", "2.92 2.99", "fid"),
        ("cifar10", "DDPM (data space)", "3.17", ""),
        ("cifar10", "Improved DDPM (data space)", "11.47 2.94", "fid"),
        ("cifar10", "VDM (data space)", "4.00", ""),
        ("cifar10", "NCSN (data space)", "25.32", ""),
        ("cifar10", "Recovery-likelihood EBM", "9.58", ""),
        ("cifar10", "StyleGAN2-ADA", "2.92", ""),
        ("cifar10", "AutoGAN", "12.42", "fid"),
        ("cifar10", "DC-VAE", "17.9", ""),
        ("cifar10", "NCP-VAE", "24.08", ""),
        ("cifar10", "NVAE", "23.49 2.91", "fid"),
        ("cifar10", "VAEBM", "12.19", "fid"),
        ("cifar10", "VDVAE", "36.88 2.87", "fid, bits_per_dim"),
        ("cifar10", "Denoising diffusion GAN", "3.75 4", ""),
        ("cifar10", "DDIM, 10 steps (data space)", "13.36 10", ""),
        ("cifar10", "DDIM, 20 steps (data space)", "6.84 20", ""),
        ("cifar10", "DDIM, 50 steps (data space)", "4.67 50", ""),
        ("cifar10", "DDIM, 100 steps (data space)", "4.16 100", ""),
        ("celebahq256", "LSGM", "7.22 23 0.70", ""),
        ("celebahq256", "NCSN++, PC (data space)", "7.23 4000", ""),
        ("celebahq256", "NCSN++, ODE (data space)", "128 335", "fid, nfe"),
        ("celebahq256", "VAE backbone of LSGM", "30.87", "fid"),
        ("celebahq256", "NVAE", "29.76 0.70", ""),
        ("celebahq256", "NVAE, Gaussian decoder", "40.26", ""),
        ("celebahq256", "VAEBM", "20.38", "fid"),
        ("celebahq256", "NCP-VAE", "24.79", "fid"),
        ("celebahq256", "DC-VAE", "15.80", ""),
        ("celebahq256", "PGGAN", "8.0", ""),
        ("celebahq256", "VQGAN with transformer", "10.2", ""),
        ("celebahq256", "Glow", "68.93 1.03", ""),
        ("celebahq256", "ALAE", "19.21", "fid"),
        ("celebahq256", "UDM", "7.16", ""),
        ("celebahq256", "LDM-4", "5.11", ""),
    ]
    assert all(entry.source for entry in published_quality())


def test_likelihoods_agree_with_those_published_beside_bounds() -> None:
    beside = {(e.dataset, e.value, e.relation) for e in published() if e.evidence == "verified"}
    for entry in published_quality():
        if entry.bits_per_dim and "bits_per_dim" not in entry.unverified:
            assert (entry.dataset, float(entry.bits_per_dim), entry.relation) in beside


def test_by_default_every_number_is_verified() -> None:
    table = table_of(rows_of("inception"))
    shown = texts(table)
    assert [mark for mark, _ in table.notes] == ["†"]
    assert shown["LSGM (best FID)"] == ["2.10", "–", "–", "138", "–"]
    assert shown["LSGM (best NLL)"] == ["6.89", "–", "–", "–", "≤ 2.87"]
    assert not {"NVAE", "VAEBM", "VDVAE"} & set(shown)
    assert not any(cell.best for line in table.lines for cell in line)


def test_recalled_numbers_come_when_asked_for_marked_and_rounded() -> None:
    table = table_of(rows_of("inception"), recalled=True)
    lines = {line[0].text: [(cell.text, cell.mark) for cell in line[1:-1]] for line in table.lines}
    assert [mark for mark, _ in table.notes] == ["†", "‡"]
    assert lines["VAE backbone of LSGM"][0] == ("about 43.2", "‡")
    assert lines["NVAE"] == [("about 23.5", "‡"), *[("–", "")] * 3, ("≤ 2.91", "†")]
    high = texts(table_of(rows_of("inception", dataset="celebahq256"), recalled=True))
    assert high["NCSN++, ODE (data space)"][:2] == ["about 128", "about 335"]


def test_columns_that_no_line_fills_are_left_out() -> None:
    table = table_of(rows_of("inception", dataset="celebahq256"))
    assert [column.head for column in table.columns] == ["Model", "FID ↓", "NFE ↓", "bits/dim ↓", "Source"]
    assert texts(table)["LSGM"] == ["7.22", "23", "≤ 0.70"]


def test_published_numbers_are_in_no_table_of_measured_ones() -> None:
    rows = rows_of("inception")
    *measured, last = [headline(rows, "t"), *quality_tables(rows)]
    assert last.title == "Published sample quality, not measured here"
    for table in measured:
        assert "6.89" not in to_markdown(table)
        assert "†" not in to_markdown(table)


def test_the_caption_says_of_how_many_samples_and_by_whose_code() -> None:
    caption = table_of(rows_of("inception")).caption
    assert "of 50,000 samples by the authors' own code; what is measured here is of 5,000" in caption
    assert "No FID was measured here" not in caption
    assert "No FID was measured here" in table_of(rows_of("cifar10-resnet56")).caption


def test_there_is_nothing_for_other_data_or_without_measured_samples() -> None:
    assert published_quality_table(rows_of("glyphs", dataset="glyphs")) is None
    bounds = [row for row in rows_of("inception") if row.group == "likelihood"]
    assert published_quality_table(bounds) is None


def test_the_command_shows_recalled_numbers_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fake_run(tmp_path / "run", fake_quality("inception"))
    for options, expected in (([], False), (["--recalled"], True)):
        assert main(["report", str(folder), *options]) == 0
        printed = capsys.readouterr().out
        written = ((folder / name).read_text(encoding="utf-8") for name in ("report.md", "tables.tex"))
        for page in (printed, *written):
            assert ("about 43.2" in page) is expected
            assert "2.10" in page


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('fid = "two"', "the published fid of M is 'two'; write a number as it was printed"),
        ('fid = "nan"', "is 'nan'"),
        ("", "give at least one of fid, inception_score"),
        ('fid = "2.1"\nrecalled = "recall"', "names 'recall' as recalled"),
        ('fid = "2.1"\nrelation = "<"', "has relation '<'; write one of <=, ="),
        ("fid = 2.1", "'fid' is 2.1, not text"),
        ('kid = "2.1"', "there is no key 'kid'"),
    ],
)
def test_a_malformed_entry_is_one_sentence(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "published_quality.toml"
    file.write_text(f"{ENTRY}{text}\n", encoding="utf-8")
    monkeypatch.setattr(module, "FILE", file)
    with pytest.raises(DataError) as caught:
        published_quality()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
