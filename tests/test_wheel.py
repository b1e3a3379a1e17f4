"""The wheel works outside of the clone: code, recipes, tasks and weights all travel in it."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

CLONE = Path(__file__).parents[1]
BUILDING = ("pip", "hatchling", "hatch_fancy_pypi_readme")

SCRIPT = """
import json, sys
sys.path[:0] = [sys.argv[1]]
sys.path += sys.argv[2:]  # without their .pth files, one of which may lead back to a clone
from lsgm.discovery import offers
from lsgm.recipes import find_recipes, load_recipe
from lsgm_eval.features.glyphs import GlyphExtractor, read_card
from lsgm_eval.task import load_task, task_names
import lsgm_baselines.kinds, lsgm_reports.commands.report
for group in ("lsgm.commands", "lsgm.kinds", "lsgm.importers"):
    for point in offers(group).values():
        point.load()
names = ("lsgm", "lsgm_eval", "lsgm_baselines", "lsgm_reports")
print(json.dumps({
    "homes": [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in names],
    "recipes": [name for name in find_recipes() if load_recipe(name)["kind"]],
    "tasks": list(task_names()),
    "weights": GlyphExtractor().sha256,
    "card": read_card(),
}))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds: of a wheel built now, or of the one that is installed."""
    if any(importlib.util.find_spec(tool) is None for tool in BUILDING):
        installed = Path(str(distribution("lsgm-bench").locate_file("")))
        if not (installed / "lsgm" / "__init__.py").is_file() or installed == CLONE:
            pytest.skip(
                "hatchling is not here to build a wheel, and none is installed: "
                "pip install hatchling hatch-fancy-pypi-readme"
            )
        return installed
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder), str(CLONE)]
    done = subprocess.run([sys.executable, "-m", "pip", *build], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def isolated(home: Path, folder: Path, script: str) -> str:
    """Run a script in `folder` with nothing on its path but the wheel, the library and the dependencies."""
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    command = [sys.executable, "-S", "-P", "-c", script, str(home), *sorted(packages)]
    environment = {"LSGM_PROGRESS": "0", "OMP_NUM_THREADS": "1", "HOME": str(folder), "PATH": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_finds_its_recipes_tasks_and_weights(home: Path, tmp_path: Path) -> None:
    found: dict[str, Any] = json.loads(isolated(home, tmp_path, SCRIPT).splitlines()[-1])
    assert all(Path(file).is_relative_to(home) for file in found["homes"])
    in_clone = [CLONE / "lsgm" / "recipes", CLONE / "baselines" / "lsgm_baselines" / "recipes"]
    assert found["recipes"] == sorted(file.stem for folder in in_clone for file in folder.glob("*.toml"))
    suites = (CLONE / "eval" / "lsgm_eval" / "suites").glob("*.toml")
    assert {name.split("@")[0] for name in found["tasks"]} >= {file.stem for file in suites}
    assert len(found["weights"]) == 64
    assert found["card"]


def test_the_wheel_holds_the_four_packages_and_nothing_else(home: Path) -> None:
    if home.parent.name.startswith("wheel"):
        tops = {path.name for path in home.iterdir() if not path.name.endswith(".dist-info")}
        assert tops == {"lsgm", "lsgm_eval", "lsgm_baselines", "lsgm_reports"}
    for package in ("lsgm", "lsgm_eval", "lsgm_baselines", "lsgm_reports"):
        assert (home / package / "__init__.py").is_file()
        assert (home / package / "py.typed").is_file(), "type checkers of others read no annotations"


def test_the_command_of_the_wheel_answers(home: Path, tmp_path: Path) -> None:
    script = "import sys; sys.path[:0] = [sys.argv[1]]; sys.path += sys.argv[2:]\n"
    page = isolated(home, tmp_path, script + "from lsgm.cli import main; main(['--help'])")
    for command in ("train", "sample", "road", "eval", "report"):
        assert f"\n  {command} " in page


def test_the_page_of_the_index_has_the_readme_with_links_that_lead_out(home: Path) -> None:
    (about,) = home.glob("lsgm_bench-*.dist-info/METADATA")
    page = about.read_text(encoding="utf-8")
    assert "Description-Content-Type: text/markdown" in page
    targets = re.findall(r"\]\(([^)\s]+)\)", page)
    assert len(targets) > 20
    assert all(target.startswith(("https://", "#")) for target in targets)
