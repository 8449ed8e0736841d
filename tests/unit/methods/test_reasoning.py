from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from methods_kit import Script, answer, billed, examples, failures, in_turn, method, rows, seeded, slot

from distill.errors import BudgetReached, FailureClass, InputError, TeacherError

KNOWN = {"kind": "numeric", "against": "seed.answer"}


def reasoning(folder: Path, prompts: dict[str, str] | None = None, **section: Any) -> Any:
    prompts = prompts or {"p": "Solve: {{ seeds[0].text if seeds else 'it' }}"}
    return method(folder, {"kind": "reasoning", "teacher": "main", "prompt": "p", **section}, prompts)


def samples(*texts: Any) -> Script:
    return Script(lambda request, sample: texts[sample])


async def test_chain_and_answer_stand_in_columns_of_their_own(tmp_path: Path) -> None:
    ask = in_turn("Two and two.\nAnswer: 4")
    (row,) = await reasoning(tmp_path)(seeded(), ask)
    assert (row.reasoning, row.answer) == ("Two and two.", "4")
    assert [m.content for m in row.messages] == ["Solve: How many?", "Two and two.\nAnswer: 4"]
    assert dict(row.scores) == {"pass_rate": 1.0, "samples": 1.0, "agreement": 1.0}


async def test_a_providers_own_reasoning_is_the_chain(tmp_path: Path) -> None:
    (row,) = await reasoning(tmp_path)(slot(), in_turn(answer("It is 4.\n4", reasoning="Hm, two and two.")))
    assert (row.reasoning, row.answer, row.messages[-1].content) == ("Hm, two and two.", "4", "It is 4.\n4")


async def test_first_stops_at_the_first_that_passes(tmp_path: Path) -> None:
    one = reasoning(tmp_path, samples=5, check=KNOWN)
    ask = samples("a\n3", "b\n$4.00", "c\n4")
    (row,) = await one(seeded(answer=4), ask)
    assert [sample for _, sample in ask.asked] == [0, 1]
    assert (row.id[-1], row.answer, row.scores["pass_rate"]) == ("1", "$4.00", 0.5)
    assert (row.cost, set(row.keys)) == (ask.spent, {one.key for one in ask.paid})


async def test_first_goes_on_after_an_error(tmp_path: Path) -> None:
    ask = samples(TeacherError(FailureClass.TIMEOUT, "no reply"), "4")
    lost, row = await reasoning(tmp_path, samples=3)(slot(), ask)
    assert (lost.failure, lost.id[-1], row.id[-1]) == (FailureClass.TIMEOUT, "0", "1")


async def test_shortest_keeps_the_shortest_right_chain_on_the_bill_of_all(tmp_path: Path) -> None:
    ask = samples("long, long way\n4", "x\n5", "short\n4", answer("cut", finish="length"))
    outcomes = await reasoning(tmp_path, samples=4, keep="shortest", check=KNOWN)(seeded(answer="4"), ask)
    (row,), (lost,) = rows(outcomes), failures(outcomes)
    assert (row.id[-1], row.reasoning) == ("2", "short")
    assert (row.scores["pass_rate"], row.scores["agreement"], row.scores["samples"]) == (0.5, 0.5, 4)
    assert (lost.failure, lost.id[-1]) == (FailureClass.LENGTH, "3")
    assert (row.cost, lost.cost) == (Decimal("0.003"), Decimal("0.001"))


async def test_all_keeps_every_right_chain_and_fails_every_wrong_one(tmp_path: Path) -> None:
    ask = samples("a\n4", "b\n5", "c\n4.0", "no number here")
    outcomes = await reasoning(tmp_path, samples=4, keep="all", check=KNOWN)(seeded(answer=4), ask)
    assert [(one.id[-1], type(one).__name__) for one in outcomes] == [
        ("0", "Row"),
        ("1", "Failure"),
        ("2", "Row"),
        ("3", "Failure"),
    ]
    assert {one.failure for one in failures(outcomes)} == {FailureClass.UNVERIFIED}
    assert failures(outcomes)[0].raw == "b\n5"
    assert "5" in failures(outcomes)[0].message
    assert billed(outcomes) == ask.spent


async def test_majority_keeps_the_answer_most_samples_agree_on(tmp_path: Path) -> None:
    one = reasoning(tmp_path, samples=5, keep="majority")
    (row,) = await one(slot(), samples("a\n7", "bbbbb\n8", "bb\n8.0", "c\n9", "bbbbb\n8"))
    assert (row.answer, row.id[-1], row.scores["agreement"]) == ("8.0", "2", 0.6)

    (lost,) = await one(slot(), samples("a\n7", "b\n8", "c\n7", "d\n9", "e\n5"))
    assert (lost.failure, lost.raw) == (FailureClass.UNVERIFIED, "a\n7")
    assert "2 of 5" in lost.message

    ask = samples("a\n7", "b\n8", "c\n7", "d\n8", "e\n5")
    (lost,) = await one(slot(), ask)
    assert (lost.failure, lost.cost, len(lost.keys)) == (FailureClass.TIE, ask.spent, 5)


async def test_nothing_right_is_one_failure_with_every_key(tmp_path: Path) -> None:
    ask = samples("a\n5", "b\n6")
    (lost,) = await reasoning(tmp_path, samples=2, keep="shortest", check=KNOWN)(seeded(answer=4), ask)
    assert (lost.failure, lost.raw, lost.cost, len(lost.keys)) == (FailureClass.UNVERIFIED, "a\n5", ask.spent, 2)
    assert "5, 6" in lost.message


async def test_a_chain_without_its_mark_has_no_answer(tmp_path: Path) -> None:
    (lost,) = await reasoning(tmp_path, answer="after", marker="=>")(slot(), in_turn("It is 4."))
    assert (lost.failure, lost.raw) == (FailureClass.UNPARSED, "It is 4.")
    assert "'=>'" in lost.message


async def test_the_written_question_is_the_user_turn_and_paid_once(tmp_path: Path) -> None:
    prompts = {"w": "Write one", "p": "Solve: {{ input }}"}
    ask = Script(lambda request, sample: "How many?" if request.messages[0].content == "Write one" else f"x\n{sample}")
    one = reasoning(tmp_path, prompts, input="w", samples=3, keep="all")
    outcomes = await one(slot(), ask)
    assert [row.messages[0].content for row in rows(outcomes)] == ["How many?"] * 3
    assert ask.users[1] == "Solve: How many?"
    assert billed(outcomes) == ask.spent
    assert (one.rows_per_slot, one.requests_per_slot) == (3, 4)


async def test_labels_can_be_the_known_answer_and_exact_compares_text(tmp_path: Path) -> None:
    one = reasoning(tmp_path, check={"kind": "exact", "against": "labels.capital"})
    (row,) = await one(slot(labels={"capital": "Paris"}), in_turn("France.\n**paris.**"))
    assert row.answer == "paris."


async def test_a_schema_can_be_the_check(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"type": "object", "required": ["n"]}))
    one = reasoning(tmp_path, answer="json", samples=2, check={"kind": "json_schema", "schema": "s.json"})
    ask = samples('So {"m": 1}', 'So {"n": 1}')
    (row,) = await one(slot(), ask)
    assert (row.answer, row.reasoning) == ('{"n": 1}', "So")
    assert ask.asked[0][0].schema is None


@pytest.mark.parametrize(
    ("check", "where", "problem"),
    [
        (KNOWN, seeded(result=4), r"seed\.answer.*no answer.*it has result, text"),
        (KNOWN, slot(), r"has no answer in its first seed"),
        (KNOWN, seeded(answer="four"), r"not a number: 'four'"),
        ({"kind": "exact", "against": "labels.x"}, slot(), r"labels\.x.*cards/lost"),
    ],
)
async def test_a_known_answer_that_is_missing_is_said_before_anything_is_paid(
    tmp_path: Path, check: Any, where: Any, problem: str
) -> None:
    ask = samples("4")
    with pytest.raises(InputError, match=f"(?s){problem}"):
        await reasoning(tmp_path, check=check)(where, ask)
    assert not ask.asked


async def test_a_halt_passes(tmp_path: Path) -> None:
    with pytest.raises(BudgetReached):
        await reasoning(tmp_path, samples=2, keep="all")(slot(), samples("4", BudgetReached("cap")))


texts = st.sampled_from(["a\n4", "bb\n4", "c\n5", "d\n6", "no mark", "cut"])


@examples
@given(
    st.lists(texts, min_size=1, max_size=6),
    st.sampled_from(["first", "shortest", "all", "majority"]),
    st.booleans(),
    st.lists(st.integers(0, 5), min_size=6, max_size=6),
)
async def test_every_answer_is_paid_on_exactly_one_bill_in_any_order(
    tmp_path_factory: Any, said: list[str], keep: str, known: bool, delays: list[int]
) -> None:
    folder: Path = tmp_path_factory.getbasetemp() / "bills"
    prompts = {"w": "Write one", "p": "Solve: {{ input }}"}
    check = KNOWN if known else None
    one = reasoning(folder, prompts, input="w", samples=len(said), keep=keep, check=check)

    def say(request: Any, sample: int) -> Any:
        if request.messages[0].content == "Write one":
            return answer("How many?", cost="0.0000007")
        text = said[sample]
        return answer(text, finish="length" if text == "cut" else "stop", cost="0.01")

    ask = Script(say)
    outcomes = await one(seeded(answer=4), ask)
    assert outcomes
    assert billed(outcomes) == ask.spent
    assert len({outcome.id for outcome in outcomes}) == len(outcomes)
    assert {key for outcome in outcomes for key in outcome.keys} == {paid.key for paid in ask.paid}
    if known:
        assert all(row.answer == "4" for row in rows(outcomes))
    assert outcomes == await one(seeded(answer=4), Script(say, delay=lambda n: delays[n % 6]))
