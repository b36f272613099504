"""Parts of a user's own, registered by Python files that a scenario names under `plugins:`.

A settings field that holds any registered part is the union of what was registered when its model was built, so the
models are built again once a file has added to a registry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from covsim.behaviors import behaviors
from covsim.gauntlet.selection import selections
from covsim.learning.corpus import Data
from covsim.learning.inner_loop import Training, inner_optimizers
from covsim.learning.model import models
from covsim.learning.shardings import shardings
from covsim.learning.tasks import tasks
from covsim.protocol import protocols
from covsim.protocol.aggregators import aggregators
from covsim.protocol.compressors import compressors
from covsim.protocol.fragments import fragment_rules
from covsim.protocol.outer import outer_optimizers
from covsim.protocol.values import value_formats
from covsim.registry import Registry
from covsim.scenario.schema import Scenario
from covsim.scenario.sections import Cohort
from covsim.schedules import schedules
from covsim.sources import import_file
from covsim.world.machine import link_rates, speeds

REGISTRIES: tuple[Registry[Any], ...] = (
    schedules,
    inner_optimizers,
    outer_optimizers,
    compressors,
    value_formats,
    fragment_rules,
    shardings,
    models,
    tasks,
    aggregators,
    selections,
    behaviors,
    link_rates,
    speeds,
    protocols,
)
"""Every registry; parts that hold others come after them."""

SECTIONS: tuple[type[BaseModel], ...] = (Data, Training, Cohort, Scenario)
"""Sections that hold parts; the scenario holds them all."""


def load_plugins(files: Iterable[str]) -> None:
    """Import Python files and make the scenario know the parts that they register.

    Raises:
        SourceError: a file is not there, or fails as it is imported.
        ValueError: it registers a part under a name that is taken.
    """
    before = _known()
    for file in files:
        import_file(file)
    if _known() != before:
        for registry in REGISTRIES:
            for _, part in registry.items():
                part.model_rebuild(force=True)
        for section in SECTIONS:
            section.model_rebuild(force=True)


def _known() -> list[list[tuple[str, type]]]:
    return [registry.items() for registry in REGISTRIES]
