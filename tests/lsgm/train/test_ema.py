"""The average is its closed form, and lends itself to the module without a trace."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lsgm.train.optim import WeightAverage


def model() -> Any:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {"net": nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), "rest": nn.Linear(3, 3)}
    ).double()


def test_the_average_is_its_closed_form() -> None:
    """W_ema(n) = d^(n-1) W(1) + (1 - d) sum_k d^(n-k) W(k), k = 2..n."""
    module, decay = model(), 0.9
    average = WeightAverage(module, ("net",), decay)
    kept = ("net.0.weight", "net.1.running_mean", "net.1.running_var")
    path: dict[str, list[Tensor]] = {name: [] for name in kept}
    for _ in range(6):
        for parameter in module.parameters():
            parameter.data += torch.randn_like(parameter)
        module["net"](torch.randn(5, 3, dtype=torch.double))
        average.update()
        for name in kept:
            path[name].append(module.state_dict()[name].clone())
    n, state = 6, average.state_dict()
    for name, values in path.items():
        expected = decay ** (n - 1) * values[0]
        for k in range(2, n + 1):
            expected = expected + (1 - decay) * decay ** (n - k) * values[k - 1]
        # Six float64 roundings.
        torch.testing.assert_close(state[name], expected, rtol=1e-13, atol=1e-13)
    assert int(state["net.1.num_batches_tracked"]) == n
    assert torch.equal(state["rest.weight"], module["rest"].weight)
    assert state.keys() == module.state_dict().keys()
    assert average.updates == n


def test_it_lends_itself_and_gives_back_the_raw_weights_bit_for_bit() -> None:
    module = model()
    average = WeightAverage(module, ("",), 0.5)
    average.update()
    raw = {}
    with torch.no_grad():
        module["net"][0].weight.mul_(1 / 3)
        module["net"](torch.randn(5, 3, dtype=torch.double))
    raw = {key: value.clone() for key, value in module.state_dict().items()}
    with average.in_place():
        assert not torch.equal(module["net"][0].weight, raw["net.0.weight"])
        assert not torch.equal(module["net"][1].running_mean, raw["net.1.running_mean"])
        averaged = average.state_dict()
        assert all(torch.equal(value, averaged[key]) for key, value in module.state_dict().items())
    assert all(torch.equal(value, raw[key]) for key, value in module.state_dict().items())


def test_tied_weights_are_averaged_once_and_constants_not_at_all() -> None:
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    module = nn.Sequential(first, second)
    module.register_buffer("table", torch.tensor([float("inf")]), persistent=False)
    average = WeightAverage(module, ("",), 0.5)
    for _ in range(2):
        average.update()
        with torch.no_grad():
            first.weight.add_(1.0)
    last = first.weight.detach() - 1.0
    torch.testing.assert_close(average.state_dict()["0.weight"], last - 0.5)
    with average.in_place():
        assert float(module.get_buffer("table")) == float("inf")


def test_it_goes_on_from_its_state() -> None:
    first, second = model(), model()
    one, two = WeightAverage(first, ("net", "rest"), 0.9), WeightAverage(second, ("net", "rest"), 0.9)
    one.update()
    two.load(one.state_dict(), one.updates)
    for module in (first, second):
        for parameter in module.parameters():
            parameter.data += 1.0
    one.update()
    two.update()
    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())


def test_an_average_of_nothing_is_the_module() -> None:
    module = model()
    average = WeightAverage(module, (), 0.9)
    average.update()
    with average.in_place():
        assert all(torch.equal(v, module.state_dict()[k]) for k, v in average.state_dict().items())
