"""Many changes of one text: each as if the text had been read for it alone."""

from __future__ import annotations

import pytest

from covsim.scenario import ScenarioError
from covsim.scenario.loading import loads, variations

TEXT = "version: 1\nname: few\nextends: quickstart.yaml\npeers: 12\n"
CHANGES = (["peers=13"], ["network.latency=10 ms", "~cohorts.lazy"], ["cohorts.lazy.uplink=1 Gb/s"], [])


def test_changes_do_not_add_up() -> None:
    """Catches a tree that a change has left its mark on."""
    varied = variations(TEXT, "few")
    for change in (*CHANGES, *CHANGES):
        assert varied(change) == loads(TEXT, "few", change)


def test_a_bad_change_is_refused_and_harms_no_other() -> None:
    """Catches a mistake that shows late, or that stays."""
    varied = variations(TEXT, "few")
    with pytest.raises(ScenarioError, match="no_such"):
        varied(["network.no_such=1"])
    assert varied([]) == loads(TEXT, "few")
