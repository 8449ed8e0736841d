"""Reading chat completions: reasoning apart, finishes right, nothing corrupted."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import AnswerError, FailureClass
from distill.teachers import Reading, Usage
from distill.teachers.reading import envelope, read_chat, split_thinking


def chat(finish: Any = "stop", usage: Any = None, **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return orjson.dumps({"model": "m", "choices": [choice], "usage": usage})


def read(body: bytes) -> Reading:
    return read_chat(body, "asked-for")


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "4", "reasoning_content": "2+2"}, "4", "2+2"),
        ({"content": "4", "reasoning": "2+2"}, "4", "2+2"),
        ({"content": "4", "reasoning": "2+2", "reasoning_details": [{"text": "2+2"}]}, "4", "2+2"),
        ({"content": "4", "reasoning_details": [{"type": "reasoning.text", "text": "2"},
                                                {"type": "reasoning.encrypted", "data": "xx"},
                                                {"type": "reasoning.summary", "summary": "+2"}]}, "4", "2\n+2"),
        ({"content": "<think>\n2+2\n</think>\n\n4"}, "4", "2+2"),
        ({"content": "\n<think>2+2</think>4"}, "4", "2+2"),
        ({"content": "2+2\n</think>\n\n4"}, "4", "2+2"),
        ({"content": "<think>2</think>It is <think>2+2</think>4"}, "It is 4", "2\n2+2"),
        ({"content": "Sure.\n<think>\n2+2\n</think>\n4"}, "Sure.\n4", "2+2"),
        ({"content": "Write <think> and </think> around it."}, "Write <think> and </think> around it.", None),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}]},
                      {"type": "text", "text": "4"}]}, "4", "2+2"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab", None),
        ({"content": "4", "reasoning": "", "reasoning_content": None}, "4", None),
    ],
)  # fmt: skip
def test_reasoning_never_stands_in_the_text(message: dict[str, Any], text: str, reasoning: str | None) -> None:
    reading = read(chat(**message))
    assert (reading.text, reading.reasoning, reading.finish) == (text, reasoning, "stop")


@pytest.mark.parametrize("finish", ["length", "stop"])
def test_thinking_that_never_ended_is_cut(finish: str) -> None:
    reading = read(chat(finish, content="<think>first I"))
    assert (reading.text, reading.reasoning, reading.finish) == ("", "first I", "length")


@pytest.mark.parametrize(
    ("body", "finish", "text"),
    [
        (chat("length", content="half of"), "length", "half of"),
        (chat("length", content="", reasoning="long"), "length", ""),
        (chat("content_filter", content="half of"), "filtered", "half of"),
        (chat("stop", content=None), "empty", ""),
        (chat("stop", content=" \n"), "empty", " \n"),
        (chat("tool_calls", content=None, tool_calls=[{}]), "empty", ""),
        (chat("stop", content=None, refusal="No."), "refusal", "No."),
        (chat(None, content="fine"), "stop", "fine"),
        (chat(7, content="fine"), "stop", "fine"),
        (orjson.dumps({"choices": []}), "empty", ""),
        (orjson.dumps({"choices": [{"text": "old style", "finish_reason": "stop"}]}), "stop", "old style"),
    ],
)
def test_finish(body: bytes, finish: str, text: str) -> None:
    reading = read(body)
    assert (reading.finish, reading.text) == (finish, text)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, Usage()),
        ("many", Usage()),
        ({"prompt_tokens": True, "completion_tokens": -1}, Usage()),
        ({"prompt_tokens": 10, "completion_tokens": 5}, Usage(10, 5)),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 8},
             "completion_tokens_details": {"reasoning_tokens": 4}},
            Usage(10, 5, cached=8, reasoning=4),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": None}, Usage(10, 5)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 7}, Usage(10, 5, cached=7)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 99}},
         Usage(10, 5, cached=10)),
        # Reasoning left out of completion_tokens and counted in the total.
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 45,
          "completion_tokens_details": {"reasoning_tokens": 30}}, Usage(10, 35, reasoning=30)),
    ],
)  # fmt: skip
def test_usage(usage: Any, expected: Usage) -> None:
    assert read(chat(content="x", usage=usage)).usage == expected


def test_the_model_is_the_one_that_answered() -> None:
    assert read(chat(content="x")).model == "m"
    assert read(orjson.dumps({"choices": []})).model == "asked-for"


@pytest.mark.parametrize("where", ["content", "reasoning_content"])
def test_lone_surrogates_are_refused_with_the_text_kept(where: str) -> None:
    fields = {"content": "fine", "reasoning_content": "fine", where: "MARK"}
    body = chat(**fields).replace(b"MARK", rb"half \uD83D of")
    with pytest.raises(AnswerError) as caught:
        read(body)
    assert caught.value.failure is FailureClass.UNREADABLE
    caught.value.raw.encode()
    if where == "content":
        assert caught.value.raw == r"half \ud83d of"


@pytest.mark.parametrize("odd", ["\u2028", "\u0085", "\x00", "\ufeff", "\U0001f600", "\x1b[31m"])
def test_odd_characters_are_characters(odd: str) -> None:
    assert read(chat(content=f"a{odd}b")).text == f"a{odd}b"


def test_pairs_of_escapes_are_one_character() -> None:
    body = chat(content="MARK").replace(b"MARK", rb"\ud83d\ude00")
    assert read(body).text == "\U0001f600"


@pytest.mark.parametrize(
    "body", [b'{"a": NaN}', b'{"a": -Infinity, "b": "\\ud800"}', b'{"a"', b"\xff", b"", b"[" * 9999]
)
def test_what_is_not_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        envelope(body)


def test_the_last_of_two_equal_keys_counts() -> None:
    assert envelope(b'{"a":1,"a":2}') == {"a": 2}


def test_a_byte_order_mark_is_no_fault() -> None:
    assert envelope(b'\xef\xbb\xbf{"a":1}') == {"a": 1}


@given(st.text(), st.text())
def test_what_stands_in_think_tags_comes_back_whole(thought: str, answer: str) -> None:
    if "<think>" in thought + answer or "</think>" in thought + answer:
        return
    text, thinking, cut = split_thinking(f"<think>{thought}</think>{answer}")
    assert (text, thinking, cut) == (answer.lstrip(), thought, False)


@given(st.text())
def test_texts_come_back_as_they_are(text: str) -> None:
    if "think>" in text:
        return
    assert read(chat(content=text)).text == text


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "error", "code", "usage", "finish_reason", "text", "type"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_json)
def test_any_json_is_read_or_refused(value: Any) -> None:
    try:
        reading = read_chat(orjson.dumps(value), "m")
    except AnswerError as error:
        refused = error.failure
    else:
        refused = None
        reading.text.encode()
    assert refused in (None, FailureClass.MALFORMED)
