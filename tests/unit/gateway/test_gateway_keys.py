from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import UnreadableText
from distill.gateway import request_key

WIRE = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüezi \u2028 🙂"}],
    "max_tokens": 64,
    "temperature": 0.8,
}


def test_keys_never_change() -> None:
    """Changing this value makes every answer that users have paid for unfindable."""
    assert request_key("openai", WIRE, 0)[0] == "234fb080b5e3883e56c3a5cfbda582ca"


def test_the_order_of_fields_does_not_matter() -> None:
    assert request_key("openai", dict(reversed(WIRE.items())), 0) == request_key("openai", WIRE, 0)


def test_provider_sample_and_every_field_make_another_question() -> None:
    keys = {
        request_key("openai", WIRE, 0)[0],
        request_key("openai", WIRE, 1)[0],
        request_key("anthropic", WIRE, 0)[0],
        request_key("openai", {**WIRE, "temperature": 0.7}, 0)[0],
        request_key("openai", {**WIRE, "model": "gpt-4o"}, 0)[0],
    }
    assert len(keys) == 5


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_the_hashed_length_bounds_the_bytes_of_the_prompt(text: str) -> None:
    _, size = request_key("openai", {"messages": [{"role": "user", "content": text}]}, 0)
    assert size >= len(text.encode())


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(UnreadableText):
        request_key("openai", {"messages": [{"role": "user", "content": "\ud800"}]}, 0)
