"""Figures do not look, nor are they made, as a file in the working directory says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("settings", [b"text.usetex: True\nfont.size: 77\n", b"\xff\xfe\x00"])
def test_a_matplotlibrc_of_the_working_directory_is_not_read(settings: bytes, tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_bytes(settings)
    code = (
        "import os\nfrom lsgm.discovery import import_matplotlib\n"
        f"mpl = import_matplotlib()\nassert os.getcwd() == {str(tmp_path)!r}\n"
        "print(mpl.rcParams['text.usetex'], mpl.rcParams['font.size'] == 77)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False False\n", "")
