"""What `covsim plan` does: say what a scenario would take, what binds it, and what would have to change."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from covsim.scenario import Scenario
from covsim.sweep.plan import CannotPlan, RoundPlan, plan, read_prices
from covsim.units import format_duration

OK, BAD_INPUT = 0, 2
PARTS = {
    "compute": "compute",
    "upload": "upload",
    "gather": "gather",
    "blocked": "training waits for them",
    "idle": "waits for the window",
    "evaluation": "a validator's work after the put window",
}
_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def show_plan(scenario: Scenario, target: str | None, prices: list[str], as_json: bool, figures: Path | None) -> int:
    """Print the plan, and draw its figures if asked; returns an exit code."""
    try:
        answer = plan(scenario, target, read_prices(prices) if prices else None)
        if figures is not None:
            from covsim.sweep.plan.figures import draw

            drawn = draw(scenario, figures)
    except CannotPlan as problem:
        print(problem, file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"{error.filename or figures}: cannot be written: {error.strerror}", file=sys.stderr)
        return BAD_INPUT
    print(json.dumps(answer.as_data(), indent=2, allow_nan=False) if as_json else "\n".join(_lines(answer)))
    if figures is not None and not as_json:
        print(*(f"{path}" for path in drawn), sep="\n")
    return OK


def _lines(answer: RoundPlan) -> Iterator[str]:
    who = f"{answer.peers} peers, {answer.inner_steps} inner steps"
    yield f"{answer.scenario}: {who}, a round takes {_time(answer.round_s)}"
    ratio = f"{answer.compression_ratio:.3g} times less than fp32"
    yield f"payload {_size(answer.payload_bytes)} ({ratio}), {_size(answer.gather_bytes)} a gather"
    yield ""
    yield f"{'of a round':40} {'10 %':>10} {'median':>10} {'90 %':>10}"
    for name, words in PARTS.items():
        part = answer.parts[name]
        yield f"  {words:38} {_time(part.low):>10} {_time(part.median):>10} {_time(part.high):>10}"
    yield ""
    yield f"compute utilization {_share(answer.utilization)} (compute over compute and communication)"
    yield f"compute share {_share(answer.compute_share)} (compute over all time)"
    yield from _deadlines(answer)
    yield ""
    yield from _bottleneck(answer)
    yield ""
    yield from _bill(answer)
    yield from _target(answer)
    for note in answer.notes:
        yield f"note: {note}"


def _deadlines(answer: RoundPlan) -> Iterator[str]:
    met = answer.deadlines
    shares = (
        ("all inner steps", met.all_steps),
        ("put window", met.put_window),
        ("gather timeout", met.gather_timeout),
    )
    yield "peers that meet: " + ", ".join(f"{name} {_share(share)}" for name, share in shares)
    yield f"inner steps that count, of all peers together: {answer.useful_steps_per_hour:,.0f} an hour"


def _bottleneck(answer: RoundPlan) -> Iterator[str]:
    found = answer.bottleneck
    yield f"bottleneck: {found.binds}; of upload and gather: {found.of_exchange}"
    gains = [f"{name} {_gain(gain)}" for name, gain in found.reliefs.items() if gain >= 0.0005]
    yield "steps that count, with twice as good: " + (", ".join(gains) or "no change by any")
    yield f"validators are busy for {_share(answer.validator_load)} of a round"


def _bill(answer: RoundPlan) -> Iterator[str]:
    bill = answer.bill
    gpus = "" if bill.gpu_hours is None else f", {bill.gpu_hours:,.0f} GPU hours"
    yield f"bill of {bill.rounds} rounds, {bill.hours:,.1f} h:"
    yield f"  {bill.machine_hours:,.0f} machine hours{gpus}, at work {bill.busy_machine_hours:,.0f} machine hours"
    yield f"  {bill.tb_up:,.3g} TB up, {bill.tb_down:,.3g} TB down, {bill.puts:,.0f} puts, {bill.gets:,.0f} gets"
    if bill.money is not None:
        parts = ", ".join(f"{name} {amount:,.2f}" for name, amount in bill.money.items() if name != "total")
        yield f"  {bill.money['total']:,.2f} in all: {parts}"


def _target(answer: RoundPlan) -> Iterator[str]:
    if answer.target is None:
        return
    reached = answer.target
    target = reached.target
    sign = "at least" if target.at_least else "at most"
    yield ""
    yield f"{target.name} {sign} {target.shown(target.value)}, it is {target.shown(reached.now)}; one change at a time:"
    for each in reached.answers:
        yield f"  {each.text}"


def _gain(gain: float) -> str:
    return "from none to some" if math.isinf(gain) else f"{gain * 100:+.1f} %"


def _share(share: float) -> str:
    return f"{share * 100:.1f} %"


def _time(seconds: float) -> str:
    if seconds < 1e-6:
        return "0 s"
    for factor, unit in _UNITS:
        if seconds >= 2 * factor:
            return f"{seconds / factor:.3g} {unit}"
    return format_duration(float(f"{seconds:.3g}"))


def _size(num_bytes: float) -> str:
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes:.3g} B"
