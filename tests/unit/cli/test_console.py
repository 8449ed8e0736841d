from __future__ import annotations

import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.cli.console import run_loop, safe
from distill.cli.progress import duration, money


@given(st.text())
def test_no_text_moves_the_cursor_or_hides_what_follows(text: str) -> None:
    shown = safe(text)
    assert not [c for c in shown.plain if (c < " " and c not in "\n\t") or "\x7f" <= c <= "\x9f"]
    assert not set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069") & set(shown.plain)
    assert not shown.spans  # brackets are brackets, not markup
    shown.plain.encode("utf-8")


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cf"])))
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert safe(text).plain == text


def test_controls_stay_visible() -> None:
    assert safe("a\x1b[2Jb\r\x9b").plain == "a\\x1b[2Jb\\x0d\\x9b"
    assert safe("[bold]x[/]\n\ty").plain == "[bold]x[/]\n\ty"
    assert safe("lone \ud800").plain == "lone ?"


@given(st.text(min_size=1), st.integers(min_value=1, max_value=50))
def test_a_limit_is_kept(text: str, limit: int) -> None:
    cut = safe("x" * limit + text, limit=limit).plain
    assert len(cut) == limit
    assert cut.endswith("…")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (0, "0s"), (59.9, "59s"), (60, "1m00s"), (184, "3m04s"), (3600, "1h00m"), (90_061, "25h01m")],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("usd", "shown"),
    [(0, "$0.00"), (Decimal("0.00004"), "$0.000040"), (0.0123, "$0.0123"), (1, "$1.00"), (1234.5, "$1,234.50")],
)
def test_money(usd: object, shown: str) -> None:
    assert money(usd) == shown


def test_the_thread_that_stores_answers_does_not_wait_long_for_a_busy_loop() -> None:
    async def main() -> float:
        return sys.getswitchinterval()

    before = sys.getswitchinterval()
    try:
        assert run_loop(main()) <= 0.001
    finally:
        sys.setswitchinterval(before)
