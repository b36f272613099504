"""ByzFL's aggregators and attacks without the rest of it, whose front door imports torchvision."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

import pytest

VERSION = "0.0.11"


def byzfl(module: str) -> ModuleType:
    """A module of ByzFL, such as `aggregators.aggregators`; skips the test where the library is not installed."""
    if "byzfl" not in sys.modules:
        found = importlib.util.find_spec("byzfl")
        if found is None or found.submodule_search_locations is None:
            pytest.skip(f"byzfl is not installed: pip install --no-deps byzfl=={VERSION}")
        bare = ModuleType("byzfl")
        bare.__path__ = list(found.submodule_search_locations)
        sys.modules["byzfl"] = bare
    return importlib.import_module(f"byzfl.{module}")
