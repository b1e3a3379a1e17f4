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
from typing import TYPE_CHECKING, Any

from lsgm.errors import DataError
from lsgm.results.files import find_results, read_rows
from lsgm.results.row import KINDS, Row, row_from

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Row", "dtypes", "frame", "read", "rows"]


def read(place: Path | str) -> pd.DataFrame:
    """Return the rows of a file, or of a folder that holds files of rows, as `frame` does.

    Raises DataError where there are none, and naming file and line of what is malformed.
    """
    return frame(row for file in find_results(Path(place)) for row in read_rows(file))


def dtypes() -> dict[str, Any]:
    """Return column -> its dtype: string, Float64, Int64 or boolean, whose gaps are pandas.NA."""
    import pandas as pd

    known = {"str": pd.StringDtype("python"), "float": pd.Float64Dtype(), "int": pd.Int64Dtype()}
    return {name: known.get(kind, pd.BooleanDtype()) for name, kind in KINDS.items()}


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Return rows as a table: a column for every field of `Row`, in order, by its dtype in `dtypes`."""
    import pandas as pd

    rows = list(rows)
    columns = {name: [getattr(row, name) for row in rows] for name in KINDS}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(rows)), dtype=object).astype(dtypes())


def rows(frame: pd.DataFrame) -> list[Row]:
    """Return the rows of a table; columns that are no field of a row are left out, absent ones are None.

    Raises DataError naming the line whose values are those of no row.
    """
    known = [name for name in KINDS if name in frame.columns]
    plain = frame[known].astype(object).where(frame[known].notna(), None)
    found = []
    for number, values in enumerate(plain.itertuples(index=False, name=None)):
        try:
            found.append(row_from({"value": None, **dict(zip(known, values, strict=True))}))
        except DataError as error:
            raise DataError(f"line {number} of the table: {error}") from None
    return found
