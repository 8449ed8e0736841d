from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from distill.filters.decontamination.calibration import Scored, common_rate
from distill.filters.decontamination.calibration import threshold as threshold_of
from distill.filters.decontamination.decontaminate import DecontaminateFilter
from distill.filters.decontamination.evalsets import EvalItem
from distill.filters.decontamination.plants import plant
from distill.filters.decontamination.words import Lexicon, tokens
from distill.recipe import DecontaminateStep

NAMES = (
    "Anna", "Boris", "Carla", "Dmitri", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kofi", "Lena", "Marta",
    "Nils", "Olga", "Pavel", "Rosa", "Sven",
)  # fmt: skip
THINGS = (
    "apples", "bicycles", "candles", "drums", "envelopes", "flutes", "gloves", "hammers", "icicles", "jars",
    "kettles", "lamps", "mirrors", "needles", "oranges", "pillows", "quilts", "ropes", "shirts", "tents", "umbrellas",
    "violins", "watches", "xylophones", "yarns", "zippers", "bottles", "chairs",
)  # fmt: skip
PLACES = (
    "market", "harbour", "station", "library", "factory", "garden", "school", "museum", "bakery", "workshop",
    "stadium", "hospital", "theatre",
)  # fmt: skip
DEEDS = (
    "buys", "sells", "loses", "finds", "borrows", "paints", "repairs", "counts", "washes", "packs", "ships", "trades",
    "weighs", "stores", "orders",
)  # fmt: skip


def problem(source: random.Random) -> str:
    """A short word problem, like others of its kind."""

    def sentence() -> str:
        return (
            f"{source.choice(NAMES)} {source.choice(DEEDS)} {source.randint(2, 90)} {source.choice(THINGS)} at the "
            f"{source.choice(PLACES)} and {source.choice(DEEDS)} {source.randint(2, 90)} {source.choice(THINGS)}."
        )

    return f"{sentence()} {sentence()} How many {source.choice(THINGS)} are left in the {source.choice(PLACES)}?"


SOURCE = random.Random(5)
ITEMS = [EvalItem("maths", str(number), problem(SOURCE)) for number in range(150)]
CLEAN = [problem(SOURCE) for _ in range(3000)]


def step(**keys) -> DecontaminateStep:
    return DecontaminateStep(kind="decontaminate", fields=("prompt",), **keys)


def table(prompts: list[str]) -> pa.Table:
    return pa.table({"id": [f"r{number}" for number in range(len(prompts))], "prompt": prompts})


def planted(kind: str, count: int = 100) -> list[str]:
    texts = (plant(kind, item.text, CLEAN[0], ["river", "cloud", "stone"], item.name) for item in ITEMS[:count])
    return [text for text in texts if text is not None]


@pytest.fixture(scope="module")
def calibrated() -> DecontaminateFilter:
    """Calibrated on clean rows among which one in eleven is a leak."""
    filter_ = DecontaminateFilter(step(false_positive_rate=0.02), items=ITEMS)
    filter_.calibrate(table(CLEAN[:1500] + planted("reworded", 150)))
    return filter_


@pytest.mark.parametrize(
    "kind", ["exact", "edited_5", "edited_10", "edited_20", "number_changed", "shuffled", "reworded", "inside_row"]
)
def test_edited_copies_are_found_with_their_item(calibrated, kind):
    texts = planted(kind)
    verdicts = calibrated.judge(table(texts))
    assert (~verdicts.keep).mean() >= 0.97
    right = [name == f"maths:{number}" for number, name in enumerate(verdicts.matched_id) if name]
    assert np.mean(right) >= 0.97


def test_the_rate_of_clean_rows_lost_is_the_one_asked_for(calibrated):
    lost = (~calibrated.judge(table(CLEAN[1500:])).keep).mean()
    assert 0.01 <= lost <= 0.04
    (facts,) = calibrated.calibrated["sets"]
    assert calibrated.calibrated["from"] == "rows"
    assert facts["threshold"] != facts["uncalibrated"]
    assert 100 <= facts["leaks_estimated"] <= 200


def test_rows_known_to_be_clean_set_the_threshold(tmp_path):
    filter_ = DecontaminateFilter(step(false_positive_rate=0.02), items=ITEMS, clean=table(CLEAN[:1500]))
    assert filter_.calibrated["from"] == "clean"
    assert not filter_.needs_sample
    assert 0.01 <= (~filter_.judge(table(CLEAN[1500:])).keep).mean() <= 0.04


def test_few_known_rows_do_not_push_the_rate_far_below_the_one_asked_for():
    scores = np.random.default_rng(4)
    reached = []
    for _ in range(200):
        known = Scored(scores.exponential(size=1000), np.ones(1000))
        limit = threshold_of(known, common_rate([known], 0.01, known=True))
        reached.append(np.exp(-limit) / 0.01)
    assert 0.8 <= np.mean(reached) <= 1.1
    assert np.mean([0.5 <= share <= 2 for share in reached]) >= 0.9


def test_changed_numbers_are_their_own_reason(calibrated):
    verdicts = calibrated.judge(table(planted("number_changed")))
    reasons = [reason for reason in verdicts.reason if reason]
    assert reasons.count("number_changed") >= 0.95 * len(reasons)
    assert " — numbers " in verdicts.evidence[0]
    reworded = calibrated.judge(table(planted("reworded"))).reason
    assert reworded.count("number_changed") <= 0.05 * len(reworded)


def test_few_rows_are_judged_by_the_eval_sets_own_threshold():
    filter_ = DecontaminateFilter(step(false_positive_rate=0.01), items=ITEMS)
    filter_.calibrate(table(CLEAN[:20]))
    assert "fewer than" in filter_.calibrated["warning"]
    verdicts = filter_.judge(table([*planted("edited_10", 30), *CLEAN[:30]]))
    assert not verdicts.keep[:30].any()
    assert verdicts.keep[30:].all()


def test_a_given_threshold_is_not_calibrated():
    texts = planted("reworded", 20)
    for threshold, kept in ((0.4, False), (1.4, True)):
        own = step(threshold=threshold, false_positive_rate=0.01, overlap=1, similar=1)
        filter_ = DecontaminateFilter(own, items=ITEMS)
        assert not filter_.needs_sample
        verdicts = filter_.judge(table(texts))
        assert ("paraphrase" in verdicts.reason) is not kept


def test_a_rate_that_can_only_cost_clean_rows_is_warned_of():
    source = random.Random(9)
    words = ("mild", "rain", "over", "quiet", "hills", "at", "noon", "we", "sing")
    unlike = [" ".join(source.choices(words, k=15)) for _ in range(400)]
    filter_ = DecontaminateFilter(step(false_positive_rate=0.05), items=ITEMS)
    filter_.calibrate(table(unlike))
    assert "most rows dropped as paraphrases will be clean" in filter_.calibrated["warning"]


def test_rows_most_of_which_are_leaks_do_not_hide_them():
    filter_ = DecontaminateFilter(step(false_positive_rate=0.01), items=ITEMS)
    leaks = planted("reworded", 150) * 4
    filter_.calibrate(table([*CLEAN[:200], *leaks]))
    assert (~filter_.judge(table(leaks[:150])).keep).mean() >= 0.9
    assert "`clean`" in filter_.calibrated["warning"]


def test_batches_do_not_matter(calibrated):
    prompts = [*CLEAN[:40], *planted("edited_20", 40), "", "!?", "\n\n", *planted("inside_row", 10)]
    whole = calibrated.judge(table(prompts))
    parts = [calibrated.judge(table(prompts[first : first + 7])) for first in range(0, len(prompts), 7)]
    assert np.concatenate([part.keep for part in parts]).tolist() == whole.keep.tolist()
    assert np.array_equal(np.concatenate([part.score for part in parts]), whole.score, equal_nan=True)
    assert [name for part in parts for name in part.matched_id] == whole.matched_id


def function(name: str, tells: str) -> str:
    imported = "from typing import Callable, Iterable, Iterator, List, Mapping, Sequence, Tuple, Union"
    return f'{imported}\n\ndef {name}(values):\n    """{tells}"""\n'


def test_a_line_in_common_does_not_make_two_functions_one():
    items = [
        (
            "largest",
            "Give back the largest of all entries that the list holds, at whatever place it stands. Of several that "
            "are equally large the first one is meant, and of a list without any there is nothing to give back.",
        ),
        (
            "gaps",
            "Count how often two neighbours differ by more than a given step, going from the left to the right end. "
            "A pair counts once only, however far apart both of its members are from one another.",
        ),
    ]
    other = (
        "shift",
        "Move everything one place to the left; whatever falls off comes back at the other end. The caller keeps an "
        "unchanged copy, since many programs still read the old order while this one is at work.",
    )
    filter_ = DecontaminateFilter(
        step(), items=[EvalItem("code", str(number), function(*item)) for number, item in enumerate(items)]
    )
    assert filter_.judge(table([function(*other)])).reason == [""]
    assert not filter_.judge(table([function(*item) for item in items])).keep.any()


def test_a_piece_of_a_long_item_is_found():
    story = " ".join(problem(random.Random(number)) for number in range(100, 110))
    filter_ = DecontaminateFilter(step(), items=[EvalItem("long", "1", story)])
    piece = plant("edited_20", " ".join(story.split()[60:105]), "", ["river", "cloud"], "s")
    verdicts = filter_.judge(table([piece, *CLEAN[:50]]))
    assert not verdicts.keep[0]
    assert verdicts.keep[1:].sum() >= 48


def test_an_endless_row_needs_no_endless_memory(monkeypatch):
    import distill.filters.decontamination.likeness as module

    long = " ".join([*CLEAN[:60], planted("edited_20")[7], *CLEAN[60:120]])
    rows = table([CLEAN[0], long, planted("edited_20")[9], long])
    whole = DecontaminateFilter(step(overlap=1, similar=1), items=ITEMS).judge(rows)
    assert whole.matched_id[1] == whole.matched_id[3] == "maths:7"
    monkeypatch.setattr(module, "_BLOCK", 5)
    cut = DecontaminateFilter(step(overlap=1, similar=1), items=ITEMS).judge(rows)
    assert (cut.matched_id, cut.score.tolist()) == (whole.matched_id, whole.score.tolist())


def test_the_report_is_told_from_the_eval_sets_side():
    filter_ = DecontaminateFilter(step(), items=ITEMS)
    filter_.judge(table([ITEMS[3].text, ITEMS[3].text, planted("edited_20")[7], *CLEAN[:20]]))
    report = filter_.report(hide=str.upper)["maths"]
    assert (report["contaminated_rows"], report["contaminated_items"]) == (3, 2)
    assert report["rows_by_reason"]["exact"] == 2
    assert [(item["id"], item["rows"]) for item in report["suspect_items"]] == [("3", 2), ("7", 1)]
    example = report["examples"][0]
    assert (example["item"], example["row"]) == ("3", "r0")
    assert example["row_text"] == ITEMS[3].text.upper()
    assert example["item_text"] == ITEMS[3].text


def test_two_tellings_of_a_number_are_the_same_word():
    words = Lexicon().words(["Nine boxes cost $1,200.50 each", "9 box costs 1200.5 each", "9 box\ncost 7"])
    first, second, third = (words.hashes[s : s + c].tolist() for s, c in zip(words.starts, words.counts, strict=True))
    assert first == second
    assert first[:3] == third[:3]
    assert words.numbers_of(0) == [9, 1200.5]
    assert words.begins_line.tolist() == [True, *[False] * 4, True, *[False] * 4, True, False, True, False]
    assert tokens("数学 is ２ fun²") == ["数", "学", "is", "2", "fun", "2"]


def test_odd_texts_do_no_harm():
    odd = ["", " ", "\n", "!!!", "1 2 3 4 5", "²", "\ud800 broken", "a" * 50_000, "word " * 20_000, "9" * 400, "٣ ٤"]
    assert DecontaminateFilter(step(), items=ITEMS).judge(table([t for t in odd if "\ud800" not in t])).keep.all()
    for text in odd:
        if text.strip() and "\ud800" not in text:
            DecontaminateFilter(step(), items=[EvalItem("odd", "1", text)]).judge(table([*CLEAN[:3], text]))


class Topics:
    """An encoder that knows what a text is about, whatever its words: the number after the `#`."""

    def embed(self, texts) -> np.ndarray:
        source = np.random.default_rng(1)
        topics = source.normal(size=(5000, 64))
        vectors = np.stack([topics[int(text.rsplit("#", 1)[1])] for text in texts]) if texts else np.zeros((0, 64))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_an_encoder_finds_what_no_word_shows():
    items = [EvalItem("riddles", str(number), f"riddle of {number} #{number}") for number in range(120)]
    filter_ = DecontaminateFilter(step(false_positive_rate=0.02), items=items, encoder=Topics())
    clean = [f"{text} #{number}" for number, text in enumerate(CLEAN[:1600], start=200)]
    leaks = [f"{text} #{number}" for number, text in enumerate(CLEAN[2000:2100])]
    filter_.calibrate(table([*clean[:800], *leaks]))
    assert {facts["stage"] for facts in filter_.calibrated["sets"]} == {"paraphrase", "meaning"}
    verdicts = filter_.judge(table(leaks))
    assert verdicts.reason.count("meaning") >= 95
    assert verdicts.matched_id[5] == "riddles:5"
    assert (~filter_.judge(table(clean[800:])).keep).mean() <= 0.04
    assert "riddles" in filter_.report()
