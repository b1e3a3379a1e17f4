"""One process for all kills, from which the killed ones are forked."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from kills.forged import Forge


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    if not hasattr(os, "fork"):
        pytest.skip("no processes are forked on this system")
    made = Forge(tmp_path_factory.mktemp("forge"))
    yield made
    made.close()
