from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import FailureClass
from distill.gateway.context import Window, estimated_tokens, window_for
from distill.gateway.store.keys import request_key
from distill.recipe import TeacherConfig
from distill.teachers import Message, Request, SamplingParams


def question(text: str, most: int = 100) -> Request:
    return Request("main", (Message("user", text),), SamplingParams(max_tokens=most))


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"model": "gpt-4o-mini"}, 128_000),
        ({"model": "gpt-4o-mini", "context_tokens": 5000}, 5000),
        ({"model": "gpt-4o-mini", "base_url": "http://127.0.0.1:9/v1"}, None),
        ({"model": "gpt-4o-mini", "base_url": "http://127.0.0.1:9/v1", "context_tokens": 5000}, 5000),
        ({"model": "nobody-knows-it"}, None),
        ({"provider": "local", "model": "m", "context_tokens": 5000}, None),  # its engine counts exactly
        ({"provider": "simulated", "model": "m"}, None),
    ],
)
def test_where_the_window_is_known_from(config: dict[str, Any], tokens: int | None) -> None:
    window = window_for(TeacherConfig.model_validate(config))
    assert (None if window is None else window.tokens) == tokens


def test_the_fate_has_the_numbers() -> None:
    window = Window(1000, "small", "context_tokens")
    text = "four and a half " * 300
    problem = window.problem(question(text), len(text) + 50)
    assert problem is not None
    assert problem.failure is FailureClass.CONTEXT
    assert problem.message == (
        "the prompt (about 1,066 tokens) and max_tokens (100) do not fit the context window of small (1,000 tokens by"
        " context_tokens)"
    )


@given(st.text(max_size=4000), st.integers(1, 2000))
def test_the_short_cut_by_bytes_never_lets_pass_what_the_estimate_would_not(text: str, most: int) -> None:
    request, window = question(text, most), Window(1000, "m", "context_tokens")
    _, size = request_key("openai", {"messages": [text]}, 0)
    fits = estimated_tokens(request) + most <= 1000
    assert (window.problem(request, size) is None) == fits
