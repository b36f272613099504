"""A written run, shared by the tests of the figures."""

from pathlib import Path

import pytest
from synthetic import play
from written_run import write_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 24 peers over 8 rounds."""
    return write_run(tmp_path_factory.mktemp("run"), play(num_peers=24, rounds=8))
