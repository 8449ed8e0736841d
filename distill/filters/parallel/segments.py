"""How a chain is cut into what any process may do and what must be done in the order of the rows.

A filter that looks at one row at a time (length, language, personal data, decontamination) may run anywhere. A filter
that compares a row with the rows before it (exact, minhash, semantic) runs in one place, in order; what it needs of
each row alone is worked out beforehand, with the segment before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distill.filters.base import Preparing
from distill.filters.chain import Chain
from distill.recipe import DecontaminateStep, ExactStep, FilterStep, MinHashStep

__all__ = ["Segment", "by_itself", "copy_of", "cut", "goes_elsewhere"]

_BY_ITSELF = frozenset(
    {
        "agreement",
        "code",
        "copies",
        "decontaminate",
        "language",
        "leakage",
        "length",
        "pii",
        "refusal",
        "regex",
        "repetition",
        "schema",
        "score",
        "script",
        "tags",
        "truncation",
    }
)
"""Kinds of steps whose verdict on a row depends on that row alone; custom filters may remember others."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Steps that follow each other and may be done in the same place."""

    number: int
    span: range
    """Places of the steps in the chain; none where a segment only prepares."""
    anywhere: bool
    """Whether each row is judged by itself."""
    at_home: bool = False
    """By itself, but with a model that each process would have to hold: done here."""
    prepares: tuple[int, ...] = ()
    """Places of the steps right behind the segment that it works something out for."""


def by_itself(step: FilterStep) -> bool:
    """Whether the verdict of a step on a row depends on that row alone; a teacher's verdicts are limited in number."""
    return step.kind in _BY_ITSELF and not (isinstance(step, DecontaminateStep) and step.verdict is not None)


def goes_elsewhere(step: FilterStep) -> bool:
    """Whether copies of the step's filter have something to do in other processes."""
    return (by_itself(step) and not _heavy(step)) or isinstance(step, ExactStep)


def cut(steps: Sequence[FilterStep], chain: Chain) -> list[Segment]:
    """The segments of a chain, in order: by turns such as may be done anywhere and such as may not."""
    runs: list[tuple[tuple[bool, bool], list[int]]] = []
    for place, step in enumerate(steps):
        kind = (by_itself(step), by_itself(step) and _heavy(step))
        if not runs or runs[-1][0] != kind:
            runs.append((kind, []))
        runs[-1][1].append(place)
    segments: list[Segment] = []
    for (anywhere, at_home), places in runs:
        span = range(places[0], places[-1] + 1)
        wanted = () if anywhere else tuple(place for place in span if isinstance(chain.steps[place], Preparing))
        if wanted and segments and segments[-1].anywhere and not segments[-1].at_home:
            last = segments.pop()
            segments.append(Segment(last.number, last.span, True, prepares=wanted))
        elif wanted:
            segments.append(Segment(len(segments), range(span.start, span.start), True, prepares=wanted))
        segments.append(Segment(len(segments), span, anywhere, at_home))
    return segments


def copy_of(step: FilterStep) -> FilterStep:
    """The step for a copy of its filter, which takes over what was calibrated and knows no other rows."""
    if isinstance(step, ExactStep | MinHashStep):
        return step.model_copy(update={"against": (), "index": None, "seeds": False, "keep": "first", "score": None})
    return step.model_copy(update={"clean": None}) if isinstance(step, DecontaminateStep) else step


def _heavy(step: FilterStep) -> bool:
    """Whether the filter holds an encoder, which keeps all cores busy by itself."""
    return isinstance(step, DecontaminateStep) and step.embeddings != "none"
