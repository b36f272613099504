"""What a finished run's tape still knows: every payload of a round, and the theta before that round's outer step.

Scoring does not reach back into training where everybody's payload enters anyway, or where only what was sent is asked
about. There a run's payloads can be measured again, under other settings, without training anything (open loop).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from covsim.nodes.gather import Submission
from covsim.nodes.seam import Computed
from covsim.nodes.trained import exchange_of
from covsim.protocol.lineage import Lineage
from covsim.randomness import Streams
from covsim.record.runner import scenario_of
from covsim.record.tape import records
from covsim.scenario import Scenario
from covsim.simulation import Simulation


@dataclass(frozen=True)
class Exchanged:
    """One round of a run, as the lead validator could have seen it.

    Attributes:
        round: counted from 0.
        lineage: that validator's history before the outer step of the round.
        submissions: everybody's payload that was on time, by uid.
        entered: the uids of those that entered its gather.
        previous_stored_s: by uid, the stamp of its payload of the round before; NaN where there was none.
    """

    round: int
    lineage: Lineage
    submissions: tuple[Submission, ...]
    entered: frozenset[int]
    previous_stored_s: dict[int, float]


class Replay:
    """A run's folder, read again.

    Args:
        folder: of a finished run that has kept its tape.

    Raises:
        FileNotFoundError: the tape is gone.
    """

    def __init__(self, folder: Path) -> None:
        self.scenario: Scenario = scenario_of(folder)
        self.parts = Simulation(self.scenario, Computed())
        self.exchange = exchange_of(self.scenario, Streams(self.scenario.seed))
        self.peers = pd.read_parquet(folder / "peers.parquet")
        self._rounds = pd.read_parquet(folder / "rounds.parquet").set_index("round")
        self._submissions = pd.read_parquet(folder / "submissions.parquet")
        self._payloads = _payloads(folder / "tape" / "tape.bin")

    @property
    def behaviors(self) -> dict[int, str]:
        """By uid."""
        return dict(self.peers[["uid", "behavior"]].drop_duplicates().itertuples(index=False, name=None))

    def rounds(self) -> Iterator[Exchanged]:
        """Every settled round in its order.

        Raises:
            ValueError: the outer steps do not lead to the theta that the run had.
        """
        lineage, lineages = self.parts.lineages.root, self.parts.lineages
        stamps: dict[int, float] = {}
        for round in map(int, self._rounds.index):
            submissions = self._submissions_of(round)
            contributed = self.peers[(self.peers["round"] == round) & self.peers["contributed"].fillna(False)]
            entered = frozenset(int(uid) for uid in contributed["uid"])
            before = {each.uid: stamps.get(each.uid, math.nan) for each in submissions}
            yield Exchanged(round, lineage, submissions, entered, before)
            stepped = [(each.uid, each.sha256, each.decoded) for each in submissions if each.uid in entered]
            lineage = lineages.child(lineage, stepped, round) if stepped else lineage
            if stepped and lineage.key != self._rounds["lineage"][round]:
                raise ValueError(f"round {round}: the tape leads to another theta than the run had")
            stamps = dict(self._of(round)[["uid", "simulated_s"]].itertuples(index=False, name=None))

    def _submissions_of(self, round: int) -> tuple[Submission, ...]:
        """What counts of the round; of a uid's payloads the last, which is the one that lies in the store."""
        rows, found = self._of(round), []
        rows = rows[rows["on_time"]].drop_duplicates("uid", keep="last").sort_values("uid")
        for uid, sha256, stored_s in rows[["uid", "payload_sha256", "simulated_s"]].itertuples(index=False, name=None):
            decoded = self.exchange.decode(round, self._payloads[sha256])
            found.append(Submission(int(uid), sha256, decoded, float(stored_s)))
        return tuple(found)

    def _of(self, round: int) -> pd.DataFrame:
        return self._submissions[self._submissions["round"] == round]


def _payloads(tape: Path) -> dict[str, bytes]:
    """All payloads of a tape by their SHA-256; a copied one stands there once."""
    return {hashlib.sha256(data).hexdigest(): data for kind, _, data in records(tape) if kind == "payload"}
