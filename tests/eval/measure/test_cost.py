"""Costs: a rate over batches of unequal size, and the memory of the moment rather than of the past."""

from __future__ import annotations

import mmap

import pytest
import torch

from lsgm.devices import peak_bytes, reset_peak
from lsgm_eval.measure.quality import seconds_interval


def test_seconds_per_thousand_is_total_over_total() -> None:
    interval = seconds_interval([2.0, 2.2, 1.8, 0.5], [100, 100, 100, 25])
    assert interval is not None
    assert interval.value == pytest.approx(1000 * 6.5 / 325)
    assert interval.low < interval.value < interval.high


def test_proportional_batches_have_no_error_and_two_have_none_known() -> None:
    interval = seconds_interval([2.0, 4.0, 1.0], [100, 200, 50])
    assert interval is not None
    assert interval.standard_error == pytest.approx(0.0, abs=1e-9)
    assert seconds_interval([1.0, 2.0], [10, 10]) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures the process, not a device")
def test_peak_sees_a_large_array() -> None:
    before = reset_peak()
    if before is None:
        pytest.skip("this system does not report the peak memory of a process")
    # A mapping of its own: an array might be served from memory that the process holds already.
    size = 40_000_000
    with mmap.mmap(-1, size) as held:
        held.write(b"\1" * size)
        after = peak_bytes()
    assert after is not None
    assert after - before > 0.5 * size
