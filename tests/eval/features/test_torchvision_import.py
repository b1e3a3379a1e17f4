"""Importing torchvision: natively, with two missing schemas, and wrong for another reason."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

from lsgm_eval.features import published
from lsgm_eval.features.published import MISSING_OPERATOR, ensure_torchvision


class Importer:
    """An import that answers from a script and counts how often it is asked."""

    def __init__(self, *answers: Exception | ModuleType) -> None:
        self.answers, self.calls = list(answers), 0

    def __call__(self, name: str) -> ModuleType:
        assert name == "torchvision"
        self.calls += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def install(monkeypatch: pytest.MonkeyPatch, importer: Importer) -> list[str]:
    defined: list[str] = []
    monkeypatch.setattr(published.importlib, "import_module", importer)
    monkeypatch.setattr(published, "_define_schemas", lambda: defined.append("schemas"))
    return defined


def test_a_native_import_is_left_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    native = ModuleType("torchvision")
    defined = install(monkeypatch, Importer(native))
    assert ensure_torchvision() is native
    assert not defined


def test_the_missing_operator_alone_brings_the_schemas_and_a_second_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = ModuleType("torchvision")
    importer = Importer(RuntimeError(MISSING_OPERATOR), whole)
    defined = install(monkeypatch, importer)
    monkeypatch.setitem(sys.modules, "torchvision.half_imported", ModuleType("torchvision.half_imported"))
    kept = {name: module for name, module in sys.modules.items() if name.startswith("torchvision")}
    try:
        assert ensure_torchvision() is whole
        assert "torchvision.half_imported" not in sys.modules
    finally:
        sys.modules.update(kept)
    assert (defined, importer.calls) == (["schemas"], 2)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA driver initialisation failed"), ImportError("No module named 'torchvision'")],
)
def test_foreign_errors_come_through_as_they_are(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    defined = install(monkeypatch, Importer(error))
    with pytest.raises(type(error), match=str(error)):
        ensure_torchvision()
    assert not defined


def test_a_fresh_process_imports_torch_fidelity_and_may_ask_twice() -> None:
    code = (
        "from lsgm_eval.features.published import ensure_torchvision as e;"
        "assert e() is e(); import torch_fidelity.metric_fid, torchvision; print(torchvision.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.")
