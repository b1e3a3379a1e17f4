"""Datasets of other packages stand beside ours, by their entry points, and are imported when asked for."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from lsgm.data import ImageSet, dataset_names, load, registry, sha256_of
from lsgm.data.dataset import Dataset
from lsgm.errors import ConfigError


def read(search: list[Path]) -> ImageSet:
    splits = {name: torch.full((4, 1, 8, 8), 255, dtype=torch.uint8) for name in ("train", "val", "test")}
    return ImageSet("white", "1", sha256_of(splits.values()), "binary", splits)


WHITE = Dataset("white", "white paper", "binary", (1, 8, 8), read, bundled=True, carved=False)


def offer(monkeypatch: pytest.MonkeyPatch, **places: str) -> None:
    """Let a package offer datasets under these names, as its metadata would."""
    points = {name: EntryPoint(name, place, "lsgm.datasets") for name, place in places.items()}
    monkeypatch.setattr(registry, "offers", lambda group: points if group == "lsgm.datasets" else {})
    monkeypatch.setattr(registry.DATASETS, "known", dict(registry.DATASETS.known))


def test_a_dataset_of_another_package_is_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, white=f"{__name__}:WHITE")
    monkeypatch.setattr(EntryPoint, "load", lambda self: WHITE)
    assert dataset_names()[0] == "glyphs"
    assert dataset_names()[-1] == "white"
    assert load("white").image_shape == registry.DATASETS["white"].image_shape


def test_nothing_of_it_is_imported_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, elsewhere="a_package_that_is_not_there:DATA")
    assert "elsewhere" in dataset_names()
    with pytest.raises(ModuleNotFoundError):
        load("elsewhere")


def test_ours_are_not_replaced_and_another_name_or_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, mnist="json:loads", other="json:loads", grey="json:dumps")
    assert registry.DATASETS["mnist"].read.__module__ == "lsgm.data.mnist"
    for name, found in (("other", WHITE), ("grey", print)):
        monkeypatch.setattr(EntryPoint, "load", lambda self, found=found: found)
        with pytest.raises(ConfigError, match=f"'{name}' of the group lsgm.datasets leads to no Dataset"):
            load(name)
