"""A validator that saves itself the evaluations."""

from typing import Literal

from covsim.behaviors.base import Script, ValidatorBehavior, ValidatorVerbs, validator_behaviors


@validator_behaviors.register
class WeightCopier(ValidatorBehavior):
    """Set the weights that the others have on the chain, and evaluate nobody.

    It has no opinion on whom to gather from, so it puts up no list when it leads, and it burns all pay while there is
    nothing to copy. Source: weight copying on Bittensor; commit-reveal exists so that what is copied is old.
    """

    kind: Literal["weight_copier"] = "weight_copier"

    def play_round(self, validator: ValidatorVerbs) -> Script:
        yield from validator.gather()
        validator.set_weights(validator.weights_on_chain())
        validator.step()
