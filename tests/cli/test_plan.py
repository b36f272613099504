"""`covsim plan`: what it prints, its JSON, bad input, and that it answers fast without training."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from covsim.cli import app

MOST_CPU_S = 5.0


def plan(*arguments: str) -> tuple[int, str, str]:
    """Exit code, output, and complaints."""
    result = CliRunner().invoke(app, ["plan", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_it_says_payload_round_bottleneck_deadlines_bill_and_target() -> None:
    """All that a designer asks for, of the flagship."""
    code, out, _ = plan(
        "covenant72b", "--target", "utilization=0.95", "--prices", "gpu_hour=2", "--prices", "tb_down=50"
    )
    assert code == 0
    for expected in (
        "covenant72b: 72 peers, 30 inner steps, a round takes 34 min",
        "payload 1.99 GB (146 times less than fp32), 39.2 GB a gather",
        "compute utilization 59.4 %",
        "put window 98.6 %",
        "bottleneck: machines; of upload and gather: downlinks",
        "bill of 30 rounds, 17.2 h:",
        "in all: gpu_hour",
        "bandwidth 12.2 x, from 1 x",
        "cannot be reached by H: at most",
        "note: everybody is taken to be honest",
    ):
        assert expected in out


def test_overrides_and_json() -> None:
    """The same as data, of a scenario that is changed on the command line."""
    code, out, _ = plan("quickstart", "protocol.inner_steps=20", "--json")
    found = json.loads(out)
    assert (code, found["inner_steps"], found["peers"]) == (0, 20, 24)
    assert found["parts"]["upload"]["low"] <= found["parts"]["upload"]["median"] <= found["parts"]["upload"]["high"]
    assert found["bill"]["money"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("quickstart", "--target", "speed=2"),
        ("quickstart", "--target", "utilization=200 %"),
        ("quickstart", "--prices", "gpu_hour=cheap"),
        ("quickstart", "--prices", "no-such-file.yaml"),
        ("quickstart", "peers=0"),
        ("papers/a4/72b",),
        ("protocols/async_diloco",),
        ("no-such-scenario",),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: tuple[str, ...]) -> None:
    """Nothing is printed but what is wrong."""
    code, out, complaint = plan(*arguments)
    assert (code, out) == (2, "")
    assert len(complaint.strip().splitlines()) == 1


def test_a_file_of_prices_that_is_none_is_one_line(tmp_path: Path) -> None:
    """A mapping without `prices:`, and a price that is text."""
    for text in ("gpu_hour: 2\n", "prices: {gpu_hour: two}\n", "prices: 3\n"):
        file = tmp_path / "prices.yaml"
        file.write_text(text)
        code, out, complaint = plan("quickstart", "--prices", str(file))
        assert (code, out, len(complaint.strip().splitlines())) == (2, "", 1)


def test_ten_thousand_peers_are_planned_in_seconds() -> None:
    """Processor time of a fresh process, start-up and a target included; no figure library is loaded."""
    code = (
        "import sys\n"
        "from covsim.cli import app\n"
        "try: app(['plan', 'covenant72b', 'peers=10000', 'chain.slots=20000', '--target', 'utilization=0.95'])\n"
        "except SystemExit: pass\n"
        "print('drawn' if 'matplotlib' in sys.modules else 'not drawn')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "covenant72b: 10000 peers" in done.stdout
    assert done.stdout.splitlines()[-1] == "not drawn"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < MOST_CPU_S


@pytest.mark.slow
def test_figures_say_where_they_lie(tmp_path: Path) -> None:
    """Six files, and none where the folder cannot be made."""
    code, out, _ = plan("quickstart", "--figures", str(tmp_path / "figures"))
    assert code == 0
    assert len([line for line in out.splitlines() if line.endswith((".png", ".csv")) and Path(line).exists()]) == 6
    (tmp_path / "file").write_text("")
    code, _, complaint = plan("quickstart", "--figures", str(tmp_path / "file"))
    assert (code, len(complaint.strip().splitlines())) == (2, 1)
