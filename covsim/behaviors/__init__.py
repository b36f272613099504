"""Minds: one file, one script, written over the verbs that a body offers.

This room may import the leaves only. It declares the verbs that it needs (`base.PeerVerbs`, `base.ValidatorVerbs`) and
knows neither tensors nor the event loop, so the same scripts drive simulated nodes and real processes. The body charges
every verb its true bytes and seconds: a script can say anything and cheat nobody's clock, link or ledger.
"""

from covsim.behaviors.alie import Alie
from covsim.behaviors.backdoor import Backdoor
from covsim.behaviors.base import (
    Behavior,
    PeerVerbs,
    Script,
    ValidatorBehavior,
    ValidatorVerbs,
    behaviors,
    validator_behaviors,
)
from covsim.behaviors.bribed import Bribed
from covsim.behaviors.coaster import Coaster
from covsim.behaviors.colluders import Colluders
from covsim.behaviors.copycat import Copycat
from covsim.behaviors.data_hog import DataHog
from covsim.behaviors.debug_flood import DebugFlood
from covsim.behaviors.desynced import Desynced
from covsim.behaviors.disguised_free_rider import DisguisedFreeRider
from covsim.behaviors.early import Early
from covsim.behaviors.eval_overfit import EvalOverfit
from covsim.behaviors.free_rider import FreeRider
from covsim.behaviors.gaussian_noise import GaussianNoise
from covsim.behaviors.honest import Honest
from covsim.behaviors.idle import Idle
from covsim.behaviors.intermittent import Intermittent
from covsim.behaviors.ipm import Ipm
from covsim.behaviors.label_flip import LabelFlip
from covsim.behaviors.late import Late
from covsim.behaviors.lazy import Lazy
from covsim.behaviors.malformed import Malformed
from covsim.behaviors.membership import Always, FromRound, Membership, Rational, memberships
from covsim.behaviors.mimic import Mimic
from covsim.behaviors.min_max import MinMax
from covsim.behaviors.min_sum import MinSum
from covsim.behaviors.norm_stuffing import NormStuffing
from covsim.behaviors.offline import Offline
from covsim.behaviors.partial import Partial
from covsim.behaviors.random_payload import RandomPayload
from covsim.behaviors.restarter import Restarter
from covsim.behaviors.scaling import Scaling
from covsim.behaviors.scoring import Scoring
from covsim.behaviors.sign_flip import SignFlip
from covsim.behaviors.sleeper import Sleeper
from covsim.behaviors.spike_farmer import SpikeFarmer
from covsim.behaviors.stale_resubmit import StaleResubmit
from covsim.behaviors.sybil import Sybil
from covsim.behaviors.sync_faker import SyncFaker
from covsim.behaviors.weight_copier import WeightCopier
from covsim.behaviors.wrong_shard import WrongShard
from covsim.behaviors.zero_payload import ZeroPayload

__all__ = [
    "Alie",
    "Always",
    "Backdoor",
    "Behavior",
    "Bribed",
    "Coaster",
    "Colluders",
    "Copycat",
    "DataHog",
    "DebugFlood",
    "Desynced",
    "DisguisedFreeRider",
    "Early",
    "EvalOverfit",
    "FreeRider",
    "FromRound",
    "GaussianNoise",
    "Honest",
    "Idle",
    "Intermittent",
    "Ipm",
    "LabelFlip",
    "Late",
    "Lazy",
    "Malformed",
    "Membership",
    "Mimic",
    "MinMax",
    "MinSum",
    "NormStuffing",
    "Offline",
    "Partial",
    "PeerVerbs",
    "RandomPayload",
    "Rational",
    "Restarter",
    "Scaling",
    "Scoring",
    "Script",
    "SignFlip",
    "Sleeper",
    "SpikeFarmer",
    "StaleResubmit",
    "Sybil",
    "SyncFaker",
    "ValidatorBehavior",
    "ValidatorVerbs",
    "WeightCopier",
    "WrongShard",
    "ZeroPayload",
    "behaviors",
    "memberships",
    "validator_behaviors",
]
