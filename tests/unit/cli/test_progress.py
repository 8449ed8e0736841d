from __future__ import annotations

import io
from dataclasses import replace
from decimal import Decimal

from rich.console import Console

from distill.cli.progress import _line, _panel
from distill.engine import Progress

AT = Progress(
    target=1000,
    kept=250,
    planned=400,
    rejected={"minhash": 20, "length": 5},
    failed=3,
    pending=122,
    round=2,
    seconds=65.0,
    rows_per_second=3.85,
    seconds_left=195.0,
    in_flight=64,
    requests=310,
    reused=40,
    retries=7,
    input_tokens=12_000,
    output_tokens=8_000,
    cost_usd=Decimal("0.1234"),
)
FIGURES = ("3.9", "0.1234", "3m15s", "64", "310", "40", "7", "minhash", "20", "length", "5")


def test_the_display_fits_and_shows_every_figure() -> None:
    file = io.StringIO()
    Console(file=file, width=120, force_terminal=False).print(_panel(AT))
    bar, first, second = file.getvalue().splitlines()
    assert set(bar.strip()) <= set("━╸╺")  # the bar has its line for itself
    assert "250 of 1,000 rows" in first
    assert "$0.1234 of about $0.4936" in first
    assert all(figure in first + second for figure in (*FIGURES, "20,000 tokens"))


def test_a_log_line_says_the_same() -> None:
    line = _line(AT)
    assert "\n" not in line
    assert line.startswith("1m05s kept 250/1000 (25%) 3.9/s left 3m15s $0.1234 of about $0.4936 |")
    assert "rejected 25: minhash 20 (7%), length 5 (2%)" in line
    assert all(figure in line for figure in FIGURES)


def test_nothing_is_foretold_while_the_store_answers() -> None:
    line = _line(replace(AT, seconds_left=None))
    assert "left – $0.1234 |" in line
