"""Model kinds: how a recipe becomes networks, training stages and a model that can be measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lsgm.discovery import offers
from lsgm.errors import ConfigError, did_you_mean
from lsgm.structure import as_then, from_dict

if TYPE_CHECKING:
    from torch import nn

    from lsgm.generative import GenerativeModel, Pixels
    from lsgm.train.stage import StageSpec


@dataclass(frozen=True)
class Kind:
    """One kind of model: its recipe's type and the functions that build things from a recipe.

    Packages offer kinds through the entry-point group ``lsgm.kinds``. The functions import torch when they
    are called, so that a recipe can be read and shown without it.
    """

    name: str
    recipe_type: type[Any]
    build: Callable[[Any, Pixels], nn.Module]
    """(recipe, pixels) -> the model's networks, freshly initialised from torch's global generator."""
    stages: Callable[[Any, nn.Module], Sequence[StageSpec]]
    """(recipe, networks) -> the stages that train them in place, in order."""
    measurable: Callable[[Any, nn.Module, Mapping[str, Any]], GenerativeModel]
    """(recipe, networks, checkpoint state) -> the model as the harness sees it."""
    used: Callable[[Mapping[str, Any]], Collection[str]] | None = None
    """(checkpoint state) -> the parts of the networks that `measurable` uses; None: every part."""

    def parts(self, state: Mapping[str, Any], networks: nn.Module) -> set[str]:
        """Return the parts of the networks, among those with weights, that a checkpoint must hold."""
        named = {name for name, child in networks.named_children() if child.state_dict()}
        return named if self.used is None else named & set(self.used(state))


def kind_names() -> list[str]:
    """Return the names of the installed kinds."""
    return sorted(offers("lsgm.kinds"))


def find_kind(name: str) -> Kind:
    """Return the kind of that name; ConfigError with a suggestion where there is none."""
    points = offers("lsgm.kinds")
    if name not in points:
        hint = did_you_mean(name[:60], points) or f"; there are {', '.join(sorted(points))}"
        raise ConfigError(f"there is no model kind '{name[:60]}'{hint}")
    kind: Kind = points[name].load()
    return kind


def recipe_from(tables: Mapping[str, Any], where: str, *, saved: bool = False) -> Any:
    """Return the typed recipe that a TOML file's tables describe; ``where`` opens every complaint.

    Of tables that a run has ``saved``, absent keys mean what was the case before there were any.
    """
    if not isinstance(tables.get("kind"), str):
        raise ConfigError(
            f"{where}: the key 'kind' is missing; say which model it is: {', '.join(kind_names())}"
        )
    recipe_type = find_kind(str(tables["kind"])).recipe_type
    return from_dict(recipe_type, as_then(recipe_type, tables) if saved else tables, where)
