"""Images that are no squares: trained, sampled and scored where the sides divide as the recipe needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from pictures import photos

from lsgm import cli
from lsgm.config import DataConfig, DensityConfig, SamplerConfig
from lsgm.errors import ConfigError
from lsgm.nets.config import ScoreNetConfig
from lsgm.nets.layers import Attention
from lsgm.nets.ncsnpp import NCSNpp
from lsgm.runs.load import load_model

NETWORK = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "embedding": 8}
SHORT = {"steps": 2, "batch_size": 4}
KINDS: dict[str, dict[str, Any]] = {
    "conv": {"vae": {"width": 4, "multipliers": [1, 1], "latent_channels": 2}, "prior": {"network": NETWORK}},
    "nvae": {
        "vae": {
            "kind": "nvae",
            "width": 4,
            "multipliers": [1, 1, 1],
            "scales": 2,
            "groups": 1,
            "latents": 2,
            **dict.fromkeys(("pre_cells", "post_cells", "encoder_cells", "decoder_cells"), 1),
        },
        "prior": {"network": NETWORK},
    },
    "sgm": {"kind": "sgm", "prior": {"network": NETWORK}, "stage": SHORT},
}


def write(kind: str, folder: Path, size: str) -> Path:
    import tomli_w

    tables = {"kind": "lsgm", "data": {"dataset": str(folder / "photos"), "image_size": size}} | KINDS[kind]
    if kind != "sgm":
        tables |= {"stage1": SHORT, "stage2": SHORT}
    path = folder / f"{kind}.toml"
    path.write_text(tomli_w.dumps(tables))
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", 12, width=30, height=20)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "shape"), [("16x24", (16, 24)), ("16x8", (16, 8))])
def test_a_rectangle_is_trained_sampled_and_scored(
    kind: str, size: str, shape: tuple[int, int], folder: Path
) -> None:
    assert cli.main(["train", str(write(kind, folder, size)), "--device", "cpu"]) == 0
    model = load_model(folder / "runs" / kind)
    assert model.pixels.shape == (3, *shape)
    assert model.sample([0, 1], SamplerConfig(steps=2)).images.shape == (2, 3, *shape)
    levels = torch.randint(0, 256, (2, 3, *shape)).to(torch.uint8)
    for config in (DensityConfig(), DensityConfig("ode", solver="euler", steps=2)):
        assert model.density(levels, [0, 1], config).nats.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_side_that_does_not_divide_is_refused_in_a_sentence(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", str(write(kind, folder, "16x21")), "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "21" in said
    assert not (folder / "runs").exists()


def test_images_of_one_size_are_trained_as_they_are(folder: Path) -> None:
    tables = write("sgm", folder, "native")
    assert cli.main(["train", str(tables), "--device", "cpu", "--data", str(folder / "photos")]) == 0
    assert load_model(folder / "runs" / "sgm").pixels.shape == (3, 20, 30)


def test_attention_goes_by_the_shorter_side() -> None:
    config = ScoreNetConfig(8, (1, 2, 2), 1, (4,), embedding=8)
    tall, wide = (NCSNpp(config, channels=2, resolution=size) for size in ((16, 8), (8, 16)))
    found = [[isinstance(stack.attention, Attention) for stack in net.down] for net in (tall, wide)]
    assert found[0] == found[1] == [False, False, True, False, False]
    z = torch.randn(1, 2, 16, 8)
    assert tall(z, torch.ones(1)).shape == z.shape


def test_a_square_network_is_the_same_by_either_spelling() -> None:
    torch.manual_seed(0)
    one = NCSNpp(ScoreNetConfig(8, (1, 2), 1, (4,), embedding=8), channels=2, resolution=8)
    torch.manual_seed(0)
    two = NCSNpp(ScoreNetConfig(8, (1, 2), 1, (4,), embedding=8), channels=2, resolution=(8, 8))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize(
    ("given", "size"),
    [(64, (64, 64)), ("64", (64, 64)), ("64x96", (64, 96)), ("64 X 96", (64, 96)), ("native", None)],
)
def test_sizes_are_a_side_height_x_width_or_native(given: int | str, size: tuple[int, int] | None) -> None:
    assert DataConfig(image_size=given).size == size


@pytest.mark.parametrize("given", ["64x", "x", "64x96x3", "big", "", -8, "64x4"])
def test_other_sizes_are_refused(given: int | str) -> None:
    with pytest.raises(ConfigError, match=r"data\.image-size is "):
        DataConfig(image_size=given)


def test_a_size_is_an_option_of_train_in_each_of_its_forms(folder: Path) -> None:
    data = {"data": {"dataset": str(folder / "photos"), "image_size": 8}}
    tiny.toml(folder / "small.toml", tiny.merged(data, {"stage2": {"steps": 0}, "stage1": {"steps": 1}}))
    for size, shape in (("16", (16, 16)), ("8x12", (8, 12))):
        words = ["small.toml", "--data.image-size", size, "--out", size, "--device", "cpu"]
        assert cli.main(["train", *words]) == 0
        assert load_model(folder / size).pixels.shape == (3, *shape)
