"""A small play with named actors, its clock compared with a log by hand: links, store, windows and steps."""

from __future__ import annotations

from typing import Any

from covsim.events import Gathered, OuterStepTaken, RoundSettled, Submitted, Trained, WindowOpened
from covsim.scenario import loads

PLAY = """
version: 1
name: two-peers
stop: {rounds: 1}
model: {kind: gpt, layers: 1, width: 16, heads: 1, context: 32}
training: {batch: 1}
protocol: {kind: sparseloco, inner_steps: 2, k: 64}
deployment: {preset: same, inner_step: 10 s, evaluation: 3 s, tensors: [{count: 1, shape: [64, 64]}]}
timeline: {block: 10 s, blocks_per_window: 10, put_window: 60 s, gather_timeout: 80 s, poll: 1 s}
network: {latency: 0 s}
peers: 2
cohorts:
  fast: {count: 1, uplink: 160 b/s, downlink: 80 b/s}
  slow: {count: 1, uplink: 32 b/s, downlink: 80 b/s, speed: 0.4}
validators: {lead: {stake: 1, downlink: 1 Gb/s}}
selection: {kind: all}
gauntlet: {own_sequences: 1, random_sequences: 1}
data: {held_out_sequences: 1}
"""


def test_two_peers_by_hand(play: Any) -> None:
    scenario = loads(PLAY)
    bits = 8 * scenario.payload_bytes
    events, _ = play(scenario)
    slow = next(event.uid for event in events if isinstance(event, Trained) and event.compute_s == 50.0)
    fast = 1 - slow
    log = []
    for event in events:
        if isinstance(event, WindowOpened):
            log.append((event.time_s, f"window {event.window}"))
        elif isinstance(event, Trained):
            log.append((event.time_s, f"{event.uid} trained {event.steps}"))
        elif isinstance(event, Submitted):
            log.append((event.time_s, f"{event.uid} submitted"))
        elif isinstance(event, Gathered):
            log.append((event.time_s, f"{event.node} gathered {len(event.uids)}"))
        elif isinstance(event, OuterStepTaken):
            log.append((event.time_s, f"{event.node} stepped"))
        elif isinstance(event, RoundSettled):
            log.append((event.time_s, f"{event.uid} settled"))

    first, second = 100 + bits / 160, 100 + bits / 32
    fast_sees = first + -(-(second - first) // 1)  # it polls each second since it looked first
    fast_done, slow_done = fast_sees + bits / 80, second + bits / 80
    validator_sees = 100 + -(-(second - 100) // 1)
    validator_done = validator_sees + bits / 1e9
    expected = [
        (0, "window 0"),
        (20, f"{fast} trained 2"),
        (50, f"{slow} trained 2"),
        (100, "window 1"),
        (first, f"{fast} submitted"),
        (second, f"{slow} submitted"),
        (validator_done, "validator:lead gathered 2"),
        (160 + 2 * 3, "validator:lead stepped"),
        *sorted(
            [
                (fast_done, f"peer:{fast} gathered 2"),
                (fast_done, f"peer:{fast} stepped"),
                (fast_done, f"{fast} settled"),
                (slow_done, f"peer:{slow} gathered 2"),
                (slow_done, f"peer:{slow} stepped"),
                (slow_done, f"{slow} settled"),
            ],
            key=lambda entry: entry[0],
        ),
    ]
    assert [what for _, what in log] == [what for _, what in sorted(expected, key=lambda entry: entry[0])]
    for (time_s, what), (by_hand_s, _) in zip(log, sorted(expected, key=lambda entry: entry[0]), strict=True):
        assert abs(time_s - by_hand_s) < 1e-6, f"{what} at {time_s}, by hand {by_hand_s}"
