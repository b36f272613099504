"""Every registry of parts that a scenario can name, by the plural that `covsim list` takes."""

from __future__ import annotations

from typing import Any

from covsim.behaviors import behaviors
from covsim.behaviors.base import validator_behaviors
from covsim.behaviors.membership import memberships
from covsim.chain.yuma import consensus_rules
from covsim.gauntlet.selection import selections
from covsim.gauntlet.weights import weight_rules
from covsim.learning.inner_loop import inner_optimizers
from covsim.learning.model import models
from covsim.learning.shardings import shardings
from covsim.learning.tasks import tasks
from covsim.protocol import protocols
from covsim.protocol.aggregators import aggregators, pre_aggregators
from covsim.protocol.compressors import compressors
from covsim.protocol.fragments import fragment_rules
from covsim.protocol.outer import outer_optimizers
from covsim.protocol.values import value_formats
from covsim.registry import Registry
from covsim.scenario.inner_step import step_times
from covsim.scenario.learning import learning_rules
from covsim.schedules import schedules
from covsim.world.clock import timelines
from covsim.world.faults import faults
from covsim.world.latency import jitters
from covsim.world.machine import link_rates, speeds
from covsim.world.requests import backoffs
from covsim.world.slow import slow_policies
from covsim.world.topology import topologies
from covsim.world.variations import variations

REGISTRIES: dict[str, Registry[Any]] = {
    "behaviors": behaviors,
    "validator-behaviors": validator_behaviors,
    "memberships": memberships,
    "models": models,
    "shards": shardings,
    "tasks": tasks,
    "learning": learning_rules,
    "schedules": schedules,
    "inner-optimizers": inner_optimizers,
    "outer-optimizers": outer_optimizers,
    "compressors": compressors,
    "value-formats": value_formats,
    "fragments": fragment_rules,
    "protocols": protocols,
    "pre-aggregators": pre_aggregators,
    "aggregators": aggregators,
    "selections": selections,
    "weight-rules": weight_rules,
    "consensus-rules": consensus_rules,
    "timelines": timelines,
    "topologies": topologies,
    "faults": faults,
    "links": link_rates,
    "speeds": speeds,
    "variations": variations,
    "jitters": jitters,
    "backoffs": backoffs,
    "slow-policies": slow_policies,
    "step-times": step_times,
}
"""Parts that hold other parts come after them."""
