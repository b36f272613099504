"""Where the tests of `covsim.testing` have their scenario and their runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from besieged import BESIEGED


@pytest.fixture(scope="session")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of six peers push the other way with twice the force, and nobody minds."""
    path = tmp_path_factory.mktemp("scenarios") / "besieged.yaml"
    path.write_text(BESIEGED)
    return path


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs of these tests lie, so that none is made twice."""
    return tmp_path_factory.mktemp("results")
