"""Minds: one file, one script, written over the verbs that a peer's body offers.

This room may import the leaves only. It declares the verbs that it needs (`base.PeerVerbs`) and knows neither tensors
nor the event loop, so the same scripts drive simulated peers and real processes. The body charges every verb its true
bytes and seconds: a script can say anything and cheat nobody's clock, link or ledger.
"""

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors
from covsim.behaviors.copycat import Copycat
from covsim.behaviors.honest import Honest
from covsim.behaviors.late import Late
from covsim.behaviors.lazy import Lazy
from covsim.behaviors.sign_flip import SignFlip

__all__ = ["Behavior", "Copycat", "Honest", "Late", "Lazy", "PeerVerbs", "Script", "SignFlip", "behaviors"]
