"""Rows by regular expressions.

Expressions are matched by RE2, which Arrow brings along: linear time whatever the expression and the text, so no
pattern can hang a run. It has no look-around and no back-references.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from distill.errors import InputError
from distill.filters.base import Verdicts
from distill.filters.normalise import excerpt
from distill.filters.text import texts
from distill.recipe import RegexStep

__all__ = ["RegexFilter"]

pc: Any = pyarrow.compute


class RegexFilter:
    """Drops a row that an expression of `must` does not match (`no_match`) or one of `must_not` does (`forbidden`).
    Evidence is the expression, or what it matched."""

    def __init__(self, step: RegexStep, name: str = "regex") -> None:
        """
        Raises:
            InputError: an expression that RE2 does not take.
        """
        self.name = name
        self._step = step
        for field, patterns in (("must", step.must), ("must_not", step.must_not)):
            for place, pattern in enumerate(patterns):
                try:
                    pc.match_substring_regex(pa.array([""]), pattern, ignore_case=step.ignore_case)
                except pa.ArrowInvalid as error:
                    raise InputError(
                        f"not an expression that can be used: {_why(error)}",
                        field=f"{field}.{place}",
                        hint="expressions are RE2's: no look-around, no back-references",
                    ) from None

    def judge(self, rows: pa.Table) -> Verdicts:
        step, verdicts = self._step, Verdicts.kept(rows.num_rows)
        contents = texts(rows, step.fields)
        column = pa.array(contents, pa.large_string())
        for pattern in step.must:
            matched = np.asarray(pc.match_substring_regex(column, pattern, ignore_case=step.ignore_case))
            for row in np.flatnonzero(~matched & verdicts.keep).tolist():
                verdicts.drop(row, "no_match", f"no {pattern} in “{excerpt(contents[row], 120)}”")
        for pattern in step.must_not:
            places = np.asarray(pc.find_substring_regex(column, pattern, ignore_case=step.ignore_case))
            for row in np.flatnonzero((places >= 0) & verdicts.keep).tolist():
                around = contents[row].encode()[max(0, int(places[row]) - 20) :][:160].decode(errors="ignore")
                verdicts.drop(row, "forbidden", f"{pattern} in “{excerpt(around, 120)}”")
        return verdicts


def _why(error: Exception) -> str:
    return str(error).removeprefix("Invalid regular expression: ").splitlines()[0]
