from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from math import comb
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import InputError
from distill.io import digest
from distill.planning import Planner, Seed, Slot, Taxonomy, compile_taxonomy

PROBE: dict[str, Any] = {
    "name": "probe",
    "dimensions": {"tone": ["calm", "angry", "terse"]},
    "topics": {
        "cards": {"weight": 2, "topics": {"lost": {}, "declined": {}}},
        "loans": {"topics": {"rate": {}, "early_repayment": {}}},
    },
}
WIDE: dict[str, Any] = {
    "name": "wide",
    "dimensions": {
        "tone": ["calm", "angry", "terse", "worried"],
        "channel": {"chat": {"weight": 2, "description": "typed"}, "sms": {}, "mail": {"only": ["b0", "b1/l3"]}},
        "difficulty": ["easy", "middling", "hard", "nasty"],
    },
    "topics": {
        f"b{b}": {
            "labels": {"branch": str(b)},
            "topics": {f"l{n}": {"labels": {"intent": f"i{b}{n}"}} for n in range(6)},
        }
        for b in range(3)
    },
    "adversarial": {
        "share": 0.2,
        "two": {"pair": True, "labels": {"intent": "both"}, "description": "two at once"},
        "typos": {"weight": 2},
        "none": {"standalone": True, "labels": {"intent": "none"}},
    },
}


def first(planner: Planner, count: int) -> list[Slot]:
    return list(itertools.islice(planner.slots(), count))


def shown(slot: Slot) -> list[Any]:
    other = slot.other.path if slot.other else None
    return [slot.id, slot.leaf, list(slot.dims.items()), [s.id for s in slot.seeds], slot.twist, other, slot.kind]


def test_a_slot_of_the_probe() -> None:
    slot = first(Planner("probe", compile_taxonomy(PROBE), seed=7), 1)[0]
    assert slot.id == "probe-000000"
    assert slot.index == 0
    assert slot.leaf in {("cards", "lost"), ("cards", "declined")}
    assert slot.dims["tone"] in {"calm", "angry", "terse"}
    assert slot.kind == "standard"
    assert slot.twist is None


def test_ten_slots_a_leaf_leave_no_leaf_and_no_value_short() -> None:
    taxonomy = compile_taxonomy({**WIDE, "adversarial": {}})
    for seed in range(5):
        slots = first(Planner("r", taxonomy, seed=seed), 180)
        assert set(Counter(slot.leaf for slot in slots).values()) == {10}
        tones = Counter((slot.leaf, slot.dims["tone"]) for slot in slots)
        assert len(tones) == 18 * 4
        pairs = Counter((slot.dims["tone"], slot.dims["difficulty"]) for slot in slots)
        assert len(pairs) == 16
        assert all(8 <= count <= 15 for count in pairs.values())  # 11.25 each


def expectations(taxonomy: Taxonomy, slot: Slot) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for dimension in taxonomy.dimensions:
        allowed = {v.name: float(v.weight) for v in dimension.values if v.allowed(slot.leaf)}
        total = sum(allowed.values())
        found[dimension.name] = {name: weight / total for name, weight in allowed.items()}
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_values_and_pairs_stay_even_at_every_prefix(seed: int) -> None:
    taxonomy = compile_taxonomy(WIDE)
    overall: Counter[Any] = Counter()
    by_leaf: Counter[Any] = Counter()
    pairs: Counter[Any] = Counter()
    for slot in first(Planner("r", taxonomy, seed=seed), 1500):
        odds = expectations(taxonomy, slot)
        for name, values in odds.items():
            for value, share in values.items():
                overall[name, value] -= share
                by_leaf[slot.leaf, name, value] -= share
            overall[name, slot.dims[name]] += 1
            by_leaf[slot.leaf, name, slot.dims[name]] += 1
        for (one, values), (two, others) in itertools.combinations(odds.items(), 2):
            for value, share in values.items():
                for other, part in others.items():
                    pairs[one, value, two, other] -= share * part
            pairs[one, slot.dims[one], two, slot.dims[two]] += 1
        assert max(map(abs, overall.values())) <= 3
        assert max(map(abs, by_leaf.values())) <= 3.5
        assert max(map(abs, pairs.values())) <= 5


def test_adversarial_shares_and_kinds_hold_at_every_prefix() -> None:
    shares = {None: 0.8, "two": 0.05, "typos": 0.1, "none": 0.05}
    counts: Counter[str | None] = Counter()
    by_leaf: Counter[Any] = Counter()
    for n, slot in enumerate(first(Planner("r", compile_taxonomy(WIDE), seed=3), 2000), start=1):
        counts[slot.twist] += 1
        by_leaf[slot.leaf, slot.twist] += 1
        assert all(abs(counts[kind] - share * n) <= 2.5 for kind, share in shares.items())
    typos = [by_leaf[(f"b{b}", f"l{n}"), "typos"] for b in range(3) for n in range(6)]
    assert max(typos) - min(typos) <= 3  # about 11 each


def test_kinds_say_what_they_are() -> None:
    slots = first(Planner("r", compile_taxonomy(WIDE), seed=3), 400)
    two = [slot for slot in slots if slot.twist == "two"]
    assert all(slot.other is not None and slot.other.path != slot.leaf for slot in two)
    assert {slot.twist_description for slot in two} == {"two at once"}
    assert {slot.labels["intent"] for slot in two} == {"both"}
    assert all(slot.labels["branch"] == slot.leaf[0][1:] for slot in two)
    none = [slot for slot in slots if slot.twist == "none"]
    assert {slot.leaf for slot in none} == {("none",)}
    assert {tuple(slot.labels.items()) for slot in none} == {(("intent", "none"),)}
    assert all(slot.kind == ("adversarial" if slot.twist else "standard") for slot in slots)


def test_second_leaves_take_turns() -> None:
    taxonomy = compile_taxonomy({**PROBE, "adversarial": {"share": 1, "two": {"pair": True}}})
    seen: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for slot in first(Planner("r", taxonomy), 60):
        assert slot.other is not None
        seen.setdefault(slot.leaf, []).append(slot.other.path)
    for leaf, others in seen.items():
        assert leaf not in others
        assert len(set(others[:3])) == 3


def test_constraints_hold_and_descriptions_follow() -> None:
    slots = first(Planner("r", compile_taxonomy(WIDE), seed=1), 1000)
    mail = {slot.leaf for slot in slots if slot.dims["channel"] == "mail"}
    assert mail == {("b0", f"l{n}") for n in range(6)} | {("b1", "l3")}
    assert {slot.describe["channel"] for slot in slots if slot.dims["channel"] == "chat"} == {"typed"}
    assert {slot.describe["tone"] for slot in slots} == {""}


def test_the_recipe_may_set_the_adversarial_share() -> None:
    taxonomy = compile_taxonomy(WIDE)
    assert all(slot.kind == "standard" for slot in first(Planner("r", taxonomy, adversarial_share=0.0), 100))
    assert all(slot.kind == "adversarial" for slot in first(Planner("r", taxonomy, adversarial_share=1.0), 100))
    with pytest.raises(InputError, match="names no adversarial kind"):
        Planner("r", compile_taxonomy(PROBE), adversarial_share=0.5)


def test_only_standalone_kinds_leave_the_topics_out() -> None:
    taxonomy = compile_taxonomy({**PROBE, "adversarial": {"share": 1, "none": {"standalone": True}}})
    planner = Planner("r", taxonomy)
    assert planner.leaves == (("none",),)
    assert planner.quota(10) == {("none",): 10}
    assert first(planner, 3)[2].leaf == ("none",)


SCRIPT = """
import sys, json
sys.path.insert(0, {tests!r})
from test_planner import WIDE, first, shown
from distill.io import digest
from distill.planning import Planner, Seed, compile_taxonomy
seeds = [Seed(f"s{{n}}", "text") for n in range(7)]
print(digest([shown(slot) for slot in first(Planner("r", compile_taxonomy(WIDE), seeds, seed=11), 500)]))
"""


def test_the_sequence_is_the_same_in_every_process() -> None:
    seeds = [Seed(f"s{n}", "text") for n in range(7)]
    here = digest([shown(slot) for slot in first(Planner("r", compile_taxonomy(WIDE), seeds, seed=11), 500)])
    script = SCRIPT.format(tests=os.path.dirname(__file__))
    for hash_seed in ("0", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == here, done.stderr


def test_the_sequence_is_this_one() -> None:
    """A change of the sequence is a change every user pays for: it must be meant."""
    seeds = [Seed(f"s{n}", "text") for n in range(7)]
    slots = first(Planner("r", compile_taxonomy(WIDE), seeds, seed=11), 500)
    assert digest([shown(slot) for slot in slots]) == "e7b72b56dd6cda7be90f3cb81b544a26"


def test_names_and_descriptions_of_other_things_do_not_change_the_draws() -> None:
    changed = {**WIDE, "name": "other", "description": "x"}
    one = first(Planner("a", compile_taxonomy(WIDE), seed=1), 50)
    two = first(Planner("b", compile_taxonomy(changed), seed=1), 50)
    assert [shown(slot)[1:] for slot in one] == [shown(slot)[1:] for slot in two]
    three = first(Planner("a", compile_taxonomy(WIDE), seed=2), 50)
    assert [shown(slot) for slot in one] != [shown(slot) for slot in three]


@settings(max_examples=30, deadline=None)
@given(
    st.recursive(
        st.just({}),
        lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=4),
        max_leaves=12,
    ),
    st.integers(0, 400),
    st.integers(0, 99),
)
def test_quota_and_prefixes_of_any_tree(tree: dict[str, Any], target: int, seed: int) -> None:
    def node(inner: Mapping[str, Any], depth: int) -> dict[str, Any]:
        return {"weight": 1 + depth % 3, "topics": {k: node(v, depth + ord(k)) for k, v in inner.items()}}

    taxonomy = compile_taxonomy({"name": "t", "topics": {"root": node(tree, 0)}})
    planner = Planner("r", taxonomy, seed=seed)
    quota = planner.quota(target)
    assert sum(quota.values()) == target
    assert set(quota) == set(planner.leaves)
    counts: Counter[tuple[str, ...]] = Counter(slot.leaf for slot in first(planner, target))
    assert all(abs(counts[leaf.path] - leaf.share * target) < 1 for leaf in taxonomy.leaves)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.integers(0, 4), st.integers(0, 99))
def test_no_combination_of_seeds_comes_again_before_all_have_come(count: int, size: int, seed: int) -> None:
    seeds = [Seed(f"s{n}", "text", ("cards", "lost")) for n in range(count)]
    planner = Planner("r", compile_taxonomy(PROBE), seeds, seed=seed, seeds_per_slot=size)
    slots = [slot for slot in first(planner, 900) if slot.leaf == ("cards", "lost")]
    drawn = [frozenset(seed.id for seed in slot.seeds) for slot in slots]
    assert all(len(slot.seeds) == len(ids) == min(size, count) for slot, ids in zip(slots, drawn, strict=True))
    lap = comb(count, min(size, count))
    for start in range(0, len(drawn) - lap + 1, lap):
        assert len(set(drawn[start : start + lap])) == lap


def test_leaves_that_share_seeds_share_their_turns() -> None:
    seeds = [Seed(f"s{n}", "text") for n in range(8)]
    drawn = [frozenset(s.id for s in slot.seeds) for slot in first(Planner("r", compile_taxonomy(PROBE), seeds), 28)]
    assert len(set(drawn)) == comb(8, 2)


def test_a_kind_shows_its_own_seeds() -> None:
    text = {**PROBE, "adversarial": {"share": 0.5, "odd": {"seeds": ["strange"]}}}
    for slot in first(Planner("r", compile_taxonomy(text), [Seed("s", "plain")]), 40):
        assert [seed.text for seed in slot.seeds] == (["strange"] if slot.twist else ["plain"])


def test_take_fills_the_quota_in_the_order_of_the_sequence() -> None:
    planner = Planner("r", compile_taxonomy(WIDE), seed=5)
    wanted = planner.quota(333)
    taken = list(planner.take(wanted))
    assert Counter(slot.leaf for slot in taken) == wanted
    assert [slot.index for slot in taken] == sorted(slot.index for slot in taken)
    assert taken[-1].index < 333 + 2 * len(wanted)


def test_take_serves_what_it_passed_over_first() -> None:
    taxonomy = compile_taxonomy(WIDE)
    planner = Planner("r", taxonomy, [Seed(f"s{n}", "t") for n in range(5)], seed=5)
    lonely, *others = planner.leaves
    one = list(planner.take({lonely: 30}))
    two = list(planner.take(dict.fromkeys(others, 5)))
    three = list(planner.take(dict.fromkeys(planner.leaves, 4)))
    assert max(slot.index for slot in two) < one[-1].index
    everything = {slot.index: shown(slot) for slot in first(Planner("r", taxonomy, planner_seeds(), seed=5), 800)}
    taken = [*one, *two, *three]
    assert len({slot.index for slot in taken}) == len(taken)
    assert all(shown(slot) == everything[slot.index] for slot in taken)
    # What one leaf was given is the beginning of what the sequence holds for it.
    for leaf in planner.leaves:
        indices = [slot.index for slot in taken if slot.leaf == leaf]
        assert indices == [i for i, slot in sorted(everything.items()) if slot[1] == leaf][: len(indices)]


def planner_seeds() -> list[Seed]:
    return [Seed(f"s{n}", "t") for n in range(5)]


def test_take_streams_and_keeps_little() -> None:
    planner = Planner("r", compile_taxonomy(WIDE), seed=5)
    endless = planner.take(dict.fromkeys(planner.leaves, 10**9))
    assert [slot.index for slot in itertools.islice(endless, 5)] == [0, 1, 2, 3, 4]
    assert list(planner.take({})) == []
    with pytest.raises(ValueError, match="no such leaves"):
        planner.take({("nowhere",): 1})
