"""Views of a run's events that the tables and the summary share, by round."""

from __future__ import annotations

from collections import defaultdict

from covsim.events import (
    CaughtUp,
    Gathered,
    ListPublished,
    NodeJoined,
    NodeLeft,
    OuterStepTaken,
    PeerCrashed,
    PeerEntered,
    RunStopped,
)
from covsim.record.columns import values
from covsim.record.recorder import LossPoint, Recorder


def settled_rounds(recorder: Recorder) -> int:
    """How many rounds the run settled before it stopped."""
    (stopped,) = recorder.of(RunStopped)
    return stopped.rounds


def lead_losses(recorder: Recorder) -> list[LossPoint]:
    """Held-out losses of the leading validator's theta, one a round; round -1 was taken before any outer step.

    The one that leads is the one of the highest stake that does not sit out; it is the first to be measured in a round.
    """
    first: dict[int, LossPoint] = {}
    for point in recorder.losses:
        if point.measured.node.startswith("validator:"):
            first.setdefault(point.measured.round, point)
    return list(first.values())


def leads(recorder: Recorder) -> dict[int, str]:
    """By round, the node of the validator that led and was measured."""
    return {point.measured.round: point.measured.node for point in lead_losses(recorder)}


def losses_of_lineages(recorder: Recorder) -> dict[int, list[float]]:
    """By round, the held-out losses of all histories that were measured after it."""
    losses: dict[int, list[float]] = defaultdict(list)
    for point in recorder.losses:
        losses[point.measured.round].append(point.measured.loss)
    return losses


def lineages(recorder: Recorder) -> dict[int, int]:
    """By round, how many different histories the nodes hold that took the outer step of that round."""
    held: dict[int, set[str]] = defaultdict(set)
    for round, lineage in values(recorder.of(OuterStepTaken), "round", "lineage"):
        held[round].add(lineage)
    return {round: len(names) for round, names in held.items()}


def lineages_at_the_end(recorder: Recorder) -> int:
    """How many different histories those hold who are there when the run stops; who never stepped has the first."""
    held = dict.fromkeys((joined.node for joined in recorder.of(NodeJoined)), "")
    moves: list[OuterStepTaken | CaughtUp] = [*recorder.of(CaughtUp), *recorder.of(OuterStepTaken)]
    held |= {move.node: move.lineage for move in sorted(moves, key=lambda move: move.time_s)}
    away = _away_at_the_end(recorder)
    return len({lineage for node, lineage in held.items() if node not in away})


def _away_at_the_end(recorder: Recorder) -> set[str]:
    """The nodes that came later, left or crashed, and have not entered since."""
    turns: list[NodeJoined | NodeLeft | PeerCrashed | PeerEntered] = [
        *(joined for joined in recorder.of(NodeJoined) if joined.time_s > 0),
        *recorder.of(NodeLeft),
        *recorder.of(PeerCrashed),
        *recorder.of(PeerEntered),
    ]
    last = {turn.node: turn for turn in sorted(turns, key=lambda turn: turn.time_s)}
    return {node for node, turn in last.items() if not isinstance(turn, PeerEntered)}


def contributors(recorder: Recorder) -> dict[int, tuple[int, ...]]:
    """By round, the peers whose payloads entered the theta of the validator that was measured."""
    leading = leads(recorder)
    return {
        round: uids
        for node, round, uids in values(recorder.of(Gathered), "node", "round", "uids")
        if node == leading.get(round, recorder.lead_node)
    }


def gather_lists(recorder: Recorder) -> dict[int, ListPublished]:
    """By settled round, the list in force when it was exchanged, in window `round + 1`."""
    published = recorder.of(ListPublished)
    in_force = {}
    for round in range(settled_rounds(recorder)):
        due = [event for event in published if event.effective_window <= round + 1]
        if due:
            in_force[round] = due[-1]
    return in_force


def place(published: ListPublished | None, uid: int) -> str:
    """`selected`, `reserve` or `none`: what a gather list says of a peer."""
    if published is None:
        return "none"
    return "selected" if uid in published.selected else "reserve" if uid in published.reserve else "none"
