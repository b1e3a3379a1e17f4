"""What the README claims: its Python runs, its commands and options exist, and it is read in a minute."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lsgm.cli import main
from lsgm.discovery import offers

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CALLS = re.findall(r"^\$ (?:torchrun .*? -m )?lsgm ([\w-]+)(.*?)(?:  +#.*)?$", README, flags=re.MULTILINE)


def test_it_is_short_and_names_both_commands() -> None:
    assert len(README.splitlines()) <= 150
    for command in ("python -m pip install tox && tox`", "python -m pip install tox && tox -e eval-glyphs`"):
        assert command in README


def test_its_ten_lines_of_python_run(glyphs_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(block.splitlines()) <= 10
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LSGM_CACHE", str(glyphs_cache))
    known: dict[str, object] = {}
    exec(block, known)
    frame = known["found"].frame()  # type: ignore[attr-defined]
    assert frame["n"].tolist() == [200]
    assert frame["frechet_glyphs_low"][0] < frame["frechet_glyphs_high"][0]


def test_its_commands_and_their_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(CALLS) > 12
    assert {name for name, _ in CALLS} <= set(offers("lsgm.commands"))
    for name, words in CALLS:
        if options := re.findall(r"--[\w-]+", words):
            with pytest.raises(SystemExit):
                main([name, "--help"])
            shown = capsys.readouterr().out
            assert all(option in shown for option in options), (name, options)


def test_no_distance_is_called_fid_beside_the_statement_that_none_was_measured() -> None:
    assert "**No FID of a model of this project has been measured**" in README
    tables = [line for line in README.splitlines() if line.startswith("|")]
    assert not [line for line in tables if re.search(r"\bFID\b", line)]
