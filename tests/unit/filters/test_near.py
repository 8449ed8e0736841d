from __future__ import annotations

import random

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.filters.near import NearIndex
from distill.filters.normalise import fold
from distill.filters.shingles import char_shingles, hash_words, similarity, word_shingles
from distill.filters.signature import Signer, choose_bands


def corpus(count: int, *, words: int = 60, seed: int = 1, edits: float = 0.05, share: float = 0.3) -> list[str]:
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("etaoinshrdlucm", k=rng.randint(2, 8))) for _ in range(2000)]
    out: list[str] = []
    for _ in range(count):
        if out and rng.random() < share:
            row = rng.choice(out).split()
            for _ in range(max(1, int(len(row) * edits))):
                row[rng.randrange(len(row))] = rng.choice(vocabulary)
        else:
            row = rng.choices(vocabulary, k=words)
        out.append(" ".join(row))
    return out


def shingle_set(text: str, size: int = 5) -> set[str]:
    text = fold(text)
    return {text[i : i + size] for i in range(max(1, len(text) - size + 1))} if text else set()


def jaccard(a: str, b: str) -> float:
    left, right = shingle_set(a), shingle_set(b)
    return len(left & right) / len(left | right)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=8))
def test_similarity_of_hashes_is_that_of_the_shingles(texts):
    folded = [fold(text) for text in texts]
    shingles = char_shingles(folded, 5)
    for row, text in enumerate(folded):
        assert len(shingles.set_of(row)) == len(shingle_set(text))
    if folded[0] and folded[-1]:
        measured = similarity(shingles.set_of(0), shingles.set_of(len(texts) - 1))
        assert measured == pytest.approx(jaccard(texts[0], texts[-1]))


@given(st.lists(st.lists(st.sampled_from(["a", "b", "cc", "the", "é"]), max_size=9), min_size=1, max_size=6))
def test_word_shingles_count_like_a_plain_loop(rows):
    texts = [" ".join(row) for row in rows]
    words, shingles = hash_words(texts), word_shingles(texts, 3)
    for place, row in enumerate(rows):
        assert words.counts[place] == len(row)
        assert len(words.set_of(place)) == len(set(row))
        expected = {tuple(row[i : i + 3]) for i in range(max(1, len(row) - 2))} if row else set()
        assert len(shingles.set_of(place)) == len(expected)


def test_signatures_are_datasketchs_own_bit_for_bit():
    bands = choose_bands(0.7, 128)
    texts = [fold(text) for text in [*corpus(20), "abc", "é", "x" * 3000]]
    shingles = char_shingles(texts, 5)
    ours = Signer(bands).signatures(shingles)
    for row in range(len(texts)):
        theirs = MinHash(num_perm=bands.count * bands.rows, hashfunc=int)
        theirs.update_batch([int(value >> np.uint64(32)) for value in shingles.of(row)])
        assert (theirs.hashvalues == ours[:, row]).all()


def test_candidates_and_survivors_are_those_of_datasketchs_index():
    texts = corpus(400, edits=0.08)
    bands = choose_bands(0.7, 128)
    lsh = MinHashLSH(num_perm=bands.count * bands.rows, params=(bands.count, bands.rows))
    signer, expected = Signer(bands), []
    for number, text in enumerate(texts):
        minhash = MinHash(num_perm=bands.count * bands.rows, hashfunc=int)
        minhash.hashvalues = signer.signatures(char_shingles([fold(text)], 5))[:, 0]
        near = [other for other in sorted(lsh.query(minhash)) if jaccard(text, texts[other]) >= 0.7]
        expected.append(near[0] if near else None)
        if not near:
            lsh.insert(number, minhash)
    matches = NearIndex().judge(texts, [str(n) for n in range(len(texts))])
    assert [None if match is None else int(match.id) for match in matches] == expected
    assert sum(match is not None for match in matches) > 80


def test_bands_follow_the_threshold_and_say_what_they_find():
    assert (choose_bands(0.7, 128).count, choose_bands(0.7, 128).rows) == (25, 5)
    assert choose_bands(0.7, 128).recall == pytest.approx(0.99, abs=0.001)
    lengths = [choose_bands(threshold, 128).rows for threshold in (0.3, 0.5, 0.7, 0.9)]
    assert lengths == sorted(lengths)
    assert choose_bands(1.0, 128).recall == 1


def test_small_edits_are_found_and_strangers_are_not():
    texts = corpus(500, edits=0.05, share=0.3, seed=3)
    matches = NearIndex().judge(texts, [str(n) for n in range(len(texts))])
    for number, match in enumerate(matches):
        if match is not None:
            assert match.similarity == pytest.approx(jaccard(texts[number], texts[int(match.id)]))
            assert match.similarity >= 0.7
            assert matches[int(match.id)] is None  # compared with kept rows only
            assert match.shared in fold(texts[number])
            assert match.shared in fold(texts[int(match.id)])
    kept = [text for text, match in zip(texts, matches, strict=True) if match is None]
    sets = [shingle_set(text) for text in kept[:200]]
    missed = sum(len(a & b) / len(a | b) >= 0.7 for i, a in enumerate(sets) for b in sets[:i])
    assert missed <= 2


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=8), st.integers(0, 3))
def test_results_do_not_depend_on_where_batches_end(sizes, seed):
    texts = corpus(120, words=12, edits=0.1, share=0.6, seed=seed)
    texts = [text if n % 3 else " ".join([text] * (18 + n % 12)) for n, text in enumerate(texts)]  # short and long
    ids = [str(n) for n in range(len(texts))]
    whole = NearIndex().judge(texts, ids)
    index, parts, first = NearIndex(), [], 0
    for size in [*sizes, len(texts)]:
        parts += index.judge(texts[first : first + size], ids[first : first + size])
        first += size
    assert parts == whole


def test_boilerplate_is_capped_and_batches_still_agree(monkeypatch):
    monkeypatch.setattr("distill.filters.near.CAP", 3)
    rng = random.Random(2)
    frame = " ".join(f"frame{n}" for n in range(14))
    texts = [f"{frame} " + " ".join(f"w{rng.randrange(9)}x{rng.randrange(400)}" for _ in range(9)) for _ in range(90)]
    ids = [str(n) for n in range(len(texts))]
    whole = NearIndex().judge(texts, ids)
    one_by_one, index = [], NearIndex()
    for text, id_ in zip(texts, ids, strict=True):
        one_by_one += index.judge([text], [id_])
    assert one_by_one == whole
    assert any(match is None for match in whole)


def test_a_pair_across_the_border_of_the_units_is_found():
    rng = random.Random(5)
    words = [f"word{rng.randrange(10**6)}" for _ in range(330)]
    long, short = " ".join(words), " ".join(words[:290])
    for first, second in ((long, short), (short, long)):
        matches = NearIndex().judge([first, second], ["a", "b"])
        assert matches[1] is not None
        assert matches[1].id == "a"


def test_keep_first_never_follows_a_chain_of_edits():
    rng = random.Random(4)
    row = [f"w{rng.randrange(10**6)}" for _ in range(40)]
    chain = []
    for step in range(30):
        row = [*row]
        row[step] = f"new{step}"
        chain.append(" ".join(row))
    matches = NearIndex().judge(chain, [str(n) for n in range(len(chain))])
    kept = [n for n, match in enumerate(matches) if match is None]
    assert len(kept) > 1
    assert jaccard(chain[0], chain[-1]) < 0.7


def test_empty_and_tiny_texts():
    index = NearIndex()
    matches = index.judge(["", " ", "a", "a", "A ", "ab"], list("123456"))
    assert [match and match.id for match in matches] == [None, None, None, "3", "3", None]
