"""What can happen in a run: frozen dataclasses, the only output of a simulation.

Names are in the past tense; times are simulated seconds since the start, rates bits per second, sizes bytes as
charged (of the deployment). A field marked `learned()` depends on tensors: it enters the learning digest, all others
enter the clock digest. Together the two digests are the identity of an execution.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias


def learned(**keywords: Any) -> Any:
    """A dataclass field whose value comes from tensors (a loss, a payload's hash), not from the clock."""
    return field(metadata={"learned": True}, **keywords)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at a simulated time."""

    time_s: float


@dataclass(frozen=True, slots=True)
class NodeJoined(Event):
    """A node took its place. `node` is `peer:<uid>` or `validator:<name>`; uid is -1 for a validator."""

    node: str
    uid: int
    cohort: str
    behavior: str
    uplink_bits_per_s: float
    downlink_bits_per_s: float
    seconds_per_step: float


@dataclass(frozen=True, slots=True)
class WindowOpened(Event):
    """Window `window` began; the submissions of round `window - 1` count from now on."""

    window: int
    block: int


@dataclass(frozen=True, slots=True)
class Trained(Event):
    """A peer's inner steps for a round ended; `steps` were done of `wanted`."""

    uid: int
    round: int
    steps: int
    wanted: int
    compute_s: float


@dataclass(frozen=True, slots=True)
class BatchCut(Event):
    """A peer took so many inner steps of a round on `batch` sequences each, so that they fit; `whole` is the usual."""

    uid: int
    round: int
    steps: int
    batch: int
    whole: int


@dataclass(frozen=True, slots=True)
class Submitted(Event):
    """A payload lay complete in the store; `stored_s` is the store's own stamp and decides whether it is on time.

    In a direct exchange it was ready to be sent, and `stored_s` is that time.
    """

    uid: int
    round: int
    num_bytes: float
    stored_s: float
    on_time: bool
    model_bytes: int = learned()
    payload_sha256: str = learned()


@dataclass(frozen=True, slots=True)
class Transferred(Event):
    """A transfer ended. `purpose` is `submit`, `aside`, `gather`, `observe`, `evaluate` or `checkpoint`.

    `complete` is False if it was cut.
    """

    node: str
    key: str
    purpose: str
    direction: str
    num_bytes: float
    started_s: float
    complete: bool


@dataclass(frozen=True, slots=True)
class LinkVaried(Event):
    """A node's link that varies carries so much from now on, until `until_s` or until a fault changes it.

    Said only while something flows over it: by `until_s` it is looked at again if it is in use, and else when it is.
    """

    node: str
    direction: str
    bits_per_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class Exchanged(Event):
    """A peer's part in one attempt at a direct exchange ended: what it sent and received over its links since then.

    `complete` is False if the attempt was cut, because somebody left or time was up; its bytes are lost.
    """

    node: str
    round: int
    topology: str
    bytes_up: float
    bytes_down: float
    started_s: float
    complete: bool


@dataclass(frozen=True, slots=True)
class ReadFailed(Event):
    """One attempt of a node to read an object from the store failed."""

    node: str
    key: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RequestRefused(Event):
    """The store refused one attempt of a node, because there were too many requests."""

    node: str
    key: str
    direction: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ObjectDamaged(Event):
    """An object was `lost` or `truncated` as it landed; `num_bytes` are left of it. Its owner knows nothing of it."""

    node: str
    key: str
    damage: str
    num_bytes: float


@dataclass(frozen=True, slots=True)
class StoreClockSet(Event):
    """The store's stamps are ahead of the time by so much from now on; behind it if negative."""

    ahead_s: float


@dataclass(frozen=True, slots=True)
class FaultBegan(Event):
    """A fault struck. `fault` is its label in the scenario; `nodes` whom it struck, none for the store or the chain.

    `ends_s` is when it will end.
    """

    fault: str
    kind: str
    nodes: tuple[str, ...]
    ends_s: float


@dataclass(frozen=True, slots=True)
class FaultEnded(Event):
    """A fault that had struck these nodes is over; what it broke may take longer to mend."""

    fault: str
    kind: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gathered(Event):
    """A node's gather for a round ended. `outcome` is `complete`, `partial`, `short` of a quorum, `empty` or `aborted`.

    `uids` are the peers whose payloads entered, `missing` those asked in vain, `reserves` how many stood in.
    """

    node: str
    round: int
    outcome: str
    uids: tuple[int, ...]
    missing: tuple[int, ...]
    reserves: int
    gather_s: float


@dataclass(frozen=True, slots=True)
class OuterStepTaken(Event):
    """A node moved its theta. `lineage` names the history that it now shares with all who saw the same payloads."""

    node: str
    round: int
    lineage: str = learned()


@dataclass(frozen=True, slots=True)
class CheckpointStored(Event):
    """The theta that `node` had after the outer step of `round` lies complete in the store, for all who come later."""

    node: str
    round: int
    num_bytes: float
    lineage: str = learned()


@dataclass(frozen=True, slots=True)
class CaughtUp(Event):
    """A node took over the theta that `provider` had after the outer step of `round`, from a checkpoint.

    `provider` is empty, and `round` is -1, for the theta that everybody starts from; it is the same peer under its uid
    before where that registered again. What came since, the node gathers.
    """

    node: str
    round: int
    provider: str
    lineage: str = learned()


@dataclass(frozen=True, slots=True)
class RoundSettled(Event):
    """A peer's script for a round returned; every second since `started_s` is in one span, see `covsim.nodes.spent`.

    `compute_s`, `upload_s`, `download_s` and `idle_s` add up to `time_s - started_s`, the causes below to `idle_s`.
    """

    uid: int
    round: int
    started_s: float
    compute_s: float
    upload_s: float
    download_s: float
    idle_s: float
    idle_preempted_s: float = 0.0
    idle_exchange_s: float = 0.0
    idle_retry_s: float = 0.0
    idle_arrival_s: float = 0.0
    idle_window_s: float = 0.0
    idle_pause_s: float = 0.0
    idle_other_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RoundSkipped(Event):
    """A peer was still busy when it should have trained for this round."""

    uid: int
    round: int


@dataclass(frozen=True, slots=True)
class Evaluated(Event):
    """What a validator saw of one peer in one round: a row of evidence, and the verdict that followed.

    `status` is `ok`, `missing`, `late`, `early`, `invalid`, or `unseen` where it did not look or could not read; losses
    are nats per token, NaN where nothing was measured. `on_gather_list` and `asked_as_reserve` say whether this
    validator's gather asked the peer, `gathered` whether its payload entered. `reasons` says which rule acted, on which
    number, before and after. `steps_behind` is how far the peer's sync sample lay from the validator's theta, NaN
    without a sample; the numbers that end in `_before` are those of the window before.
    """

    validator: str
    uid: int
    round: int
    status: str
    stored_s: float
    previous_stored_s: float
    problem: str = learned()
    evaluated: bool = learned()
    on_gather_list: bool = learned()
    asked_as_reserve: bool = learned()
    gathered: bool = learned()
    own_before: float = learned()
    own_after: float = learned()
    random_before: float = learned()
    random_after: float = learned()
    overlap: float = learned()
    overlap_with: int = learned()
    overlap_stored_s: float = learned()
    steps_behind: float = learned()
    gradient_score: float = learned()
    indicator: float = learned()
    indicator_average: float = learned()
    indicator_average_before: float = learned()
    mu: float = learned()
    mu_before: float = learned()
    sigma: float = learned()
    sigma_before: float = learned()
    final_score: float = learned()
    final_score_before: float = learned()
    reasons: tuple[str, ...] = learned()


@dataclass(frozen=True, slots=True)
class Scored(Event):
    """A validator finished scoring a round: what it found each peer worth (uid, weight), burned share apart.

    `active` are the peers that counted as taking part, `places` those of the gather and the reserve list.
    """

    validator: str
    round: int
    evaluated: int
    evaluation_s: float
    active: tuple[int, ...] = learned()
    places: tuple[int, ...] = learned()
    weights: tuple[tuple[int, float], ...] = learned()
    burned: float = learned()


@dataclass(frozen=True, slots=True)
class WeightsSet(Event):
    """A validator handed weights to the chain: (uid, share of all pay), burned share apart."""

    validator: str
    round: int
    weights: tuple[tuple[int, float], ...] = learned()
    burned: float = learned()


@dataclass(frozen=True, slots=True)
class Registered(Event):
    """A node got a slot on the chain, for `cost` tokens; uid is -1 for a validator."""

    node: str
    uid: int
    slot: int
    cost: float


@dataclass(frozen=True, slots=True)
class Deregistered(Event):
    """A node lost its slot on the chain to a newcomer."""

    node: str
    uid: int
    slot: int


@dataclass(frozen=True, slots=True)
class NodeLeft(Event):
    """A peer stopped taking part after a round; a `PeerEntered` or a new uid may follow."""

    node: str
    uid: int
    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class PeerCrashed(Event):
    """A peer stopped in the middle of a round, and lost all that it had in memory."""

    node: str
    uid: int
    round: int


@dataclass(frozen=True, slots=True)
class PeerEntered(Event):
    """A peer that was not there takes part from `round` on: it came later, came back, or had crashed.

    It took `entering_s` from its first request until it was ready: for the checkpoint, the gathers since, and a slot.
    """

    node: str
    uid: int
    round: int
    entering_s: float


@dataclass(frozen=True, slots=True)
class BlockSealed(Event):
    """The chain sealed a block that holds something; heights in which nothing happened have none."""

    height: int
    extrinsics: int
    block_sha256: str = learned()


@dataclass(frozen=True, slots=True)
class EpochSettled(Event):
    """An epoch of the chain ended and paid for its `blocks`: tokens per peer, by uid, and per validator, by name.

    `consensus` is the weight of each peer (uid, weight) that the stake agrees on.
    """

    height: int
    blocks: int
    paid: tuple[tuple[int, float], ...] = learned()
    dividends: tuple[tuple[str, float], ...] = learned()
    owner: float = learned()
    burned: float = learned()
    consensus: tuple[tuple[int, float], ...] = learned()


@dataclass(frozen=True, slots=True)
class ValidatorSettled(Event):
    """A validator is done with a round: scored, gathered, and its outer step taken if there was anything to take."""

    validator: str
    round: int


@dataclass(frozen=True, slots=True)
class ListPublished(Event):
    """The leader published whom to gather, in force from window `effective_window` on."""

    validator: str
    round: int
    effective_window: int
    selected: tuple[int, ...] = learned()
    reserve: tuple[int, ...] = learned()


@dataclass(frozen=True, slots=True)
class RuleApplied(Event):
    """How often a scoring rule could have acted for a validator in a round, and how often it did."""

    validator: str
    round: int
    rule: str
    eligible: int = learned()
    fired: int = learned()


@dataclass(frozen=True, slots=True)
class HeldOutMeasured(Event):
    """Loss, in nats per token, of a lineage on text that nobody trains on."""

    node: str
    round: int
    lineage: str = learned()
    loss: float = learned()


@dataclass(frozen=True, slots=True)
class UpdatesCompared(Event):
    """Figures that do not depend on the model's size, over the payloads that the leader gathered; NaN if undefined.

    `steps_behind` is of the lineage that is farthest from the leader's as the exchange begins, in steps of the size of
    the leader's last one.
    """

    round: int
    honest_cosine: float = learned()
    honest_overlap: float = learned()
    senders_per_coordinate: float = learned()
    steps_behind: float = learned()


@dataclass(frozen=True, slots=True)
class Probed(Event):
    """A user's function looked at the updates that the leader gathered in a round; `probe` is its name."""

    round: int
    probe: str
    value: float = learned()


@dataclass(frozen=True, slots=True)
class TaskMeasured(Event):
    """Share of a task's zero-shot questions that a node's theta answers right after the last round."""

    node: str
    round: int
    task: str
    accuracy: float = learned()


@dataclass(frozen=True, slots=True)
class RunStopped(Event):
    """The run ended; `reason` names the stop condition that was reached."""

    rounds: int
    reason: str


Row: TypeAlias = tuple[Any, ...]
"""The values of an event's fields, in their order."""
