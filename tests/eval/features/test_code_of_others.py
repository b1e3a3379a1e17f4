"""While a received command runs, no code of others does that nobody agreed to."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsgm.discovery import ask, modules_folder, only
from lsgm.errors import UserError
from lsgm_eval.features.extractor import KINDS, load_extractor
from lsgm_eval.models import open_model
from lsgm_eval.two_sides.sides import open_side


def trap(folder: Path, name: str) -> Path:
    """Write a module that leaves a mark where it is imported, and return the mark."""
    mark = folder / "mark"
    (folder / f"{name}.py").write_text(
        f"open({str(mark)!r}, 'w').close()\ndef factory(): raise SystemExit(9)\n"
    )
    return mark


@pytest.mark.parametrize("word", ["trap_of_a:factory", "m=trap_of_a:factory", "a=b=trap_of_a:factory"])
def test_no_factory_is_imported(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = trap(tmp_path, "trap_of_a")
    monkeypatch.chdir(tmp_path)
    with only((), tmp_path):
        for opened in (open_model, open_side):
            with pytest.raises(UserError, match=r"^trap_of_a:factory runs code .* --trust-code"):
                opened(word)
    assert not mark.exists()


def test_an_agreed_factory_is_looked_for_where_the_user_is_and_not_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    mark = trap(tmp_path, "trap_of_b")
    monkeypatch.chdir(tmp_path)
    with only(["trap_of_b:factory"], tmp_path / "mine"), pytest.raises(UserError, match="cannot import"):
        open_model("trap_of_b:factory")
    assert not mark.exists()
    with only(["trap_of_b:factory"], tmp_path), pytest.raises(SystemExit):
        open_model("trap_of_b:factory")
    assert mark.exists()


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.runs])
def test_no_network_of_others_is_opened(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = trap(tmp_path, "hubconf")
    monkeypatch.chdir(tmp_path)
    with only((), tmp_path), pytest.raises(UserError, match="add --trust-code"):
        load_extractor(f"{kind}:.", (3, 8, 8))
    assert not mark.exists()


def test_without_a_received_command_nothing_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ask("module:factory")
    assert Path(modules_folder()) == tmp_path
