"""A validator that does its work."""

from typing import Literal

from covsim.behaviors.base import Script, ValidatorBehavior, ValidatorVerbs, validator_behaviors


@validator_behaviors.register
class Scoring(ValidatorBehavior):
    """Gather, evaluate, set weights, publish the list if one is due, take the outer step.

    Source: Gauntlet (arXiv 2505.21684), algorithm 1; one-covenant/templar v2.1.28.
    """

    kind: Literal["honest"] = "honest"

    def play_round(self, validator: ValidatorVerbs) -> Script:
        yield from validator.gather()
        yield from validator.evaluate()
        validator.set_weights(validator.judged_weights())
        validator.publish_list()
        validator.step()
