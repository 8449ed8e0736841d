"""Shards: together the whole plan, and nothing twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import InputError
from distill.planning import Planner, Shard, compile_taxonomy

LEAVES = st.lists(st.integers(0, 30), min_size=1, max_size=9)


def planner(shard: Shard | None = None, *, leaves: int = 4) -> Planner:
    topics = {f"t{n}": {"weight": 1 + n % 3} for n in range(leaves)}
    taxonomy = compile_taxonomy({"name": "x", "dimensions": {"tone": ["a", "b", "c"]}, "topics": topics})
    return Planner("x", taxonomy, seed=3, shard=shard)


@given(LEAVES, st.integers(1, 9))
def test_the_quotas_of_all_shards_are_the_quota(wanted: list[int], of: int) -> None:
    quota = dict(enumerate(wanted))
    parts = [Shard(index, of).quota(quota) for index in range(1, of + 1)]
    assert {leaf: sum(part[leaf] for part in parts) for leaf in quota} == quota
    for leaf, count in quota.items():  # dealt evenly
        assert max(part[leaf] for part in parts) - min(part[leaf] for part in parts) <= 1
        turns = [[turn for turn in range(count) if Shard(i, of).has(leaf, turn)] for i in range(1, of + 1)]
        assert [len(mine) for mine in turns] == [part[leaf] for part in parts]


@pytest.mark.parametrize("of", [1, 2, 4, 7])
def test_slots_are_shared_out_and_the_first_ones_are_those_of_one_run(of: int) -> None:
    whole = planner()
    quota = whole.quota(60)
    expected = {slot.id: slot for slot in whole.take(quota)}
    found = {}
    for index in range(1, of + 1):
        part = planner(Shard(index, of))
        for slot in part.take(part.quota(60)):
            assert slot.id not in found
            found[slot.id] = slot
    assert found == expected


def test_a_shard_that_needs_more_never_takes_what_is_anothers() -> None:
    wanted = {("t0",): 40, ("t1",): 90}
    taken = [{slot.id for slot in planner(Shard(index, 3)).take(wanted)} for index in (1, 2, 3)]
    assert sum(map(len, taken)) == len(set.union(*taken)) == 390


def test_small_leaves_do_not_all_fall_to_the_first_shard() -> None:
    parts = [sum(Shard(index, 4).quota(dict.fromkeys(range(1000), 1)).values()) for index in range(1, 5)]
    assert parts == [250] * 4


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "-1/4", "1/0", "a/b", "1/4/2", "1.5/4"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a shard"):
        Shard.parse(text)
    assert str(Shard.parse(" 2/4 ")) == "2/4"
