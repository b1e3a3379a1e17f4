"""Networks that run in other ways: the same samples from static batches, recorded calls, blocks and
bfloat16."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.devices import GAIN, backing_off, fastest_batch
from lsgm.distributed import ALONE
from lsgm.errors import ConfigError
from lsgm.generative import Pixels
from lsgm.model import running
from lsgm.model.diffusion import ScoreBasedModel, measure_lsgm
from lsgm.model.running import StaticCall, StaticScore, in_bfloat16, prepare, settle
from lsgm.runs.load import fresh_networks
from lsgm.sampling import draw

CPU = torch.device("cpu")


def model() -> ScoreBasedModel:
    """Networks whose last layers, zero when fresh, have been moved."""
    settings = tiny.recipe({"prior": {"mixing_init": 0.0}})
    networks = fresh_networks(settings, Pixels(1, 8, 8, "binary")).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in networks.get_submodule("prior").parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    state = {"name": "tiny", "sha256": "0" * 64, "stage": "stage2", "step": 1, "meta": {}}
    return measure_lsgm(settings.prior.objective, networks, state)  # type: ignore[arg-type]


class Recorded:
    """Stands for CUDA graphs: a recorded call finds its inputs where they were, and writes where it wrote."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.played = 0

    def __call__(self, call: Callable[..., Tensor], z: Tensor, t: Tensor) -> Callable[[], Tensor]:
        self.sizes.append(len(z))
        output = call(z, t)

        def play() -> Tensor:
            self.played += 1
            return output.copy_(call(z, t))

        return play


def rows_of(sizes: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 3, generator=generator), torch.rand(n, generator=generator)) for n in sizes]


def test_a_short_batch_is_filled_up_and_no_size_is_recorded_twice() -> None:
    record, seen = Recorded(), list[int]()

    def call(z: Tensor, t: Tensor) -> Tensor:
        seen.append(len(z))
        return z * t[:, None]

    static = StaticCall(call, 8, record)
    kept = [(static(z, t), z * t[:, None]) for z, t in rows_of([8, 3, 8, 1])]
    # What was returned earlier stays as it was, as samplers of several steps need it.
    for found, expected in kept:
        assert torch.equal(found, expected)
    assert record.sizes == [8]
    assert record.played == 4
    assert set(seen) == {8}


def test_batches_that_shrink_are_halved_as_often_as_they_fit() -> None:
    record = Recorded()
    static = StaticCall(lambda z, t: z + t[:, None], 20, record)
    static.shrinks = True
    for z, t in rows_of([20, 11, 10, 5, 3, 1, 2, 20]):
        assert torch.equal(static(z, t), z + t[:, None])
    assert record.sizes == [20, 10, 5, 3, 2]
    larger = rows_of([32])[0]
    assert torch.equal(static(*larger), larger[0] + larger[1][:, None])
    assert not len(static(torch.empty(0, 3), torch.empty(0)))


@pytest.mark.parametrize("name", ["heun", "unipc-3", "ancestral", "dopri5"])
def test_a_recorded_network_draws_the_very_samples(name: str) -> None:
    """As on a GPU, but for the recorder; at one size of batch the same kernels run, and bits agree."""
    made, config = model(), SamplerConfig(name=name, steps=3, rtol=1e-2, atol=1e-2, time_end=0.01)
    shape = made.coder.latent_shape
    record = Recorded()
    score = StaticScore(made.prior, 4, record).shrinking(False)
    plain, static = (draw(each, shape, range(4), config) for each in (made.prior, score))
    if name != "dopri5":
        assert torch.equal(static.z, plain.z)
        assert record.sizes == [4]
    # Filled up, a batch of three may be summed in another order: a few roundings of float32.
    short = draw(score, shape, range(3), config)
    torch.testing.assert_close(short.z, plain.z[:3], rtol=1e-4, atol=1e-4)
    assert short.nfe.tolist() == plain.nfe[:3].tolist()


def test_bfloat16_is_the_networks_alone_and_what_samples_are_of_says_so() -> None:
    made = model()
    plain = made.sample(range(4), SamplerConfig(steps=3))
    low = made.sample(range(4), SamplerConfig(steps=3, precision="bfloat16"))
    assert torch.equal(low.nfe, plain.nfe)
    score, z = in_bfloat16(made.prior), torch.randn(4, *made.coder.latent_shape)
    t = torch.full((4,), 0.5, dtype=torch.float64)
    near, exact = score.drift(z, t), made.prior.drift(z, t)
    assert near.dtype == torch.float32
    # Eight bits of a significand: 2^-9 of each product, over the few layers of a tiny network.
    difference = float((near - exact).norm() / exact.norm())
    assert 1e-5 < difference < 2e-2
    assert all(p.dtype == torch.float32 for p in made.prior.parameters())
    with pytest.raises(
        ConfigError, match="precision is bfloat16, and the score function given computes in float32"
    ):
        draw(made.prior, made.coder.latent_shape, range(1), SamplerConfig(steps=1, precision="bfloat16"))


def test_what_is_compiled_serves_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler behind it: what is compiled, and how often, is decided before that."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr("lsgm.nets.compiled.BACKEND", "eager")
    made, config = model(), SamplerConfig(steps=2)
    plain = made.sample(range(4), config).images
    density = made.density(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), range(3), DensityConfig())
    counters.clear()
    prepare(made, "compiled", 4)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 1
    for count in (4, 3, 1):
        assert torch.equal(made.sample(range(count), config).images, plain[:count])
    again = made.density(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), range(3), DensityConfig())
    assert torch.equal(again.nats, density.nats)
    assert counters["stats"]["unique_graphs"] == graphs
    low = made.sample(range(4), SamplerConfig(steps=2, precision="bfloat16"))
    assert counters["stats"]["unique_graphs"] == 2 * graphs
    assert low.images.shape == plain.shape
    prepare(made, "eager", 4)
    assert torch.equal(made.sample(range(4), config).images, plain)


def test_a_network_that_cannot_be_compiled_runs_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no compiler here\nand much more")

    made = model()
    plain = made.sample(range(2), SamplerConfig(steps=2)).images
    monkeypatch.setattr(torch, "compile", lambda function, **how: fail)
    with caplog.at_level(logging.WARNING):
        prepare(made, "compiled", 2)
    assert (
        "the score network of tiny cannot run compiled here (no compiler here); it runs eagerly"
        in caplog.text
    )
    assert torch.equal(made.sample(range(2), SamplerConfig(steps=2)).images, plain)


def test_what_a_device_or_a_model_has_not_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    made = model()
    with caplog.at_level(logging.WARNING):
        prepare(made, "graphs", 2)
        prepare(type("Ready", (), {"name": "ready"})(), "compiled", 2)
    assert "the score network of tiny cannot run graphs here (CUDA graphs need a GPU); it runs" in caplog.text
    assert "ready has no score network that could run compiled; it runs eagerly" in caplog.text
    assert made.running.execution == "eager"


def test_a_decoder_takes_its_own_number_of_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model()
    whole = made.sample(range(5), SamplerConfig(steps=2)).images
    sizes, decode = list[int](), type(made.coder).decode

    def scarce(coder: Any, z: Tensor, noise: Any) -> Any:
        if len(z) > 2:
            raise torch.OutOfMemoryError("no memory")
        sizes.append(len(z))
        return decode(coder, z, noise)

    monkeypatch.setattr(type(made.coder), "decode", scarce)
    assert torch.equal(made.sample(range(5), SamplerConfig(steps=2)).images, whole)
    assert sizes == [2, 2, 1]
    assert made.running.decoder_batch == 2


def test_the_fastest_batch_is_the_smallest_of_the_fast_ones_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("lsgm.devices.clock", lambda device: now)

    def work(rows: int) -> None:
        nonlocal now
        if rows > limit:
            raise torch.OutOfMemoryError("no memory")
        now += 1e-3 + 1e-4 * max(rows, 16)  # a device that is not full below 16 rows

    assert GAIN == 1.05
    limit = 10**6
    assert fastest_batch(work, CPU) == 256
    limit = 40
    assert fastest_batch(work, CPU) == 32
    limit = 0
    with pytest.raises(torch.OutOfMemoryError):
        fastest_batch(work, CPU)
    limit = 5
    assert backing_off(lambda rows: (work(rows), rows)[1], 16, CPU) == (4, 4)


def test_models_settle_on_the_smallest_of_their_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model()
    assert settle([made], "eager", 7, ALONE) == 7
    for flow in (False, True):
        assert 1 <= running.fitting_batch(made, flow=flow) <= 4096
    assert made.running.decoder_batch is not None
    sizes = iter([32, 8])
    monkeypatch.setattr(running, "fitting_batch", lambda model, flow: next(sizes))
    assert settle([made, made], "eager", "auto", ALONE) == 8
