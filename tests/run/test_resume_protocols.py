"""Interrupted runs of every sort of protocol go on to the same bits: own weights, buffers and uploads half done."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_protocol_runs import under
from test_resume import assert_equal, begin, num_events

from covsim.events import Event, OuterStepTaken, Submitted, Trained
from covsim.record.checkpoint import Checkpoint, newest_checkpoint
from covsim.record.runner import Interrupted, resume, run
from covsim.scenario import Scenario, population

When = Callable[[Event], bool]

PROTOCOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "streaming": ("streaming_diloco", {"overlap_steps": 1}),
    "delayed": ("diloco", {"outer_delay": 2}),
    "streaming, waiting": ("streaming_diloco", {"overlap_steps": "none", "mixing": 0.3}),
    "async": ("async_diloco", {"buffer": 12}),
    "sparta": ("sparta", {"share": 0.1}),
    "demo": ("demo", {}),
    "landed": ("sparseloco", {"error_commit": "landed"}),
    "by hand": (
        "composed",
        {
            "compressor": {"kind": "random_k"},
            "values": "fp4",
            "fragments": {"kind": "random", "share": 0.3},
            "overlap_steps": 2,
            "mixing": 0.5,
            "outer": {"kind": "adam", "lr": 0.01},
        },
    ),
}


def scenario_of(tiny: Scenario, name: str) -> Scenario:
    """Six rounds, links fit for the protocol's bytes, and a flipper that is as slow as two and a half windows."""
    kind, settings = PROTOCOLS[name]
    scenario = under(tiny, kind)
    whole = {**scenario.protocol.model_dump(mode="json"), **settings}
    flippers = scenario.cohorts["flippers"]
    slow = flippers.model_copy(update={"speed": flippers.speed.model_copy(update={"value": 0.2})})
    return scenario.model_copy(
        update={
            "protocol": type(scenario.protocol).model_validate_json(json.dumps(whole)),
            "cohorts": {**scenario.cohorts, "flippers": slow} if name == "async" else scenario.cohorts,
            "stop": scenario.stop.model_copy(update={"rounds": 6}),
            "record": scenario.record.model_copy(update={"checkpoint": 3600.0}),
            "compute": scenario.compute.model_copy(update={"threads": 1}),
        }
    )


@pytest.fixture(scope="module")
def uninterrupted(tiny: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a protocol's whole run; played once."""
    known: dict[str, Path] = {}

    def whole(name: str) -> Path:
        if name not in known:
            known[name] = run(scenario_of(tiny, name), "text", out=tmp_path_factory.mktemp("whole")).folder
        return known[name]

    return whole


class Press:
    """An observer that presses Ctrl-C at the first event for which `when` holds; the run is cut where it can be."""

    def __init__(self, when: When) -> None:
        self._when, self._pressed = when, False

    def __call__(self, event: Event) -> None:
        if not self._pressed and self._when(event):
            self._pressed = True
            os.kill(os.getpid(), signal.SIGINT)


def event_number(number: int) -> When:
    """The event that is so many after the first."""
    left = iter(range(number))
    return lambda _: next(left, None) is None


def interrupted(scenario: Scenario, out: Path, when: When) -> tuple[Path, Checkpoint]:
    """The folder of a run that was interrupted, and what it has saved."""
    with pytest.raises(Interrupted) as caught:
        run(scenario, "text", out=out, observers=[Press(when)])
    return caught.value.folder, saved(caught.value.folder)


def saved(folder: Path) -> Checkpoint:
    checkpoint = newest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    return checkpoint


@pytest.mark.parametrize("name", PROTOCOLS)
def test_resumes_from_any_instant(name: str, tiny: Scenario, uninterrupted: Any, tmp_path: Path) -> None:
    """Cut three times, at a third, at a half and near the end, and every time somewhere in a round."""
    whole = uninterrupted(name)
    total = num_events(whole)
    folder, first = interrupted(scenario_of(tiny, name), tmp_path, event_number(total // 3))
    assert total // 3 <= first.num_events < total // 2
    for cut in (total // 2, total * 9 // 10):
        with pytest.raises(Interrupted):
            resume(folder, observers=[Press(event_number(cut))])
        assert saved(folder).num_events >= cut
    resume(folder)
    assert_equal(folder, whole)


@pytest.mark.parametrize("kind", [Trained, Submitted, OuterStepTaken])
def test_own_weights_live_across_a_checkpoint(
    kind: type[Event], tiny: Scenario, uninterrupted: Any, tmp_path: Path
) -> None:
    """Streaming: as steps end, with uploads under way beside them, and as fragments meet own weights."""

    def when(event: Event) -> bool:
        return isinstance(event, kind) and event.round == 2  # type: ignore[attr-defined]

    folder, checkpoint = interrupted(scenario_of(tiny, "streaming"), tmp_path, when)
    assert checkpoint.trainer["values"], "no weights were alive"
    resume(folder)
    assert_equal(folder, uninterrupted("streaming"))


def test_an_upload_under_way_is_settled_after_the_checkpoint(
    tiny: Scenario, uninterrupted: Any, tmp_path: Path
) -> None:
    """The late peer is uploading as the run is cut, in vain: all of its update goes back into its error buffer."""
    whole = uninterrupted("landed")
    scenario = scenario_of(tiny, "landed")
    late_s = 2 * scenario.window_s + 301.0  # its upload for round 1 begins 300 s after the window
    folder, checkpoint = interrupted(scenario, tmp_path, lambda event: event.time_s > late_s)
    (late,) = (spec.uid for spec in population(scenario) if spec.cohort == "late")
    assert late in checkpoint.feedback["unsettled"]
    assert set(checkpoint.feedback["unsettled"]) < set(checkpoint.feedback["buffers"])
    resume(folder)
    assert_equal(folder, whole)


def test_when_what_was_sent_is_committed_shows(tiny: Scenario, play: Any) -> None:
    """The late peer's second payload holds its first one again; whoever is on time sends the same as ever."""
    scenario = scenario_of(tiny, "landed")
    at_once = scenario.model_copy(
        update={"protocol": scenario.protocol.model_copy(update={"error_commit": "compressed"})}
    )
    sent = []
    for each in (scenario, at_once):
        events, _ = play(each)
        sent.append(
            {(e.uid, e.round, e.on_time): e.payload_sha256 for e in events if isinstance(e, Submitted) and e.round < 2}
        )
    differ = {key for key in sent[0] if sent[0][key] != sent[1][key]}
    assert differ
    assert all(round == 1 and not on_time for _, round, on_time in differ)


@pytest.mark.parametrize(
    "name", [name if name == "streaming" else pytest.param(name, marks=pytest.mark.slow) for name in PROTOCOLS]
)
def test_resumes_after_a_kill(name: str, tiny: Scenario, uninterrupted: Any, tmp_path: Path) -> None:
    """With SIGKILL, in a process of its own, and from whatever checkpoint is the last."""
    whole = uninterrupted(name)
    scenario = scenario_of(tiny, name)
    often = scenario.model_copy(update={"record": scenario.record.model_copy(update={"checkpoint": 0.0005})})
    code, folder = begin(often, tmp_path, num_events(whole) * 6 // 10, "SIGKILL")
    assert code == -signal.SIGKILL
    assert saved(folder).num_events > num_events(whole) // 10
    resume(folder)
    assert_equal(folder, whole)
