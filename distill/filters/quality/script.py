"""Rows whose letters stand in scripts that are not wanted: mojibake, code-switching, homoglyphs."""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from distill.errors import InputError
from distill.filters.base import Verdicts
from distill.filters.normalise import excerpt
from distill.filters.text import texts
from distill.recipe import ScriptStep

__all__ = ["ScriptFilter"]

pc: Any = pyarrow.compute


class ScriptFilter:
    """Drops a row with too few letters in the wanted scripts (`other_script`). The score is their share; a row without
    letters has none and stays."""

    def __init__(self, step: ScriptStep, name: str = "script") -> None:
        """
        Raises:
            InputError: Unicode has no such script.
        """
        self.name = name
        self._step = step
        for script in step.scripts:
            known = re.fullmatch(r"[A-Z][a-z]+(?:_[A-Z][a-z]+)*", script) is not None
            try:
                pc.count_substring_regex(pa.array([""]), rf"\p{{{script if known else '?'}}}")
            except pa.ArrowInvalid:
                hint = "scripts are called Latin, Cyrillic, Greek, Han, Hiragana, Arabic, Hebrew, Devanagari, …"
                raise InputError(f"no such script: {script}", field="scripts", hint=hint) from None
        self._letters = "[" + "".join(rf"\p{{{script}}}" for script in step.scripts) + "]"

    def judge(self, rows: pa.Table) -> Verdicts:
        step, verdicts = self._step, Verdicts.kept(rows.num_rows)
        contents = texts(rows, step.fields)
        shares = np.full(len(contents), np.nan)
        column: Any = pa.array(contents, pa.large_string())
        foreign = ~np.asarray(pc.string_is_ascii(column)) if "Latin" in step.scripts else np.ones(len(contents), bool)
        shares[~foreign] = 1.0
        column = column.filter(pa.array(foreign))
        letters = np.asarray(pc.count_substring_regex(column, r"\p{L}")).astype(np.float64)
        # A script holds marks and digits of its own besides letters: what is not wanted is counted, not what is.
        other = np.asarray(pc.count_substring_regex(pc.replace_substring_regex(column, self._letters, ""), r"\p{L}"))
        with np.errstate(invalid="ignore", divide="ignore"):
            shares[foreign] = 1 - other / letters
        verdicts.score[:] = np.round(shares, 4)
        for row in np.flatnonzero(shares < step.min_share).tolist():
            strange = re.sub(r"[\x00-\x7f]+" if "Latin" in step.scripts else r"[A-Za-z\s]+", "", contents[row][:4000])
            evidence = f"{shares[row]:.0%} of the letters are in {', '.join(step.scripts)}: “{excerpt(strange, 80)}”"
            verdicts.drop(row, "other_script", evidence, score=round(float(shares[row]), 4))
        return verdicts
