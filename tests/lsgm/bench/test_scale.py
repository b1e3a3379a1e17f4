"""The arithmetic of many GPUs: what it counts is what is there, and the page has its tables."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from tiny import bars, recipe
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lsgm.bench import scale
from lsgm.cli import main
from lsgm.recipes import find_recipes
from lsgm.train.loop import train_recipe
from lsgm_eval.bench.fid_ways import _blank

PAGE = Path(__file__).parents[3] / "docs" / "scale.md"
BLOCK = re.compile(r"(<!-- lsgm bench scale -->\n)(.*?)(\n?<!-- end of lsgm bench scale -->)", re.DOTALL)
ONE = "cifar10-nll"
"""The recipe whose activations and samples are counted here: those of all take half a minute."""


def test_what_is_held_is_counted_by_hand() -> None:
    """Of y = W2 relu(W1 x): x and the one activation that relu and W2 share stand beside the result."""
    network = nn.Sequential(nn.Linear(3, 5, bias=False), nn.ReLU(), nn.Linear(5, 7, bias=False))
    x = torch.randn(11, 3)
    kept = scale.held(network, lambda: network(1 * x), low=False)
    assert kept == scale.Kept(4 * 11 * (3 + 5 + 7), 0)
    low = scale.held(network, lambda: network(1 * x), low=True)
    # In bfloat16; of the cast weights the first needs not be kept, since nobody asks for x's gradient.
    assert low == scale.Kept(2 * 11 * (3 + 5 + 7), 2 * 5 * 7)


def test_a_batch_holds_so_many_times_as_much_as_an_image() -> None:
    one, three = (scale.kept(recipe(), images) for images in (1, 3))
    assert three.image == pytest.approx(3 * one.image, rel=1e-3)
    assert three.fixed == one.fixed


def test_a_checkpoint_has_the_bytes_that_are_counted(tmp_path: Path) -> None:
    settings = recipe({"stage1": {"steps": 1}, "stage2": {"steps": 1}})
    checkpoint = train_recipe(settings, tmp_path, images=bars()).checkpoint
    assert checkpoint is not None
    names = ("model.safetensors", "ema.safetensors", "optimizer.pt")
    for name, counted in zip(names, scale.checkpoint_bytes(settings), strict=True):
        # Names, shapes and alignment of a few hundred tensors come on top.
        assert counted <= (checkpoint / name).stat().st_size <= counted + 150_000, name


@pytest.mark.parametrize("processes", [2, 8])
def test_traffic_is_that_of_rings_step_by_step(processes: int) -> None:
    """Each process sends one of N pieces on in each of N - 1 turns."""
    bytes_of_weights = 4 * 1000
    turn = (processes - 1) * bytes_of_weights / processes
    scatter = gather = turn
    assert scale.sent(1000, processes) == pytest.approx((scatter + gather, gather + gather + scatter))


def test_inceptions_operations_are_those_counted() -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        _blank()(torch.zeros(1, 3, 299, 299, dtype=torch.uint8))
    assert counter.get_total_flops() == scale.INCEPTION


def test_the_page_has_the_tables_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`LSGM_WRITE_GOLDEN=1` writes them all anew; without it the costly rows are held of one recipe."""
    text = PAGE.read_text(encoding="utf-8")
    if os.environ.get("LSGM_WRITE_GOLDEN"):
        assert main(["bench", "scale"]) == 0
        said = capsys.readouterr().out.strip()
        PAGE.write_text(
            BLOCK.sub(lambda found: f"{found[1]}{said}\n{found[3].strip()}", text), encoding="utf-8"
        )
        return
    (block,) = (found[2] for found in BLOCK.finditer(text))
    for each in scale.tables([ONE], [ONE]):
        heads, note = str(each).split("\n\n")[1:]
        lines = heads.splitlines()
        assert f"## {each.title}\n\n{lines[0]}\n" in block
        assert set(lines) <= set(block.splitlines()), each.title
        assert note in block
    for cells in (scale.training(scale.RECIPES), scale.traffic(scale.RECIPES)):
        for row in cells:
            assert " | ".join(row) in block
    named = set(re.findall(r"^\| ([a-z0-9]+-[a-z0-9-]+) \|", block, re.MULTILINE))
    assert named == {*scale.RECIPES, *scale.SAMPLED} <= set(find_recipes())
