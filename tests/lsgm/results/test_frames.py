"""Any valid rows become a table and come back; what is no table of rows is named."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import example, given, settings
from reports.any_rows import any_rows

from lsgm import results
from lsgm.errors import DataError
from lsgm.results.row import KINDS, Row

BARE = Row("t@1", "a", "m", None)


@settings(deadline=None, max_examples=30)
@given(any_rows())
@example([])
@example([Row("t@1", "a", "m", -0.0, n=2**63 - 1, note="", higher_is_better=False), BARE])
def test_rows_become_a_table_and_come_back_to_the_last_bit(rows: list[Row]) -> None:
    frame = results.frame(rows)
    assert {name: frame[name].dtype for name in frame} == results.dtypes()
    assert repr(results.rows(frame)) == repr(rows)  # repr tells 0.0 from -0.0, and 1 from 1.0 and True


def test_a_table_of_ones_own_needs_no_more_than_what_every_row_has() -> None:
    frame = pd.DataFrame({"task": ["t@1"], "model": ["a"], "metric": ["m"], "value": [1], "mine": ["x"]})
    assert results.rows(frame) == [Row("t@1", "a", "m", 1.0)]
    assert results.rows(frame.assign(n=[5.0], value=[float("nan")])) == [Row("t@1", "a", "m", None, n=5)]
    with pytest.raises(DataError, match=r"line 0 of the table: 'n' is 2\.5, not a whole number"):
        results.rows(frame.assign(n=[2.5]))
    with pytest.raises(DataError, match="line 0 of the table: the key 'model' is missing"):
        results.rows(frame.drop(columns="model"))


def test_a_table_is_selected_and_pivoted_as_any_other() -> None:
    frame = results.frame([Row("t@1", name, "fid", value) for name, value in (("a", 2.0), ("b", None))])
    assert frame.loc[frame["value"] < 3, "model"].tolist() == ["a"]
    assert list(frame) == list(KINDS)


def test_rows_are_read_without_torch_and_listed_without_pandas() -> None:
    code = "import sys; from lsgm.results import files, labels, manifest, metrics, status; "
    code += "metrics.metrics(); assert 'pandas' not in sys.modules; "
    code += "from lsgm import results; results.frame([]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
