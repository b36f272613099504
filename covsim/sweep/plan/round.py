"""One steady round of every peer, by arithmetic: train, upload, gather, again, until a round is like the one before.

The clock's own rules, without its luck: reads never fail, nobody crashes or comes later, everybody behaves. A peer
trains from the end of one exchange until its steps are done or the window closes; its next exchange begins when the
window opens. How long an exchange takes decides how many steps fit, so both are solved together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from covsim.sweep.plan.exchange import Exchange, exchange
from covsim.sweep.plan.setting import Setting
from covsim.sweep.plan.sharing import Floats
from covsim.world.barrier import Barrier

MOST_ITERATIONS = 25
_ROUNDING = 1e-9  # of a step: 0.3 s hold three steps of 0.1 s


@dataclass(frozen=True)
class Round:
    """A round of P peers, in seconds.

    Attributes:
        period_s: from one window to the next.
        steps: inner steps that each does [P].
        batch_share: of the whole batch, in these steps [P].
        compute_s: at work, compression and decoding among it [P].
        blocked_s: waiting for an exchange, or for its bytes; what an overlap hides is not in it [P].
        needed_s: from the opening of a window until all its inner steps would be done and compressed [P].
        exchange: the uploads and gathers.
    """

    period_s: float
    steps: Floats
    batch_share: Floats
    compute_s: Floats
    blocked_s: Floats
    needed_s: Floats
    exchange: Exchange

    @property
    def idle_s(self) -> Floats:
        """Waiting for a window to open [P]."""
        return np.maximum(0.0, self.period_s - self.compute_s - self.blocked_s)


@dataclass(frozen=True)
class _Work:
    """What peers do between two exchanges [P]; `starts_s` is when the upload begins, from the opening of its window."""

    period_s: float
    steps: Floats
    batch_share: Floats
    work_s: Floats
    needed_s: Floats
    starts_s: Floats


def steady_round(setting: Setting, sample: int = 0) -> Round:
    """The round that repeats itself, for one sample of what machines and links give.

    Args:
        setting: what it follows from.
        sample: which of the sampled rounds.
    """
    ends_s = decoding_s = np.zeros(setting.num_peers)
    for _ in range(MOST_ITERATIONS):
        work = _work(setting, sample, ends_s, decoding_s)
        found = exchange(setting, sample, work.starts_s)
        before, ends_s, decoding_s = ends_s, found.ends_s, found.decoded * setting.decoding_s
        if np.allclose(before, ends_s, rtol=1e-9, atol=1e-9):
            break
    return Round(
        period_s=work.period_s,
        steps=work.steps,
        batch_share=work.batch_share,
        compute_s=work.work_s + setting.compression_s + decoding_s,
        blocked_s=_blocked(setting, sample, found, work.starts_s),
        needed_s=work.needed_s,
        exchange=found,
    )


def _blocked(setting: Setting, sample: int, found: Exchange, starts_s: Floats) -> Floats:
    """Seconds in which a peer waits for its exchange [P]."""
    if setting.scenario.plan.overlap_steps is None:
        waits_s: Floats = found.ends_s - starts_s
        return waits_s
    beyond_s: Floats = np.maximum(0.0, found.ends_s - _hidden_steps(setting) * setting.step_s[sample])
    return beyond_s


def _hidden_steps(setting: Setting) -> int:
    """Inner steps beside an exchange."""
    return min(setting.inner_steps, setting.scenario.plan.overlap_steps or 0)


def _work(setting: Setting, sample: int, ends_s: Floats, decoding_s: Floats) -> _Work:
    """A round whose window opened at 0, when the exchange of the round before ends at `ends_s` [P]."""
    step_s, hidden = setting.step_s[sample], _hidden_steps(setting)
    begins_s = np.maximum(ends_s, hidden * step_s) + decoding_s
    wanted = setting.inner_steps - hidden
    needed_s = begins_s + wanted * step_s + setting.compression_s
    barrier = setting.barrier
    if barrier is None:
        period_s = setting.window_s
        steps, share = _steps_that_fit(setting, period_s - begins_s, step_s, wanted)
    else:
        period_s = _opens_after(barrier, needed_s)
        begun = np.ceil((period_s - begins_s) / step_s - _ROUNDING)  # a step that is begun is ended
        steps, share = np.clip(begun, 0, wanted), np.ones(setting.num_peers)
    drifts = setting.never_cut | (barrier is not None and barrier.late == "miss")
    steps, share = np.where(drifts, wanted, steps), np.where(drifts, 1.0, share)
    behind_s = begins_s + steps * step_s * share + setting.compression_s - period_s
    return _Work(
        period_s=period_s,
        steps=steps + hidden,
        batch_share=share,
        work_s=(hidden + steps * share) * step_s,
        needed_s=needed_s,
        starts_s=np.where(drifts, _drifting(behind_s, period_s, setting.rounds), np.maximum(0.0, behind_s)),
    )


def _steps_that_fit(setting: Setting, left_s: Floats, step_s: Floats, wanted: int) -> tuple[Floats, Floats]:
    """Steps on the largest batch with which all fit, and that batch's share; whole batches for who takes no smaller."""
    batch, left_s = setting.scenario.training.batch, np.maximum(0.0, left_s)
    work_s = np.maximum(wanted * step_s, 1e-300)
    fitting = np.floor(batch * left_s / work_s + _ROUNDING)
    size = np.maximum(np.maximum(1, fitting), np.floor(batch * setting.floors + _ROUNDING))
    share = np.maximum(np.minimum(size, batch) / batch, setting.floors)
    share = np.where(work_s <= left_s, 1.0, share)
    steps = np.floor(left_s / (step_s * share) + _ROUNDING)
    return np.minimum(steps, wanted), share


def _opens_after(barrier: Barrier, needed_s: Floats) -> float:
    """When the next window opens: when all or the first so many are ready, or at the deadline."""
    first = min(barrier.wait_for.first or len(needed_s), len(needed_s))
    return min(float(np.partition(needed_s, first - 1)[first - 1]), barrier.window_s)


def _drifting(behind_s: Floats, period_s: float, rounds: int) -> Floats:
    """How late uploads begin on average, of peers who end all steps and fall behind by so much in each round [P]."""
    return np.minimum(np.maximum(0.0, behind_s) * (rounds + 1) / 2, period_s / 2)
