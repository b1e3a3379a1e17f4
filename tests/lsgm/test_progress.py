"""Bars: text in a terminal and in a notebook without widgets, a widget where there are some."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from tqdm import tqdm

from lsgm.progress import bar


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.delenv("LSGM_PROGRESS", raising=False)


@pytest.mark.usefixtures("notebook")
def test_a_notebook_without_widgets_has_bars_of_text_that_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with bar(total=2, desc="steps") as shown:
        assert type(shown) is tqdm
        assert shown.mininterval < 1


@pytest.mark.usefixtures("notebook")
def test_a_notebook_with_widgets_has_the_bar_of_tqdm_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    class Widget(tqdm):  # type: ignore[type-arg]
        pass

    found: Any = SimpleNamespace(tqdm=Widget)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "tqdm.auto", found)
    with bar(total=2, desc="steps") as shown:
        assert type(shown) is Widget


def test_a_terminal_loads_nothing_for_notebooks() -> None:
    code = "import sys; from lsgm.progress import bar; bar(total=1, desc='x').close(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"asyncio", "tqdm.auto", "tqdm.notebook", "IPython"} & set(done.stdout.split())
    assert "Warning" not in done.stderr
