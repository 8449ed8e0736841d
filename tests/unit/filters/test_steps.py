from __future__ import annotations

import json

import pyarrow as pa
import pytest

from distill.errors import InputError
from distill.filters.near.exact import ExactFilter
from distill.filters.near.minhash import MinHashFilter
from distill.filters.normalise import excerpt, plain
from distill.filters.quality.length import LengthFilter
from distill.filters.quality.refusal import RefusalFilter
from distill.filters.quality.schema import SchemaFilter
from distill.filters.quality.truncation import TruncationFilter, looks_cut
from distill.recipe import (
    ExactStep,
    LengthStep,
    MinHashStep,
    RefusalStep,
    SchemaStep,
    TruncationStep,
)


def answers(*texts: str, prompt: str = "q") -> pa.Table:
    return pa.table(
        {
            "id": [f"r{n}" for n in range(len(texts))],
            "messages": [
                [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}] for text in texts
            ],
        }
    )


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Where is my card?", "where is  my card"),
        ("I can't pay.", "I can’t pay"),
        ("a well-known fee", "A well known fee!"),
        ("ﬁne", "fine"),
        ("“Hello”, she said", "hello she said"),
        ("日本の首都はどこですか。", "日本の首都はどこですか"),
        ("「谁写了红楼梦？」", "谁写了红楼梦"),
        ("ما هي عاصمة مصر؟", "ما هي عاصمة مصر"),
        ("भारत की राजधानी क्या है।", "भारत की राजधानी क्या है"),
    ],
)
def test_texts_that_are_equal_but_for_case_and_punctuation(left, right):
    assert plain(left) == plain(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [("3 - 5", "3 + 5"), ("1.5", "15"), ("(2+3)*4", "2+(3*4)"), ("f(x)", "f[x]"), ("10:30", "1030"), ("!!", "??")],
)
def test_texts_that_only_look_alike(left, right):
    assert plain(left) != plain(right)


def test_exact_keeps_the_first_and_knows_seeds():
    step = ExactStep(kind="exact", fields=("prompt",))
    filter_ = ExactFilter(step, seeds=[("s1", "My card is lost.")])
    rows = pa.table({"id": ["a", "b", "c", "d", "e"], "prompt": ["One?", "two", "one", "", "my card is LOST"]})
    first, second = filter_.judge(rows), filter_.judge(rows.slice(1, 1).set_column(0, "id", pa.array(["f"])))
    assert first.keep.tolist() == [True, True, False, True, False]
    assert (first.reason[2], first.matched_id[2], first.score[2]) == ("duplicate", "a", 1.0)
    assert (first.reason[4], first.matched_id[4]) == ("copies_seed", "s1")
    assert second.matched_id == ["b"]  # remembered over batches
    strict = ExactFilter(ExactStep(kind="exact", fields=("prompt",), normalise=False))
    assert strict.judge(rows).keep.all()


def test_minhash_shows_whom_and_what_a_row_repeats():
    text = "I was charged twice for the same coffee this morning and I would like one payment back please"
    seed = "My grandmother moved to Lisbon and cannot open the application on her new telephone any more"
    rows = answers(text, text + " thanks", "something else entirely, about the weather in spring")
    verdicts = MinHashFilter(MinHashStep(kind="minhash"), seeds=[("s9", seed)]).judge(rows)
    assert verdicts.keep.tolist() == [True, False, True]
    assert (verdicts.reason[1], verdicts.matched_id[1]) == ("near_duplicate", "r0")
    assert 0.7 <= verdicts.score[1] < 1
    assert "charged twice" in verdicts.evidence[1]
    copied = answers("ok", prompt=seed.replace("Lisbon", "Porto"))
    verdicts = MinHashFilter(MinHashStep(kind="minhash"), seeds=[("s9", seed)]).judge(copied)
    assert (verdicts.reason[0], verdicts.matched_id[0]) == ("near_seed", "s9")
    assert MinHashFilter(MinHashStep(kind="minhash", seeds=False), seeds=[("s9", seed)]).judge(copied).keep.all()


def test_length_measures_words_and_characters():
    filter_ = LengthFilter(LengthStep(kind="length", fields=("response",), min_words=2, max_chars=10))
    verdicts = filter_.judge(answers("one", "one two", "one two three"))
    assert verdicts.reason == ["too_short", "", "too_long"]
    assert verdicts.score.tolist() == [1, 7, 13]
    assert verdicts.evidence[2] == "13 characters, at most 10 wanted"


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I cannot assist with this request.",
        "Sorry, I can't provide that information.",
        "I cannot fulfill this request because it asks for harmful content.",
        "Unfortunately, I am unable to generate that kind of text.",
        "I apologize, but I'm not able to comply with your request.",
        "I must decline to answer that.",
        "As an AI language model, I do not have personal opinions.",
        "As an AI, I can't feel pain.",
        "I'm just a language model and know nothing of cards.",
        "Lo siento, pero no puedo ayudar con eso.",
        "Es tut mir leid, aber ich kann dir dabei nicht helfen.",
        "Ich kann dir dabei leider nicht helfen.",
        "I'm just an AI and can't browse the internet.",
        "No puedo ayudarte con eso.",
        "抱歉，我无法提供帮助。",
        "很抱歉，我不能回答这个问题。",
        "죄송하지만 도와드릴 수 없습니다.",
        "Извините, но я не могу помочь с этим.",
    ],
)
def test_refusals_are_found(text):
    verdicts = RefusalFilter(RefusalStep(kind="refusal")).judge(answers(text))
    assert not verdicts.keep[0]
    assert verdicts.evidence[0].casefold()[:8] in text.replace("’", "'").casefold()


@pytest.mark.parametrize(
    "text",
    [
        "I can't access my account",
        "I'm sorry to hear that your card was lost. Please call us at once.",
        "I'm sorry, but I can't find your order number in the message. Could you send it?",
        "Sorry for the late answer, I was on holiday.",
        "I cannot believe how easy this was!",
        "Unfortunately, your transfer was declined by the other bank.",
        '{"intent": "cannot_log_in", "urgency": "high"}',
        "The model cannot be trained without data.",
        "You can't help being late sometimes.",
        "An AI language model predicts the next token.",
        "I couldn't answer the phone because I was driving.",
        "I am just an AI researcher from Lyon.",
        "抱歉让您久等了，您的订单已发出。",
        "Извините, но я не могу войти в приложение.",
        "Je ne peux pas venir demain, dit-elle.",
    ],
)
def test_ordinary_answers_are_no_refusals(text):
    assert RefusalFilter(RefusalStep(kind="refusal")).judge(answers(text)).keep[0]


def test_only_the_answer_can_refuse():
    rows = answers("Of course.", prompt="I'm sorry, I can't help with that. What does this sentence mean?")
    assert RefusalFilter(RefusalStep(kind="refusal")).judge(rows).keep[0]
    own = RefusalFilter(RefusalStep(kind="refusal", patterns=("no comment",)))
    assert own.judge(answers("That is so. No Comment on the rest.")).reason == ["phrase"]
    assert RefusalFilter(RefusalStep(kind="refusal")).judge(pa.table({"text": ["I can't help with that"]})).keep[0]


PROSE = "The bank opened in the morning. People came in from the rain. They waited for their turn and read. " * 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("```python\nprint(1)\n", "open_fence"),
        ('{"intent": "lost', "open_quote"),
        ('{"intent": "lost", "more": [1, 2', "open_bracket"),
        (PROSE + "After that the manager came out of his office and said that the", "no_end"),
        (PROSE + 'After that the manager came out of his office and said "we are clos', "open_quote"),
    ],
)
def test_answers_that_look_cut(text, reason):
    assert looks_cut(text) == reason


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Yes",
        "hi my card got lost yesterday can u help me pls",
        "thanks :)",
        "```python\nprint(1)\n```",
        '{"intent": "lost {card}", "quote": "\\""}',
        "[citation needed] and so on",
        '{"wrong": ]',
        PROSE,
        PROSE + "\nKind regards\nAnna Lee",
        PROSE + "\ndef right(a, b, c):\n    return a*a == b*b + c*c or b*b == a*a + c*c or c*c == a*a + b*b",
        PROSE + "\n- the last item of a list that has many words in it without a stop",
        "so i went to the bank and they told me to wait and i waited and waited and nobody came and then i went home "
        "and now i write to you because i want my money back and my card too and please be quick about it ok",
    ],
)
def test_answers_that_are_whole(text):
    assert looks_cut(text) is None


def test_the_finish_reason_comes_first():
    rows = answers("Fine.", "Fine.").append_column("finish", pa.array(["length", "stop"]))
    verdicts = TruncationFilter(TruncationStep(kind="truncation")).judge(rows)
    assert verdicts.reason == ["finish_length", ""]
    assert verdicts.evidence[0] == "ends “Fine.”"


def test_schema_says_what_is_wrong_and_where(tmp_path):
    (tmp_path / "label.json").write_text(
        json.dumps(
            {
                "type": "object",
                "required": ["intent"],
                "additionalProperties": False,
                "properties": {"intent": {"enum": ["lost", "fee"]}},
            }
        )
    )
    filter_ = SchemaFilter(SchemaStep(kind="schema", schema="label.json"), folder=tmp_path)
    verdicts = filter_.judge(answers('{"intent": "lost"}', '{"intent": "x"}', "lost", '{"a": NaN}', "{}"))
    assert verdicts.reason == ["", "breaks_schema", "not_json", "not_json", "breaks_schema"]
    assert verdicts.evidence[1].startswith("intent: 'x' is not one of")
    assert "'intent' is a required property" in verdicts.evidence[4]


@pytest.mark.parametrize("content", ["{", '{"type": 5}'])
def test_a_broken_schema_file_is_named(tmp_path, content):
    (tmp_path / "label.json").write_text(content)
    with pytest.raises(InputError, match=r"label\.json: not (valid JSON|a JSON Schema)"):
        SchemaFilter(SchemaStep(kind="schema", schema="label.json"), folder=tmp_path)


def test_excerpts_are_one_short_line():
    assert excerpt("a\n\n b") == "a b"
    assert len(excerpt("word " * 1000)) <= 160
    assert excerpt("word " * 1000).endswith("…")
