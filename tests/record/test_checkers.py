"""Every checker is silent on a run that keeps the rules, and speaks up when one rule of it is broken."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from synthetic import BLOCKS, PUT_S, play

from covsim.events import (
    EpochSettled,
    Evaluated,
    Event,
    Exchanged,
    Gathered,
    HeldOutMeasured,
    LinkVaried,
    ListPublished,
    NodeJoined,
    OuterStepTaken,
    RoundSettled,
    RunStopped,
    Scored,
    Submitted,
    Trained,
    Transferred,
    WeightsSet,
    WindowOpened,
)
from covsim.record import checkers

RUN = play(num_peers=24, rounds=4)


def observe(events: list[Event], checker: checkers.Checker | None = None) -> None:
    watching = [checker] if checker is not None else checkers.all_checkers(put_window_s=PUT_S)
    for event in events:
        for one in watching:
            one.observe(event)


def broken(kind: type[Event], which: Callable[[Any], bool] = lambda event: True, **changed: Any) -> list[Event]:
    """The run with the last event of a type, for which `which` holds, changed."""
    position = max(i for i, event in enumerate(RUN) if type(event) is kind and which(event))
    event = RUN[position]
    values = {name: value(event) if callable(value) else value for name, value in changed.items()}
    return [*RUN[:position], replace(event, **values), *RUN[position + 1 :]]


def without(kind: type[Event], which: Callable[[Any], bool] = lambda event: True) -> list[Event]:
    position = max(i for i, event in enumerate(RUN) if type(event) is kind and which(event))
    return RUN[:position] + RUN[position + 1 :]


def last(kind: type[Event]) -> Any:
    return next(event for event in reversed(RUN) if type(event) is kind)


def opened_s(window: int) -> float:
    return next(event.time_s for event in RUN if isinstance(event, WindowOpened) and event.window == window)


def late_uid(round: int) -> int:
    return next(
        event.uid for event in RUN if isinstance(event, Submitted) and event.round == round and not event.on_time
    )


def unlisted_uid(round: int) -> int:
    published = [event for event in RUN if isinstance(event, ListPublished) and event.effective_window <= round + 1][-1]
    listed = {*published.selected, *published.reserve}
    on_time = [event for event in RUN if isinstance(event, Submitted) and event.round == round and event.on_time]
    return next(event.uid for event in on_time if event.uid not in listed)


def test_a_run_that_keeps_the_rules_passes() -> None:
    observe(RUN)


def test_every_checker_is_in_the_set() -> None:
    defined = {cls for cls in vars(checkers).values() if isinstance(cls, type) and issubclass(cls, checkers.Checker)}
    assert defined - {checkers.Checker} == {type(one) for one in checkers.all_checkers(put_window_s=PUT_S)}


BREAKS = {
    "time goes back": (
        checkers.TimeNeverGoesBack(),
        broken(Scored, time_s=lambda event: event.time_s - 3000.0),
        "time went back",
    ),
    "time is no number": (checkers.TimeNeverGoesBack(), broken(Scored, time_s=float("nan")), "Scored at nan s"),
    "a transfer ends before it began": (
        checkers.TimeNeverGoesBack(),
        broken(Transferred, started_s=lambda event: event.time_s + 1.0),
        "ended before it began",
    ),
    "a stamp from the future": (
        checkers.TimeNeverGoesBack(),
        broken(Submitted, stored_s=lambda event: event.time_s + 1.0),
        "stamp lies in the future",
    ),
    "a link carries more than its own rate": (
        checkers.LinksAreNotExceeded(),
        [*RUN, LinkVaried(last(RunStopped).time_s, "peer:3", "up", 1e12, 1e9)],
        "more than the",
    ),
    "an upload becomes nothing": (
        checkers.BytesAreConserved(),
        without(Submitted),
        "uploads that became no submission",
    ),
    "a submission without an upload": (
        checkers.BytesAreConserved(),
        without(Transferred, lambda event: event.purpose == "submit"),
        "no upload of that size",
    ),
    "a submission grows on the way": (
        checkers.BytesAreConserved(),
        broken(Submitted, num_bytes=lambda event: event.num_bytes * 1.01),
        "no upload of that size",
    ),
    "a download grows on the way": (
        checkers.BytesAreConserved(),
        broken(Transferred, lambda event: event.direction == "down", num_bytes=lambda event: event.num_bytes * 1.01),
        "bytes: Transferred",
    ),
    "a cut download has more than there is": (
        checkers.BytesAreConserved(),
        broken(Transferred, lambda event: event.direction == "down", complete=False, num_bytes=1e12),
        "more was cut",
    ),
    "a download of nothing": (
        checkers.BytesAreConserved(),
        broken(Transferred, lambda event: event.direction == "down", key="round-0/uid-999"),
        "nobody had stored",
    ),
    "negative bytes": (checkers.BytesAreConserved(), broken(Transferred, num_bytes=-1.0), "negative bytes"),
    "an upload faster than its link": (
        checkers.LinksAreNotExceeded(),
        broken(Transferred, lambda event: event.direction == "up", started_s=lambda event: event.time_s - 10.0),
        "its link allows",
    ),
    "downloads together faster than the link": (
        checkers.LinksAreNotExceeded(),
        broken(Transferred, lambda e: e.direction == "down", num_bytes=lambda event: event.num_bytes * 1.01),
        "its link allows",
    ),
    "a stranger moves bytes": (checkers.LinksAreNotExceeded(), broken(Transferred, node="peer:999"), "never joined"),
    "late, yet it counts": (
        checkers.StampsDecide(PUT_S),
        broken(Submitted, lambda event: not event.on_time, on_time=True),
        "stamp says otherwise",
    ),
    "on time, yet it does not count": (
        checkers.StampsDecide(PUT_S),
        broken(Submitted, lambda event: event.on_time, on_time=False),
        "stamp says otherwise",
    ),
    "the window is closed at its end": (
        checkers.StampsDecide(PUT_S),
        broken(Submitted, stored_s=lambda event: opened_s(event.round + 1) + PUT_S, on_time=True),
        "stamp says otherwise",
    ),
    "the window is open before it opens": (
        checkers.StampsDecide(PUT_S),
        broken(Submitted, stored_s=lambda event: opened_s(event.round + 1) - 0.001, on_time=True),
        "stamp says otherwise",
    ),
    "evaluated with an invented stamp": (
        checkers.StampsDecide(PUT_S),
        broken(Evaluated, lambda event: event.status == "ok", stored_s=lambda event: event.stored_s + 0.5),
        "store never gave",
    ),
    "a late one is evaluated": (
        checkers.StampsDecide(PUT_S),
        broken(Evaluated, lambda event: event.status == "late", status="ok"),
        "was not on time",
    ),
    "one on time is called late": (
        checkers.StampsDecide(PUT_S),
        broken(Evaluated, lambda event: event.status == "ok", status="late"),
        "it was on time",
    ),
    "a late payload enters": (
        checkers.OnlyPassedPayloadsEnter(),
        broken(Gathered, uids=lambda event: (*event.uids, late_uid(event.round))),
        "not on time",
    ),
    "an unlisted payload enters": (
        checkers.OnlyPassedPayloadsEnter(),
        broken(Gathered, uids=lambda event: (*event.uids, unlisted_uid(event.round))),
        "without being listed",
    ),
    "a payload enters twice": (
        checkers.OnlyPassedPayloadsEnter(),
        broken(Gathered, uids=lambda event: (*event.uids, event.uids[0])),
        "gathered twice",
    ),
    "aborted, yet somebody entered": (
        checkers.OnlyPassedPayloadsEnter(),
        broken(Gathered, outcome="aborted"),
        "outcome and uids disagree",
    ),
    "an outer step without a gather": (
        checkers.OnlyPassedPayloadsEnter(),
        without(Gathered),
        "outer step without a gather",
    ),
    "a uid is listed twice": (
        checkers.OnlyPassedPayloadsEnter(),
        broken(ListPublished, selected=lambda event: (*event.selected, event.reserve[0])),
        "on the list twice",
    ),
    "a list for the past": (
        checkers.OnlyPassedPayloadsEnter(),
        broken(ListPublished, effective_window=0),
        "may not change the past",
    ),
    "a negative weight": (
        checkers.WeightsAreShares(),
        broken(Scored, weights=((0, -0.5), (1, 1.0)), burned=0.5),
        "outside",
    ),
    "an epoch pays for blocks that are paid": (
        checkers.TokensAreConserved(),
        broken(EpochSettled, blocks=BLOCKS + 1),
        "paid twice or never",
    ),
    "an epoch pays more than its blocks emit": (
        checkers.TokensAreConserved(),
        broken(EpochSettled, burned=lambda event: event.burned + 1.0),
        "a block emits",
    ),
    "an epoch takes": (checkers.TokensAreConserved(), broken(EpochSettled, owner=-1.0), "negative payment"),
    "weights on chain above 1": (
        checkers.WeightsAreShares(),
        broken(WeightsSet, weights=((0, 0.9),), burned=0.2),
        "sum to 1.1",
    ),
    "weights above 1": (checkers.WeightsAreShares(), broken(Scored, weights=((0, 0.9),), burned=0.2), "sum to 1.1"),
    "weights below 1": (checkers.WeightsAreShares(), broken(Scored, weights=((0, 0.4),), burned=0.5), "sum to 0.9"),
    "a weight that is no number": (
        checkers.WeightsAreShares(),
        broken(Scored, weights=((0, float("nan")),), burned=0.5),
        "outside",
    ),
    "two weights for one": (
        checkers.WeightsAreShares(),
        broken(Scored, weights=((0, 0.25), (0, 0.25)), burned=0.5),
        "two weights",
    ),
    "equal histories part": (
        checkers.EqualHistoriesAgree(),
        broken(OuterStepTaken, lineage="another"),
        "equal histories",
    ),
    "different payloads, same lineage": (
        checkers.EqualHistoriesAgree(),
        broken(Gathered, uids=lambda event: event.uids[1:]),
        "seen other payloads",
    ),
    "equal lineages, different losses": (
        checkers.EqualHistoriesAgree(),
        [*RUN, replace(last(HeldOutMeasured), loss=1.0)],
        "had loss",
    ),
    "spans do not add up": (
        checkers.SpansAddUp(),
        broken(RoundSettled, idle_s=lambda event: event.idle_s + 1.0),
        "do not add up",
    ),
    "a negative span": (
        checkers.SpansAddUp(),
        broken(
            RoundSettled,
            idle_s=-1.0,
            idle_other_s=-1.0,
            compute_s=lambda event: event.compute_s + event.idle_s + 1.0,
        ),
        "negative span",
    ),
    "a second between two rounds": (
        checkers.SpansAddUp(),
        broken(
            RoundSettled,
            started_s=lambda event: event.started_s + 1.0,
            compute_s=lambda event: event.compute_s - 1.0,
        ),
        "the last round was settled at",
    ),
    "a direct exchange loses bytes": (
        checkers.BytesAreConserved(direct=True),
        [
            Exchanged(9.0, "peer:0", 0, "ring", 100.0, 90.0, 5.0, True),
            Exchanged(9.0, "peer:1", 0, "ring", 90.0, 90.0, 5.0, True),
            RunStopped(10.0, 1, "rounds"),
        ],
        "sent 190, received 180",
    ),
    "a direct exchange faster than a link": (
        checkers.LinksAreNotExceeded(),
        [
            NodeJoined(0.0, "peer:0", 0, "honest", "honest", 80.0, 80.0, 1.0),
            Exchanged(9.0, "peer:0", 0, "ring", 40.0, 41.0, 5.0, True),
        ],
        "its link allows 320",
    ),
    "a round is settled again": (
        checkers.SpansAddUp(),
        broken(RoundSettled, round=0),
        "settled again",
    ),
    "more steps than wanted": (
        checkers.SpansAddUp(),
        broken(Trained, steps=lambda event: event.wanted + 1),
        "steps out of bounds",
    ),
    "two outer steps in one round": (
        checkers.SpansAddUp(),
        broken(OuterStepTaken, round=lambda event: event.round - 1),
        "two outer steps",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_breaking_its_rule_is_noticed(name: str) -> None:
    checker, events, message = BREAKS[name]
    with pytest.raises(AssertionError, match=message):
        observe(events, checker)


def test_every_checker_has_a_test_that_breaks_its_rule() -> None:
    broken_ones = {type(checker) for checker, _, _ in BREAKS.values()}
    assert broken_ones == {type(one) for one in checkers.all_checkers(put_window_s=PUT_S)}


def test_upload_that_ends_with_the_run_may_go_unnoticed() -> None:
    """The peer learns of it only after the run has stopped."""
    stop = last(RunStopped)
    ending = Transferred(stop.time_s, "peer:0", "round-4/uid-0", "submit", "up", 5.0, stop.time_s - 1, True)
    observe([*RUN[:-1], ending, stop], checkers.BytesAreConserved())


def test_overwritten_payload_may_be_read_in_both_versions() -> None:
    """Events do not tell which version a node read, so two lineages may have gathered the same uids."""
    step = last(OuterStepTaken)
    (gathered,) = [e for e in RUN if isinstance(e, Gathered) and (e.node, e.round) == (step.node, step.round)]
    first = next(e for e in RUN if isinstance(e, Submitted) and (e.uid, e.round) == (gathered.uids[0], step.round))
    parted = broken(OuterStepTaken, lineage="another")
    with pytest.raises(AssertionError, match="equal histories"):
        observe(parted, checkers.EqualHistoriesAgree())
    position = parted.index(first) + 1
    parted.insert(position, replace(first, payload_sha256="second version"))
    observe(parted, checkers.EqualHistoriesAgree())
