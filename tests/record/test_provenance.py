"""Provenance says which code, on what machine, with how many threads, made a run."""

import json
import sys
from datetime import datetime

import torch

from covsim.record.provenance import provenance


def test_provenance_is_plain_and_complete() -> None:
    found = provenance("abc", total_wall_s=90.0)
    assert json.loads(json.dumps(found)) == found
    assert found["run_id"] == "abc"
    assert found["command"] == sys.argv
    assert found["versions"]["torch"] == torch.__version__
    assert {"covsim", "python", "numpy", "simpy", "openskill", "pydantic"} <= set(found["versions"])
    assert found["threads"]["intra_op"] == torch.get_num_threads()
    assert found["cpu"]["capability"] == torch.backends.cpu.get_cpu_capability()
    began, ended = (datetime.fromisoformat(found[key]) for key in ("started", "finished"))
    assert 89 <= (ended - began).total_seconds() <= 91
