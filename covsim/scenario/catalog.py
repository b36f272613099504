"""What can be named in a scenario: every registry by the plural that `covsim list` takes."""

from __future__ import annotations

import inspect
import re

from covsim.registry import did_you_mean
from covsim.scenario.deployment import PRESETS
from covsim.scenario.deployment_figures import describe
from covsim.scenario.loading import load
from covsim.scenario.plugins import load_installed
from covsim.scenario.registries import REGISTRIES
from covsim.scenario.shipped import shipped_scenarios

SORTS = (*REGISTRIES, "deployments", "scenarios")

_SOURCE = "Source: "


def catalog(sort: str) -> dict[str, str]:
    """Names of one sort with a line about each. Raises ValueError for an unknown sort."""
    load_installed()
    if sort == "scenarios":
        return {name: _first_sentence(load(path).description) for name, path in shipped_scenarios().items()}
    if sort == "deployments":
        return {name: describe(name) for name in PRESETS}
    if sort not in REGISTRIES:
        raise ValueError(f"nothing is called {sort!r}{did_you_mean(sort, SORTS)}; there are {', '.join(SORTS)}")
    return {kind: _first_sentence(inspect.getdoc(part) or "") for kind, part in REGISTRIES[sort].items()}


def sources(sort: str) -> dict[str, str]:
    """Where the parts of a sort come from, `Source: ...`, in a sentence each; those that do not say are left out."""
    texts = {kind: inspect.getdoc(part) or "" for kind, part in REGISTRIES[sort].items()} if sort in REGISTRIES else {}
    found = {kind: text.find(_SOURCE) for kind, text in texts.items()}
    return {kind: _first_sentence(texts[kind][start:]) for kind, start in found.items() if start >= 0}


def _first_sentence(text: str) -> str:
    sentence = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    return re.split(r"(?<!et al)\. ", sentence, maxsplit=1)[0].rstrip(".")
