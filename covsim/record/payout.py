"""Who is paid: the tokens that the chain's epochs paid to peers, by the round in whose window each epoch ended."""

from __future__ import annotations

from covsim.record.recorder import Recorder


def payouts(recorder: Recorder) -> dict[int, dict[int, float]]:
    """By round and uid, the tokens that the peer was paid; what is burned is in nobody's."""
    paid: dict[int, dict[int, float]] = {}
    for uid, accounts in recorder.purses.accounts.items():
        for round, account in accounts.items():
            if account.earned:
                paid.setdefault(round, {})[uid] = account.earned
    return paid


def total_per_peer(recorder: Recorder) -> dict[int, float]:
    """The tokens that every peer was paid over the run; 0 for those who earned nothing."""
    return {uid: recorder.purses.earned(uid) for uid in recorder.peers}
