"""`pass_at_k`: the chance that at least one of k programs passes the item's tests.

Items carry `tests`: Python that runs after the program, in the same names, and raises where something is wrong. Of n
programs drawn (`n=`, at least k) of which c pass, the chance is estimated without bias as 1 - C(n-c, k) / C(n, k)
(Chen et al. 2021, https://arxiv.org/abs/2107.03374). Programs are model output: they run in the sandbox, and only
where the user has said so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.errors import InputError
from distill.evaluate.holdout import Item
from distill.evaluate.metrics.base import Counted, DrawnMetric, shares
from distill.evaluate.sandbox import Limits, require_sandbox, run_programs

__all__ = ["PassAtK", "pass_at_k", "program_of"]

_FENCE = re.compile(r"^[ \t]*```[ \t]*([A-Za-z0-9_+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class PassAtK(DrawnMetric):
    """Unbiased pass@k over `samples` programs an item."""

    k: int = 1
    timeout: float = 10.0
    """Seconds a program may take, tests included."""
    allowed: bool = False
    """The user has said that the model's code may run."""

    def check(self, items: Sequence[Item]) -> None:
        if not self.allowed:
            raise InputError(
                f"metric {self.name} runs programs that a model has written",
                hint="say --allow-code to run them in the sandbox",
            )
        if not any(item.tests for item in items):
            raise InputError("no item has `tests`", field=f"metric {self.name}")
        require_sandbox()

    def count_draws(self, items: Sequence[Item], draws: Sequence[Sequence[str]]) -> Counted:
        self.check(items)
        jobs = [
            (program_of(text), item.tests)
            for item, texts in zip(items, draws, strict=True)
            if item.tests
            for text in texts
        ]
        outcomes = iter(run_programs(jobs, Limits(seconds=self.timeout)))
        right, weight, notes = np.zeros(len(items)), np.zeros(len(items)), [""] * len(items)
        why: dict[str, int] = {}
        for row, (item, texts) in enumerate(zip(items, draws, strict=True)):
            if not item.tests:
                continue
            found = [next(outcomes) for _ in texts]
            weight[row] = 1
            right[row] = pass_at_k(len(found), sum(outcome.passed for outcome in found), self.k)
            notes[row] = next((outcome.why for outcome in found if not outcome.passed), "")
            for outcome in found:
                why[outcome.ending] = why.get(outcome.ending, 0) + 1
        return shares(right, weight, details={"programs": dict(sorted(why.items()))}, notes=notes)

    def definition(self) -> str:
        return (
            f"chance that one of {self.k} programs passes the item's tests, estimated from {self.samples} an item"
            if self.samples > 1
            else "share of items whose program passes its tests"
        )


def pass_at_k(n: int, passed: int, k: int) -> float:
    """The unbiased estimate from `passed` of `n` programs."""
    if k > n:
        raise ValueError("k programs are needed at least")
    return 1.0 - math.comb(n - passed, k) / math.comb(n, k)


def program_of(text: str) -> str:
    """The code in an answer: its first block marked as Python, else its first block, else all of it."""
    blocks = [(match[1].lower(), match[2]) for match in _FENCE.finditer(text)]
    python = [code for language, code in blocks if language in ("python", "py", "python3")]
    return (python or [code for _, code in blocks] or [text])[0]
