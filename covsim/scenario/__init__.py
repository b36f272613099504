"""The scenario room: one YAML file to one frozen value, with a line number for every mistake.

It knows the settings of every room below it and how a file is written, read, extended and overridden; it runs nothing.
It may import the leaves, `learning`, `protocol`, `world`, `gauntlet` and `behaviors` for their settings.

* `reader`, `tree`: YAML 1.2 to a tree whose values know where they stand; merging
* `shipped`, `loading`, `overrides`: files, `extends`, `a.b=c`
* `plugins`: parts of a user's own
* `hparams`, `hparams_mapping`, `hparams_draft`, `hparams_keys`: a live network's settings file to a scenario; its
  larger sections have a file each: `hparams_deployment`, `hparams_protocol`, `hparams_training`, `hparams_gauntlet`
* `schema`, `sections`, `deployment`, `sizes`: what a scenario is
* `metrics`: what a claim can be about
* `messages`, `errors`: `file:line:col: path: what is wrong (did you mean ...?)`
* `population`: uids, links and machines drawn from it
* `twins`: the same under another seed, the same without cheaters and faults
* `counterfactual`: who is taken out, or made honest, in such a twin
* `preflight`: warnings of what cannot work
* `amounts`: memory, FLOP and utilization of its deployment and machines
* `resolve`: a scenario as text again; the identity of a run
* `registries`: every registry whose parts it can name
* `catalog`, `json_schema`: what can be named, for people and for editors
"""

from covsim.scenario.errors import ScenarioError
from covsim.scenario.loading import Loaded, PluginsNotLoaded, load, load_with_source, loads
from covsim.scenario.population import PeerSpec, population
from covsim.scenario.preflight import warnings
from covsim.scenario.resolve import resolved_text, run_id
from covsim.scenario.schema import Scenario
from covsim.scenario.shipped import shipped_scenarios
from covsim.scenario.twins import clean_twin, seeds, with_seed

__all__ = [
    "Loaded",
    "PeerSpec",
    "PluginsNotLoaded",
    "Scenario",
    "ScenarioError",
    "clean_twin",
    "load",
    "load_with_source",
    "loads",
    "population",
    "resolved_text",
    "run_id",
    "seeds",
    "shipped_scenarios",
    "warnings",
    "with_seed",
]
