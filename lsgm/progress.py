"""What a terminal shows: progress on standard error (LSGM_PROGRESS=0 or -q silences it), sentences, tables.

Whoever shows progress in another way listens: bars then draw nothing, and what they would show are events.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from tqdm import tqdm

from lsgm.files.names import shown
from lsgm.logs import log, quiet


@dataclass(frozen=True)
class Progress:
    """What a bar would show now."""

    title: str
    share: float
    """How much is done, 0 .. 1; 0 where the whole is not known."""
    text: str
    """Counts, seconds and what else is shown, ``400/1000 [00:10<00:15, 39.1image/s]``."""


_listeners: list[Callable[[Progress], None]] = []


@contextmanager
def listening(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Let bars that begin within the block draw nothing and tell the listener, from whatever thread."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class _Told(tqdm):  # type: ignore[type-arg]
    """A bar that tells its listener in the place of drawing, as often as it would draw."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Tell the listener where the bar is."""
        if _listeners and msg is None:
            about = dict(self.format_dict)
            about["bar_format"] = "{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
            share = self.n / self.total if self.total else 0.0
            _listeners[-1](Progress(self.desc.removesuffix(": "), share, self.format_meter(**about)))


def silent() -> bool:
    """Whether this process shows no progress."""
    return os.environ.get("LSGM_PROGRESS") == "0" or os.environ.get("RANK", "0") != "0" or quiet()


def bar(
    iterable: Iterable[Any] | None = None, *, total: float | None = None, desc: str, unit: str = "it"
) -> tqdm[Any]:
    """Return a progress bar named ``desc``; ``set_postfix_str`` shows the current loss beside it."""
    kind, stream = (_Told, io.StringIO()) if _listeners else (_drawn(), sys.stderr)
    # In a log file a bar that redraws ten times a second is noise: one line every ten seconds is news.
    watched = _listeners or sys.stderr.isatty() or _in_notebook()
    return kind(
        iterable,
        total=total,
        desc=shown(desc),
        unit=unit,
        disable=silent(),
        file=stream,
        mininterval=0.2 if watched else 10.0,
    )


def _in_notebook() -> bool:
    """Whether this is the process of a notebook: IPython is loaded then, and its shell is a kernel's."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


def _drawn() -> type[tqdm[Any]]:
    """Return the bar for this place: a widget in a notebook that can show them, text everywhere else.

    `tqdm.auto` alone would warn in a notebook without ipywidgets, and load asyncio in every terminal.
    """
    if _in_notebook() and importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.auto import tqdm as automatic

        return automatic
    return tqdm


def say(sentence: str) -> None:
    """Log a sentence for the user, of the level ``info``, on the first process only."""
    if os.environ.get("RANK", "0") == "0":
        log.info(sentence)


def warn(sentence: str) -> None:
    """Log a sentence of the level ``warning``, on the first process only."""
    if os.environ.get("RANK", "0") == "0":
        log.warning(sentence)


def markdown_table(heads: Sequence[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
    """Return a Markdown table, its first ``left`` columns to the left, the others, numbers, to the right."""
    rule = ["---" if index < left else "---:" for index in range(len(heads))]
    body = ([shown(cell).replace("|", "\\|") for cell in cells] for cells in rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [list(heads), rule, *body])


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for each row of cells, all columns to the left and as wide as they must be."""
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in table
    ]
