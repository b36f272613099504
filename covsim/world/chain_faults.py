"""Faults of the chain: blocks that do not come, or late. They move windows, so they are worked out before a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from covsim.randomness import Streams
from covsim.world.clock import BlockTimes, Timeline, Windowed
from covsim.world.faults import UNTIL_THE_END, Fault, FaultVerbs, Harm, Targets, faults
from covsim.world.pauses import Pause, pause_of


@faults.register
class ChainStall(Fault):
    """The chain seals no block, so that all windows come later; the store's clock goes on.

    By rounds, it begins when the block is sealed that opens the exchange of `from_round`, and lasts as many windows as
    there are rounds to `to_round`. The same as an entry of `timeline.stalls`, with a label and events.

    Source: one-covenant/templar counts windows in blocks of the chain, so a chain that halts halts them.
    """

    strikes: ClassVar[Literal["chain"]] = "chain"
    kind: Literal["chain_stall"] = "chain_stall"

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        yield UNTIL_THE_END  # the clock has known of it since before the run


@faults.register
class LateBlock(Fault):
    """A block is late by as long as the fault `lasts`, and all that follow with it.

    It is the first block from `at` on; by rounds, or at a rate, the one that opens the window of a round's exchange.

    Source: a slot in which the block's author is missing.
    """

    strikes: ClassVar[Literal["chain"]] = "chain"
    lasts_says_how_much: ClassVar[bool] = True
    kind: Literal["late_block"] = "late_block"

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        yield UNTIL_THE_END


def chain_pauses(
    chain_faults: Sequence[tuple[str, Fault]], timeline: Timeline, num_rounds: int, streams: Streams
) -> dict[str, list[Pause]]:
    """When each fault of the chain makes it rest, by label.

    Args:
        chain_faults: labels and faults, of the kinds above.
        timeline: with the stalls that the scenario names itself.
        num_rounds: rounds for which a rate is drawn, from `("fault", label, "chain", round)`.
        streams: of the scenario's seed.
    """
    pauses: dict[str, list[Pause]] = {label: [] for label, _ in chain_faults}
    by_time = [(label, fault) for label, fault in chain_faults if fault.at is not None]
    for label, fault in sorted(by_time, key=lambda entry: entry[1].at or 0.0):
        assert fault.lasts is not None
        begins_s = _at(fault, BlockTimes(with_stalls(timeline, pauses)))
        pauses[label].append(pause_of(begins_s, fault.lasts))
    # By round, and each on the clock that those before have put back; the later ones do not move the earlier.
    by_round = [
        (round, label, fault)
        for label, fault in chain_faults
        if fault.at is None
        for round in _rounds(fault, num_rounds)
        if fault.rate is None or streams.uniform("fault", label, "chain", round) < fault.rate
    ]
    for round, label, fault in sorted(by_round, key=lambda entry: entry[:2]):
        times = BlockTimes(with_stalls(timeline, pauses))
        pauses[label].append(_in_round(round, label, fault, times, streams))
    return pauses


def with_stalls(timeline: Timeline, pauses: dict[str, list[Pause]]) -> Timeline:
    """The timeline on which the chain rests for all of these, and for its own stalls; where they overlap, once."""
    every = [*timeline.stalls, *(pause for own in pauses.values() for pause in own)]
    merged: list[tuple[float, float]] = []
    for pause in sorted(every, key=lambda pause: (pause.at, pause.lasts)):
        if merged and pause.at < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], pause.ends_s))
        else:
            merged.append((pause.at, pause.ends_s))
    untouched = {(pause.at, pause.ends_s): pause for pause in every}  # what was not merged keeps its last bit
    stalls = [untouched.get(span) or pause_of(span[0], span[1] - span[0]) for span in merged]
    return timeline.model_copy(update={"stalls": stalls})


def _at(fault: Fault, times: BlockTimes) -> float:
    """When a fault begins that names a second."""
    assert fault.at is not None
    if isinstance(fault, LateBlock):
        height = max(1, times.height_at(fault.at))  # block 0 opens the run and cannot be late
        return times.block_at(height if times.block_at(height) >= fault.at else height + 1)
    return max(fault.at, math.nextafter(0.0, 1.0))


def _rounds(fault: Fault, num_rounds: int) -> Iterable[int]:
    first, end = fault.from_round or 0, num_rounds if fault.to_round is None else min(fault.to_round, num_rounds)
    if fault.rate is None and isinstance(fault, ChainStall):
        return range(first, min(first + 1, end))  # one stall for all its rounds
    return range(first, end)


def _in_round(round: int, label: str, fault: Fault, times: BlockTimes, streams: Streams) -> Pause:
    """The rest that a fault causes in the window in which a round's payloads are exchanged."""
    timeline = times.timeline
    assert isinstance(timeline, Windowed), "rounds name windows that are known before the run"
    block = (round + fault.window_of_round) * timeline.blocks_per_window
    if fault.lasts_says_how_much:
        assert fault.lasts is not None
        return pause_of(times.block_at(block), fault.lasts)
    if fault.rate is not None:
        block += int(streams.uniform("fault when", label, "chain", round) * timeline.blocks_per_window)
    end = round + 1 if fault.rate is not None or fault.to_round is None else fault.to_round
    lasts_s = fault.lasts or (end - round) * timeline.blocks_per_window * timeline.block
    # Behind the block, not at its second: a block that is due when a stall begins would wait for its end.
    return pause_of(times.block_at(block) + timeline.block / 2, lasts_s)
