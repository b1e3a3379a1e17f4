"""Feature spaces by name: those that are built in, and those of an installed package."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
import torch
from torch import Tensor

from lsgm.discovery import only
from lsgm.errors import UserError
from lsgm_eval.features import extractor as extractors
from lsgm_eval.features.extractor import check_spec, load_extractor


class Means:
    """The mean of every channel."""

    name, sha256, resize = "means", "3" * 64, ""

    def __init__(self, file: str, image_shape: tuple[int, int, int], *, device: torch.device | str) -> None:
        self.file, self.image_shape, self.dim = file, image_shape, image_shape[0]

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mean((2, 3))


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("plugged")
    vars(module)["Means"] = Means
    monkeypatch.setitem(sys.modules, "plugged", module)
    point = EntryPoint("means", "plugged:Means", extractors.GROUP)
    monkeypatch.setattr(
        extractors, "offers", lambda group: {"means": point} if group == extractors.GROUP else {}
    )


def test_an_installed_package_adds_a_kind_by_one_entry() -> None:
    extractor = load_extractor("means", (3, 4, 4))
    assert extractor(torch.ones(5, 3, 4, 4, dtype=torch.uint8)).shape == (5, extractor.dim)
    assert vars(load_extractor("means:a.bin", (3, 4, 4)))["file"] == "a.bin"


def test_a_kind_that_is_unknown_is_told_what_is_installed() -> None:
    with pytest.raises(UserError, match="did you mean 'means'"):
        check_spec("meens")
    with pytest.raises(UserError, match="installed are means too"):
        check_spec("nothing-like-it")


def test_a_received_command_opens_no_file_by_it() -> None:
    with only((), torch.__path__[0]), pytest.raises(UserError, match="--trust-code"):  # type: ignore[arg-type]
        load_extractor("means:a.bin", (3, 4, 4))
