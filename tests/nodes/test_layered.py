"""Layer-level timelines: closed forms of what compute hides, and what they ask of a scenario."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.digest import Digest
from covsim.events import Event, RoundSettled, Transferred
from covsim.layered_simulation import LayeredSimulation
from covsim.nodes.layered import LayerPlan
from covsim.protocol.fragments import Layers
from covsim.record.checkers import all_checkers
from covsim.record.layered_run import watched
from covsim.record.runner import resume, run
from covsim.scenario import Scenario, ScenarioError, loads, resolved_text
from covsim.scenario.deployment_presets import PRESETS
from covsim.world.layers import Segments

BASE = """
version: 1
name: layered
stop: {{rounds: {rounds}}}
learning: synthetic
deployment:
  {{preset: same, inner_step: {step} s, layers: {layers}, tensors: [{{count: {layers}, shape: [1000, 1000]}}]}}
protocol: {protocol}
timeline: {{kind: layered, {timeline}}}
network: {{latency: {latency} s}}
peers: {peers}
cohorts: {{honest: {{share: rest, uplink: {link} Mb/s, downlink: {link} Mb/s, speed: {speed}}}}}
validators: {{lead: {{stake: 1}}}}
"""
DILOCO = "{kind: diloco, inner_steps: 10, values: fp16}"
DATA_PARALLEL = "{kind: data_parallel, values: fp16}"
LAYER_BYTES = 2e6  # a million parameters in 16 bits; the envelope beside them is some 100 bytes


def scenario(**given: Any) -> Scenario:
    """A run of `layers` layers of a million parameters each."""
    defaults = {"rounds": 3, "step": 1.0, "layers": 1, "protocol": DILOCO, "timeline": "volume: 1", "latency": 0}
    links = {"peers": 2, "link": 16, "speed": 1}
    return loads(BASE.format(**{**defaults, **links, **given}))


def played(one: Scenario) -> list[Event]:
    """The events of a run, with all checkers on."""
    events: list[Event] = []
    checkers = [checker.observe for checker in all_checkers(put_window_s=1.0)]
    assert LayeredSimulation(one, (events.append, *checkers)).run()
    return events


def summary_of(one: Scenario) -> dict[str, Any]:
    """The summary of a run."""
    done = watched(one)
    assert done is not None
    return done[1]


def exchange_s(one: Scenario, link_mbit_s: float) -> float:
    """Seconds of one exchange of one layer."""
    return LayerPlan.of(one).layer_bytes * 8 / (link_mbit_s * 1e6)


def test_without_a_limit_nothing_is_lost() -> None:
    """Would catch seconds charged for anything else than bytes."""
    assert summary_of(scenario(link=1e9, layers=4))["time.compute_utilization"] == pytest.approx(1, abs=1e-7)


@given(
    steps=st.integers(1, 50),
    step_s=st.floats(0.01, 100),
    link=st.floats(0.1, 1e5),
    latency=st.sampled_from([0, 0.05, 1]),
    volume=st.floats(0.1, 10),
)
@settings(max_examples=25)
def test_diloco_in_one_layer(steps: int, step_s: float, link: float, latency: float, volume: float) -> None:
    """Nothing overlaps: H t / (H t + latency + bytes / bandwidth)."""
    protocol = f"{{kind: diloco, inner_steps: {steps}, values: fp16}}"
    one = scenario(step=step_s, link=link, protocol=protocol, latency=latency, timeline=f"volume: {volume}")
    assert LayerPlan.of(one).layer_bytes == pytest.approx(volume * LAYER_BYTES, rel=1e-3)
    compute_s = steps * step_s
    expected = compute_s / (compute_s + latency + exchange_s(one, link))
    assert summary_of(one)["time.compute_utilization"] == pytest.approx(expected, rel=1e-9)


@given(layers=st.integers(1, 12), link=st.floats(1, 1e4), share=st.floats(0.1, 0.9))
@settings(max_examples=25)
def test_data_parallel_hides_what_it_can(layers: int, link: float, share: float) -> None:
    """A step is forward, backward, and the link's queue: the first layer's gradient is sent last and needed first."""
    one = scenario(layers=layers, link=link, protocol=DATA_PARALLEL, rounds=5, timeline=f"forward_share: {share}")
    segments, each_s = Segments.of(1.0, layers, share), exchange_s(one, link)
    queued_s = layers * each_s if each_s >= segments.backward_s else (layers - 1) * segments.backward_s + each_s
    step_s = segments.forward_until(layers) + segments.backward_s + queued_s
    assert summary_of(one)["time.simulated_s"] == pytest.approx(5 * step_s, rel=1e-9)
    assert 5 * step_s >= 5 * max(1.0, layers * each_s)


@given(layers=st.integers(2, 12), link=st.floats(1, 1e4), overlap=st.sampled_from(["none", 1, 3]), data=st.data())
@settings(max_examples=25)
def test_streaming_is_never_faster_than_link_or_machine(layers: int, link: float, overlap: Any, data: Any) -> None:
    """And overlap never costs time."""
    num = data.draw(st.integers(1, layers))
    fragments = f"{{kind: layers, num: {num}}}"

    def simulated_s(overlap_steps: Any) -> float:
        protocol = f"{{kind: streaming_diloco, fragments: {fragments}, overlap_steps: {overlap_steps}, values: fp16}}"
        one = scenario(layers=layers, link=link, protocol=protocol, timeline=f"cycle: {4 * num}")
        least_s = 3 * max(4 * num * 1.0, layers * exchange_s(one, link))
        total_s = summary_of(one)["time.simulated_s"]
        assert total_s >= least_s * (1 - 1e-9)
        return float(total_s)

    assert simulated_s(overlap) <= simulated_s("none") * (1 + 1e-9)


def test_overlap_hides_an_exchange_that_is_shorter_than_a_step() -> None:
    """All but the last, which the run waits for; its layer's backward pass ends a third of a second before the step."""
    protocol = "{kind: streaming_diloco, fragments: {kind: layers, num: 2}, overlap_steps: 1, values: fp16}"
    one = scenario(layers=2, link=32, protocol=protocol, timeline="cycle: 10", rounds=4)  # half a second each
    assert exchange_s(one, 32) == pytest.approx(0.5, rel=1e-3)
    assert summary_of(one)["time.simulated_s"] == pytest.approx(40 + 0.5 - 1 / 3, rel=1e-4)


@given(num=st.integers(1, 10), more=st.integers(0, 20), cycle=st.integers(10, 60))
def test_every_layer_is_exchanged_once_in_a_cycle(num: int, more: int, cycle: int) -> None:
    """Would catch a fragment whose turn is lost to rounding."""
    layers = num + more
    protocol = f"{{kind: streaming_diloco, fragments: {{kind: layers, num: {num}}}, values: fp16}}"
    plan = LayerPlan.of(scenario(layers=layers, protocol=protocol, timeline=f"cycle: {cycle}"))
    assert len(plan.due) == cycle
    assert sorted(layer for due in plan.due for layer in due) == list(range(layers))
    assert sum(bool(due) for due in plan.due) == num
    assert all(list(due) == sorted(due, reverse=True) for due in plan.due)


def test_the_slowest_decides_and_the_others_are_idle() -> None:
    """Would catch an exchange that is over for a peer when its own part is; checkers say that spans add up."""
    one = scenario(peers=4, speed="{kind: lognormal, sigma: 0.4}", rounds=4)
    events = played(one)
    settled = [event for event in events if isinstance(event, RoundSettled)]
    spent = pd.DataFrame([(e.uid, e.compute_s, e.download_s, e.idle_s) for e in settled]).groupby(0).sum()
    slowest = spent[1].idxmax()
    assert spent.loc[slowest, 3] == pytest.approx(0, abs=1e-9)
    assert (spent.drop(slowest)[3] > 0.1).all()
    ends = {event.time_s for event in settled if event.round == 3}
    assert len(ends) == 1


def test_bytes_are_those_of_the_plan() -> None:
    """Every layer of every round crosses every peer's link, up and down."""
    one = scenario(layers=3, peers=3, rounds=2)
    moved = [event for event in played(one) if isinstance(event, Transferred)]
    assert Counter(event.direction for event in moved) == {"up": 18, "down": 18}
    each = one.payload_bytes / 3
    assert {event.num_bytes for event in moved} == {each}
    assert summary_of(one)["network.bytes_up"] == pytest.approx(18 * each)


def test_a_run_has_one_digest_and_the_usual_folder(tmp_path: Any) -> None:
    """And a twin whose links differ has another."""
    one = scenario(layers=3)
    done = run(one, resolved_text(one), out=tmp_path)
    digest = Digest()
    LayeredSimulation(one, [digest.add]).run()
    assert done.summary["digest.clock"] == digest.clock
    assert done.summary["digest.clock"] != summary_of(scenario(layers=3, link=17))["digest.clock"]
    rounds, peers = (pd.read_parquet(done.folder / f"{name}.parquet") for name in ("rounds", "peers"))
    assert rounds["steps"].tolist() == [20, 20, 20]
    # What crosses the links while a round runs is its own: the exchange of the first round does so in the second.
    assert rounds["bytes_up"].tolist() == pytest.approx([0, 2 * one.payload_bytes, 4 * one.payload_bytes])
    assert peers["compute_s"].tolist() == pytest.approx([10.0] * 6)
    assert done.summary["loss.final"] is None
    assert run(one, resolved_text(one), out=tmp_path).skipped


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"learning: synthetic": "learning: trained"}, "learning: nothing is trained on a layered timeline"),
        ({"stop: {rounds: 3}": "stop: {simulated: 1 h}"}, "stop: a layered timeline ends after so many rounds"),
        ({"peers: 2": "peers: 1"}, "peers: a layered timeline needs two peers or more"),
        ({"layers: 1,": "layers: null,"}, "deployment.layers: a layered timeline needs to know how many layers"),
        ({DILOCO: "{kind: async_diloco}"}, "protocol: a layered timeline cannot exchange async_diloco layer by layer"),
        ({DILOCO: "{kind: streaming_diloco}"}, "protocol.fragments: 1 layers cannot be dealt over 3 fragments"),
        (
            {"share: rest": "share: rest, behavior: lazy"},
            "cohorts.honest.behavior: a layered timeline plays no scripts",
        ),
        (
            {"share: rest": "share: rest, membership: {kind: until_round, round: 1}"},
            "cohorts.honest.membership: a layered timeline plays",
        ),
        ({"latency: 0 s": "latency: 0 s, jitter: {kind: uniform, most: 1 s}"}, "network: a layered timeline knows one"),
        ({"volume: 1": "volume: 0"}, "timeline.volume"),
        ({"stop: {rounds: 3}": "stop: {rounds: 3, bytes: 1 MB}"}, "stop.bytes: a layered timeline ends after"),
        ({"latency: 0 s": "latency: 0 s}\nstore: {ingress: 1 Mb/s"}, "store: a layered timeline has no store"),
        ({"volume: 1": "volume: 1, gather_timeout: 1 s"}, "timeline.gather_timeout: a layered timeline has no windows"),
    ],
)
def test_what_does_not_go_with_it_is_one_line(change: dict[str, str], line: str) -> None:
    """Would catch a section that is silently left out."""
    (old, new), *_ = change.items()
    text = resolved_text_of_base().replace(old, new)
    with pytest.raises(ScenarioError) as refused:
        loads(text)
    assert line in str(refused.value)


def resolved_text_of_base() -> str:
    """The base with its defaults filled in."""
    return BASE.format(
        rounds=3, step=1.0, layers=1, protocol=DILOCO, timeline="volume: 1", latency=0, peers=2, link=16, speed=1
    )


def test_a_cycle_too_short_for_its_fragments_is_refused() -> None:
    """Two fragments would share a step, and one of them be lost."""
    protocol = "{kind: streaming_diloco, fragments: {kind: layers, num: 4}, values: fp16}"
    with pytest.raises(ScenarioError, match="4 fragments cannot be spread over 3 inner steps"):
        scenario(layers=4, protocol=protocol, timeline="cycle: 3")


@given(layers=st.integers(1, 40), data=st.data())
def test_layers_are_dealt_once(layers: int, data: Any) -> None:
    """Strided or in sequence, each layer is in one fragment."""
    num, pattern = data.draw(st.integers(1, layers)), data.draw(st.sampled_from(["strided", "sequential"]))
    dealt = Layers(num=num, pattern=pattern).layers_of(layers)
    assert sorted(layer for fragment in dealt for layer in fragment) == list(range(layers))
    assert len(dealt) == num


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("intellect-1-10b", 10_211_381_248),
        ("opendiloco-150m", 214_983_680),
        ("opendiloco-1.1b", 1_100_048_384),
        ("streaming-1b", 10**9),
        ("streaming-10b", 10**10),
        ("streaming-100b", 10**11),
    ],
)
def test_presets_have_the_parameters_that_they_say(preset: str, parameters: int) -> None:
    """Against what the docstrings say, and the sources in billions."""
    assert sum(item["count"] * math.prod(item["shape"]) for item in PRESETS[preset]["tensors"]) == parameters


def test_a_run_that_was_cut_is_done_again(tmp_path: Any) -> None:
    """There is no checkpoint; the digest is that of a run in one go."""
    one = scenario(layers=3)
    done = run(one, resolved_text(one), out=tmp_path)
    (done.folder / "summary.json").unlink()
    again = resume(done.folder)
    assert not again.skipped
    assert again.summary["digest.clock"] == done.summary["digest.clock"]


def test_the_order_of_cohorts_changes_nothing() -> None:
    """Two kinds of machines, listed either way."""
    fast, slow = (f"{name}: {{count: 2, uplink: {rate} Mb/s}}" for name, rate in (("a", 32), ("b", 8)))
    base = resolved_text_of_base().replace("peers: 2", "peers: 4")
    line = next(each for each in base.splitlines() if each.startswith("cohorts:"))
    digests = [
        summary_of(loads(base.replace(line, f"cohorts: {{{listed}}}")))["digest.clock"]
        for listed in (f"{fast}, {slow}", f"{slow}, {fast}")
    ]
    assert digests[0] == digests[1]


def test_a_summary_says_that_nobody_learned(tmp_path: Any) -> None:
    """As that of any run without tensors. Would catch losses that look measured and are only missing."""
    one = loads(resolved_text_of_base())
    assert run(one, resolved_text(one), out=tmp_path).summary["learning"] == "synthetic"
