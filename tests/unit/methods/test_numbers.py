from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from methods_kit import examples

from distill.methods.numbers import equal_numbers, number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,000", 1000),
        ("$1,250.50", Fraction(2501, 2)),
        ("€ 12", 12),
        ("2.50", Fraction(5, 2)),
        (".5", Fraction(1, 2)),
        ("42.", 42),
        ("**42**", 42),
        ("3/4", Fraction(3, 4)),
        ("1 1/2 cups", Fraction(3, 2)),
        ("½", Fraction(1, 2)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"$\dfrac{1}{2}$", Fraction(1, 2)),
        (r"\boxed{7}", 7),
        (r"12\,000 \text{ km}", 12000),
        ("12\u202f000", 12000),
        ("x = 7 km", 7),
        ("3 + 4 = 7", 7),
        ("-5", -5),
        ("−5", -5),
        ("-$5", -5),
        ("1.5e3", 1500),
        (r"1.5 \times 10^{3}", 1500),
        ("about 7 percent", 7),
        ("7 apples, that is 7", 7),
    ],
)
def test_numbers_as_people_write_them(text: str, value: Fraction) -> None:
    found = number(text)
    assert found is not None
    assert found.value == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "none",
            "5 of 6",
            "1,5",
            "3/0",
            "2024-01-02",
            "10:30",
            "v1.2.3",
            "1e400",
            "9" * 500,
            "2π",
            "sqrt(2)",
            "2^10",
        ),
        *("3x", r"\sqrt{2}"),
    ],
)
def test_what_states_no_one_number(text: str) -> None:
    assert number(text) is None


@examples
@given(st.decimals(min_value=-(10**12), max_value=10**12, places=4, allow_nan=False), st.sampled_from(["", "$"]))
def test_writing_does_not_change_a_number(value: Fraction, sign: str) -> None:
    plain, grouped = number(f"{value:f}"), number(f"{sign}{value:,f}0")
    assert plain is not None
    assert plain == grouped
    assert plain.value == Fraction(value)


@examples
@given(st.text(max_size=60))
def test_any_text_has_one_number_or_none(text: str) -> None:
    found = number(text)
    assert found is None or isinstance(found.value, Fraction)


@pytest.mark.parametrize(
    ("one", "other", "tolerance", "same"),
    [
        ("50%", "0.5", 0, True),
        ("50%", "50", 0, True),
        ("50%", "5", 0, False),
        ("0.3333", "1/3", 1e-6, False),
        ("0.3333", "1/3", 1e-3, True),
        ("100", "101", 0.01, True),
        ("0", "0.0", 0, True),
        ("0", "1e-9", 1e-6, False),
    ],
)
def test_tolerance_is_relative(one: str, other: str, tolerance: float, same: bool) -> None:
    a, b = number(one), number(other)
    assert a is not None
    assert b is not None
    assert equal_numbers(a, b, tolerance) is equal_numbers(b, a, tolerance) is same
