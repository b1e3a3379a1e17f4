"""Rows as a pandas table and back, without loss."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from lsgm.errors import DataError
from lsgm.results.row import KINDS, Row, row_from

_DTYPES = {"str": pd.StringDtype("python"), "float": pd.Float64Dtype(), "int": pd.Int64Dtype()}
DTYPES = {name: _DTYPES.get(kind, pd.BooleanDtype()) for name, kind in KINDS.items()}
"""Column -> its dtype: string, Float64, Int64 or boolean, whose gaps are pandas.NA."""


def frame_of(rows: Iterable[Row]) -> pd.DataFrame:
    """Return rows as a table of the columns and dtypes of `DTYPES`, numbered from 0 in their order."""
    rows = list(rows)
    columns = {name: [getattr(row, name) for row in rows] for name in DTYPES}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(rows)), dtype=object).astype(DTYPES)


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """Return the rows of a table. Raises DataError naming the line whose values are those of no row.

    Columns that are no field of a row are left out, and absent ones are None.
    """
    known = [name for name in KINDS if name in frame.columns]
    plain = frame[known].astype(object).where(frame[known].notna(), None)
    rows = []
    for number, values in enumerate(plain.itertuples(index=False, name=None)):
        try:
            rows.append(row_from({"value": None, **dict(zip(known, values, strict=True))}))
        except DataError as error:
            raise DataError(f"line {number} of the table: {error}") from None
    return rows
