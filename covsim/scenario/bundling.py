"""What stands in the way of bundled transfers, said before a run starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covsim.scenario.schema import Scenario


def refusal(scenario: Scenario) -> str | None:
    """Why transfers of a scenario cannot be bundled: what makes peers wait for each other's bytes; None if they can."""
    store, plan = scenario.store, scenario.plan
    reasons = {
        "store.ingress": store.ingress is not None,
        "store.egress": store.egress is not None,
        "store.read_failure": store.read_failure > 0,
        "store.outages": bool(store.outages),
        "faults": bool(scenario.faults),
        "a protocol that overlaps exchanges with training": plan.in_background,
        "an asynchronous protocol": plan.asynchrony is not None,
        "a timeline that is not windowed": scenario.timeline.kind != "windowed",
        **_of_network(scenario),
    }
    return next((name for name, holds in reasons.items() if holds), None)


def refusal_of_company(scenario: Scenario) -> str | None:
    """Why rounds of a scenario cannot be worked out together: what makes a peer look at others; None if they can be."""
    plan, stop = scenario.plan, scenario.stop
    reasons = {
        "compute.transfers: single": scenario.compute.transfers == "single",
        "a topology other than the store": scenario.topology.direct,
        "a protocol whose peers keep weights of their own": plan.keeps_own_weights,
        "selection.delay_windows: 0, where lists change in an open window": scenario.selection.delay_windows == 0,
        "stop.tokens": stop.tokens is not None,
        "stop.bytes": stop.bytes is not None,
        "chain.log: payload_hashes": "payload_hashes" in scenario.chain.log,
        "a timeline.gather_timeout that is not longer than its put_window": (
            scenario.timeline.gather_timeout <= scenario.timeline.put_window
        ),
    }
    for name, cohort in scenario.cohorts.items():
        reasons[f"cohort {name!r}, who come and go"] = cohort.membership.kind != "always"
        reasons[f"cohort {name!r}, who look at others' payloads"] = cohort.behavior.knowledge != "own"
    return next((name for name, holds in reasons.items() if holds), None)


def _of_network(scenario: Scenario) -> dict[str, bool]:
    """Settings of links that make a request more than latency + bytes / rate."""
    plain_network = type(scenario.network)().model_copy(update={"latency": scenario.network.latency})
    plain_store = type(scenario.store)()
    reasons = {"network beyond its latency": scenario.network != plain_network}
    for name in ("ranges", "rate_limit", "region"):
        reasons[f"store.{name}"] = getattr(scenario.store, name, None) != getattr(plain_store, name, None)
    varies = any(
        getattr(node, name, None) is not None
        for node in (*scenario.cohorts.values(), *scenario.validators.values())
        for name in ("varies", "uplink_varies", "downlink_varies")
    )
    return reasons | {"links that vary": varies}
