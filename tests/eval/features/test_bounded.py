"""A network of somebody else's takes no more memory than it may, whatever its few bytes ask for."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hostile_files import says
from torch import Tensor, nn

from lsgm_eval.features import own
from lsgm_eval.features.extractor import load_extractor
from lsgm_eval.features.own import Bounded, bound_numbers

SHAPE = (3, 8, 8)
pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    """Three means of an image, beside which `ask` makes something that changes them by nothing."""

    def __init__(self, ask: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.ask = ask

    def forward(self, x: Tensor) -> Tensor:
        return x.float().mean((2, 3)) + 0 * self.ask(x).sum()


ASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": lambda x: torch.zeros(400_000, 400_000),
    "a range": lambda x: torch.arange(10**12),
    "a copy of a view": lambda x: x[:1, 0, 0, 0].expand(10**12).contiguous(),
    "repeated": lambda x: x.float().repeat(10**6, 1, 100, 100),
    "an outer product": lambda x: torch.ones(10**6)[:, None] * torch.ones(10**6),
    "a picture": lambda x: nn.functional.interpolate(x.float(), size=(200_000, 200_000)),
    "padding": lambda x: nn.functional.pad(x.float(), (10**7, 10**7, 10**4, 10**4)),
    "one by one": lambda x: torch.stack([torch.ones(10**7) for _ in range(60)]),
}


@pytest.mark.parametrize("ask", ASKS)
def test_a_network_that_asks_for_too_much_is_refused_before_it_has_it(tmp_path: Path, ask: str) -> None:
    images = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    torch.export.save(torch.export.export(Net(ASKS[ask]), (images,)), tmp_path / "net.pt2")
    with says("net", "LSGM_LARGEST_ACTIVATIONS"):
        load_extractor(f"export:{tmp_path / 'net.pt2'}", SHAPE)


def test_what_grows_with_the_images_is_looked_at_for_every_number_of_them(tmp_path: Path) -> None:
    def ask(x: Tensor) -> Tensor:
        return torch.ones(x.shape[0] ** 2, x.shape[0] ** 2, 2**13)

    images = torch.zeros(4, *SHAPE, dtype=torch.uint8)
    program = torch.export.export(
        Net(ask), (images,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=500)},), strict=False
    )
    torch.export.save(program, tmp_path / "net.pt2")
    extractor = load_extractor(f"export:{tmp_path / 'net.pt2'}", SHAPE)
    assert extractor(images).shape == (4, 3)
    with says("LSGM_LARGEST_ACTIVATIONS"):
        extractor(torch.zeros(40, *SHAPE, dtype=torch.uint8))


def test_a_network_for_very_many_images_at_a_time_is_refused(tmp_path: Path) -> None:
    images = torch.zeros(5000, *SHAPE, dtype=torch.uint8)
    torch.export.save(torch.export.export(Net(lambda x: x.float()), (images,)), tmp_path / "net.pt2")
    with says("5,000 images at a time"):
        load_extractor(f"export:{tmp_path / 'net.pt2'}", SHAPE)


@pytest.mark.parametrize("features", [0, 20_000])
def test_no_features_and_too_many_are_refused(tmp_path: Path, features: int) -> None:
    class Wide(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.float().mean((1, 2, 3))[:, None].expand(2, features) + 1

    images = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    torch.export.save(torch.export.export(Wide(), (images,)), tmp_path / "net.pt2")
    with says("LSGM_MOST_FEATURES" if features else "must return features N x D"):
        load_extractor(f"export:{tmp_path / 'net.pt2'}", SHAPE)


def test_memory_that_was_given_back_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "IMAGE", 1)
    monkeypatch.setenv("LSGM_LARGEST_ACTIVATIONS", "1000000")
    held = []
    with Bounded("net", 2):
        for _ in range(50):
            torch.ones(100_000)
        held += [torch.ones(100_000) for _ in range(2)]
        view = held[0].view(10, -1)
        with says("net needs 1,200,000 bytes for aten.ones"):
            torch.ones(100_000)
        del held[0]
        with says("net needs 1,200,000 bytes"):  # a view holds what it is of
            torch.ones(100_000)
        del view
        torch.ones(100_000)


@pytest.mark.parametrize("grow", [
    lambda: torch.bincount(torch.tensor([10**11])),
    lambda: torch.repeat_interleave(torch.tensor([10**11])),
])  # fmt: skip
def test_an_operator_whose_size_only_the_data_tell_is_refused(grow: Callable[[], Tensor]) -> None:
    with Bounded("net", 2), says("only the data tell"):
        grow()


def test_what_is_no_larger_than_the_data_is_not() -> None:
    x = torch.tensor([0.0, 1.0, 2.0])
    with Bounded("net", 2):
        assert torch.nonzero(x).tolist() == [[1], [2]]
        assert x[x > 0.5].tolist() == [1, 2]
        assert int(x.sum()) == 3


def reckoned(function: Callable[..., int], times: int, *second: int) -> torch.fx.GraphModule:
    """Return a graph that applies a function to a number, and again to what comes of it."""
    graph = torch.fx.Graph()
    node = graph.placeholder("n")
    for _ in range(times):
        node = graph.call_function(function, (node, *(second or (node,))))
    graph.output(node)
    return torch.fx.GraphModule({}, graph)


@pytest.mark.parametrize(
    ("function", "times", "second"),
    [
        (operator.mul, 60, ()),
        (operator.pow, 1, (10**9,)),
        (operator.pow, 40, (9,)),
        (operator.add, 200, ()),
        (operator.sub, 1, (2**64,)),
    ],
)
def test_numbers_that_grow_without_end_are_refused(
    function: Callable[..., int], times: int, second: tuple[int, ...]
) -> None:
    module = reckoned(function, times, *second)
    bound_numbers(module)
    with pytest.raises(OverflowError, match="beyond 64 bits"):
        module(3)


def test_honest_numbers_are_reckoned_as_ever() -> None:
    for function, second in ((operator.pow, 3), (operator.floordiv, 2), (operator.add, 5)):
        module = reckoned(function, 2, second)
        bound_numbers(module)
        assert module(3) == function(function(3, second), second)
