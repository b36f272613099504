"""What a layered timeline asks of the rest of a scenario, said before a run starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from covsim.protocol.fragments import Layers, Whole
from covsim.scenario.sections import Cohort
from covsim.world.layers import Layered
from covsim.world.network import NetworkSettings
from covsim.world.store import StoreSettings

if TYPE_CHECKING:
    from covsim.scenario.schema import Scenario

_SAID_OF_A_COHORT = ("count", "share", "uplink", "downlink", "speed", "region")
"""Of everything else the default must stand."""

_OF_WINDOWS = ("put_window", "gather_timeout", "poll", "stalls")


class CannotLayer(ValueError):
    """A section that a layered timeline has no use for; `path` is the key to look at."""

    def __init__(self, message: str, *path: Any) -> None:
        super().__init__(message)
        self.path = path


def check_layers(scenario: Scenario) -> None:
    """Do nothing if the timeline is not layered, or if all that it needs is there. Raises CannotLayer."""
    if isinstance(scenario.timeline, Layered):
        for message, *path in _refusals(scenario, scenario.timeline):
            raise CannotLayer(message, *path)


def _without_effect(scenario: Scenario, timeline: Layered) -> Iterator[tuple[str, *tuple[str, ...]]]:
    """Settings that a layered timeline would pass over."""
    for end in ("tokens", "simulated", "loss", "bytes"):
        if getattr(scenario.stop, end) is not None:
            yield "a layered timeline ends after stop.rounds alone", "stop", end
    for work in ("compression", "decoding"):
        if getattr(scenario.deployment, work):
            yield "a layered timeline knows no work but that of layers", "deployment", work
    if scenario.store != StoreSettings():
        yield "a layered timeline has no store; leave store out", "store"
    for name in _OF_WINDOWS:
        if getattr(timeline, name) != Layered.model_fields[name].default:
            yield "a layered timeline has no windows, and nobody polls", "timeline", name


def _refusals(scenario: Scenario, timeline: Layered) -> Iterator[tuple[str, *tuple[str, ...]]]:
    """What does not go with a layered timeline, the first thing first."""
    plan, layers = scenario.plan, scenario.deployment.layers
    if layers is None:
        yield "a layered timeline needs to know how many layers there are", "deployment", "layers"
        return
    if scenario.learning.kind != "synthetic":
        yield "nothing is trained on a layered timeline; write learning: synthetic", "learning"
    if scenario.stop.rounds is None:
        yield "a layered timeline ends after so many rounds; give stop.rounds", "stop"
    yield from _without_effect(scenario, timeline)
    if scenario.peers < 2:
        yield "a layered timeline needs two peers or more: one has nobody to exchange with", "peers"
    if plan.asynchrony or plan.stays_home or plan.outer_delay or not isinstance(plan.fragments, Whole | Layers):
        yield f"a layered timeline cannot exchange {scenario.protocol.kind} layer by layer, as it is set", "protocol"
        return
    try:
        num_fragments = len(plan.fragments.layers_of(layers))
    except ValueError as error:
        yield str(error), "protocol", "fragments"
        return
    if timeline.cycle is not None and timeline.cycle < num_fragments:
        message = f"{num_fragments} fragments cannot be spread over {timeline.cycle} inner steps; take a longer cycle"
        yield message, "timeline", "cycle"
    if scenario.faults:
        yield "nothing breaks on a layered timeline; leave faults out", "faults"
    plain = NetworkSettings()
    if scenario.network.model_copy(update={"latency": plain.latency}) != plain:
        yield "a layered timeline knows one latency; leave out the rest of network", "network"
    for name, cohort in scenario.cohorts.items():
        for key, field in Cohort.model_fields.items():
            if key not in _SAID_OF_A_COHORT and getattr(cohort, key) != field.default:
                yield "a layered timeline plays no scripts and keeps machines as they are", "cohorts", name, key
