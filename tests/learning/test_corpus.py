"""Pools are pure in (seed, uid, round), and nobody ever trains on what is held out."""

from __future__ import annotations

import hashlib
import math
import mmap
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from covsim.learning import corpus as module
from covsim.learning.corpus import Batches, Corpus, Data
from covsim.randomness import Streams

T = 64


@pytest.fixture(scope="module")
def iid() -> Corpus:
    return Corpus(Data(), T, Streams(1))


def skewed(shards: object, seed: int = 1, **settings: object) -> Corpus:
    return Corpus(Data.model_validate({"shards": shards, **settings}), T, Streams(seed))


def document_of(corpus: Corpus, positions: np.ndarray) -> np.ndarray:
    """The index of the document in which each sequence starts."""
    _, documents = module._text(corpus._data, corpus._context)
    ends = np.cumsum([document.num_tokens for document in documents])
    return np.searchsorted(ends, positions, side="right")


def test_a_pool_depends_on_seed_uid_and_round_only(iid: Corpus) -> None:
    pool = iid.pool(3, 5, 640)
    iid.pool(4, 5, 10)
    assert np.array_equal(pool, Corpus(Data(), T, Streams(1)).pool(3, 5, 640))
    others = (iid.pool(4, 5, 640), iid.pool(3, 6, 640), Corpus(Data(), T, Streams(2)).pool(3, 5, 640))
    for other in (*others, iid.pool(3, 5, 640, "random")):
        assert len(np.intersect1d(pool, other)) < 20  # 640^2 / 160,000 are expected by chance


def test_a_pool_has_no_repetitions_and_shorter_ones_are_its_beginning(iid: Corpus) -> None:
    pool = iid.pool(0, 0, 5000)
    assert len(np.unique(pool)) == 5000
    for n in (0, 1, 255, 256, 257, 4999):
        assert np.array_equal(iid.pool(0, 0, n), pool[:n])


def test_a_pool_covers_the_text_evenly(iid: Corpus) -> None:
    pool = iid.pool(0, 0, 8000)
    counts, _ = np.histogram(pool, bins=10, range=(0, iid._text.size))
    assert counts.min() > 700
    assert counts.max() < 900


def test_batches_are_the_beginning_of_the_pool(iid: Corpus) -> None:
    batches = iid.batches(Batches("assigned", uid=7, round=2), steps=3, batch=4)
    assert batches.shape == (3, 4, T + 1)
    assert batches.dtype == torch.int64
    text = iid._text
    for sequence, start in zip(batches.view(12, -1), iid.pool(7, 2, 12), strict=True):
        assert bytes(sequence.tolist()) == text[start : start + T + 1].tobytes()
    fewer_steps = iid.batches(Batches("assigned", 7, 2), 2, 4)
    assert torch.equal(fewer_steps, batches[:2])
    assert not torch.equal(iid.batches(Batches("random", 7, 2), 3, 4), batches)


def test_a_validator_draws_from_the_peers_own_pool(iid: Corpus) -> None:
    assert iid.pool_size(30, 4) == 640
    pool = {bytes(s.tolist()) for s in iid._tokens(iid.pool(7, 2, 640))}
    trained_on = {bytes(s.tolist()) for s in iid.batches(Batches("assigned", 7, 2), 30, 4).view(120, -1)}
    sample = iid.assigned_sample(7, 2, 30, 4, 320, np.random.default_rng(1))
    drawn = {bytes(s.tolist()) for s in sample}
    assert len(drawn) == 320
    assert drawn <= pool
    assert len(drawn & trained_on) == pytest.approx(60, abs=20)  # 18.75 % of the pool
    again = iid.assigned_sample(7, 2, 30, 4, 320, np.random.default_rng(1))
    assert torch.equal(sample, again)


def test_a_random_sample_comes_from_all_training_text(iid: Corpus) -> None:
    sample = iid.random_sample(8, np.random.default_rng(1))
    assert sample.shape == (8, T + 1)
    assert torch.equal(sample, iid.random_sample(8, np.random.default_rng(1)))
    assert not torch.equal(sample, iid.random_sample(8, np.random.default_rng(2)))


@pytest.mark.parametrize("shards", ["iid", "by_era", "by_party", {"kind": "dirichlet", "alpha": 0.1}], ids=str)
def test_no_token_is_predicted_twice_or_in_both_parts(shards: object) -> None:
    corpus = skewed(shards)
    starts = np.sort(np.concatenate([corpus._training, corpus._held_out]))  # each predicts the T tokens after its first
    assert np.diff(starts).min() >= T
    assert starts[-1] + T < corpus._text.size
    assert len(corpus._held_out) == pytest.approx(0.05 * len(starts), rel=0.01)
    assert sum(corpus._sizes) == len(corpus._training)
    drawn = np.concatenate([corpus.pool(uid, 0, 640) for uid in range(30)])
    assert not np.intersect1d(drawn, corpus._held_out).size
    assert np.isin(drawn, corpus._training).all()


def test_sequences_stay_inside_their_document(iid: Corpus) -> None:
    positions = np.concatenate([iid._training, iid._held_out])
    assert np.array_equal(document_of(iid, positions), document_of(iid, positions + T))


def test_the_held_out_measurement_is_the_same_for_every_seed_and_shard(iid: Corpus) -> None:
    held_out = iid.held_out()
    assert held_out.shape == (64, T + 1)
    assert torch.equal(held_out, skewed("by_party", seed=9).held_out())
    assert np.unique(document_of(iid, iid._held_out)).size == 233


def test_held_out_blocks_are_contiguous_and_not_all_at_one_place(iid: Corpus) -> None:
    documents = document_of(iid, iid._held_out)
    places = []
    for document in range(233):
        block = iid._held_out[documents == document]
        assert (np.diff(block) == T).all()
        own = np.concatenate([block, iid._training[document_of(iid, iid._training) == document]])
        places.append((block[0] - own.min()) / (own.max() - own.min()))
    assert np.histogram(places, bins=4, range=(0, 1))[0].min() > 30


def test_an_era_is_a_span_of_years() -> None:
    corpus = skewed({"kind": "by_era", "eras": 4})
    spans = [document_of(corpus, corpus.pool(uid, 0, 200)) for uid in range(40)]
    starts = sorted({(span.min() // 10, span.max() // 10) for span in spans})
    assert len({low for low, _ in starts}) == 4
    assert all(np.ptp(span) < 130 for span in spans)
    assert corpus._sizes.max() < 1.05 * corpus._sizes.min()


def test_a_party_speaks_for_itself() -> None:
    corpus = skewed("by_party")
    _, documents = module._bundled("state_of_the_union")
    seen = []
    for uid in range(60):
        parties = {documents[index].party for index in document_of(corpus, corpus.pool(uid, 0, 50))}
        assert len(parties) == 1
        seen.append(parties.pop())
    assert {"Republican", "Democratic"} < set(seen)
    assert seen.count("Democratic") > 12  # 42 % of the text
    assert skewed("by_party").pool(5, 3, 9).tolist() == corpus.pool(5, 3, 9).tolist()


def test_dirichlet_goes_from_one_era_to_the_whole_text() -> None:
    def busiest(alpha: float) -> list[float]:
        """The largest share of a pool that comes from one era, for some uids."""
        corpus = skewed({"kind": "dirichlet", "alpha": alpha})
        ends = np.cumsum(corpus._sizes)
        places = [
            np.searchsorted(ends, np.searchsorted(corpus._training, corpus.pool(uid, 0, 400)), side="right")
            for uid in range(9)
        ]
        return [np.bincount(place, minlength=8).max() / 400 for place in places]

    assert np.mean(busiest(0.01)) > 0.8
    assert max(busiest(1000.0)) < 0.25


def test_an_exhausted_shard_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = skewed("by_party")
    federalists = int(corpus._sizes[2])
    monkeypatch.setattr(type(corpus._data.shards), "mixture", lambda *_: np.eye(8)[2])
    pool = corpus.pool(0, 0, 3 * federalists)
    distinct = np.unique(pool).size
    assert 0.95 * federalists < distinct <= federalists
    assert np.array_equal(pool[:distinct], pool[distinct : 2 * distinct])
    assert np.array_equal(corpus.pool(0, 0, distinct + 5), pool[: distinct + 5])


def test_a_pool_may_be_used_up(iid: Corpus) -> None:
    whole = skewed("iid", pool_used=1.0)
    assert whole.pool_size(30, 4) == 120
    assert whole.assigned_sample(0, 0, 1, 4, 8, np.random.default_rng(1)).shape == (8, T + 1)


def test_the_fingerprint_is_that_of_the_text(iid: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    assert iid.fingerprint == "0eaf4db46e941fe5c8523b420ea620542b10cd589fa63be66087f70e0008f40c"
    monkeypatch.setitem(module._SHA256, "state_of_the_union", "0" * 64)
    with pytest.raises(ValueError, match="is damaged"):
        module._bundled.__wrapped__("state_of_the_union")


def test_a_context_longer_than_the_text_is_the_users_mistake() -> None:
    with pytest.raises(ValueError, match="context 8192 is too long"):
        Corpus(Data.model_validate({"shards": "by_party", "held_out": 0.001}), 8192, Streams(1))


def test_bigrams_reach_the_published_entropy(iid: Corpus) -> None:
    """3.41 bits given the previous byte, as measured on this text independently."""
    nats = iid.bigram_nats()
    assert nats is not None
    assert nats / math.log(2) == pytest.approx(3.41, abs=0.005)


def test_bigrams_are_counted_part_by_part(iid: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = iid.bigram_nats()
    monkeypatch.setattr(module, "_COUNTED_TOGETHER", 1_000_003)
    assert iid.bigram_nats() == whole


def test_what_the_bundled_text_is_made_of(iid: Corpus) -> None:
    assert iid.tokens_are_bytes
    assert iid.largest_token == 226  # the first byte of a dash
    assert iid._text.size == 10_761_158
    assert iid.held_out(5).shape == (5, T + 1)
    assert torch.equal(iid.held_out(64), iid.held_out())
    assert iid.held_out(10**9).shape[0] == len(iid._held_out)


def test_what_is_drawn_from_the_bundled_text_never_changes(iid: Corpus) -> None:
    """Published runs were made of it."""
    drawn = (iid.held_out().numpy(), iid.pool(3, 5, 640))
    hashes = [hashlib.sha256(values.tobytes()).hexdigest()[:16] for values in drawn]
    assert hashes == ["98dba3d3ec8b4d05", "eadea0de6298a533"]


def own(tmp_path: Path, tokens: np.ndarray, context: int = 16, **settings: object) -> Corpus:
    """The corpus of a user's own file of 16-bit tokens."""
    tokens.astype("<u2").tofile(tmp_path / "own.bin")
    return Corpus(Data.model_validate({"path": str(tmp_path / "own.bin"), **settings}), context, Streams(1))


def test_a_file_is_held_out_all_over(tmp_path: Path) -> None:
    corpus = own(tmp_path, np.arange(60_000))
    assert not corpus.tokens_are_bytes
    assert corpus.largest_token == 59_999
    starts = np.sort(np.concatenate([corpus._training, corpus._held_out]))
    assert np.diff(starts).min() >= 16
    assert starts[-1] + 16 < 60_000
    assert len(corpus._held_out) == pytest.approx(0.05 * len(starts), rel=0.05)
    places = np.unique(document_of(corpus, corpus._held_out))
    assert places.tolist() == list(range(64))
    sequence = corpus.held_out()[0].tolist()
    assert sequence == list(range(sequence[0], sequence[0] + 17))
    assert corpus.batches(Batches("assigned", 0, 0), 3, 2).dtype == torch.int64


def test_every_piece_of_a_short_file_has_something_to_hold_out(tmp_path: Path) -> None:
    for num_sequences in (11, 19, 20, 41, 100, 333):
        corpus = own(tmp_path, np.zeros(num_sequences * 16 + 1))
        pieces = max(1, int(num_sequences * 0.05))
        assert len(np.unique(document_of(corpus, corpus._held_out))) == pieces
    with pytest.raises(ValueError, match="context 16 is too long for the text"):
        own(tmp_path, np.zeros(9 * 16 + 1))


def test_a_file_is_not_copied_into_memory(tmp_path: Path) -> None:
    corpus = own(tmp_path, np.arange(5000))
    assert corpus._text.dtype == np.uint16
    base = corpus._text
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap.mmap)


def test_shards_that_need_labels_refuse_a_file(tmp_path: Path) -> None:
    for shards in ("by_era", "by_party"):
        with pytest.raises(ValidationError, match="these shards need the year and the party of each document"):
            Data.model_validate({"path": "my.txt", "shards": shards})
    corpus = own(tmp_path, np.arange(60_000), shards={"kind": "dirichlet", "alpha": 0.001, "eras": 4})
    assert np.ptp(corpus.pool(3, 0, 50)) < 15_000  # all but surely one quarter of the file


def test_a_text_is_bundled_or_a_file() -> None:
    assert (Data().corpus, Data().path) == ("state_of_the_union", None)
    assert (Data(path="my.txt").corpus, Data(path="my.txt").path) == (None, str(Path("my.txt").absolute()))
    with pytest.raises(ValidationError, match="give a corpus or a path, not both"):
        Data(corpus="state_of_the_union", path="my.txt")


def test_bigrams_of_any_vocabulary(tmp_path: Path) -> None:
    """After one token, one of two follows with equal chance: ln 2 nats."""
    steps = np.random.default_rng(1).integers(1, 3, 60_000)
    assert own(tmp_path, np.cumsum(steps) % 300).bigram_nats() == pytest.approx(math.log(2), rel=0.01)
    assert own(tmp_path, np.arange(60_000) % 4097).bigram_nats() is None
    assert own(tmp_path, np.arange(60_000) % 4096).bigram_nats() == pytest.approx(0, abs=1e-3)


def test_the_fingerprint_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    corpus = own(tmp_path, np.arange(5000))
    assert corpus.fingerprint == hashlib.sha256((tmp_path / "own.bin").read_bytes()).hexdigest()
