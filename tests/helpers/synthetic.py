"""A plausible run, played without a simulation: the events of 72 peers in four cohorts over 30 rounds.

It obeys the rules that the checkers watch (links, put windows, lists, weights), so a checker's test breaks one rule of
it at a time. Nothing is trained: losses and scores follow smooth curves with seeded noise.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from covsim.events import (
    EpochSettled,
    Evaluated,
    Event,
    Gathered,
    HeldOutMeasured,
    ListPublished,
    NodeJoined,
    OuterStepTaken,
    RoundSettled,
    RuleApplied,
    RunStopped,
    Scored,
    Submitted,
    Trained,
    Transferred,
    WeightsSet,
    WindowOpened,
)

STAKES = {"lead": 0.7, "second": 0.3}
COHORTS = {"lazy": ("lazy", 8), "flippers": ("sign_flip", 4), "copycats": ("copycat", 2)}
PAYLOAD = 1.989e9
MODEL_PAYLOAD = 1432
GATHER, RESERVE = 20, 10
EVALUATED = 0.83
STEP_S, H = 40.0, 30
BLOCKS, BLOCK_S = 170, 12.0
WINDOW_S, PUT_S = BLOCKS * BLOCK_S, 180.0
TRUE_SCORE = {"honest": 1.0, "lazy": 0.55, "sign_flip": -1.0, "copycat": 0.9}


@dataclass
class Peer:
    """One peer of the play and what it is rated, by validator."""

    uid: int
    cohort: str
    behavior: str
    uplink: float
    downlink: float
    step_s: float
    free_s: float = 0.0
    mu: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAKES, 25.0))
    sigma: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAKES, 25.0 / 3))
    average: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAKES, 0.0))
    final: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAKES, 0.0))


def play(num_peers: int = 72, rounds: int = 30, seed: int = 1) -> list[Event]:
    """All events of the run, by time; equal times stay in the order of emission."""
    return sorted(_Play(num_peers, rounds, seed).events(), key=lambda event: event.time_s)


class _Play:
    def __init__(self, num_peers: int, rounds: int, seed: int) -> None:
        self.rounds = rounds
        self.luck = np.random.default_rng(seed)
        self.peers = self._population(num_peers)
        shuffled = [int(uid) for uid in self.luck.permutation(num_peers)]
        self.lineages: dict[str, str] = {}
        self.weights: dict[str, dict[int, float]] = {name: {} for name in STAKES}
        self.gather = min(GATHER, num_peers // 3)
        self.lists = {0: (tuple(shuffled[: self.gather]), tuple(shuffled[self.gather : self.gather + RESERVE]))}

    def _population(self, num_peers: int) -> list[Peer]:
        cohorts = [(cohort, kind) for cohort, (kind, count) in COHORTS.items() for _ in range(count)]
        cohorts += [("honest", "honest")] * (num_peers - len(cohorts))
        order = self.luck.permutation(num_peers)
        return [
            Peer(
                uid,
                *cohorts[order[uid]],
                uplink=float(self.luck.choice([110e6, 80e6, 250e6], p=[0.8, 0.08, 0.12])),
                downlink=float(self.luck.choice([500e6, 300e6, 1e9], p=[0.7, 0.1, 0.2])),
                step_s=STEP_S * float(self.luck.lognormal(0.0, 0.2)),
            )
            for uid in range(num_peers)
        ]

    def events(self) -> Iterator[Event]:
        yield from self._joining()
        stop_s = 0.0
        for round in range(self.rounds):
            opened_s = (round + 1) * WINDOW_S
            yield WindowOpened(opened_s, round + 1, (round + 1) * BLOCKS)
            stored = dict(self._training(round))
            for uid, (stored_s, event, transfer) in stored.items():
                yield from (transfer, event)
                assert stored_s == self.peers[uid].free_s
            on_time = {uid: event for uid, (stored_s, event, _) in stored.items() if event.on_time}
            yield from self._gathering(round, on_time)
            yield from self._scoring(round, on_time)
            stop_s = max(stop_s, opened_s + WINDOW_S - 1)
        yield RunStopped(stop_s + 1, self.rounds, "rounds")

    def _joining(self) -> Iterator[Event]:
        for name in STAKES:
            yield NodeJoined(0.0, f"validator:{name}", -1, "", "", 10e9, 10e9, STEP_S)
        for peer in self.peers:
            node = f"peer:{peer.uid}"
            yield NodeJoined(0.0, node, peer.uid, peer.cohort, peer.behavior, peer.uplink, peer.downlink, peer.step_s)
        yield WindowOpened(0.0, 0, 0)
        yield ListPublished(0.0, "lead", -1, 0, *self.lists[0])
        yield HeldOutMeasured(0.0, "validator:lead", -1, "root", 5.55)

    def _training(self, round: int) -> Iterator[tuple[int, tuple[float, Submitted, Event]]]:
        """Everybody's training and upload; by uid the store's stamp, the submission and the transfer."""
        self.spans: dict[int, list[float]] = {}
        opened_s = (round + 1) * WINDOW_S
        self.trained: list[Event] = []
        for peer in self.peers:
            wanted = {"lazy": H // 3, "copycat": 0}.get(peer.behavior, H)
            steps = int(min(wanted, (opened_s - peer.free_s) // peer.step_s))
            compute_s = steps * peer.step_s
            self.trained.append(Trained(peer.free_s + compute_s, peer.uid, round, steps, wanted, compute_s))
            start_s = opened_s + (150.0 if peer.behavior == "copycat" else 0.0)
            stored_s = start_s + 0.05 + PAYLOAD * 8 / peer.uplink
            key = f"round-{round}/uid-{peer.uid}"
            submitted = Submitted(
                stored_s,
                peer.uid,
                round,
                PAYLOAD,
                stored_s,
                stored_s < opened_s + PUT_S,
                MODEL_PAYLOAD,
                f"{peer.uid} {round}",
            )
            moved = Transferred(stored_s, f"peer:{peer.uid}", key, "submit", "up", PAYLOAD, start_s, True)
            self.spans[peer.uid] = [peer.free_s, compute_s, stored_s - start_s]
            peer.free_s = stored_s
            yield peer.uid, (stored_s, submitted, moved)

    def _gathering(self, round: int, on_time: dict[int, Submitted]) -> Iterator[Event]:
        yield from self.trained
        selected, reserve = self.lists[max(window for window in self.lists if window <= round + 1)]
        for node, downlink, free_s in self._nodes(round):
            fallen = [uid for uid in selected if uid not in on_time]
            stand_ins = [uid for uid in reserve if uid in on_time][: len(fallen)]
            unread = {uid for uid in selected if self.luck.random() < 0.0004}
            uids = sorted(({uid for uid in selected if uid in on_time} | set(stand_ins)) - unread)
            start_s = max(free_s, (round + 1) * WINDOW_S + PUT_S)
            end_s = start_s + len(uids) * PAYLOAD * 8 / downlink
            for uid in uids:
                key = f"round-{round}/uid-{uid}"
                yield Transferred(end_s, node, key, "gather", "down", PAYLOAD, start_s, True)
            missing = tuple(sorted({*fallen, *unread}))
            outcome = "partial" if len(uids) < len(selected) else "complete"
            yield Gathered(end_s, node, round, outcome, tuple(uids), missing, len(stand_ins), end_s - free_s)
            lineage = self.lineages[node] = f"{zlib.crc32(f'{self.lineages.get(node)} {round} {uids}'.encode()):08x}"
            yield OuterStepTaken(end_s, node, round, lineage)
            if node == "validator:lead" or (unread and self.luck.random() < 0.2):
                yield HeldOutMeasured(end_s, node, round, lineage, self._loss(round, lineage))
            if node.startswith("peer:"):
                yield self._settled(int(node[5:]), round, end_s)

    def _nodes(self, round: int) -> Iterator[tuple[str, float, float]]:
        for name in STAKES:
            yield f"validator:{name}", 10e9, (round + 1) * WINDOW_S + PUT_S
        for peer in self.peers:
            yield f"peer:{peer.uid}", peer.downlink, peer.free_s

    def _loss(self, round: int, lineage: str) -> float:
        noise = np.random.default_rng(int(lineage, 16)).normal(0.0, 0.02)
        return float(2.35 + 3.1 * np.exp(-(round + 1) / 5.5) + noise)

    def _settled(self, uid: int, round: int, end_s: float) -> RoundSettled:
        peer = self.peers[uid]
        started_s, compute_s, upload_s = self.spans[uid]
        download_s = max(0.0, end_s - max(peer.free_s, (round + 1) * WINDOW_S + PUT_S))
        peer.free_s = end_s
        idle_s = end_s - started_s - compute_s - upload_s - download_s
        return RoundSettled(end_s, uid, round, started_s, compute_s, upload_s, download_s, idle_s, idle_other_s=idle_s)

    def _scoring(self, round: int, on_time: dict[int, Submitted]) -> Iterator[Event]:
        for name in STAKES:
            time_s = (round + 1) * WINDOW_S + PUT_S + 700.0
            drawn = [peer for peer in self.peers if self.luck.random() < EVALUATED]
            for peer in drawn:
                yield self._evaluated(name, peer, round, time_s, peer.uid in on_time)
            ranked = sorted((p for p in self.peers if p.final[name] > 0), key=lambda p: -p.final[name])
            weights = _ramp([peer.uid for peer in ranked[: GATHER + RESERVE]])
            burned = 1.0 - sum(weight for _, weight in weights)
            everybody = tuple(peer.uid for peer in self.peers)
            yield Scored(
                time_s, name, round, len(drawn), 480.0, everybody, (self.gather, RESERVE), weights, max(0.0, burned)
            )
            yield WeightsSet(time_s, name, round, weights, max(0.0, burned))
            self.weights[name] = dict(weights)
            for rule, fired in (("missing", 0), ("late", len(drawn) // 10), ("overlap_exclude", 2 * (round >= 20))):
                yield RuleApplied(time_s, name, round, rule, len(drawn) * (rule != "missing"), fired)
            if name == "lead" and round % 2 == 0:
                yield self._published(round, time_s, [peer.uid for peer in ranked])
        yield self._epoch(round)

    def _epoch(self, round: int) -> EpochSettled:
        """One a round, at its end: the stake-weighted mean of the weights, 59 % of which is paid to nobody here."""
        paid = {
            peer.uid: BLOCKS * 0.41 * sum(STAKES[name] * self.weights[name].get(peer.uid, 0.0) for name in STAKES)
            for peer in self.peers
        }
        burned = BLOCKS - sum(paid.values())
        time_s = (round + 1) * WINDOW_S + PUT_S + 701.0
        return EpochSettled(time_s, (round + 1) * BLOCKS, BLOCKS, tuple(paid.items()), (), 0.0, burned, ())

    def _evaluated(self, name: str, peer: Peer, round: int, time_s: float, on_time: bool) -> Evaluated:
        copied = peer.behavior == "copycat" and round >= 20
        before = (peer.average[name], peer.mu[name], peer.sigma[name], peer.final[name])
        score = TRUE_SCORE[peer.behavior] * (0.02 + 0.1 * np.exp(-round / 8)) + float(self.luck.normal(0.0, 0.01))
        indicator = 1.0 if self.luck.random() < {"honest": 0.85, "lazy": 0.75}.get(peer.behavior, 0.45) else -1.0
        aim = 25.0 + 11.0 * TRUE_SCORE[peer.behavior] if on_time else 12.0
        peer.mu[name] += 0.12 * (aim - peer.mu[name]) + float(self.luck.normal(0.0, 0.4))
        peer.sigma[name] = max(1.6, peer.sigma[name] * 0.95)
        peer.average[name] = 0.95 * peer.average[name] + 0.05 * indicator
        counted = peer.average[name] if peer.average[name] >= 0.1 or round < 10 else 0.0
        peer.final[name] = (peer.mu[name] - 3 * peer.sigma[name]) * max(0.0, counted) * (not copied)
        nan, status = float("nan"), "ok" if on_time else "late"
        losses = (3.0, 3.0 - score, 3.0, 3.0 - 3.0 * score) if on_time else (nan,) * 4
        stored_s = peer_stamp(peer, round)
        reasons = (f"overlap_exclude: overlap 1.00 >= 0.60: final score {peer.final[name]:.2f} -> 0",) * copied
        return Evaluated(
            time_s, name, peer.uid, round, status, stored_s, nan, "", True, *self._asked(peer, round), *losses,
            1.0 if copied else 0.016, -1, nan, 0.0, score if on_time else nan, indicator if on_time else nan,
            peer.average[name], before[0], peer.mu[name], before[1], peer.sigma[name], before[2],
            peer.final[name], before[3], reasons,
        )  # fmt: skip

    def _asked(self, peer: Peer, round: int) -> tuple[bool, bool, bool]:
        """Whether a peer was on the gather list in force, stood in as a reserve, and entered."""
        in_force = self.lists[max(window for window in self.lists if window <= round + 1)]
        listed = peer.uid in in_force[0]
        return listed, False, listed

    def _published(self, round: int, time_s: float, best: list[int]) -> ListPublished:
        rest = [int(uid) for uid in self.luck.permutation(len(self.peers)) if uid not in best]
        order = best + rest
        effective = round + 3
        self.lists[effective] = (tuple(order[: self.gather]), tuple(order[self.gather : self.gather + RESERVE]))
        return ListPublished(time_s, "lead", round, effective, *self.lists[effective])


def peer_stamp(peer: Peer, round: int) -> float:
    """When the store had this peer's payload of a round."""
    start_s = (round + 1) * WINDOW_S + (150.0 if peer.behavior == "copycat" else 0.0)
    return start_s + 0.05 + PAYLOAD * 8 / peer.uplink


def _ramp(uids: list[int]) -> tuple[tuple[int, float], ...]:
    """Half burned; of the rest 75 % on a 2 : 1 ramp, 25 % to the reserve; nothing when nobody is positive."""
    if not uids:
        return ()
    places = np.linspace(2.0, 1.0, len(uids[:GATHER]))
    stand_by = 0.5 ** np.arange(len(uids[GATHER:]))
    parts = [0.375 * places / places.sum()]
    if len(stand_by):
        parts.append(0.125 * stand_by / stand_by.sum())
    return tuple(zip(uids, (float(weight) for part in parts for weight in part), strict=True))
