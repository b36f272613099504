"""covsim: a wind tunnel for trustless training runs.

    import covsim

    scenario = covsim.load("quickstart", {"stop.rounds": 4})
    run = covsim.simulate(scenario, out="results")
    run.summary["loss.final"]

The heavier modules behind these names are imported when a name is first used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covsim.events import Event
    from covsim.record.runner import Run
    from covsim.scenario import Scenario, ScenarioError, load
    from covsim.sweep.plan import plan

__version__ = "0.1.0"
__all__ = ["Run", "Scenario", "ScenarioError", "load", "plan", "simulate"]

_HOMES = {
    "Run": "covsim.record.runner",
    "Scenario": "covsim.scenario",
    "ScenarioError": "covsim.scenario",
    "load": "covsim.scenario",
    "plan": "covsim.sweep.plan",
}


def simulate(
    scenario: Scenario,
    out: str | Path | None = None,
    *,
    force: bool = False,
    observers: Sequence[Callable[[Event], None]] = (),
) -> Run:
    """Run a scenario into a folder `<out>/<name>/<run-id>` and return where it lies and its summary.

    Args:
        scenario: what to run.
        out: the folder of all results; `results` if not given.
        force: run again even if this very run lies there already.
        observers: see every event as it happens.

    Raises:
        ValueError: an unfinished run lies there and `force` is not set.
    """
    from covsim.record.runner import run
    from covsim.scenario import resolved_text

    folder = Path(out) if out is not None else None
    return run(scenario, resolved_text(scenario), out=folder, force=force, observers=observers)


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'covsim' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
