"""What can never earn, under any version of the rules; and that the books stay sound whatever is handed in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from gauntlet_windows import established, lots, seen
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.gauntlet.checks import settle
from covsim.gauntlet.evidence import Evidence, Judgement, Standing, Standings, gradient_score
from covsim.gauntlet.gauntlet import judge
from covsim.gauntlet.presets import PRESETS
from covsim.gauntlet.settings import ALWAYS_ON, RULES, GauntletSettings
from covsim.gauntlet.weights import weigh

ANYTHING = st.floats(allow_nan=True, allow_infinity=True)
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])
LOSS = st.one_of(st.floats(0.1, 10), st.floats(0.1, 10), ANYTHING)
BAD_STATUS = st.sampled_from(["missing", "late", "early", "invalid", "unseen"])
BEHIND = st.one_of(st.just(0.0), st.just(math.nan), st.floats(0, 6), ANYTHING)
OVERLAP = st.one_of(st.just(math.nan), st.floats(0, 1))
WEIGHTS = st.sampled_from(
    [
        None,
        {"kind": "ramp"},
        {"kind": "power", "power": 2.2},
        {"kind": "power", "floor": "lowest", "top": 3, "burn": 0},
        {"kind": "power", "floor": "lowest"},
    ]
)
PEERS = range(6)
PLACES = (3, 2)


@st.composite
def version(draw: st.DrawFn, quirk: bool) -> GauntletSettings:
    """Any preset, with any weight rule, with or without the quirk of a rating that is relative, some rules off."""
    section = {
        "preset": draw(st.sampled_from(list(PRESETS))),
        "overlap": {"from_round": 0},
        "quirks": {"rank_without_improvement": quirk, "slash_overwritten": draw(st.booleans())},
    }
    weights = draw(WEIGHTS)
    if weights is not None:
        section["weights"] = weights
    if draw(st.booleans()):
        section["off"] = draw(st.lists(st.sampled_from([rule for rule in RULES if rule not in ALWAYS_ON]), unique=True))
    return GauntletSettings.model_validate(section)


@st.composite
def row(draw: st.DrawFn, uid: int) -> Evidence:
    """Whatever a validator may ever hand in, contradictions and absurd numbers included."""
    role = {name: draw(st.booleans()) for name in ("evaluated", "on_gather_list", "asked_as_reserve", "gathered")}
    losses = {name: draw(LOSS) for name in ("own_before", "own_after", "random_before", "random_after")}
    stamps = {name: draw(ANYTHING) for name in ("stored_s", "previous_stored_s", "overlap_stored_s")}
    return Evidence(
        uid=uid,
        status=draw(st.one_of(st.just("ok"), BAD_STATUS)),
        overlap=draw(OVERLAP),
        overlap_with=draw(st.integers(-1, 9)),
        steps_behind=draw(BEHIND),
        **role,
        **losses,
        **stamps,
    )


@st.composite
def standing(draw: st.DrawFn) -> Standing:
    """A peer with any past."""
    negatives = tuple(draw(st.lists(st.booleans(), max_size=8)))
    return established(
        mu=draw(st.floats(-20, 60)),
        sigma=draw(st.floats(0.5, 9)),
        indicator_average=draw(st.floats(-1, 1)),
        final_score=draw(st.one_of(st.just(0.0), st.floats(-20, 60))),
        negatives=negatives,
        negatives_in_a_row=draw(st.integers(0, 4)),
        benched=draw(st.booleans()),
        misses=tuple(draw(st.lists(st.booleans(), max_size=8))),
        misses_in_a_row=draw(st.integers(0, 4)),
        inactive_since=draw(st.sampled_from([-1, 10, 29])),
        excluded_until=draw(st.sampled_from([-1, 30, 31, 40])),
    )


def improves(evidence: Evidence) -> bool:
    """True for a finite, positive measured improvement."""
    settled = settle(evidence)
    return settled.measured and gradient_score(settled) > 0


def of_no_worth(evidence: Evidence, quirk: bool) -> bool:
    """What must earn nothing: no measurement, or, without the quirk, one of no improvement."""
    return not settle(evidence).measured if quirk else not improves(evidence)


def window(rules: GauntletSettings, peers: dict[int, Standing], rows: list[Evidence], active: set[int]) -> Judgement:
    return judge(rules, Standings(peers), rows, round=30, active=active, places=PLACES, lots=lots())


@pytest.mark.parametrize("quirk", [False, True])
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_of_no_worth_raises_neither_score_nor_weight(quirk: bool, data: st.DataObject) -> None:
    """Against the window before, while the other peers are not in evidence."""
    rules = data.draw(version(quirk))
    others = {uid: established(final_score=data.draw(st.floats(-20, 60))) for uid in PEERS if uid}
    before = {0: data.draw(standing()), **others}
    evidence = data.draw(row(0).filter(lambda drawn: of_no_worth(drawn, quirk)))
    active = {*others, *data.draw(st.sampled_from([(), (0,)]))}
    final_scores = {uid: peer.final_score for uid, peer in before.items()}
    weight = weigh(rules.weights, final_scores, PLACES, lots()).shares.get(0, 0.0)
    after = window(rules, before, [evidence], active).standings.peers[0]
    assert after.final_score <= before[0].final_score
    assert after.weight <= weight + 1e-12


@pytest.mark.parametrize("quirk", [False, True])
@settings(max_examples=80, deadline=None)
@given(st.data())
def test_in_any_company_no_such_submission_raises_a_score(quirk: bool, data: st.DataObject) -> None:
    rules = data.draw(version(quirk))
    before = {uid: data.draw(standing()) for uid in PEERS}
    rows = [data.draw(row(uid)) for uid in PEERS]
    after = window(rules, before, rows, set(PEERS)).standings.peers
    for evidence in rows:
        if of_no_worth(evidence, quirk):
            assert after[evidence.uid].final_score <= before[evidence.uid].final_score


def test_with_the_quirk_a_payload_that_does_harm_raises_score_and_weight() -> None:
    """The counterexample to the above: peer 0 makes the model worse, the others in the match more so."""
    before = {uid: established(final_score=3.0 if uid else 1.0) for uid in range(5)}
    rows = [seen(uid, gain=-0.01 - 0.1 * uid, own_gain=0.0 if not uid else -0.9) for uid in before]
    final_scores = {uid: peer.final_score for uid, peer in before.items()}
    weight = weigh(GauntletSettings().weights, final_scores, PLACES, lots()).shares[0]
    judgement = window(GauntletSettings(), before, rows, set(before))
    assert judgement.verdicts[0].gradient_score < 0
    assert judgement.standings.peers[0].final_score > 1
    assert judgement.standings.peers[0].weight > weight
    strict = GauntletSettings.model_validate({"quirks": {"rank_without_improvement": False}})
    assert window(strict, before, rows, set(before)).standings.peers[0].final_score == 1


# Over several windows -------------------------------------------------------------------------------------------------


@st.composite
def worthless(draw: st.DrawFn, uid: int) -> Evidence:
    """A submission without a finite measured loss: missing, invalid, or exploding."""
    evidence = draw(row(uid))
    if draw(st.booleans()):
        return replace(evidence, status=draw(BAD_STATUS))
    losses = ("own_before", "own_after", "random_before", "random_after")
    return replace(evidence, status="ok", **{draw(st.sampled_from(losses)): draw(NOT_FINITE)})


def play(
    windows: list[list[Evidence]], rules: GauntletSettings, name: Callable[[int], int] = lambda uid: uid
) -> Iterator[Judgement]:
    """Several windows one after the other, everybody active; peers are called `name(uid)` and keep their lots."""
    standings, uids = Standings(), range(8)
    for now, rows in enumerate(windows):
        drawn = {name(uid): lots(now)(uid) for uid in uids}
        judgement = judge(rules, standings, rows, round=now, active=list(drawn), places=PLACES, lots=drawn.__getitem__)
        yield judgement
        standings = judgement.standings


@pytest.mark.parametrize("preset", list(PRESETS))
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_without_a_finite_measurement_nobody_ever_earns(preset: str, data: st.DataObject) -> None:
    """Weights, too, where pay begins at 0; the paper's begins at the lowest score, so a newcomer may be paid."""
    rules = GauntletSettings.model_validate({"preset": preset})
    windows = [
        [*(data.draw(worthless(uid)) for uid in range(4)), *(seen(uid, gain=0.01 * uid) for uid in range(4, 8))]
        for _ in range(data.draw(st.integers(1, 5)))
    ]
    for judgement in play(windows, rules):
        assert all(judgement.standings.peers[uid].final_score <= 0 for uid in range(4))
        if preset != "paper":
            assert not {uid for uid, _ in judgement.weights} & set(range(4))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_handed_in_the_books_stay_sound(data: st.DataObject) -> None:
    rules = data.draw(version(data.draw(st.booleans())))
    windows = [[data.draw(row(uid)) for uid in range(8)] for _ in range(data.draw(st.integers(1, 6)))]
    for judgement in play(windows, rules):
        assert sum(weight for _, weight in judgement.weights) + judgement.burned == pytest.approx(1)
        assert all(0 <= weight <= 1 for _, weight in judgement.weights)
        for peer in judgement.standings.peers.values():
            assert all(map(math.isfinite, (peer.mu, peer.sigma, peer.final_score, peer.weight)))
            assert -1 <= peer.indicator_average <= 1
            assert peer.sigma > 0
            assert peer.cut == 1
        for entry in judgement.coverage:
            assert 0 <= entry.fired <= entry.eligible
            assert entry.eligible == 0 or rules.acts(entry.rule)
        assert [verdict.evidence.uid for verdict in judgement.verdicts] == list(range(8))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_names_and_listing_order_decide_nothing(data: st.DataObject) -> None:
    """The same evidence under permuted uids, handed in in another order, gives the same fates."""
    rules = data.draw(version(data.draw(st.booleans())))
    rules = rules.model_copy(update={"ties": data.draw(st.sampled_from(["shared", "drawn"]))})
    names = data.draw(st.permutations(range(8)))
    windows = [[data.draw(row(uid)) for uid in range(8)] for _ in range(3)]
    renamed = [list(reversed([replace(each, uid=names[each.uid]) for each in rows])) for rows in windows]
    for first, second in zip(play(windows, rules), play(renamed, rules, names.__getitem__), strict=True):
        for uid in range(8):
            ours, theirs = first.standings.peers[uid], second.standings.peers[names[uid]]
            assert _numbers(ours) == pytest.approx(_numbers(theirs), rel=1e-6, abs=1e-9)


def _numbers(peer: Standing) -> list[float]:
    numbers = [peer.mu, peer.sigma, peer.final_score, peer.weight, peer.indicator_average]
    return [*numbers, peer.misses_in_a_row, peer.excluded_until]
