"""Curves of a training in the report."""

from __future__ import annotations

import re

from distill.studio.curves import curves


def test_both_lines_share_one_scale_and_are_named() -> None:
    drawn = str(curves("loss", {"training": [(1, 4.0), (2, 3.0), (3, 2.0)], "validation": [(2, 3.0), (3, 1.0)]}))
    first, second = re.findall(r"<polyline points='([^']+)'", drawn)
    training = [tuple(map(float, place.split(","))) for place in first.split()]
    validation = [tuple(map(float, place.split(","))) for place in second.split()]
    assert training[1] == validation[0]  # the same step and the same loss are the same place
    assert validation[1][1] > training[2][1]  # a lower loss stands lower
    assert "step 1<" in drawn
    assert "step 3<" in drawn
    assert "loss: training, validation (dashed)" in drawn


def test_one_point_is_no_curve_and_names_are_text() -> None:
    assert str(curves("loss", {"training": [(1, 4.0)], "validation": []})) == ""
    assert "<b>" not in str(curves("<b>", {"<b>": [(1, 1.0), (2, 2.0)]}))
