"""Provenance says which code, on what machine, with how many threads, made a run."""

import json
import sys
from datetime import datetime

import pytest
import torch

from covsim.record.provenance import provenance


def test_provenance_is_plain_and_complete() -> None:
    found = provenance("abc", 90.0, torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert found["run_id"] == "abc"
    assert found["command"] == sys.argv
    assert found["versions"]["torch"] == torch.__version__
    assert {"covsim", "python", "numpy", "simpy", "openskill", "pydantic"} <= set(found["versions"])
    assert found["threads"]["intra_op"] == torch.get_num_threads()
    assert found["cpu"]["capability"] == torch.backends.cpu.get_cpu_capability()
    began, ended = (datetime.fromisoformat(found[key]) for key in ("started", "finished"))
    assert 89 <= (ended - began).total_seconds() <= 91


def test_the_device_is_that_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a GPU, a run that was told to use the processor used the processor."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"a GPU as {device}")
    assert provenance("abc", 90.0, torch.device("cpu"))["device"] == "cpu"
    assert provenance("abc", 90.0, torch.device("cuda:1"))["device"] == "a GPU as cuda:1"
