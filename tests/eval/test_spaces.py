"""Numbers are called FID only in the space that FID is defined in."""

from __future__ import annotations

import pytest

from lsgm.errors import ConfigError
from lsgm.results.metrics import families, family_of, metric_name
from lsgm_eval.task import SpaceSpec


@pytest.mark.parametrize(
    ("family", "space", "name"),
    [
        ("frechet", "inception", "fid"),
        ("kernel", "inception", "kid"),
        ("spatial_frechet", "inception", "sfid"),
        ("frechet_infinity", "inception", "fid_infinity"),
        ("recall", "inception", "recall"),
        ("frechet", "inception-clean", "fid_clean"),
        ("kernel", "inception-clean", "kid_clean"),
        ("precision", "inception-clean", "precision_inception-clean"),
        ("frechet", "cifar10-resnet56", "frechet_cifar10-resnet56"),
        ("frechet_infinity", "inception-own-w", "frechet_infinity_inception-own-w"),
    ],
)
def test_names_tell_the_space(family: str, space: str, name: str) -> None:
    assert metric_name(family, space) == name
    assert family_of(name) == family


def test_no_other_space_gives_a_name_of_the_official_ones() -> None:
    published = {each.name for family in families().values() for each in family.published}
    assert not {metric_name(family, "mine") for family in families()} & published


def test_what_is_of_no_space_has_no_family() -> None:
    assert [family_of(name) for name in ("nelbo_nats", "nfe", "fidelity", "parameters")] == [None] * 4


def test_every_family_says_its_unit_and_which_way_is_better() -> None:
    better = {name: family.higher_is_better for name, family in families().items()}
    assert all(family.unit and family.group == "quality" for family in families().values())
    assert {family for family, up in better.items() if up} == {
        "inception_score", "precision", "recall", "density", "coverage",
    }  # fmt: skip
    assert better["memorised"] is None  # as many as of held-out images is best


def test_a_space_cannot_borrow_the_name_of_an_official_one() -> None:
    with pytest.raises(ConfigError, match="FID is that of its own network"):
        SpaceSpec("torchscript:mine.ts", "inception")
    with pytest.raises(ConfigError, match="FID is that of its own network"):
        SpaceSpec("inception", "mine")
