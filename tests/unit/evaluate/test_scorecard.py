from __future__ import annotations

import pytest

from distill.errors import InputError
from distill.evaluate.intervals import Interval
from distill.evaluate.scorecard import Latency, SystemScore, check_gates, parse_gate


def score(**metrics: float) -> SystemScore:
    figures = {name.replace("__", ":field="): Interval(value, value, value) for name, value in metrics.items()}
    return SystemScore(figures, {}, {}, None, 1.0, latency=Latency(0.2, 0.5, 8, "single"))


@pytest.mark.parametrize(
    ("gate", "held"),
    [
        ("json_valid >= 0.99", True),
        ("json_valid>0.995", False),
        ("macro_f1 >= 0.8", False),
        ("macro_f1:field=intent >= 0.75", True),
        ("macro_f1:field=intent>=.75", True),
        ("latency_p95 <= 0.5", True),
        ("latency_p50 < 0.1", False),
    ],
)
def test_a_gate_holds_or_does_not(gate: str, held: bool) -> None:
    (result,) = check_gates([gate], score(json_valid=0.995, macro_f1__intent=0.75))
    assert (result.gate, result.passed) == (gate, held)


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ("macro_f1 >= 0.8", "several metrics have this name"),
        ("exact_macht >= 0.8", "did you mean exact_match"),
        ("exact_match", "write METRIC >= NUMBER"),
        ("exact_match >= high", "write METRIC >= NUMBER"),
    ],
)
def test_a_gate_on_what_is_not_counted_is_an_error(gate: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        check_gates([gate], score(exact_match=1.0, macro_f1__intent=1.0, macro_f1__urgency=1.0))
    assert says in str(caught.value)


def test_a_gate_keeps_the_text_of_the_user() -> None:
    assert parse_gate(" exact_match  >= 0.8").metric == "exact_match"
    assert parse_gate("macro_f1:field=intent == 1").bound == 1
