"""A validator that sells a part of the pay."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Script, ValidatorBehavior, ValidatorVerbs, validator_behaviors
from covsim.units import Share


@validator_behaviors.register
class Bribed(ValidatorBehavior):
    """Do the work, and then give a share of all pay to one cohort, evenly, whatever it was found worth.

    What was judged, the burn included, shrinks by that share, and the favored get it beside what is left of their own.
    Where nobody is in the cohort, it is burned. Source: collusion of validator and peer, which the clipping of Yuma
    consensus is built against.
    """

    kind: Literal["bribed"] = "bribed"
    cohort: str = Field(min_length=1, max_length=64, description="who is favored")
    share: Share = Field(0.5, gt=0, le=1, description="part of all pay that it gives them; the rest goes as judged")

    def play_round(self, validator: ValidatorVerbs) -> Script:
        yield from validator.gather()
        yield from validator.evaluate()
        validator.set_weights(self._favoring(validator))
        validator.publish_list()
        validator.step()

    def _favoring(self, validator: ValidatorVerbs) -> Mapping[int, float]:
        favored = validator.cohort(self.cohort)
        weights = {uid: (1 - self.share) * weight for uid, weight in validator.judged_weights().items()}
        for uid in favored:
            weights[uid] = weights.get(uid, 0.0) + self.share / len(favored)
        return weights
