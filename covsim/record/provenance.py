"""Where a run's numbers come from: versions, machine, threads, time and command. Nothing here enters a digest."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Any

import covsim

if TYPE_CHECKING:
    import torch

_PACKAGES = ("numpy", "openskill", "pandas", "pyarrow", "pydantic", "ruamel.yaml", "safetensors", "simpy", "torch")


def provenance(run_id: str, total_wall_s: float, device: torch.device) -> dict[str, Any]:
    """The content of provenance.json.

    Args:
        run_id: hash of the resolved scenario, the code, torch's version and the data.
        total_wall_s: real seconds of the run until now, over all its processes.
        device: where the run's tensors were.
    """
    import torch

    now = datetime.now(UTC)
    return {
        "run_id": run_id,
        "command": sys.argv,
        "started": (now - timedelta(seconds=total_wall_s)).isoformat(timespec="seconds"),
        "finished": now.isoformat(timespec="seconds"),
        "wall_s": round(total_wall_s, 3),
        "versions": {"covsim": covsim.__version__, "python": platform.python_version()}
        | {package: metadata.version(package) for package in _PACKAGES},
        "platform": platform.platform(),
        "cpu": {
            "model": _cpu_model(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
        },
        "threads": {"intra_op": torch.get_num_threads(), "inter_op": torch.get_num_interop_threads()},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
    }


def _cpu_model() -> str:
    """The processor's name where the system tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            named = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        named = []
    return named[0] if named else platform.machine()
