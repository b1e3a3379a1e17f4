"""Recipes are found over entry points, and what is wrong with one is said in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsgm.errors import ConfigError
from lsgm.recipes import find_recipes, load_recipe


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for an installed package of recipes."""
    monkeypatch.setattr("lsgm.recipes.package_folder", lambda dotted: tmp_path)
    (tmp_path / "omniglot.toml").write_text('kind = "lsgm"\n[data]\ndataset = "omniglot"\n')
    (tmp_path / "broken.toml").write_text('kind = "lsgm"\nsteps = = 3\n')
    return tmp_path


def test_a_recipe_is_found_by_name_and_by_path(house: Path) -> None:
    assert find_recipes()["omniglot"] == house / "omniglot.toml"
    by_name = load_recipe("omniglot")
    assert by_name == load_recipe(house / "omniglot.toml") == load_recipe(str(house / "omniglot.toml"))
    assert by_name["data"] == {"dataset": "omniglot"}


def test_an_unknown_recipe_is_answered_with_the_nearest(house: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'omniglo'; did you mean 'omniglot'\?"):
        load_recipe("omniglo")
    with pytest.raises(ConfigError, match="`lsgm ls recipes`"):
        load_recipe("zzz")


def test_a_missing_file_and_bad_syntax_name_the_file(house: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file .*gone\.toml"):
        load_recipe(house / "gone.toml")
    with pytest.raises(ConfigError, match=r"broken\.toml is not valid TOML \(.*line 2"):
        load_recipe("broken")
    (house / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_recipe("latin")
    with pytest.raises(ConfigError, match="is a folder, not a file"):
        load_recipe(Path(house / "omniglot.toml").parent)


def test_the_installed_recipes_are_all_readable() -> None:
    for name in find_recipes():
        assert isinstance(load_recipe(name), dict)
