from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.errors import InputError
from distill.train.data import Conversation
from distill.train.template import IGNORE, PLAIN, Encoded, Encoder, stop_tokens, use_template

Make = Callable[..., Any]

WITH_BOS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
ENDLESS = (
    "{% for m in messages %}{% if m['role'] == 'user' %}Q: {{ m['content'] }}\nA:"
    "{% else %} {{ m['content'] }}\n{% endif %}{% endfor %}"
)
FORGETS_THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('</think>')[-1].strip() }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FUSSY = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{% endfor %}"
)
CHANGES_ANSWERS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | upper }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def talk(*contents: str, system: str | None = None) -> Conversation:
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    return Conversation(tuple(([{"role": "system", "content": system}] if system else []) + turns), "rows.jsonl:1")


def trained(tokenizer: Any, example: Encoded) -> str:
    return tokenizer.decode([label for label in example.labels if label != IGNORE])


def test_only_the_answer_and_its_end_are_trained(tokenizer_with: Make) -> None:
    tokenizer = tokenizer_with()
    (example,) = Encoder(tokenizer)(talk("lost my card", '{"intent": "lost"}', system="Route it."))
    assert trained(tokenizer, example) == '{"intent": "lost"}<|im_end|>'
    assert [i for i, label in zip(example.input_ids, example.labels, strict=True) if label not in (IGNORE, i)] == []


def test_every_answer_of_a_longer_conversation_is_trained(tokenizer_with: Make) -> None:
    tokenizer = tokenizer_with()
    (example,) = Encoder(tokenizer)(talk("hi", "hello", "lost my card", "blocked"))
    assert trained(tokenizer, example) == "hello<|im_end|>blocked<|im_end|>"


def test_the_prompt_in_training_is_the_prompt_when_it_is_asked(tokenizer_with: Make) -> None:
    encoder = Encoder(tokenizer_with())
    row = talk("lost my card", "blocked", system="Route it.")
    (example,) = encoder(row)
    prompt = encoder.prompt(row.prompt)
    assert example.input_ids[: len(prompt)] == prompt
    assert example.labels[: len(prompt)] == [IGNORE] * len(prompt)
    assert example.labels[len(prompt)] != IGNORE


def test_the_sequence_starts_with_one_bos(tokenizer_with: Make) -> None:
    tokenizer = tokenizer_with(WITH_BOS, bos_token="<s>", add_bos_token=True)
    (example,) = Encoder(tokenizer)(talk("lost my card", "blocked"))
    assert example.input_ids.count(tokenizer.bos_token_id) == 1
    assert trained(tokenizer, example).strip() == "blocked<|im_end|>"


def test_a_template_that_writes_bos_twice_is_refused(tokenizer_with: Make) -> None:
    tokenizer = tokenizer_with("{{ bos_token }}" + WITH_BOS, bos_token="<s>")
    with pytest.raises(InputError, match="BOS token twice"):
        Encoder(tokenizer)(talk("lost my card", "blocked"))


def test_an_answer_without_an_end_gets_eos(tokenizer_with: Make) -> None:
    tokenizer = tokenizer_with(ENDLESS)
    (example,) = Encoder(tokenizer)(talk("lost my card", "blocked"))
    assert example.labels[-1] == tokenizer.eos_token_id
    assert trained(tokenizer, example) == " blocked<|im_end|>"


def test_without_a_template_a_plain_one_is_used_that_ends_answers(tokenizer_with: Make) -> None:
    tokenizer = tokenizer_with(None)
    assert use_template(tokenizer) == PLAIN
    (example,) = Encoder(tokenizer)(talk("hi", "hello", "lost my card", "blocked", system="Route it."))
    assert trained(tokenizer, example) == "hello<|im_end|>blocked<|im_end|>"


def test_earlier_answers_that_are_rendered_differently_later_become_examples_of_their_own(tokenizer_with: Make) -> None:
    tokenizer = tokenizer_with(FORGETS_THINKING)
    row = talk("hi", "<think>greet</think>\nhello", "lost my card", "<think>block it</think>\nblocked")
    first, second = Encoder(tokenizer)(row)
    assert trained(tokenizer, first) == "<think>greet</think>\nhello<|im_end|>"
    assert trained(tokenizer, second) == "<think>block it</think>\nblocked<|im_end|>"
    assert "greet" not in tokenizer.decode(second.input_ids)


def test_a_template_that_changes_the_answer_is_refused(tokenizer_with: Make) -> None:
    with pytest.raises(InputError, match=r"rows.jsonl:1: the trained tokens are not the answer"):
        Encoder(tokenizer_with(CHANGES_ANSWERS))(talk("lost my card", "blocked"))


def test_a_role_the_template_refuses_is_named_with_its_row(tokenizer_with: Make) -> None:
    with pytest.raises(
        InputError, match=r"rows.jsonl:1: the chat template refuses the turns \(system user assistant\)"
    ):
        Encoder(tokenizer_with(FUSSY))(talk("lost my card", "blocked", system="Route it."))


def test_a_token_across_the_border_does_not_hide_the_start_of_the_answer(tokenizer_with: Make) -> None:
    # " lost" is one token; the template ends the prompt with the space that begins it.
    template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}: {% else %}{{ m['content'] }}<|im_end|>"
        "{% endif %}{% endfor %}"
    )
    tokenizer = tokenizer_with(template)
    encoder = Encoder(tokenizer)
    row = talk("the card was", "lost")
    (example,) = encoder(row)
    assert trained(tokenizer, example) == "lost<|im_end|>"
    prompt = encoder.prompt(row.prompt)
    assert example.input_ids[: len(prompt)] == prompt


def test_an_answer_ends_generation_at_the_token_that_was_trained(tokenizer_with: Make) -> None:
    tokenizer = tokenizer_with(eos_token="<|endoftext|>")
    im_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert set(stop_tokens(tokenizer)) == {tokenizer.eos_token_id, im_end}


def test_the_example_is_shown_with_its_mask(tokenizer_with: Make) -> None:
    encoder = Encoder(tokenizer_with())
    (example,) = encoder(talk("hi", "hello", "lost my card", "blocked"))
    assert encoder.show(example) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦hello<|im_end|>⟧\n"
        "<|im_start|>user\nlost my card<|im_end|>\n<|im_start|>assistant\n⟦blocked<|im_end|>⟧\n"
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip), min_size=2, max_size=6
    )
)
def test_the_trained_text_is_the_answers_whatever_they_hold(tokenizer_with: Make, contents: list[str]) -> None:
    tokenizer = tokenizer_with()
    row = talk(*contents[: len(contents) // 2 * 2])
    answers = [turn["content"] for turn in row.turns if turn["role"] == "assistant"]
    text = "".join(trained(tokenizer, example) for example in Encoder(tokenizer)(row))
    assert text == "".join(f"{answer}<|im_end|>" for answer in answers)
