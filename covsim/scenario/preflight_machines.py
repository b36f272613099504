"""Machines that can never do what is asked of them, found by arithmetic: their usual pace, and no luck in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from covsim.scenario.population import PeerSpec
from covsim.scenario.rounded import time_text
from covsim.scenario.schema import Scenario
from covsim.world.slow import SmallerBatch


def machine_warnings(
    scenario: Scenario, peers: Sequence[PeerSpec], exchange_s: Callable[[PeerSpec], float]
) -> Iterator[str]:
    """Every warning about machines.

    Args:
        scenario: whose windows are meant.
        peers: whose machines.
        exchange_s: what of a window a peer's exchange takes, its compression and decoding among it.
    """
    if scenario.plan.asynchrony or not scenario.timeline.foresees:  # no step is cut, or nobody knows when
        return
    yield from _no_step(scenario, peers)
    yield from _no_batch(scenario, peers, exchange_s)
    yield from _always_late(scenario, peers)


def _no_step(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """Peers that stop with the window, and whose shortest step is longer than one."""
    steps_s = [least_step_s(scenario, peer) for peer in peers if peer.when_slow.is_cut]
    hopeless = sorted(step_s for step_s in steps_s if step_s > scenario.window_s)
    if hopeless:
        yield (
            f"{len(hopeless)} of {len(peers)} peers can never do an inner step: it takes "
            f"{time_text(hopeless[len(hopeless) // 2])} at the median of them, "
            f"a window is {time_text(scenario.window_s)}"
        )


def _no_batch(scenario: Scenario, peers: Sequence[PeerSpec], exchange_s: Callable[[PeerSpec], float]) -> Iterator[str]:
    """Peers that take a smaller batch, and whose steps do not all fit on any."""
    wanted, short = scenario.plan.inner_steps, []
    for peer in peers:
        step_s = least_step_s(scenario, peer)
        left_s = scenario.window_s - exchange_s(peer)
        if isinstance(peer.when_slow, SmallerBatch) and left_s < wanted * step_s and step_s <= scenario.window_s:
            short.append(step_s)
    if short:
        yield (
            f"{len(short)} of {len(peers)} peers cannot do all inner steps on any batch: {wanted} steps of at least "
            f"{time_text(sorted(short)[len(short) // 2])} at the median of them, and the exchange, do not fit into a "
            f"window of {time_text(scenario.window_s)}"
        )


def _always_late(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """Peers that do all steps whatever happens, and whose steps alone outlast the put window."""
    wanted, limit_s = scenario.plan.inner_steps, scenario.window_s + scenario.timeline.put_window
    late = [wanted * step_seconds(scenario, peer) for peer in peers if not peer.when_slow.is_cut]
    late = sorted(steps_s for steps_s in late if steps_s >= limit_s)
    if late:
        yield (
            f"{len(late)} of {len(peers)} peers are late in every round: {wanted} inner steps take "
            f"{time_text(late[len(late) // 2])} at the median of them, window and put window {time_text(limit_s)}"
        )


def step_seconds(scenario: Scenario, peer: PeerSpec) -> float:
    """Seconds of an inner step of a peer on a whole batch."""
    return scenario.inner_step_s / peer.speed


def least_step_s(scenario: Scenario, peer: PeerSpec) -> float:
    """Seconds of an inner step of a peer on the batch that takes the least time."""
    policy, whole_s = peer.when_slow, step_seconds(scenario, peer)
    return whole_s * policy.least_share(scenario.training.batch) if isinstance(policy, SmallerBatch) else whole_s
