"""The notebooks run from their first cell to their last, with fewer steps than they are read with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
LESS = "RUN = 'runs/short'\nSTAGE1, STAGE2 = 12, 12\nIMAGES = {images}\nNFE = (4, 8)\n"


@pytest.mark.parametrize(("name", "images"), [("glyphs", 10), ("samplers", 40)])
def test_a_notebook_runs_to_its_end(
    name: str,
    images: int,
    tmp_path_factory: pytest.TempPathFactory,
    glyphs_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install '.[docs]'")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install '.[docs]'")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install '.[docs]'")
    monkeypatch.setenv("LSGM_CACHE", str(glyphs_cache))
    monkeypatch.delenv("LSGM_PROGRESS", raising=False)
    # Both notebooks open one run.
    folder = tmp_path_factory.getbasetemp() / "notebooks"
    folder.mkdir(exist_ok=True)
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    (given,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    given.source = LESS.format(images=images)
    where = {"metadata": {"path": os.fspath(folder)}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    told = [text for cell in notebook.cells for text in streams(cell, "stderr")]
    assert not [text for text in told if "Warning" in text]
    if name == "glyphs":
        assert any("stage2: 100%" in text for text in told), "a bar is shown, and reaches its end"


@pytest.mark.parametrize("name", ["glyphs", "samplers"])
def test_a_notebook_is_kept_as_a_fresh_kernel_leaves_it(name: str) -> None:
    path = NOTEBOOKS / f"{name}.ipynb"
    assert path.stat().st_size < 200_000
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    codes = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in codes] == list(range(1, len(codes) + 1)), "run all cells anew"
    assert not [text for cell in codes for text in streams(cell, "stderr")]
    assert any("image/png" in output.get("data", {}) for cell in codes for output in cell["outputs"])


def streams(cell: Any, name: str) -> list[str]:
    return ["".join(each["text"]) for each in cell.get("outputs", ()) if each.get("name") == name]
