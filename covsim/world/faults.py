"""What a fault is: when it strikes, whom, and a script over the verbs by which it does harm.

A fault is a value of the scenario, as a behavior is. Its script takes hold of something in a `with` block and yields
the seconds that it waits; at the end of the strike it is closed, and the block lets go.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Generator, Sequence
from contextlib import AbstractContextManager
from typing import Annotated, ClassVar, Literal, Protocol, Self, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from covsim.registry import Part, Registry
from covsim.units import Seconds, Share
from covsim.world.conditions import Damage, Direction

_CENTURY_S = 100 * 365 * 86_400.0
_MOST_ROUNDS = 100_000

Harm: TypeAlias = Generator[float, None, None]
Targets: TypeAlias = Sequence[str]
"""Names of nodes: `peer:<uid>`, `validator:<name>`; none for a fault of the store or the chain."""

Directions = Literal["up", "down", "both"]
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Round = Annotated[int, Field(ge=0, le=_MOST_ROUNDS)]
Uid = Annotated[int, Field(ge=0, lt=100_000)]

UNTIL_THE_END = math.inf
"""What a script yields that has nothing more to do."""


class FaultVerbs(Protocol):
    """What a fault can do; each holds for as long as its block is open, and adds to what other faults do."""

    def slowed(self, nodes: Targets, directions: Collection[Direction], factor: float) -> AbstractContextManager[None]:
        """Multiply what the links of some peers can carry; with 0 all that flows over them waits."""

    def cut_off(self, nodes: Targets, directions: Collection[Direction]) -> AbstractContextManager[None]:
        """Break some peers' connections: their requests fail; with `up`, the chain does not hear of them either."""

    def crashed(self, nodes: Targets) -> AbstractContextManager[None]:
        """Stop some peers, and start them again at the end of the block, with nothing of what they had in memory."""

    def restarted_after(self, nodes: Targets) -> AbstractContextManager[None]:
        """Restart some peers at the end of the block, so that they catch up and lose what they had in memory."""

    def away(self, validators: Targets) -> AbstractContextManager[None]:
        """Let validators sit out the rounds that begin, and catch up when they are back."""

    def spoiled_training(self, nodes: Targets, mishap: Literal["nan", "wrong_shard"]) -> AbstractContextManager[None]:
        """Spoil what some peers begin to train."""

    def renamed(self, nodes: Targets, version: str) -> AbstractContextManager[None]:
        """Let some peers write and look for objects under other names than the rest."""

    def damaged_uploads(self, nodes: Targets, damage: Damage, keeps: float = 0.0) -> AbstractContextManager[None]:
        """Lose what some peers upload, or keep only a share of it."""

    def store_down(self) -> AbstractContextManager[None]:
        """Let the store answer nobody."""

    def rate_limited(self, requests_per_s: float) -> AbstractContextManager[None]:
        """Let the store refuse what is more than so many requests a second."""

    def slow_reads(self, bits_per_s: float, delay_s: float) -> AbstractContextManager[None]:
        """Let every download that begins get so much at most, after a delay."""

    def store_clock(self, ahead_s: float) -> AbstractContextManager[None]:
        """Set the clock ahead by which the store stamps what arrives."""


class Fault(Part):
    """Something that breaks for a while.

    When: `at` a second for as long as it `lasts`; or from the round `from_round` to before `to_round`; or at a `rate`,
    drawn for every node and round. Whom, if it strikes peers: `uids`, or a `share` of a `cohort`, of a `region`, or of
    all. `window_of_round` says which window a round means: 1 for the window in which its payloads are uploaded and
    gathered, 0 for that in which they are trained.
    """

    strikes: ClassVar[Literal["peers", "validators", "store", "chain"]] = "peers"
    window_of_round: ClassVar[Literal[0, 1]] = 1
    lasts_says_how_much: ClassVar[bool] = False

    @property
    def makes_catch_up(self) -> bool:
        """Whether somebody catches up from a checkpoint because of it."""
        return False

    kind: str
    name: Label | None = Field(default=None, description="Names it in events and the summary; by default its kind.")
    at: Seconds | None = Field(default=None, ge=0, le=_CENTURY_S, description="When it begins, from the run's start.")
    lasts: Seconds | None = Field(default=None, gt=0, le=_CENTURY_S, description="How long it lasts.")
    from_round: Round | None = Field(default=None, description="The first round that it strikes.")
    to_round: Round | None = Field(default=None, description="The first round after that in which all is well again.")
    rate: Share | None = Field(default=None, gt=0, description="Chance of each node in each round to be struck.")
    uids: tuple[Uid, ...] | None = Field(default=None, min_length=1, description="The peers that it strikes.")
    share: Share | None = Field(default=None, gt=0, description="How many it strikes, drawn once; all if not given.")
    cohort: str | None = Field(default=None, description="Whose peers it strikes.")
    region: str | None = Field(default=None, description="Where the peers are that it strikes.")

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        complaint = _complaint_about_when(self)
        if complaint:
            raise ValueError(complaint)
        return self

    @model_validator(mode="after")
    def _says_whom(self) -> Self:
        given = [key for key in ("uids", "share", "cohort", "region") if getattr(self, key) is not None]
        if given and self.strikes != "peers":
            raise ValueError(f"{self.kind} strikes {self.strikes} and takes no {given[0]}")
        if self.uids is not None and len(given) > 1:
            raise ValueError(f"give uids or {given[1]}, not both")
        return self

    @abstractmethod
    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        """What it does to its targets, from the beginning of a strike to its end."""


faults: Registry[Fault] = Registry("fault")


def directions_of(word: Directions) -> tuple[Direction, ...]:
    """The directions that a word stands for."""
    return ("up", "down") if word == "both" else (word,)


def _complaint_about_when(fault: Fault) -> str | None:
    """What is wrong with when a fault strikes, or None."""
    by_rounds = fault.from_round is not None or fault.to_round is not None
    ways = [fault.at is not None, by_rounds and fault.rate is None, fault.rate is not None]
    if sum(ways) != 1:
        return "needs one time: at and lasts, from_round and to_round, or a rate"
    if by_rounds:
        whole = fault.from_round is not None and fault.to_round is not None
        if not whole and fault.rate is None:
            return "from_round and to_round belong together"
        if fault.to_round is not None and fault.to_round <= (fault.from_round or 0):
            return f"to_round {fault.to_round} must come after from_round {fault.from_round or 0}"
    return _complaint_about_lasts(fault)


def _complaint_about_lasts(fault: Fault) -> str | None:
    """What is wrong with how long a fault is there, or None."""
    if fault.lasts is None:
        if fault.lasts_says_how_much:
            return f"{fault.kind} needs lasts: how late the block is"
        return "at needs lasts: how long the fault is there" if fault.at is not None else None
    if fault.at is None and fault.rate is None and not fault.lasts_says_how_much:
        return "lasts goes with at or a rate; rounds say themselves how long the fault is there"
    return None
