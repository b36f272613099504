"""How far the clock carries: cost of timing-only runs over the number of peers, as a table and a figure.

    python -m covsim.sweep.scale [--peers 100,300,1000,3000,10000] [--rounds 100] [--out results/published]

Each size is a run of `scale/peers` in a process of its own, so that its peak memory is its own. Seconds are of the
whole command, scenario to tables; CPU seconds are given beside wall seconds, for a shared machine stretches those.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.ticker import NullFormatter

from covsim.record.files import write_text
from covsim.record.runner import run
from covsim.report import style
from covsim.scenario import load
from covsim.scenario.resolve import resolved_text

PUBLISHED = Path("results/published")
PEERS = (100, 300, 1000, 3000, 10_000)


def measured(peers: int, rounds: int) -> dict[str, Any]:
    """One run in this process: its size, seconds, and megabytes of memory and of tables."""
    began, began_cpu = time.perf_counter(), time.process_time()
    scenario = load("scale/peers", {"peers": peers, "stop.rounds": rounds})
    with tempfile.TemporaryDirectory() as scratch:
        done = run(scenario, resolved_text(scenario), Path(scratch))
        tables = sum(path.stat().st_size for path in done.folder.glob("*.parquet"))
        everything = sum(path.stat().st_size for path in done.folder.rglob("*") if path.is_file())
    cpu_s = time.process_time() - began_cpu
    return {
        "peers": peers,
        "rounds": rounds,
        "wall_s": time.perf_counter() - began,
        "cpu_s": cpu_s,
        "cpu_us_per_peer_round": 1e6 * cpu_s / (peers * rounds),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "tables_mb": tables / 1e6,
        "folder_mb": everything / 1e6,
        "digest.clock": done.summary["digest.clock"],
    }


def apart(peers: int, rounds: int) -> dict[str, Any]:
    """The same in a process of its own. Raises CalledProcessError."""
    command = [sys.executable, "-m", "covsim.sweep.scale", "--one", "--peers", str(peers), "--rounds", str(rounds)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def draw(frame: pd.DataFrame, path: Path) -> None:
    """Seconds and memory over the number of peers, on logarithmic axes, beside growth in proportion."""
    with style.house_style():
        rounds = "/".join(str(each) for each in sorted(frame["rounds"].unique()))
        remark = "One process per run. Dashed: in proportion to the number of peers, from the smallest run."
        figure = style.headed(f"Timing-only runs of {rounds} rounds", remark, 9.0, 3.9)
        left, right = figure.subplots(1, 2)
        first = frame.iloc[0]
        line = frame["cpu_s"].iloc[0] * frame["peers"] / first["peers"]
        left.plot(frame["peers"], frame["cpu_s"], color=style.BLUE, marker="o")
        left.plot(frame["peers"], line, color=style.FAINT, ls="--", lw=1)
        left.set(xlabel="Peers", ylabel="CPU seconds", title="Time")
        right.plot(frame["peers"], frame["peak_memory_mb"], color=style.GREEN, marker="o")
        right.set(xlabel="Peers", ylabel="Peak memory (MB)", title="Memory")
        for axes in (left, right):
            axes.set(xscale="log", yscale="log")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xticks(list(frame["peers"]), [f"{peers:,}" for peers in frame["peers"]])
        right.set_yscale("linear")  # most of it is what any run needs
        right.set_ylim(bottom=0)
        style.save(figure, path)


def main(arguments: Sequence[str]) -> int:
    """Measure and publish; returns an exit code."""
    parser = argparse.ArgumentParser(prog="python -m covsim.sweep.scale", description="Measure timing-only runs.")
    parser.add_argument("--peers", default=",".join(map(str, PEERS)), help="numbers of peers, separated by commas")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path, default=PUBLISHED)
    parser.add_argument("--one", action="store_true", help="measure one size here, and print it as JSON")
    asked = parser.parse_args(arguments)
    sizes = [int(peers) for peers in asked.peers.split(",")]
    if asked.one:
        print(json.dumps(measured(sizes[0], asked.rounds)))
        return 0
    rows = []
    for peers in sizes:
        rows.append(apart(peers, asked.rounds))
        print(json.dumps(rows[-1]), flush=True)
        frame = pd.DataFrame(rows)
        write_text(asked.out / "scale.csv", frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
        draw(frame, asked.out / "scale.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
