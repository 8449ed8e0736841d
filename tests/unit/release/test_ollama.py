"""A template is translated only where the translation gives the same prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.release.ollama import read_pieces
from distill.train.student import load_tokenizer
from tests.support.tiny_student import CHATML, make_tokenizer

DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are \"Tiny\".<|im_end|>\n{% endif %}" + CHATML
)
SYSTEM_IN_USER = (
    "{% set s = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' %}"
    "{% for m in messages %}{% if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n"
    "{{ s if loop.index0 < 2 and m['role'] == 'user' }}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COUNTED = (
    "{% for m in messages %}[{{ loop.index }}] {{ m['role'] }}: {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}[a]{% endif %}"
)


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM])
def test_plain_templates_are_translated(template: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_tokenizer(tmp_path, template))
    pieces = read_pieces(tokenizer)
    assert pieces is not None
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c {{ d }}"},
    ]
    wanted = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert pieces.prompt(turns) == wanted
    go = pieces.go()
    assert "{{- range .Messages }}" in go
    assert go.count("{{") == go.count("}}")


def test_the_translation_escapes_quotes(tmp_path: Path) -> None:
    pieces = read_pieces(load_tokenizer(make_tokenizer(tmp_path, DEFAULT_SYSTEM)))
    assert pieces is not None
    assert 'You are \\"Tiny\\".' in pieces.go()


@pytest.mark.parametrize("template", [SYSTEM_IN_USER, COUNTED])
def test_a_template_is_translated_right_or_not_at_all(template: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_tokenizer(tmp_path, template))
    pieces = read_pieces(tokenizer)
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    if pieces is not None:
        wanted = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert pieces.prompt(turns) == wanted


def test_numbered_turns_cannot_be_translated(tmp_path: Path) -> None:
    assert read_pieces(load_tokenizer(make_tokenizer(tmp_path, COUNTED))) is None
