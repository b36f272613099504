"""What a run says about its aggregate: whether enough was gathered for what it is to tolerate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from covsim.protocol.aggregators import falls_short
from covsim.record import views
from covsim.record.recorder import Recorder

if TYPE_CHECKING:
    from covsim.scenario import Scenario


def aggregation(recorder: Recorder, scenario: Scenario) -> dict[str, int]:
    """The summary's figures about the aggregate; a round in which nothing was gathered combines nothing."""
    gathered = [len(uids) for uids in views.contributors(recorder).values() if uids]
    return {"aggregate.short_rounds": sum(falls_short(scenario.aggregate, num) for num in gathered)}
