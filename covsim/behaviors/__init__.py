"""Minds: one file, one script, written over the verbs that a body offers.

This room may import the leaves only. It declares the verbs that it needs (`base.PeerVerbs`, `base.ValidatorVerbs`) and
knows neither tensors nor the event loop, so the same scripts drive simulated nodes and real processes. The body charges
every verb its true bytes and seconds: a script can say anything and cheat nobody's clock, link or ledger.
"""

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
from covsim.behaviors.copycat import Copycat
from covsim.behaviors.data_hog import DataHog
from covsim.behaviors.desynced import Desynced
from covsim.behaviors.honest import Honest
from covsim.behaviors.late import Late
from covsim.behaviors.lazy import Lazy
from covsim.behaviors.membership import Always, FromRound, Membership, Rational, memberships
from covsim.behaviors.offline import Offline
from covsim.behaviors.scoring import Scoring
from covsim.behaviors.sign_flip import SignFlip
from covsim.behaviors.weight_copier import WeightCopier
from covsim.behaviors.wrong_shard import WrongShard

__all__ = [
    "Always",
    "Behavior",
    "Bribed",
    "Copycat",
    "DataHog",
    "Desynced",
    "FromRound",
    "Honest",
    "Late",
    "Lazy",
    "Membership",
    "Offline",
    "PeerVerbs",
    "Rational",
    "Scoring",
    "Script",
    "SignFlip",
    "ValidatorBehavior",
    "ValidatorVerbs",
    "WeightCopier",
    "WrongShard",
    "behaviors",
    "memberships",
    "validator_behaviors",
]
