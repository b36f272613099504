"""Uploads and gathers of one round, from the opening of their window: through the store, or from peer to peer.

All who use a shared link at all are taken to use it at the same time, which is the worst case. A gather downloads what
is there and waits for what is not: its link is never idle while something lies ready, so its end does not depend on how
the link is shared among the payloads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from covsim.sweep.plan.setting import Setting
from covsim.sweep.plan.sharing import Flags, Floats, Shared, fair_rates

MOST_ARRIVALS = 64
"""The payloads of a gather arrive in at most so many portions, at quantiles of all arrivals."""


@dataclass(frozen=True)
class Exchange:
    """P peers and V validators; seconds from the opening of the window that counts uploads.

    Attributes:
        upload_s: of each upload [P]; 0 where payloads go from peer to peer.
        gather_s: from the end of the own upload to that of the gather [P].
        ends_s: when the exchange is over [P].
        on_time: whose payload counts [P].
        complete: whose gather ends before it is given up [P].
        decoded: payloads that each reads [P].
        evaluated: how many peers a validator evaluates.
        judged_s: when a validator is done with the round [V].
        up_bytes, down_bytes: of all peers together; validators read `read_bytes`.
        puts, gets: requests to the store.
    """

    upload_s: Floats
    gather_s: Floats
    ends_s: Floats
    on_time: Flags
    complete: Flags
    decoded: Floats
    evaluated: int
    judged_s: Floats
    up_bytes: float
    down_bytes: float
    read_bytes: float
    puts: int
    gets: float


@dataclass(frozen=True)
class _List:
    """What is on the gather list: payloads that are there in time, late ones, and reserves that can stand in."""

    on_time: float
    late: float
    reserves: float


def exchange(setting: Setting, sample: int, starts_s: Floats) -> Exchange:
    """Uploads and gathers when peers begin to upload at `starts_s` [P] after the window opened."""
    if setting.direct is not None:
        return _from_peer_to_peer(setting, sample, starts_s)
    return _through_the_store(setting, sample, starts_s)


def _through_the_store(setting: Setting, sample: int, starts_s: Floats) -> Exchange:
    size = setting.payload_of(sample)
    upload_s = setting.wait_s + size * 8 / fair_rates(setting.uplink[sample], setting.up_shared)
    landed_s = starts_s + upload_s
    on_time = landed_s < setting.put_window_s
    listed = _listed(setting, on_time)
    each_s, turns = _seconds_each(setting, sample, listed)
    peers = _gather_ends(setting, listed, np.sort(landed_s[on_time]), landed_s, each_s[: setting.num_peers])
    peers = peers + (turns * setting.wait_s if listed.on_time else 0.0)
    complete = peers - landed_s <= setting.gather_timeout_s
    ends_s = np.where(complete, peers, landed_s + setting.gather_timeout_s)
    fetched = (listed.on_time + listed.reserves) * (1 - 1 / setting.num_peers)  # nobody fetches its own
    found = Exchange(
        upload_s=upload_s,
        gather_s=ends_s - landed_s,
        ends_s=ends_s,
        on_time=on_time,
        complete=complete,
        decoded=np.where(complete, listed.on_time + listed.reserves, 0.0),
        evaluated=0,
        judged_s=np.zeros(0),
        up_bytes=size * setting.num_peers,
        down_bytes=fetched * size * setting.num_peers,
        read_bytes=0.0,
        puts=setting.num_peers,
        gets=fetched * setting.num_peers * _requests(setting),
    )
    return _judged(setting, found, listed, np.sort(landed_s[on_time]), each_s[setting.num_peers :])


def _judged(setting: Setting, found: Exchange, listed: _List, landed_s: Floats, each_s: Floats) -> Exchange:
    """The same with the validators' part: gather, wait for the put window, fetch who is drawn, evaluate."""
    num_on_time = int(found.on_time.sum())
    evaluated = min(setting.scenario.gauntlet.evaluated_per_window, num_on_time)
    gathered = listed.on_time + listed.reserves
    further = evaluated * max(0.0, 1 - gathered / num_on_time) if num_on_time else 0.0
    ends_s = _gather_ends(setting, listed, landed_s, np.zeros(len(each_s)), each_s)
    ends_s = np.maximum(ends_s, setting.put_window_s) + further * each_s + evaluated * setting.evaluation_s
    read = (gathered + further) * len(each_s)
    return replace(
        found,
        evaluated=evaluated,
        judged_s=ends_s,
        read_bytes=read * found.up_bytes / setting.num_peers,
        gets=found.gets + read * _requests(setting),
    )


def _listed(setting: Setting, on_time: Flags) -> _List:
    """What the list holds in the long run: Gauntlet's those who are on time, a drawn one its share of the late."""
    listed, share, number = setting.listed, float(on_time.mean()), int(on_time.sum())
    if listed.uids is not None:
        there = {peer.uid for peer, is_there in zip(setting.peers, on_time, strict=True) if is_there}
        known = float(sum(uid in there for uid in listed.uids))
        return _List(known, len(listed.uids) - known, 0.0)
    if listed.prefers_on_time:
        known = float(min(listed.places, number))
        late = listed.places - known
        return _List(known, late, min(late, float(listed.reserve), number - known))
    late = listed.places * (1 - share)
    return _List(listed.places * share, late, min(late, listed.reserve * share))


def _seconds_each(setting: Setting, sample: int, listed: _List) -> tuple[Floats, int]:
    """Seconds that one payload takes each reader when all gather at once [P + V], and turns of requests."""
    readers = len(setting.reader_links)
    own, turns = np.concatenate([setting.downlink[sample], setting.reader_links]), 1
    if setting.ranges is not None:
        flow = setting.ranges.flow(setting.payload_bytes)
        own, turns = np.minimum(own, max(1.0, listed.on_time) * flow.cap_bits_per_s), flow.num_turns
    # Validators share what all share. Of links between regions nothing is said of theirs.
    shared = [_with_readers(link, readers, link is setting.down_shared[-1]) for link in setting.down_shared]
    return setting.payload_of(sample) * 8 / fair_rates(own, shared), turns


def _with_readers(link: Shared, readers: int, takes_them: bool) -> Shared:
    return replace(link, users=np.concatenate([link.users, np.full(readers, takes_them)]))


def _gather_ends(setting: Setting, listed: _List, landed_s: Floats, begins_s: Floats, each_s: Floats) -> Floats:
    """When gathers end that begin at `begins_s` and need `each_s` a payload [N]; landings in order, of who is on time.

    What is not there yet is seen at the next poll, half an interval later on average. For who is missing a gather waits
    until the put window closes, and then fetches reserves.
    """
    own = 1 - 1 / setting.num_peers
    ends_s = begins_s.copy()
    portions = min(len(landed_s), MOST_ARRIVALS, max(1, math.ceil(listed.on_time))) if listed.on_time else 0
    places = ((np.arange(portions) + 0.5) / max(portions, 1) * len(landed_s)).astype(int)
    for arrival_s in landed_s[places]:
        seen_s = np.where(arrival_s > begins_s, arrival_s + setting.scenario.timeline.poll / 2, begins_s)
        ends_s = np.maximum(ends_s, seen_s) + listed.on_time * own / portions * each_s
    if listed.late > 1e-9:
        ends_s = np.maximum(ends_s, setting.put_window_s) + listed.reserves * own * each_s
    return ends_s


def _requests(setting: Setting) -> int:
    """Requests that one download takes."""
    return 1 if setting.ranges is None else max(1, math.ceil(setting.payload_bytes / setting.ranges.size))


def _from_peer_to_peer(setting: Setting, sample: int, starts_s: Floats) -> Exchange:
    """An exchange begins when the last who is awaited is there, at the latest when the put window closes."""
    assert setting.direct is not None
    direct, size, nobody = setting.direct[sample], setting.payload_of(sample), np.zeros(setting.num_peers)
    begins_s = min(float(starts_s.max()), setting.put_window_s)
    seconds = direct.seconds(size)
    on_time = starts_s <= begins_s
    complete = seconds <= setting.gather_timeout_s
    ends_s = np.maximum(starts_s, begins_s) + np.minimum(seconds, setting.gather_timeout_s)
    others = setting.num_peers if setting.scenario.topology.reaches_all else 2
    return Exchange(
        upload_s=nobody,
        gather_s=ends_s - starts_s,
        ends_s=ends_s,
        on_time=on_time,
        complete=complete,
        decoded=np.where(complete, float(others), 0.0),
        evaluated=0,
        judged_s=np.full(len(setting.reader_links), float(ends_s.max())),
        up_bytes=float(direct.up_share.sum()) * size,
        down_bytes=float(direct.down_share.sum()) * size,
        read_bytes=0.0,
        puts=0,
        gets=0.0,
    )
