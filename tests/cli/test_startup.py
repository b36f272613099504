"""The command line answers at once: help loads no torch and costs little."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "pandas", "matplotlib", "pyarrow", "simpy", "openskill", "ruamel.yaml")
MOST_CPU_S = 0.3


def python(*arguments: str) -> str:
    """Standard output of a fresh interpreter that finds covsim where this one does."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout


def test_help_takes_less_than_a_third_of_a_second() -> None:
    """Processor time, the best of five: unlike wall time it does not depend on what else the machine is doing."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "wind tunnel" in python("-m", "covsim", "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < MOST_CPU_S


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["check", "--help"],
        ["show", "--help"],
        ["list", "--help"],
        ["schema", "--help"],
        ["explain", "--help"],
        ["rescore", "--help"],
        ["verify", "--help"],
        ["attribute", "--help"],
        ["import-hparams", "--help"],
        ["papers", "--help"],
        ["plan", "--help"],
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from covsim.cli import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit: pass\n"
        f"print('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert python("-c", code).splitlines()[-1].strip() == "loaded:"


def test_importing_covsim_imports_nothing_heavy() -> None:
    code = f"import sys, covsim; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    assert python("-c", code).strip() == ""


def test_public_names_are_found_when_asked_for() -> None:
    code = "import covsim; print(covsim.Scenario.__name__, covsim.load.__name__, covsim.Run.__name__, dir(covsim))"
    shown = python("-c", code)
    assert shown.startswith("Scenario load Run")
    assert "simulate" in shown


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    import covsim

    with pytest.raises(AttributeError, match="has no attribute 'sweeep'"):
        _ = covsim.sweeep
