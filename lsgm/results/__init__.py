"""What was measured: rows, the metrics they hold, and the files they lie in; free of torch.

A set of rows is a pandas DataFrame::

    from lsgm import results

    frame = results.read("runs/a")  # a results.jsonl, or a folder that holds some
    frame[frame.metric == "nelbo_nats"].pivot_table(index="model", columns="split", values="value")

``results.frame(rows)`` and ``results.rows(frame)`` are inverse to each other. pandas is imported when one of
these three is called for the first time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lsgm.results.row import Row

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Row", "frame", "read", "rows"]


def read(place: Path | str) -> pd.DataFrame:
    """Return the rows of a file, or of a folder that holds files of rows, as `frame` does.

    Raises DataError where there are none, and naming file and line of what is malformed.
    """
    from lsgm.results.files import find_results, read_rows

    return frame(row for file in find_results(Path(place)) for row in read_rows(file))


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Return rows as a table: a column for every field of `Row`, in order, by its nullable dtype."""
    from lsgm.results.frames import frame_of

    return frame_of(rows)


def rows(frame: pd.DataFrame) -> list[Row]:
    """Return the rows of a table; columns that are no field of a row are left out, absent ones are None.

    Raises DataError where a value cannot be that of a row.
    """
    from lsgm.results.frames import rows_of

    return rows_of(frame)
