"""Chat templates of the families that students come from: what is trained is the answers, each with the token that
ends its turn, or the template is refused. Two kinds of tokenizers: bytes (GPT-2, Llama 3, Qwen) and SentencePiece's
(Llama 2, Gemma, Mistral), which put a space before what stands first."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from distill.errors import InputError
from distill.train.data import Conversation
from distill.train.template import IGNORE, Encoder, stop_tokens
from tests.support.tiny_student import CHATML, SPECIAL, make_tokenizer

ALTERNATE = (
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    template: str
    end: str
    """The token that ends an answer."""
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    before: str = ""
    """What is trained before each answer, spaces aside."""


def named(*tokens: str) -> dict[str, Any]:
    return {"additional_special_tokens": list(tokens)}


FAMILIES = {
    "chatml": Family(CHATML, "<|im_end|>"),
    "chatml with a system prompt of its own": Family(
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}" + CHATML,
        "<|im_end|>",
    ),
    "llama 2": Family(
        "{% set shown = messages[1:] if messages[0]['role'] == 'system' else messages %}{% for m in shown %}"
        + ALTERNATE
        + "{% set said = m['content'] %}{% if loop.first and messages[0]['role'] == 'system' %}"
        "{% set said = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' + said %}{% endif %}"
        "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + said | trim + ' [/INST]' }}"
        "{% else %}{{ ' ' + said | trim + ' ' + eos_token }}{% endif %}{% endfor %}",
        "</s>",
        {"bos_token": "<s>", "eos_token": "</s>"},
    ),
    "llama 3": Family(
        "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
        "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
        "{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        "<|eot_id|>",
        {"bos_token": "<s>", "eos_token": "<|eot_id|>", **named("<|start_header_id|>", "<|end_header_id|>")},
    ),
    "gemma": Family(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% for m in messages %}" + ALTERNATE + "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
        "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        "<end_of_turn>",
        {"bos_token": "<s>", "eos_token": "<|endoftext|>", **named("<start_of_turn>", "<end_of_turn>")},
    ),
    "an empty thought before the last answer": Family(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
        "{% set parts = m['content'].split('</think>') %}"
        "{% set thought = parts[0].split('<think>')[-1].strip() if parts | length > 1 else '' %}"
        "{% if loop.last %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ parts[-1].lstrip('\n') }}"
        "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "<|im_end|>",
        before="<think></think>",
    ),
    "strips thoughts": Family(
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
        "Assistant: {{ m['content'].split('</think>')[-1].strip() }}{{ eos_token }}"
        "{% else %}User: {{ m['content'] }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}Assistant: {% endif %}",
        "<|im_end|>",
        {"bos_token": "<s>"},
    ),
    "text behind the end": Family(
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}\n### Your turn.\n"
        "{% else %}{{ m['content'] }}\n### Mine.\n{% endif %}{% endfor %}",
        "<|im_end|>",
    ),
    "answers that run out": Family(
        "{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}\n"
        "{% else %}Q: {{ m['content'] }}\nA:{% endif %}{% endfor %}",
        "<|im_end|>",
    ),
    "an end that is no token": Family(CHATML.replace("<|im_end|>", "<end>"), "<|im_end|>"),
    "an end that is not marked special": Family(
        CHATML.replace("<|im_end|>", "<plain_end>"), "<plain_end>", {"eos_token": "<|endoftext|>"}
    ),
}


def spaced(folder: Path, template: str, **settings: Any) -> Path:
    """A tokenizer as SentencePiece makes them, with bytes for what it has no piece for."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted({"▁", *string.printable.strip()})
    pieces = ["<unk>", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    names = {"eos_token": "<|im_end|>", "unk_token": "<unk>", "additional_special_tokens": SPECIAL[:2], **settings}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


MAKERS = {"bytes": make_tokenizer, "spaced": spaced}


@pytest.fixture
def tokenizer_of(tmp_path: Path) -> Callable[[Family, str], Any]:
    from distill.train.student import load_tokenizer

    def make(family: Family, maker: str) -> Any:
        tokenizer = load_tokenizer(MAKERS[maker](tmp_path / maker, family.template, **family.settings))
        if "<plain_end>" in family.template:
            tokenizer.add_tokens("<plain_end>")
        return tokenizer

    return make


ROWS = {
    "one answer": ["lost my card", "blocked"],
    "two answers": ["hi", "hello there.", "lost my card", "blocked."],
    "an answer that holds marks": ["which token?", "it is <|im_end|> or </s>, followed by\n\n### nothing"],
    "spaces around": ["lost my card", "  blocked\n"],
    "an answer that its question ends with": ["blocked", "blocked"],
    "an answer that holds thoughts": ["lost my card", "<think>\nblocked?\n</think>\n\nblocked"],
}


def row(contents: list[str], *first: dict[str, str]) -> Conversation:
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    return Conversation((*first, *turns), "rows.jsonl:1")


def bare(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("contents", ROWS)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_mask_is_the_answers_and_their_ends(
    tokenizer_of: Callable[[Family, str], Any], name: str, contents: str, maker: str
) -> None:
    family, given = FAMILIES[name], row(ROWS[contents])
    tokenizer = tokenizer_of(family, maker)
    encoder = Encoder(tokenizer)
    examples = encoder(given)
    end = tokenizer.convert_tokens_to_ids(family.end)
    for example in examples:
        assert all(label in (IGNORE, token) for label, token in zip(example.labels, example.input_ids, strict=True))
    said = [tokenizer.decode([label for label in example.labels if label != IGNORE]) for example in examples]
    answers = [turn["content"] for turn in given.turns if turn["role"] == "assistant"]
    if name == "strips thoughts":
        answers = [answer.rpartition("</think>")[2] for answer in answers]
    before = family.before if "<think>" not in answers[0] else ""
    assert bare("".join(said)) == bare("".join(f"{before}{answer}{family.end}" for answer in answers))
    assert all(next(label for label in reversed(e.labels) if label != IGNORE) == end for e in examples)
    prompt = encoder.prompt(given.prompt)
    assert examples[-1].input_ids[: len(prompt)] == prompt
    assert end in stop_tokens(tokenizer)


def test_a_template_without_a_system_turn_says_what_to_do(tokenizer_of: Callable[[Family, str], Any]) -> None:
    encoder = Encoder(tokenizer_of(FAMILIES["gemma"], "bytes"))
    with pytest.raises(InputError, match=r"refuses the turns .system user assistant.: no system role") as error:
        encoder(row(ROWS["one answer"], {"role": "system", "content": "Route it."}))
    assert "put that text into the first user turn" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        # The prompt opens a thought that is not there when an answer follows.
        (CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"), "prompt differently when the answer"),
        # The prompt ends before the answer's head, which the student would have to write.
        (CHATML.partition("{% if add_generation_prompt")[0], "trained tokens are not the answer: '<.im_start.>assis"),
        # The system turn moves into the last question, and is gone once that is answered.
        (
            "{% for m in messages %}{% if m['role'] == 'user' %}[INST]{% if loop.last %}{{ messages[0]['content'] }} "
            "{% endif %}{{ m['content'] }}[/INST]{% elif m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}"
            "{% endif %}{% endfor %}",
            "prompt differently when the answer",
        ),
    ],
)
def test_a_template_whose_prompt_is_another_one_is_refused(
    tokenizer_of: Callable[[Family, str], Any], template: str, said: str
) -> None:
    encoder = Encoder(tokenizer_of(Family(template, "<|im_end|>"), "bytes"))
    with pytest.raises(InputError, match=f"^rows.jsonl:1: .*{said}") as error:
        encoder(row(ROWS["one answer"], {"role": "system", "content": "Route it."}))
    assert "chat_template.jinja" in (error.value.hint or "")
