"""Addressed randomness: a number is found again by its address, whatever is drawn around it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lsgm.rng import RepeatedNoise, SeededNoise, StepNoise, derive_seed, seed_global


@settings(deadline=None, max_examples=20)
@given(seeds=st.lists(st.integers(0, 2**40), min_size=1, max_size=6, unique=True))
def test_row_k_depends_on_seed_k_alone(seeds: list[int]) -> None:
    together = SeededNoise(seeds, stream="x")
    first, second = together.normal(3), together.uniform(2, 2)
    for k, seed in enumerate(seeds):
        alone = SeededNoise([seed], stream="x")
        assert torch.equal(alone.normal(3)[0], first[k])
        assert torch.equal(alone.uniform(2, 2)[0], second[k])


def test_streams_and_neighbouring_seeds_share_nothing() -> None:
    a, b = SeededNoise([0, 1], stream="a").normal(4), SeededNoise([0, 1], stream="b").normal(4)
    assert len({tuple(row.tolist()) for row in torch.cat([a, b])}) == 4
    assert derive_seed("sample", 1, 2) != derive_seed("sample", 12)


def test_threads_change_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def noise() -> list[torch.Tensor]:
        rows, draws = SeededNoise(range(7)), RepeatedNoise(range(3))
        parts = [draws.take(2), draws.take(3)]
        return [rows.normal(3), rows.uniform(2), rows.rademacher(2), *(part.normal(4) for part in parts)]

    alone = noise()
    monkeypatch.setattr("lsgm.rng.NUMBERS_PER_THREAD", 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for found, expected in zip(noise(), alone, strict=True):
        assert torch.equal(found, expected)


def test_signs_are_fair() -> None:
    signs = SeededNoise(range(20)).rademacher(500)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert stats.binomtest(int((signs > 0).sum()), signs.numel()).pvalue > 1e-6


def calls(noise: SeededNoise) -> list[torch.Tensor]:
    """What a draw may ask for, in shapes below and above the 16 numbers that torch draws in one go."""
    return [noise.normal(3), noise.normal(5, 7), noise.uniform(dtype=torch.float64), noise.rademacher(2, 2)]


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(1, 4), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_draw_k_of_a_sample_is_the_same_however_the_draws_are_taken(cuts: list[int], seed: int) -> None:
    seeds, count = [seed, seed + 1, 7], sum(cuts)
    whole = [part.unflatten(0, (3, count)) for part in calls(RepeatedNoise(seeds, stream="x").take(count))]
    noise = RepeatedNoise(seeds, stream="x")
    parts = [[rows.unflatten(0, (3, cut)) for rows in calls(noise.take(cut))] for cut in cuts]
    for call, expected in enumerate(whole):
        assert torch.equal(torch.cat([part[call] for part in parts], dim=1), expected)
    alone = calls(RepeatedNoise([7], stream="x").take(count))
    assert all(torch.equal(row, rows[2]) for row, rows in zip(alone, whole, strict=True))


def test_the_zeroth_draw_is_the_seeds_own_and_the_others_differ() -> None:
    plain = calls(SeededNoise([3, 4], stream="x"))
    repeated = calls(RepeatedNoise([3, 4], stream="x").take(5))
    for expected, rows in zip(plain, repeated, strict=True):
        assert torch.equal(rows[[0, 5]], expected)
    numbers = torch.cat([repeated[0].flatten(), repeated[1].flatten()])
    assert len(numbers.unique()) == len(numbers)
    # Mean 0 and variance 1, to four standard errors.
    many = RepeatedNoise([3, 4], stream="x").take(1000).normal(50)
    assert abs(float(many.mean())) < 4 / many.numel() ** 0.5
    assert abs(float(many.var()) - 1) < 4 * (2 / many.numel()) ** 0.5


def test_two_processes_see_the_noise_that_one_would() -> None:
    def noise(rows: slice | None = None) -> StepNoise:
        return StepNoise(7, 3, global_batch=8, rows=rows)

    whole, halves = noise(), [noise(slice(0, 4)), noise(slice(4, 8))]
    for draw in (lambda n: n.normal(2), lambda n: n.uniform(3), lambda n: n.stratified()):
        assert torch.equal(draw(whole), torch.cat([draw(half) for half in halves]))


def test_steps_and_seeds_are_addresses() -> None:
    def draws(seed: int, step: int) -> torch.Tensor:
        return StepNoise(seed, step, global_batch=4).normal(2)

    assert torch.equal(draws(1, 2), draws(1, 2))
    assert not torch.equal(draws(1, 2), draws(1, 3))
    assert not torch.equal(draws(1, 2), draws(2, 2))


@settings(deadline=None, max_examples=20)
@given(batch=st.integers(1, 64), step=st.integers(0, 1000))
def test_stratified_times_fall_one_into_each_stratum(batch: int, step: int) -> None:
    rho = StepNoise(0, step, global_batch=batch).stratified()
    assert rho.dtype == torch.float64
    assert sorted((rho * batch).floor().int().tolist()) == list(range(batch))


def test_unaddressed_draws_follow_the_global_seed() -> None:
    draws = []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2, 1):
            seed_global(seed, torch.device("cpu"))
            draws.append(torch.rand(3))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_seeding_a_step_writes_down_no_stack_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.manual_seed does, for every accelerator that is not in use; it costs a millisecond."""

    def called() -> None:
        pytest.fail("a stack trace was written down")

    monkeypatch.setattr("traceback.format_stack", called)
    with torch.random.fork_rng(devices=[]):
        seed_global(0, torch.device("cpu"))
