from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.dataset.formats import from_training, to_training
from distill.errors import InputError

TEMPLATE = "<think>\n{reasoning}\n</think>\n\n{answer}"
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
TALK = st.builds(
    lambda system, turns: [
        *([{"role": "system", "content": system}] if system is not None else []),
        *(turn for q, a in turns for turn in ({"role": "user", "content": q}, {"role": "assistant", "content": a})),
    ],
    st.none() | TEXT,
    st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3),
)


@given(TALK, st.sampled_from(["messages", "prompt_completion", "alpaca", "sharegpt"]))
def test_conversations_come_back(messages, format):
    item = to_training({"id": "1", "messages": messages}, format)
    assert from_training(item, format)["messages"] == messages


@given(TALK, TEXT, TEXT)
def test_pairs_come_back(messages, chosen, rejected):
    record = {"id": "1", "messages": messages[:-1], "chosen": chosen, "rejected": rejected}
    item = to_training(record, "preference")
    assert item["chosen"] == [{"role": "assistant", "content": chosen}]
    back = from_training(item, "preference")
    assert (back["messages"], back["chosen"], back["rejected"]) == (messages[:-1], chosen, rejected)
    assert to_training(record, "messages")["messages"][-1]["content"] == chosen


@given(TALK, TEXT.filter(lambda t: t and "</think>" not in t), TEXT.filter(lambda t: "</think>" not in t))
def test_reasoning_comes_back(messages, reasoning, answer):
    record = {"id": "1", "messages": messages, "reasoning": reasoning, "answer": answer}
    item = to_training(record, "reasoning", template=TEMPLATE)
    back = from_training(item, "reasoning", template=TEMPLATE)
    assert (back["reasoning"], back["answer"], back["messages"][:-1]) == (reasoning, answer, messages[:-1])


def test_a_template_is_filled_once():
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "the answer"}]
    record = {"messages": messages, "reasoning": "{answer} and {reasoning}", "answer": None}
    filled = to_training(record, "reasoning", template="{reasoning} | {answer} {other}")["messages"][-1]["content"]
    assert filled == "{answer} and {reasoning} | the answer {other}"


@pytest.mark.parametrize(
    ("record", "format", "why"),
    [
        ({"id": "r1", "messages": [{"role": "user", "content": "q"}]}, "messages", "row r1 .*assistant turn"),
        ({"id": "r1", "messages": []}, "preference", "no pair"),
        ({"id": "r1", "messages": [{"role": "assistant", "content": "q"}]}, "alpaca", "alternate"),
        ({"id": "r1", "messages": [{"role": "assistant", "content": "q"}]}, "reasoning", "no reasoning"),
    ],
)
def test_what_does_not_fit_is_said(record, format, why):
    with pytest.raises(InputError, match=why):
        to_training(record, format)


def test_alpaca_input_is_read_back_into_the_question():
    item = {"instruction": "Translate.", "input": "hello", "output": "bonjour"}
    assert from_training(item, "alpaca")["messages"][0]["content"] == "Translate.\nhello"
    with pytest.raises(InputError, match="not a row of the alpaca layout"):
        from_training({"output": "x"}, "alpaca")
