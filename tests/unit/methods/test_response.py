from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from methods_kit import Script, answer, billed, examples, failures, in_turn, method, rows, slot

from distill.dataset import rows_to_table
from distill.errors import AnswerError, BudgetReached, FailureClass, InputError, RunError, TeacherError
from distill.methods.questions import items_schema, read_items
from distill.methods.structured import Unstructured

SCHEMA = {
    "type": "object",
    "properties": {"intent": {"type": "string"}},
    "required": ["intent"],
    "additionalProperties": False,
}


def response(folder: Path, prompts: dict[str, str], teachers: dict[str, Any] | None = None, **section: Any) -> Any:
    return method(folder, {"kind": "response", "teacher": "main", **section}, prompts, **(teachers or {}))


# -- one step ------------------------------------------------------------------------------------------------------


async def test_the_prompt_is_the_user_turn_and_the_answer_the_assistant_turn(tmp_path: Path) -> None:
    one = response(tmp_path, {"p": "Write about {{ topic.name }}."}, prompt="p", temperature=0.2)
    ask = in_turn(answer(" Lost it. \n", cost="0.25"))
    (row,) = await one(slot(), ask)
    assert row.id == "probe-000003-0"
    assert [(m.role, m.content) for m in row.messages] == [("user", "Write about lost."), ("assistant", "Lost it.")]
    assert (row.cost, row.usage_input, row.usage_output) == (Decimal("0.25"), 10, 5)
    assert row.keys == tuple(one.key for one in ask.paid)
    assert (row.teacher, row.model, row.finish) == ("main", "m", "stop")
    request, sample = ask.asked[0]
    assert (request.params.temperature, request.params.max_tokens, sample) == (0.2, 64, 0)
    assert (one.rows_per_slot, one.requests_per_slot) == (1, 1)


async def test_the_system_file_stands_in_the_row_and_the_prompts_own_system_is_the_teachers_alone(
    tmp_path: Path,
) -> None:
    prompts = {"p": "---\nsystem: Be brief.\n---\nHi", "s": "You route messages."}
    ask = in_turn("Hello")
    (row,) = await response(tmp_path, prompts, prompt="p", system="s")(slot(), ask)
    assert [(m.role, m.content) for m in ask.asked[0][0].messages] == [
        ("system", "You route messages.\n\nBe brief."),
        ("user", "Hi"),
    ]
    assert [(m.role, m.content) for m in row.messages] == [
        ("system", "You route messages."),
        ("user", "Hi"),
        ("assistant", "Hello"),
    ]


async def test_a_prompt_edit_shows_in_the_digest(tmp_path: Path) -> None:
    digests: set[str] = set()
    for text in ("Hi", "Hi!", "Hi"):
        (row,) = await response(tmp_path, {"p": text}, prompt="p")(slot(), in_turn("Hello"))
        digests.add(row.prompt_digest)
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("said", "failure", "raw"),
    [
        (answer("cut he", finish="length"), FailureClass.LENGTH, "cut he"),
        (answer("I cannot", finish="refusal"), FailureClass.REFUSED, "I cannot"),
        (answer("", finish="filtered"), FailureClass.FILTERED, ""),
        (answer(" \n "), FailureClass.EMPTY, " \n "),
        (answer("", finish="empty", reasoning="hm"), FailureClass.EMPTY, "hm"),
        (TeacherError(FailureClass.TIMEOUT, "no reply"), FailureClass.TIMEOUT, ""),
        (AnswerError(FailureClass.UNREADABLE, "surrogate", raw="?", keys=("k",)), FailureClass.UNREADABLE, "?"),
    ],
)
async def test_an_answer_that_holds_no_row_is_a_failure_with_its_text(
    tmp_path: Path, said: Any, failure: FailureClass, raw: str
) -> None:
    ask = in_turn(said)
    (lost,) = await response(tmp_path, {"p": "Hi"}, prompt="p")(slot(), ask)
    assert (lost.failure, lost.raw, lost.id, lost.cost) == (failure, raw, "probe-000003-0", ask.spent)
    assert lost.message
    assert len(lost.keys) == (0 if isinstance(said, TeacherError) else 1)


async def test_a_cut_answer_is_asked_for_once_more_with_twice_the_tokens(tmp_path: Path) -> None:
    one = response(tmp_path, {"p": "Hi"}, prompt="p", raise_max_tokens=True)
    ask = in_turn(answer("Hel", finish="length"), "Hello")
    (row,) = await one(slot(), ask)
    assert [request.params.max_tokens for request, _ in ask.asked] == [64, 128]
    assert (row.messages[-1].content, row.cost, len(row.keys)) == ("Hello", ask.spent, 2)

    ask = in_turn(answer("Hel", finish="length"), answer("Hello, dea", finish="length"))
    (lost,) = await one(slot(), ask)
    assert (lost.failure, lost.raw, lost.cost) == (FailureClass.LENGTH, "Hello, dea", ask.spent)
    assert "128" in lost.message


async def test_a_failed_sample_does_not_take_the_others_along(tmp_path: Path) -> None:
    def say(request: Any, sample: int) -> Any:
        return TeacherError(FailureClass.OVERLOADED, "busy") if sample == 1 else f"answer {sample}"

    outcomes = await response(tmp_path, {"p": "Hi"}, prompt="p", samples=3)(slot(), Script(say))
    assert [(one.id[-1], type(one).__name__) for one in outcomes] == [("0", "Row"), ("1", "Failure"), ("2", "Row")]


@pytest.mark.parametrize("halt", [BudgetReached("cap"), RunError("disk full")])
@pytest.mark.parametrize("samples", [1, 3])
async def test_a_halt_passes_and_lets_requests_under_way_come_home(
    tmp_path: Path, halt: Exception, samples: int
) -> None:
    ask = Script(lambda request, sample: halt if sample == 0 else "late", delay=lambda n: 0 if n == 1 else 5)
    with pytest.raises(type(halt)):
        await response(tmp_path, {"p": "Hi"}, prompt="p", samples=samples)(slot(), ask)
    assert len(ask.paid) == samples - 1


# -- two steps -----------------------------------------------------------------------------------------------------

TWO = {"w": "Write {{ n }} messages", "p": "Answer: {{ input }}", "l": '{"intent": "{{ topic.name }}"}'}


async def test_the_teacher_writes_the_question_and_another_answers_it(tmp_path: Path) -> None:
    teachers = {"main": {}, "writer": {"sampling": {"temperature": 1.1}}}
    one = response(tmp_path, TWO, teachers, input="w", prompt="p", input_teacher="writer")
    ask = in_turn(answer('"My card is gone."', cost="0.01"), answer("Sorry!", cost="0.02"))
    (row,) = await one(slot(), ask)
    assert ask.users == ["Write 1 messages", "Answer: My card is gone."]
    assert [request.teacher for request, _ in ask.asked] == ["writer", "main"]
    assert [m.content for m in row.messages] == ["My card is gone.", "Sorry!"]
    assert (row.cost, len(row.keys)) == (Decimal("0.03"), 2)
    assert one.requests_per_slot == 2


async def test_without_a_prompt_the_written_question_is_asked_as_it_is(tmp_path: Path) -> None:
    ask = in_turn("Where is it?", "Here.")
    (row,) = await response(tmp_path, TWO, input="w")(slot(), ask)
    assert ask.users[1] == "Where is it?"
    assert [m.content for m in row.messages] == ["Where is it?", "Here."]


async def test_labels_are_known_and_several_messages_share_one_call(tmp_path: Path) -> None:
    one = response(tmp_path, TWO, input="w", label="l", items=3)
    ask = in_turn(answer('{"messages": ["a", "b", "c"]}', cost="0.01"))
    outcomes = await one(slot(), ask)
    assert [[m.content for m in row.messages] for row in rows(outcomes)] == [
        [text, '{"intent": "lost"}'] for text in "abc"
    ]
    assert [row.cost for row in rows(outcomes)] == [Decimal("0.003333333334"), *[Decimal("0.003333333333")] * 2]
    assert sum(row.usage_input for row in rows(outcomes)) == 10
    assert ask.asked[0][0].schema == items_schema(3)
    assert (one.rows_per_slot, one.requests_per_slot) == (3, 1)


async def test_embedded_models_are_asked_for_a_bare_list(tmp_path: Path) -> None:
    ask = in_turn('["a", "b"]')
    teachers = {"main": {"provider": "local"}}
    await response(tmp_path, TWO, teachers, input="w", label="l", items=2)(slot(), ask)
    assert ask.asked[0][0].schema == items_schema(2, bare_list=True)


async def test_items_the_teacher_left_out_are_failures(tmp_path: Path) -> None:
    ask = in_turn('["a", ""]', "A", "B")
    outcomes = await response(tmp_path, TWO, input="w", prompt="p", items=2, samples=2)(slot(), ask)
    assert [one.id[-1] for one in outcomes] == list("0123")
    assert [one.failure for one in failures(outcomes)] == [FailureClass.UNPARSED] * 2
    assert "1 of 2" in failures(outcomes)[0].message
    assert billed(outcomes) == ask.spent


async def test_equal_questions_are_independent_draws(tmp_path: Path) -> None:
    ask = Script(
        lambda request, sample: (
            '["a", "a"]'
            if len(request.messages) == 1 and "Write" in request.messages[0].content
            else f"answer {sample}"
        )
    )
    outcomes = await response(tmp_path, TWO, input="w", prompt="p", items=2)(slot(), ask)
    assert [row.messages[-1].content for row in rows(outcomes)] == ["answer 0", "answer 1"]


async def test_a_question_that_fails_is_one_failure_with_its_price(tmp_path: Path) -> None:
    ask = in_turn("no list", "again none")
    (lost,) = await response(tmp_path, TWO, input="w", label="l", items=4)(slot(), ask)
    assert (lost.failure, lost.raw, lost.cost) == (FailureClass.UNPARSED, "again none", ask.spent)


async def test_the_price_of_the_question_is_not_lost_with_a_failed_answer(tmp_path: Path) -> None:
    ask = in_turn(answer("Where?", cost="0.5"), TeacherError(FailureClass.TIMEOUT, "no reply"))
    (lost,) = await response(tmp_path, TWO, input="w", prompt="p")(slot(), ask)
    assert (lost.cost, len(lost.keys)) == (Decimal("0.5"), 1)


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (["a", " b "], ["a", "b"]),
        ({"messages": ["a"]}, ["a"]),
        ({"note": "x", "list": ["a", "b"]}, ["a", "b"]),
        ([{"message": "a"}, {"message": "b", "n": 1}], ["a", "b"]),
        ({"1": "a", "2": "b"}, ["a", "b"]),
        ("a", ["a"]),
        ([["a", "b"]], ["a", "b"]),
        ([["a"], ["b"]], ["a", "b"]),
        (["a", "b", "c", "d"], ["a", "b", "c"]),
    ],
)
def test_shapes_of_lists(value: Any, texts: list[str]) -> None:
    assert read_items(value, 3) == texts


@pytest.mark.parametrize("value", [[], ["", " "], 7, None, [1, 2], [["a", "b"], ["c", "d"]], {"a": ["x"], "b": ["y"]}])
def test_what_is_no_list_of_texts(value: Any) -> None:
    with pytest.raises(Unstructured, match="JSON list of 3 strings"):
        read_items(value, 3)


# -- structure -----------------------------------------------------------------------------------------------------


@pytest.fixture
def schema(tmp_path: Path) -> str:
    (tmp_path / "order.json").write_text(json.dumps(SCHEMA))
    return "order.json"


async def test_an_answer_with_structure_keeps_the_teachers_text(tmp_path: Path, schema: str) -> None:
    ask = in_turn('{ "intent":  "lost" }\n')
    (row,) = await response(tmp_path, {"p": "Hi"}, prompt="p", schema=schema)(slot(), ask)
    assert (row.messages[-1].content, dict(row.scores)) == ('{ "intent":  "lost" }', {})
    assert ask.asked[0][0].schema == SCHEMA


async def test_a_repaired_answer_is_marked(tmp_path: Path, schema: str) -> None:
    (row,) = await response(tmp_path, {"p": "Hi"}, prompt="p", schema=schema)(slot(), in_turn("{'intent': 'lost',}"))
    assert (row.messages[-1].content, dict(row.scores)) == ('{"intent":"lost"}', {"repaired": 1.0})


async def test_one_correction_shows_the_teacher_what_is_wrong(tmp_path: Path, schema: str) -> None:
    one = response(tmp_path, {"p": "Hi"}, prompt="p", schema=schema)
    ask = in_turn('{"intent": 7}', '{"intent": "lost"}')
    (row,) = await one(slot(), ask)
    second = ask.asked[1][0]
    assert [m.role for m in second.messages] == ["user", "assistant", "user"]
    assert second.messages[1].content == '{"intent": 7}'
    assert "$.intent: 7 is not of type 'string'" in second.messages[2].content
    assert (dict(row.scores), row.cost, len(row.keys)) == ({"corrected": 1.0}, ask.spent, 2)
    assert [m.role for m in row.messages] == ["user", "assistant"]

    ask = in_turn('{"intent": 7}', "I'd rather not")
    (lost,) = await one(slot(), ask)
    assert (lost.failure, lost.raw, lost.cost) == (FailureClass.UNPARSED, "I'd rather not", ask.spent)

    ask = in_turn('{"intent": 7}', TeacherError(FailureClass.TIMEOUT, "no reply"))
    (lost,) = await one(slot(), ask)
    assert (lost.failure, lost.raw, lost.cost) == (FailureClass.TIMEOUT, '{"intent": 7}', ask.spent)


async def test_a_schema_in_the_prompts_head_holds_too(tmp_path: Path) -> None:
    prompt = "---\nschema: {type: array, items: {type: integer}}\n---\nCount"
    (row,) = await response(tmp_path, {"p": prompt}, prompt="p")(slot(), in_turn("Sure: [1, 2]"))
    assert (row.messages[-1].content, dict(row.scores)) == ("[1, 2]", {"extracted": 1.0})


async def test_a_label_that_breaks_its_schema_is_the_users_error(tmp_path: Path, schema: str) -> None:
    one = response(tmp_path, {**TWO, "l": "{}"}, input="w", label="l", schema=schema)
    with pytest.raises(InputError, match=r"method\.label"):
        await one(slot(), in_turn("Where?"))


def test_a_missing_schema_is_found_when_the_method_is_built(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.json"):
        response(tmp_path, {"p": "Hi"}, prompt="p", schema="nowhere.json")


# -- order ---------------------------------------------------------------------------------------------------------


@examples
@given(st.lists(st.integers(0, 6), min_size=16, max_size=16))
async def test_rows_do_not_depend_on_the_order_of_arrival(tmp_path_factory: Any, delays: list[int]) -> None:
    folder: Path = tmp_path_factory.getbasetemp() / "order"

    def say(request: Any, sample: int) -> Any:
        if "Write" in request.messages[0].content:
            return '["a", "b", "c"]'
        return answer(f"{request.messages[-1].content} {sample}", finish="length" if sample == 4 else "stop")

    one = response(folder, TWO, input="w", prompt="p", items=3, samples=3)
    plain = await one(slot(), Script(say))
    late = await one(slot(), Script(say, delay=lambda n: delays[n % 16]))
    assert plain == late
    assert rows_to_table(rows(plain)).equals(rows_to_table(rows(late)))
