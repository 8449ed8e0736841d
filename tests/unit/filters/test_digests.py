from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.filters.near import digests as module
from distill.filters.near.digests import Digests

DIGEST = st.sampled_from(
    [bytes([n]) * 16 for n in range(1, 5)] + [b"\1" * 8 + bytes([n]) * 8 for n in range(9)] + [b""]
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(DIGEST, max_size=7), max_size=9), st.integers(1, 6))
def test_it_knows_what_a_dictionary_knows(batches, new):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_NEW", new)
        seen, known = Digests(), dict[bytes, int]()
        for batch in batches:
            assert seen.find(batch) == [known.get(digest, -1) for digest in batch]
            for digest in batch:
                assert digest == b"" or seen.recent(digest) in (-1, known.get(digest, -1))
                if digest and digest not in known:
                    known[digest] = len(known)
                    seen.add(digest)
        assert len(seen) == len(known)
        assert [digest for some in seen.since() for digest in some] == list(known)
        assert [digest for some in seen.since(2) for digest in some] == list(known)[2:]


def test_memory_is_some_twenty_bytes_a_digest():
    rng, seen = random.Random(1), Digests()
    for _ in range(30):
        batch = [rng.randbytes(16) for _ in range(10_000)]
        assert set(seen.find(batch)) == {-1}
        for digest in batch:
            seen.add(digest)
    seen.find([])
    assert seen.nbytes < 21 * len(seen)
