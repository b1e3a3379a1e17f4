"""Runs and golden rows that many tests share: trained once, in a second."""

from __future__ import annotations

from pathlib import Path

import pytest
from eval.gate.gated import golden_of, trained

from lsgm_eval.gate.golden import Golden


@pytest.fixture(scope="session")
def lsgm_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "lsgm")


@pytest.fixture(scope="session")
def vae_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "vae", "vae")


@pytest.fixture(scope="session")
def lsgm_golden(lsgm_run: Path) -> Golden:
    return golden_of(lsgm_run)


@pytest.fixture(scope="session")
def vae_golden(vae_run: Path) -> Golden:
    return golden_of(vae_run)
