"""The rules for copies: what the later uploader of two payloads whose top-k indices agree too much loses.

A payload meets one of them: that of the highest level which it reaches and which is not off. Source: `templar` v2.1.28.
"""

from __future__ import annotations

import math

from covsim.gauntlet.evidence import Evidence, Finding, Ruling, Standings, Window
from covsim.gauntlet.settings import GauntletSettings
from covsim.gauntlet.slashing import excluded, reset, slashed


def overlap_halve(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """Indices in common with an earlier payload, lowest level: half of final score and indicator average."""
    rows, level = _compared(settings, window), settings.overlap.halve
    findings = [
        Finding(row.uid, _in_common(row, level), slashed(standings.peers[row.uid], 0.5, settings))
        for row in rows
        if _rule_for(settings, row) == "overlap_halve"
    ]
    return Ruling("overlap_halve", len(rows), tuple(findings))


def overlap_reset(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """Indices in common with an earlier payload, middle level: the peer starts over."""
    rows, level = _compared(settings, window), settings.overlap.reset
    findings = [
        Finding(row.uid, _in_common(row, level), reset(settings, standings.peers[row.uid], window.round))
        for row in rows
        if _rule_for(settings, row) == "overlap_reset"
    ]
    return Ruling("overlap_reset", len(rows), tuple(findings))


def overlap_exclude(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """Indices in common with an earlier payload, highest level: the peer starts over and is excluded."""
    rows, level = _compared(settings, window), settings.overlap.exclude
    findings = [
        Finding(row.uid, _in_common(row, level), excluded(settings, window.round))
        for row in rows
        if _rule_for(settings, row) == "overlap_exclude"
    ]
    return Ruling("overlap_exclude", len(rows), tuple(findings))


def _compared(settings: GauntletSettings, window: Window) -> list[Evidence]:
    """The evidence with a measured overlap, from the round on in which the rules act."""
    if window.round < settings.overlap.from_round:
        return []
    return [row for row in window.evidence.values() if not math.isnan(row.overlap)]


def _rule_for(settings: GauntletSettings, row: Evidence) -> str:
    """The rule that an overlap meets, or the empty string."""
    levels = settings.overlap
    rules = (
        ("overlap_exclude", levels.exclude),
        ("overlap_reset", levels.reset),
        ("overlap_halve", levels.halve),
    )
    return next((rule for rule, level in rules if row.overlap >= level and settings.acts(rule)), "")


def _in_common(row: Evidence, level: float) -> str:
    return f"overlap {row.overlap:.2f} with uid {row.overlap_with} >= {level:.2f}"
