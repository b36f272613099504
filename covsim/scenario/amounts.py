"""What a scenario's deployment and machines amount to: parameters, memory, work of an inner step, utilization of GPUs.

Lines for people, shown below a resolved scenario. All of it is arithmetic over what the scenario says and the seed
draws; where something is not known, a line says so instead of guessing.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from covsim.scenario.deployment import compression, num_parameters
from covsim.scenario.deployment_figures import BYTES_OF, Memory, memory
from covsim.scenario.deployment_presets import GPU_OF, PEAK_OF
from covsim.scenario.inner_step import FlopsStep, flop_of_step
from covsim.scenario.population import PeerSpec, population
from covsim.scenario.rounded import flops_text, size_text, time_text
from covsim.scenario.schema import Scenario

_CALLED = {"master": "fp32 copy", "moments": "Adam's moments", "theta": "last theta", "error_buffer": "error buffer"}


def amounts(scenario: Scenario) -> list[str]:
    """The figures of a scenario, a line each, without a module of the user's being loaded."""
    if not scenario.size_is_known:
        return ["parameters: those of a module of yours, which only a run loads; name deployment.tensors to see more"]
    return [*_of_memory(scenario), *_of_a_step(scenario), *_of_machines(scenario)]


def peak_flop_per_s(scenario: Scenario) -> tuple[float, str] | None:
    """What all GPUs of a machine of speed 1 could do in FLOP/s, and their name; None where that is not known.

    It is what `inner_step` states, where that says what its seconds follow from, and else that of the preset's GPU.
    """
    deployment = scenario.deployment
    if deployment.gpus is None:
        return None
    name = GPU_OF.get(deployment.preset)
    peak = None if name is None else PEAK_OF[name]
    if isinstance(deployment.inner_step, FlopsStep) and deployment.inner_step.peak != peak:
        name, peak = "GPUs", deployment.inner_step.peak
    return None if peak is None else (peak * deployment.gpus, f"{deployment.gpus} {name}")


def tokens_of_step(scenario: Scenario) -> int | None:
    """D, tokens of an inner step of what is charged for; None where its tensors are named and their tokens are not."""
    known = scenario.deployment.tokens_per_step
    return scenario.tokens_per_step if known is None and not scenario.deployment.tensors else known


def _of_memory(scenario: Scenario) -> Iterator[str]:
    parameters, gpus = num_parameters(scenario.charged_tensors), scenario.deployment.gpus
    held = memory(parameters, scenario.plan.error_feedback is not None)
    yield f"parameters: {parameters:,}, as charged ({scenario.deployment.preset})"
    each = "" if gpus in (None, 1) else f", {size_text(held.total / gpus)} on each of {gpus} GPUs if spread evenly"
    yield f"memory of a peer: {size_text(held.total)} without activations{each}"
    yield f"  {_parts(held)}"
    if scenario.payload_bytes:
        ratio = f"{compression(parameters, scenario.payload_bytes):.3g}"
        than = f", {ratio} times less than all of it in fp32" if ratio != "1" else ", all of it in fp32"
        yield f"payload: {size_text(scenario.payload_bytes)} a round{than}"


def _parts(held: Memory) -> str:
    names = {name: getattr(held, name) for name in BYTES_OF}
    return ", ".join(f"{_CALLED.get(name, name)} {size_text(size)}" for name, size in names.items() if size)


def _of_a_step(scenario: Scenario) -> Iterator[str]:
    parameters, tokens, step_s = (
        num_parameters(scenario.charged_tensors),
        tokens_of_step(scenario),
        scenario.inner_step_s,
    )
    yield f"inner step: {time_text(step_s)} on a machine of speed 1"
    if tokens is None:
        yield "  its tokens are not known, and so neither its FLOP nor any utilization; deployment.tokens_per_step says"
        return
    flop = flop_of_step(parameters, tokens)
    yield f"  {flop:.4g} FLOP: 6 x {parameters:,} parameters x {tokens:,} tokens (6 N D, arXiv 2001.08361)"
    yield f"  {_rate(scenario, flop / step_s)}"


def _of_machines(scenario: Scenario) -> Iterator[str]:
    """Of each cohort whose machines are not all of speed 1."""
    peers = population(scenario)
    for name in sorted({peer.cohort for peer in peers}):
        own = [peer for peer in peers if peer.cohort == name]
        if any(peer.speed != 1 for peer in own):
            yield from _of_cohort(scenario, name, own)


def _of_cohort(scenario: Scenario, name: str, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """The fastest machine, the median and the slowest; one number where they are alike."""
    drawn = sorted(peer.speed for peer in peers)
    speeds = list(dict.fromkeys((drawn[-1], statistics.median(drawn), drawn[0])))
    times = " / ".join(time_text(scenario.inner_step_s / speed) for speed in speeds)
    which = " on the fastest, the median and the slowest" if len(speeds) == 3 else ""
    yield f"machines of {name}: an inner step takes {times}{which} of {len(peers)}"
    tokens, peak = tokens_of_step(scenario), peak_flop_per_s(scenario)
    if tokens is not None:
        usual = flop_of_step(num_parameters(scenario.charged_tensors), tokens) / scenario.inner_step_s
        rates = [usual * speed for speed in speeds]
        yield f"  {' / '.join(map(flops_text, rates))}{'' if peak is None else f': {_shares(rates, *peak)}'}"


def _rate(scenario: Scenario, flop_per_s: float) -> str:
    """Work in a second, and what part of the machine's peak that is."""
    peak = peak_flop_per_s(scenario)
    if peak is None:
        return f"{flops_text(flop_per_s)} of the whole machine; which GPUs it has is not known"
    return f"{flops_text(flop_per_s)}: {_shares([flop_per_s], *peak)}, which could do {flops_text(peak[0])}"


def _shares(rates: Sequence[float], could: float, named: str) -> str:
    """Utilizations; it is marked if one of them cannot be."""
    mark = ", more than they can" if max(rates) > could else ""
    return f"{' / '.join(f'{100 * rate / could:.3g} %' for rate in rates)} of {named}{mark}"
