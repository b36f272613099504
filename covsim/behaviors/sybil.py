"""One machine that does the work, and several names that are paid for it."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, Update, behaviors


@behaviors.register
class Sybil(Behavior):
    """Let one peer of a group train, and all of the group submit what it trained.

    The cohort is cut into groups by uid; the first of each trains, on its own shard, and tells the others. Where it
    has nothing to tell they submit nothing. Source: Douceur 2002, The Sybil Attack; in federated learning Fung, Yoon
    and Beschastnikh 2018 (arXiv 1808.04866).
    """

    kind: Literal["sybil"] = "sybil"
    identities: int = Field(4, ge=2, le=10_000, description="names in a group, the one that trains among them")
    noise: float = Field(0.0, ge=0, le=1e6, description="standard deviation of noise that tells the copies apart")

    def play_round(self, peer: PeerVerbs) -> Script:
        trainer = self._trainer(peer)
        key = f"update of {trainer}"
        if trainer == peer.uid:
            update = yield from peer.train(peer.assigned_batches())
            peer.tell(key, update)
        else:
            update = yield from peer.heard(key)
        if update is not None:
            yield from peer.submit(self._told_apart(peer, update))
        yield from peer.sync()

    def _trainer(self, peer: PeerVerbs) -> int:
        place = list(peer.fellows).index(peer.uid)
        return peer.fellows[place - place % self.identities]

    def _told_apart(self, peer: PeerVerbs, update: Update) -> Update:
        return update + peer.noise(self.noise) if self.noise else update
