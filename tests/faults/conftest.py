"""Where the runs of the regression tests lie: one folder for all processes of a session, so that none is made twice."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Under pytest-xdist each process has a folder inside the session's."""
    base = tmp_path_factory.getbasetemp()
    session = base.parent if hasattr(request.config, "workerinput") else base
    folder = session / "regression"
    folder.mkdir(exist_ok=True)
    return folder
