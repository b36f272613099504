"""A validator that is away for some rounds."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from covsim.behaviors.base import Script, ValidatorBehavior, ValidatorVerbs, validator_behaviors


@validator_behaviors.register
class Offline(ValidatorBehavior):
    """Sit out the rounds from one to before another, then catch up and do the work again.

    Source: one-covenant/templar, where one dead leader stops the list, the checkpoints and the catch-up of others.
    """

    catches_up: ClassVar[bool] = True
    kind: Literal["offline"] = "offline"
    from_round: int = Field(ge=0, le=100_000, description="first round that it sits out")
    to_round: int = Field(ge=1, le=100_000, description="first round in which it is back")

    @model_validator(mode="after")
    def _comes_back_later(self) -> Self:
        if self.to_round <= self.from_round:
            raise ValueError(f"to_round {self.to_round} must come after from_round {self.from_round}")
        return self

    def play_round(self, validator: ValidatorVerbs) -> Script:
        if self.from_round <= validator.round < self.to_round:
            yield from validator.sit_out()
            return
        if validator.round == self.to_round:
            yield from validator.catch_up()
        yield from validator.gather()
        yield from validator.evaluate()
        validator.set_weights(validator.judged_weights())
        validator.publish_list()
        validator.step()
