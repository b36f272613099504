"""The benchmarks compare with the plain module that the learning tests compare with."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "learning"))
