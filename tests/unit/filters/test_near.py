from __future__ import annotations

import random

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.filters.near import kernels
from distill.filters.near.arrays import scratch
from distill.filters.near.folding import fold_one, folded
from distill.filters.near.index import NearIndex
from distill.filters.near.minhash import MinHashFilter
from distill.filters.near.shingles import hash_words
from distill.filters.near.signature import choose_bands
from distill.filters.normalise import fold
from distill.recipe import MinHashStep

ALL_ASCII = [chr(code) for code in range(128)]

CHAR, WORD = kernels.CHAR, kernels.WORD


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


def hashes(text: str, unit: int = CHAR, size: int = 5) -> np.ndarray:
    """The kernel's shingles of one folded text, in order."""
    data = np.frombuffer(text.encode(), np.uint8).copy()
    work = scratch(len(data), NearIndex().rules)
    none = np.zeros(0, np.uint64)
    count = kernels.shingle(data, 0, len(data), unit, size, none, work.points, work.places, work.hashes, work.values)
    return work.hashes[:count].copy()


def signature(text: str) -> np.ndarray:
    """The kernel's signature of one text."""
    index = NearIndex()
    row = folded([text])
    work, rules = scratch(len(row.data), index.rules), index.rules
    begin, end = int(row.begins[0]), int(row.ends[0])
    count = kernels.shingle(
        row.data, begin, end, CHAR, 5, rules.common, work.points, work.places, work.hashes, work.values
    )
    kernels.minima(work.values, count, rules.a, rules.b, work.signature)
    return work.signature.copy()


@given(st.lists(st.text(max_size=40) | st.text(ALL_ASCII, max_size=9), min_size=1, max_size=8))
def test_a_batch_is_folded_as_its_texts_are(texts):
    rows = folded(texts)
    for row, text in enumerate(texts):
        assert rows.data[rows.begins[row] : rows.ends[row]].tobytes().decode() == fold(text)
        assert rows.words[row] == len(fold(text).split())
        assert fold_one(text) == fold(text).encode("utf-8")


@given(st.text(max_size=40), st.integers(1, 7))
def test_hashes_of_characters_are_as_many_as_the_shingles(text, size):
    made = hashes(fold(text), CHAR, size)
    assert len(made) == (max(1, len(fold(text)) - size + 1) if fold(text) else 0)
    assert len(set(made.tolist())) == len(shingle_set(text, size))


@given(st.lists(st.text("abcé 中", max_size=30), min_size=2, max_size=6))
def test_similarity_of_hashes_is_that_of_the_shingles(texts):
    index = NearIndex(threshold=0.01, permutations=512)
    matches = index.judge(texts, [str(n) for n in range(len(texts))])
    for number, match in enumerate(matches):
        if match is not None:
            assert match.similarity == pytest.approx(jaccard(texts[number], texts[int(match.id)]))


@given(st.lists(st.lists(st.sampled_from(["a", "b", "cc", "the", "é"]), max_size=9), min_size=1, max_size=6))
def test_word_shingles_count_like_a_plain_loop(rows):
    texts = [" ".join(row) for row in rows]
    words = hash_words(texts)
    for place, row in enumerate(rows):
        assert words.counts[place] == len(row)
        assert len(words.set_of(place)) == len(set(row))
        expected = {tuple(row[i : i + 3]) for i in range(max(1, len(row) - 2))} if row else set()
        assert len(set(hashes(texts[place], WORD, 3).tolist())) == len(expected)


def test_signatures_are_datasketchs_own_bit_for_bit():
    for text in [*corpus(20), "abc", "é", "x" * 3000, ""]:
        ours = signature(text)
        theirs = MinHash(num_perm=len(ours), hashfunc=int)
        theirs.update_batch([int(value >> np.uint64(32)) for value in hashes(fold(text))])
        assert (theirs.hashvalues == ours).all()


def test_candidates_and_survivors_are_those_of_datasketchs_index():
    texts = corpus(400, edits=0.08)
    bands = choose_bands(0.7, 128)
    lsh = MinHashLSH(num_perm=bands.count * bands.rows, params=(bands.count, bands.rows))
    expected = []
    for number, text in enumerate(texts):
        minhash = MinHash(num_perm=bands.count * bands.rows, hashfunc=int)
        minhash.hashvalues = signature(text)
        near = [other for other in sorted(lsh.query(minhash)) if jaccard(text, texts[other]) >= 0.7]
        expected.append(near[0] if near else None)
        if not near:
            lsh.insert(number, minhash)
    matches = NearIndex().judge(texts, [str(n) for n in range(len(texts))])
    assert [None if match is None else int(match.id) for match in matches] == expected
    assert sum(match is not None for match in matches) > 80


def test_bands_follow_the_threshold_and_say_what_they_find():
    assert (choose_bands(0.7, 128).count, choose_bands(0.7, 128).rows) == (22, 5)
    assert choose_bands(0.7, 128).recall == pytest.approx(0.9825, abs=0.0001)
    assert choose_bands(0.7, 109).recall < 0.98 or choose_bands(0.7, 109).rows < 5, "no more bands than it takes"
    assert choose_bands(0.7, 128).finds(0.8) > 0.999
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
    whole = NearIndex(short_threshold=0).judge(texts, ids)
    assert sum(match is not None for match in whole) > 10
    index, parts, first = NearIndex(short_threshold=0), [], 0
    for size in [*sizes, len(texts)]:
        parts += index.judge(texts[first : first + size], ids[first : first + size])
        first += size
    assert parts == whole


def test_boilerplate_is_capped_and_batches_still_agree(monkeypatch):
    monkeypatch.setattr("distill.filters.near.index.CAP", 3)
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


@pytest.mark.parametrize("cap", [1, 2, 4, 5, 12])
def test_candidates_are_those_of_lists_that_are_full_at_the_cap(cap, monkeypatch):
    monkeypatch.setattr("distill.filters.near.index.CAP", cap)
    rng = random.Random(cap)
    frame = " ".join(f"frame{n}" for n in range(12))
    own = [" ".join(f"{rng.randrange(10**6)}" for _ in range(8)) for _ in range(150)]
    texts = [f"{frame} {own[number // 2]} {number}" for number in range(300)]  # pairs, all with the same frame
    index = NearIndex(threshold=0.6)
    owners, values = index.keys(texts)
    behind: dict[int, list[int]] = {}
    expected: list[int | None] = []
    for number, text in enumerate(texts):
        own = [int(value) for value in values[owners == number]]
        near = sorted({other for value in own for other in behind.get(value, [])})
        match = next((other for other in near if jaccard(text, texts[other]) >= 0.6), None)
        expected.append(match)
        for value in own if match is None else []:
            if len(behind.setdefault(value, [])) < cap:
                behind[value].append(number)
    assert max(map(len, behind.values())) == cap
    matches = index.judge(texts, [str(n) for n in range(len(texts))])
    assert [None if match is None else int(match.id) for match in matches] == expected
    assert 10 < sum(match is not None for match in matches) < 290


def test_every_text_is_found_through_each_of_its_tags_while_the_table_grows():
    rng = random.Random(7)
    texts = [" ".join(f"{rng.randrange(10**9)}" for _ in range(4)) for _ in range(3000)]
    index, ids = NearIndex(), [str(n) for n in range(3000)]
    for first in range(0, 3000, 150):
        assert index.judge(texts[first : first + 150], ids[first : first + 150]) == [None] * 150
        for text, id_ in zip(texts[: first + 150 : 7], ids[::7], strict=False):
            [match] = index.judge([text], ["new"], add=False)
            assert match is not None
            assert match.id == id_
            assert (index._scratch.spots >= 0).all()  # one tag would be enough to find it


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


def test_kernels_are_loaded_before_the_first_row(monkeypatch):
    seen: list[int] = []
    judge = kernels.judge
    monkeypatch.setattr(kernels, "judge", lambda rows, *rest: seen.append(int(rows.ends[0])) or judge(rows, *rest))
    MinHashFilter(MinHashStep(kind="minhash"))
    assert seen == [1]  # a row of one character: an empty one is not looked at


def test_a_row_by_itself_is_judged_as_in_a_batch():
    rng = random.Random(2)
    words = ["".join(rng.choices("etaoinshrdlucm", k=rng.randint(2, 9))) for _ in range(400)]
    rows = [" ".join(rng.choices(words, k=rng.choice([4, 30, 90, 280, 310]))) for _ in range(150)]
    rows += [row.replace(rng.choice(words), "ÄÖ  x", 1).title() for row in rows]
    ids = [str(n) for n in range(len(rows))]
    batch, single = NearIndex(), NearIndex()
    expected = batch.judge(rows, ids)
    assert [single.judge([row], [id_])[0] for row, id_ in zip(rows, ids, strict=True)] == expected
    assert sum(match is not None for match in expected) > 100
    assert list(single.kept()) == list(batch.kept())


def test_empty_and_tiny_texts():
    index = NearIndex()
    matches = index.judge(["", " ", "a", "a", "A ", "ab"], list("123456"))
    assert [match and match.id for match in matches] == [None, None, None, "3", "3", None]


def test_texts_of_a_few_words_must_be_nearly_equal():
    """Questions that differ in one word mean different things; long ones that do say the same."""
    pairs = [
        ("What is the current exchange fee?", "What is the current exchange rate?"),
        ("The card payment didn't work", "My card payment didn't work"),
        ("There is a payment I don't recognise!", "There is a payment I don't recognize"),
    ]
    for first, second in pairs:
        assert NearIndex().judge([first, second], ["a", "b"]) == [None, None]
        assert NearIndex(short_threshold=0.6).judge([first, second], ["a", "b"])[1] is not None
    assert NearIndex().judge(["Where is my card ?", " where IS my card ?"], ["a", "b"])[1] is not None
    long = "I have been waiting for my card for more than two weeks now and nobody can tell me where the card is"
    assert NearIndex().judge([long, long.replace("two", "three")], ["a", "b"])[1] is not None
    barely = " ".join(long.split()[:20])
    assert NearIndex().judge([barely, barely.replace("two ", "")], ["a", "b"])[1] is not None  # 20 words and 19


def test_long_texts_with_one_edit_in_twenty_words_are_found():
    texts = corpus(60, words=500, seed=9, edits=0.05, share=0.0)
    rng, found = random.Random(1), 0
    for text in texts:
        row = text.split()
        for place in rng.sample(range(len(row)), len(row) // 20):
            row[place] = f"edit{place}"
        found += NearIndex().judge([text, " ".join(row)], ["a", "b"])[1] is not None
    assert found == len(texts)


def test_what_was_added_is_compared_with_whatever_it_is_like():
    index = NearIndex()
    text = corpus(1, words=40)[0]
    words = text.split()
    halfway = " ".join([*words[:36], "x1", "x2", "x3", "x4"])
    far = " ".join([*words[:31], "y1", "y2", "y3", "y4", "y5", "x1", "x2", "x3", "x4"])
    index.add([text, halfway], ["a", "b"])
    assert len(index) == 2
    assert jaccard(far, text) < 0.7 <= jaccard(far, halfway)
    (match,) = index.judge([far], ["c"], add=False)
    assert match is not None
    assert match.id == "b"
    assert len(index) == 2


def test_an_index_that_grows_finds_what_it_held_when_it_was_small():
    texts = corpus(6000, words=12, share=0.0, seed=8)
    index = NearIndex()
    assert not any(index.judge(texts, [str(n) for n in range(len(texts))]))
    again = index.judge(texts, ["x"] * len(texts), add=False)
    assert [match and match.id for match in again] == [str(n) for n in range(len(texts))]
    assert {match and match.similarity for match in again} == {1.0}
