"""What a model card says of the settings a model was trained with, and of what it is not good for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli_w

from lsgm.errors import ConfigError
from lsgm.kinds import recipe_from
from lsgm.recipe_files import find_recipes, read_toml
from lsgm.structure import completed_as_then, to_dict

__all__ = ["limits", "recipe_lines", "shipped_recipe"]


def shipped_recipe(tables: Mapping[str, Any]) -> str | None:
    """Return the name of the installed recipe whose settings, defaults filled in, are these, or None.

    Settings that there were not when ``tables`` were saved do not tell recipes apart.
    """
    try:
        wanted = recipe_from(tables, "the card's recipe", saved=True)
    except ConfigError:  # of another version, or of a model that was not trained here
        return None
    for name, path in find_recipes().items():
        found = read_toml(path)
        # Reading a recipe whole takes a while: only those of this kind and data can be it.
        if found.get("kind") == tables["kind"] and _dataset(found) == _dataset(tables):
            try:
                today = recipe_from(found, name)
                same = today == wanted or recipe_from(completed_as_then(today, tables), name) == wanted
            except ConfigError:
                continue
            if same:
                return name
    return None


def _dataset(tables: Mapping[str, Any]) -> Any:
    return tables.get("data", {}).get("dataset")


def recipe_lines(tables: Mapping[str, Any]) -> list[str]:
    """Return the section on the recipe: its name where it is installed, and every setting, folded away."""
    name = shipped_recipe(tables)
    if name is not None:
        said = f"The recipe `{name}`, nothing changed: `lsgm train {name}` trains such a model again"
        newer = _came_since(name, tables)
        said += f", now with {newer}, which was not there then." if newer else "."
    else:
        said = "No installed recipe has these settings; `lsgm train FILE.toml` takes them from a file."
    try:
        settings = to_dict(recipe_from(tables, "the card's recipe", saved=True))
    except ConfigError:
        settings = dict(tables)
    listing = tomli_w.dumps(settings).strip()
    return [said, "<details><summary>All settings</summary>", f"```toml\n{listing}\n```", "</details>"]


def _came_since(name: str, tables: Mapping[str, Any]) -> str:
    """Return the settings in which an installed recipe has come to differ from the same one then."""
    today = to_dict(recipe_from(read_toml(find_recipes()[name]), name))
    then = completed_as_then(recipe_from(today, name), tables)
    return ", ".join(f"`{path} = {value!r}`".lower() for path, value in _differences(today, then))


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in a.items():
        if isinstance(value, Mapping):
            found += _differences(value, b.get(key, {}), f"{prefix}{key}.")
        elif b.get(key) != value:
            found.append((prefix + key, value))
    return found


def limits(state: Mapping[str, Any], *, measured: bool) -> list[str]:
    """Return what a user must not expect of the model; what was written down at its export comes first."""
    meta, exported = state["meta"], state["exported"]
    pixels, data = meta["pixels"], str(meta["dataset"]).partition("@")[0]
    shape = f"{pixels['channels']} x {pixels['height']} x {pixels['width']}"
    found = [*(exported.get("limits") or [])]
    found.append(f"It draws images like those of {data}, {shape}, and no others; it takes no labels.")
    if pixels["kind"] == "binary":
        found.append("Its pixels are binary: its likelihoods do not compare with those of grey images.")
    objective = meta["recipe"].get("prior", meta["recipe"]).get("objective", {})
    if exported.get("has_prior") and objective.get("time_eps"):
        found.append(
            f"Its score was never trained at times below {objective['time_eps']:g}, where its bound and its "
            "samplers end."
        )
    if not state["finished"]:
        found.append("Its training ended before its recipe's budget was spent.")
    if exported["dtype"] == "bfloat16":
        found.append("Its weights were rounded after training, and validated above before that.")
    if not measured:
        found.append("No number on this card was measured on test data.")
    found.append("Only averaged weights are here: its training cannot be gone on with bit for bit.")
    return found
