"""A thread runs a bounded number of items ahead, and its errors and the reader's both surface."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from lsgm_eval.samples.gather import ahead

CPU = torch.device("cpu")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lsgm-samples")]


def test_all_items_come_in_order() -> None:
    with ahead(range(100), CPU) as items:
        assert list(items) == list(range(100))
    assert not threads()


def test_no_more_than_the_depth_is_made_ahead_of_the_reader() -> None:
    made: list[int] = []

    def making() -> Iterator[int]:
        for k in range(20):
            made.append(k)
            yield k

    with ahead(making(), CPU, depth=2) as items:
        for k in items:
            time.sleep(0.002)
            # What the reader has, two that wait, and one in the thread's hands.
            assert len(made) <= k + 4


def test_making_and_using_overlap() -> None:
    made, used = threading.Event(), threading.Event()

    def making() -> Iterator[int]:
        yield 0
        assert used.wait(timeout=5)  # the first item is in use while this one is made
        made.set()
        yield 1

    with ahead(making(), CPU) as items:
        for k in items:
            if k == 0:
                used.set()
                assert made.wait(timeout=5)


def test_an_error_of_the_thread_is_raised_where_its_item_would_have_come() -> None:
    def making() -> Iterator[int]:
        yield from range(5)
        raise ZeroDivisionError("in the thread")

    seen: list[int] = []

    def read() -> None:
        with ahead(making(), CPU) as items:
            for item in items:
                seen.append(item)

    with pytest.raises(ZeroDivisionError, match="in the thread"):
        read()
    assert seen == list(range(5))
    assert not threads()


def test_an_error_of_the_reader_stops_the_thread() -> None:
    made: list[int] = []

    def making() -> Iterator[int]:
        for k in range(1000):
            made.append(k)
            yield k

    def read() -> None:
        with ahead(making(), CPU) as items:
            next(items)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read()
    assert len(made) <= 4
    assert not threads()
