"""Faults of nodes: peers that crash or train on rubbish, regions that fail as one, validators that are away."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from covsim.world.faults import UNTIL_THE_END, Fault, FaultVerbs, Harm, Targets, faults


@faults.register
class Crash(Fault):
    """Peers stop at once and start again at the end: moments, error buffer, notes and weights are lost.

    Source: a machine that reboots; it catches up from a checkpoint and the gathers since.
    """

    kind: Literal["crash"] = "crash"

    @property
    def makes_catch_up(self) -> bool:
        return True

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        with verbs.crashed(targets):
            yield UNTIL_THE_END


@faults.register
class RegionFailure(Fault):
    """All peers of a region fail together: their machines stop, or their way to the world is cut.

    Source: correlated failures of a data center; needs cohorts that name their `region`.
    """

    kind: Literal["region_failure"] = "region_failure"
    how: Literal["crash", "cut"] = Field(default="crash", description="Machines stop, or all requests fail.")

    @model_validator(mode="after")
    def _names_a_region(self) -> Self:
        if self.region is None:
            raise ValueError("region_failure needs a region")
        return self

    @property
    def makes_catch_up(self) -> bool:
        return self.how == "crash"

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        fails = verbs.crashed(targets) if self.how == "crash" else verbs.cut_off(targets, ("up", "down"))
        with fails:
            yield UNTIL_THE_END


@faults.register
class NanBatch(Fault):
    """What peers train becomes not a number, and they do not notice.

    Source: an overflow in a batch; a payload without a check for it would poison the mean.
    """

    window_of_round: ClassVar[Literal[0, 1]] = 0
    kind: Literal["nan_batch"] = "nan_batch"

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        with verbs.spoiled_training(targets, "nan"):
            yield UNTIL_THE_END


@faults.register
class BadShard(Fault):
    """Peers train on other text than they were assigned, and do not notice.

    Source: one-covenant/templar #29 and #66, where peers trained on other pages than their own.
    """

    window_of_round: ClassVar[Literal[0, 1]] = 0
    kind: Literal["bad_shard"] = "bad_shard"

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        with verbs.spoiled_training(targets, "wrong_shard"):
            yield UNTIL_THE_END


@faults.register
class ValidatorOffline(Fault):
    """Validators sit out the rounds that begin in it, and catch up from a checkpoint when they are back.

    Source: one-covenant/templar, where one dead leader stops the list, the checkpoints and the catch-up of others.
    """

    strikes: ClassVar[Literal["validators"]] = "validators"
    kind: Literal["validator_offline"] = "validator_offline"
    validators: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Their names; the one that leads if not given."
    )

    @property
    def makes_catch_up(self) -> bool:
        return True

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        with verbs.away(targets):
            yield UNTIL_THE_END
