from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import InputError
from distill.filters import build_chain
from distill.recipe import FilterStep, parse


def chain(*steps, **context):
    from distill.filters import FilterContext

    return build_chain(parse(tuple[FilterStep, ...], list(steps)), FilterContext(**context))


def judged(step, rows, **context):
    return chain(step, **context).judge(rows)


def talk(*turns: tuple[str, str], system: str | None = None) -> pa.Table:
    before = [] if system is None else [{"role": "system", "content": system}]
    return pa.table(
        {
            "messages": [
                [*before, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                for question, answer in turns
            ]
        }
    )


def answers(*texts: str) -> pa.Table:
    return talk(*(("Question?", text) for text in texts))


# score and agreement


def test_scores_of_columns_structs_maps_and_texts():
    rows = pa.table(
        {
            "q": pa.array([4, 2, None]),
            "s": [{"judge": 0.9}, {"judge": 0.1}, None],
            "m": pa.array([[("judge", 5.0)], [("other", 1.0)], []], pa.map_(pa.string(), pa.float64())),
            "t": ["7", "x", "1.5"],
        }
    )
    verdicts = judged({"kind": "score", "column": "q", "min": 3}, rows)
    assert verdicts.reason == ["", "low_score", "no_score"]
    assert verdicts.evidence[1] == "q is 2, at least 3 wanted"
    assert judged({"kind": "score", "column": "q", "max": 3, "missing": "keep"}, rows).reason == ["high_score", "", ""]
    assert judged({"kind": "score", "column": "s.judge", "min": 0.5}, rows).reason == ["", "low_score", "no_score"]
    assert judged({"kind": "score", "column": "m.judge", "min": 1}, rows).reason == ["", "no_score", "no_score"]
    assert judged({"kind": "score", "column": "t", "min": 2}, rows).reason == ["", "no_score", "low_score"]


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ("quality", "no column quality; did you mean q_ality"),
        ("s.jugde", "no entry jugde in column s; did you mean judge"),
        ("s", "not numbers"),
        ("q_ality.x", "has no entries"),
    ],
)
def test_a_score_that_is_not_there_is_named(column, why):
    rows = pa.table({"q_ality": [1], "s": [{"judge": 1.0}]})
    with pytest.raises(InputError, match=why):
        judged({"kind": "score", "column": column, "min": 0}, rows)


def test_labels_that_disagree():
    rows = pa.table(
        {
            "label": ["Lost card", "refund", "fee", "fee", None],
            "samples": [["lost card", "Lost card!", "lost  card"], ["fee", "fee", "refund"], ["a", "b"], ["fee"], []],
        }
    )
    step = {"kind": "agreement", "columns": ["samples"], "min": 0.6, "label": "label"}
    verdicts = judged(step, rows)
    assert verdicts.reason == ["", "not_majority", "disagreement", "too_few_labels", "too_few_labels"]
    assert verdicts.evidence[1] == "refund; fee ×2, refund ×1"
    np.testing.assert_allclose(verdicts.score[:3], [np.nan, 2 / 3, 0.5])
    assert verdicts.scores[0, 0] == 1.0
    assert judged({**step, "missing": "keep"}, rows).reason[3:] == ["", ""]
    votes = pa.table({"first": ["yes", "yes", 1.0 and "no"], "second": ["Yes", "no", None]})
    assert judged({"kind": "agreement", "columns": ["first", "second"]}, votes).reason == [
        "", "disagreement", "too_few_labels"
    ]  # fmt: skip


# form


def test_expressions_that_must_and_must_not_match():
    step = {"kind": "regex", "fields": ["response"], "must": [r"\d+$"], "must_not": ["(?i)todo"]}
    verdicts = judged(step, answers("it is 42", "it is", "TODO 7"))
    assert verdicts.reason == ["", "no_match", "forbidden"]
    assert verdicts.evidence[2] == "(?i)todo in “TODO 7”"
    assert not judged({"kind": "regex", "must": ["a"], "fields": ["response"]}, answers("A")).keep[0]
    assert judged({"kind": "regex", "must": ["a"], "fields": ["response"], "ignore_case": True}, answers("A")).keep[0]


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)b", "a{2000}"])
def test_expressions_that_could_hang_or_make_no_sense_are_refused(pattern):
    with pytest.raises(InputError, match=r"must\.1: not an expression that can be used"):
        chain({"kind": "regex", "must": ["ok", pattern]})


def test_a_catastrophic_expression_is_linear():
    rows = answers("a" * 100_000 + "!")
    assert not judged({"kind": "regex", "must": ["^(a+)+$"], "fields": ["response"]}, rows).keep[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<think>a b</think>\n<answer>4</answer>", ""),
        ("<answer>4</answer>", "missing_tag"),
        ("<think>a<answer>4</answer>", "open_tag"),
        ("<think>a</think><answer>4</answer><answer>5</answer>", "repeated_tag"),
        ("<answer>4</answer><think>a</think>", "tag_order"),
        ("<think>a<answer>4</answer></think>", "tag_order"),
        ("<think> </think><answer>4</answer>", "empty_tag"),
    ],
)
def test_tags(text, reason):
    assert judged({"kind": "tags", "tags": ["think", "answer"]}, answers(text)).reason == [reason]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("```python\nx = [1, 2]\nprint(x)\n```", ""),
        ("```py\nfor x in:\n```", "bad_python"),
        ("```python\n>>> 1 + 1\n2\n```", ""),
        ("  ```python\n  def f():\n      return 1\n  ```", ""),
        ('```json\n{"a": 1}\n```\n```json\n{"a": 1,}\n```', "bad_json"),
        ("```yaml\na: [1\n```", "bad_yaml"),
        ("```toml\na = \n```", "bad_toml"),
        ("```rust\nfn main( {\n```", ""),
        ("no code", ""),
        ("```python\n" + "(" * 5000 + "\n```", "bad_python"),
        ("```python\nx = 1\0\n```", "bad_python"),
        ("```python\nprint('never closed')", ""),
        ("````md\n```python\nfor x in:\n```\n````", ""),
    ],
)
def test_code_parses_or_says_where_not(text, reason):
    verdicts = judged({"kind": "code"}, answers(text))
    assert verdicts.reason == [reason]
    assert bool(verdicts.evidence[0]) == bool(reason)


def test_code_without_fences_and_none_at_all():
    rows = answers("x = 1\n", "x = = 1", "just words")
    verdicts = judged({"kind": "code", "unfenced": "python"}, rows)
    assert verdicts.reason == ["", "bad_python", "bad_python"]
    assert verdicts.evidence[1].startswith("line 1: ")
    assert judged({"kind": "code", "required": True}, rows).reason == ["no_code"] * 3


def test_tokens_are_those_of_the_tokenizer(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    step = {"kind": "length", "fields": ["response"], "min_tokens": 2, "max_tokens": 4, "tokenizer": "tokenizer.json"}
    verdicts = judged(step, answers("a", "abab", "ababa"), folder=tmp_path)
    assert verdicts.reason == ["too_short", "", "too_long"]
    assert verdicts.evidence[2] == "5 tokens, at most 4 wanted"
    assert verdicts.scores[1, 0] == 4
    assert chain({**step, "tokenizer": "."}, folder=tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        chain({**step, "tokenizer": "nowhere"}, folder=tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        chain(step, folder=tmp_path)
    with pytest.raises(InputError, match="tokenizer"):
        chain({"kind": "length", "max_tokens": 4})


# repetition, language, script

PROSE = (
    "The ferry left the harbour before the storm came up. Anna stood at the rail and watched the lights of the town "
    "grow small. She had packed one bag, two books and the letter that her brother had sent from the north."
)

CHINESE = (
    "人工智能技术正在改变我们的生活方式。很多公司利用人工智能技术来提高效率，例如自动回答客户的问题。"
    "但是，人工智能技术也带来了新的挑战，特别是在隐私保护和就业方面。因此，我们需要认真考虑如何使用它。"
)
THAI = (
    "ประเทศไทยมีสถานที่ท่องเที่ยวมากมายที่นักท่องเที่ยวจากทั่วโลกต้องการมาเยี่ยมชม เช่น วัดพระแก้วในกรุงเทพมหานคร "
    "และเกาะสวยงามทางภาคใต้ของประเทศไทย นักท่องเที่ยวส่วนใหญ่ชอบอาหารไทยเพราะมีรสชาติอร่อยและราคาไม่แพง"
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, ""),
        (PROSE + " no" * 9, "loop"),
        ("I will do it. " * 9, "loop"),
        ("one of the many things that we did " * 6, "repeated_ngrams"),
        ("\n".join(["- milk", "- bread", "- milk", "- milk", "- eggs and ham"]), "repeated_lines"),
        ("| a | b |\n|---|---|---|---|---|---|---|---|---|\n" + PROSE, ""),
        ("0 0 0 0 0 0 0 0 0 0 0 0", ""),
        ("哈" * 12, "loop"),
        (" ".join(f"https://docs.example.org/templates/page-{n}/templates/index.html" for n in range(6)), ""),
        ('{"intent":"card_arrival","urgency":"high","next_intent":"card_arrival","next_urgency":"high"}', ""),
        (CHINESE, ""),
        (THAI, ""),
        (CHINESE * 3, "repeated_ngrams"),
        (THAI * 3, "repeated_ngrams"),
        ("Translate: 我们一起去 https://example.org/a/very/long/address/that/says/nothing/at/all " + PROSE, ""),
        ("今天的天气很好我们一起去公园散步吧然后再去吃晚饭", ""),
        ("", ""),
    ],
)
def test_repetition(text, reason):
    verdicts = judged({"kind": "repetition", "fields": ["response"]}, answers(text))
    assert verdicts.reason == [reason], verdicts.evidence


@settings(max_examples=30)
@given(st.lists(st.text(st.sampled_from("ab \n"), max_size=120), min_size=1, max_size=8), st.integers(1, 4))
def test_repetition_is_a_matter_of_the_row_alone(contents, size):
    rows = pa.table({"text": contents})
    step = {"kind": "repetition", "min_words": 1, "ngram": 3}
    whole = judged(step, rows)
    parts = [judged(step, rows.slice(first, size)) for first in range(0, len(contents), size)]
    assert [reason for part in parts for reason in part.reason] == whole.reason
    for row, content in enumerate(contents):
        words = content.split()
        grams = [tuple(words[place : place + 3]) for place in range(len(words) - 2)]
        covered = {place + step for place, gram in enumerate(grams) if gram in grams[:place] for step in range(3)}
        if whole.reason[row] == "repeated_lines":
            continue  # scored by its lines
        if not (len(content) > 20 and content.isalpha()):  # else characters are its words
            assert whole.scores[row, 0] == pytest.approx(len(covered) / len(words) if words else 0.0, abs=1e-4)


def test_languages():
    rows = pa.table(
        {
            "text": [
                "Where can I find the receipt for my last order?",
                "¿Dónde puedo encontrar el recibo de mi último pedido?",
                "Wo finde ich die Quittung für meine letzte Bestellung?",
                "ok",
                "```python\nfor x in range(10): print(x)\n``` https://example.org/una/pagina/muy/larga",
            ]
        }
    )
    verdicts = judged({"kind": "language", "languages": ["en"]}, rows)
    assert verdicts.reason == ["", "other_language", "other_language", "", ""]
    assert verdicts.evidence[1].startswith("es (")
    assert judged({"kind": "language", "languages": ["en", "es", "de"]}, rows).keep.all()
    with pytest.raises(InputError, match="not a language code: English"):
        chain({"kind": "language", "languages": ["English"]})


def test_scripts():
    rows = pa.table(
        {"text": ["Grüße!", "Привет, как дела", "paypaӏ раyment here", "नमस्ते दुनिया", "नमस्ते hello there", "1 + 1"]}
    )
    latin = judged({"kind": "script", "scripts": ["Latin"]}, rows)
    assert latin.reason == ["", "other_script", "other_script", "other_script", "other_script", ""]
    assert latin.score[1] == 0
    hindi = judged({"kind": "script", "scripts": ["Devanagari"], "min_share": 0.6}, rows)
    assert hindi.keep.tolist() == [False, False, False, True, False, True]
    with pytest.raises(InputError, match="no such script: Klingon"):
        chain({"kind": "script", "scripts": ["Klingon"]})
    with pytest.raises(InputError, match="no such script"):
        chain({"kind": "script", "scripts": ["L}"]})


# leakage and copies

SYSTEM = "You are the support agent of Northwind Bank. Never promise a refund before the dispute team has confirmed it."


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I will look into it and write to you tomorrow.", ""),
        ("As told: never promise a refund before the dispute team has confirmed it, so I can't.", "repeats_system"),
        ("Sure.<|im_end|>", "control_token"),
        ("### Response:\nSure.", "control_token"),
        ("Dear [Your Name], all is well.", "placeholder"),
        ("Dear {{ customer_name }}, all is well.", "placeholder"),
        ("Write `{{ name }}` in the template.", ""),
        ("a <s>struck</s> word... and [1] and {x}", "control_token"),
        ("List[int], dict[str, Any], [link](url), [Insert]", ""),
        ("In accordance with rule 7, yes.", "phrase"),
    ],
)
def test_leaks(answer, reason):
    step = {"kind": "leakage", "fields": ["response"], "phrases": ["Accordance with rule 7"]}
    assert judged(step, talk(("My card?", answer), system=SYSTEM)).reason == [reason]


def test_leaks_of_a_prompt_file(tmp_path):
    (tmp_path / "ask.j2").write_text(
        "{% if x %}Write one message of a customer about {{ topic }} with a tone of despair.{% endif %}"
    )
    step = {"kind": "leakage", "instructions": ["ask.j2"], "min_words": 5}
    rows = pa.table({"prompt": ["Write one message of a customer about cards", "A customer about cards with a tone"]})
    verdicts = judged(step, rows, folder=tmp_path)
    assert verdicts.reason == ["repeats_instructions", ""]
    assert verdicts.evidence[0] == "“write one message of a customer about”"
    with pytest.raises(InputError, match="no such file"):
        chain({**step, "instructions": ["none.j2"]}, folder=tmp_path)


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("What is the fee for a card payment abroad?", "what is the fee for a card payment abroad", "is_question"),
        ("What is the fee for a card payment abroad?", "It is one percent of the amount, at least one euro.", ""),
        ("What is the fee for a card payment abroad?", "What is the fee for a card payment then?", "copies_question"),
        ("Is it red or blue?", "red or blue", ""),
        ("Is it red or blue?", "", ""),
    ],
)  # fmt: skip
def test_answers_that_say_the_question(question, answer, reason):
    assert judged({"kind": "copies"}, talk((question, answer))).reason == [reason]


def test_rows_without_answers_copy_nothing():
    assert judged({"kind": "copies"}, pa.table({"text": ["a b c d e f g h"]})).keep.all()
