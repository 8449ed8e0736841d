"""A run's figures in Prometheus's text format, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/

Counters count this session: they begin at zero when a run is continued, as counters of a restarted process do, and rows
that the store answers again are counted again. `distill_run_cost_usd` is the run's whole spending.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Literal

from distill.engine.accounting import Account
from distill.engine.events import Progress
from distill.gateway import TeacherStats

__all__ = ["CONTENT_TYPE", "Latencies", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)

Labels = Mapping[str, str]
Samples = list[tuple[Labels, float]]


class Latencies:
    """A histogram of seconds from sending a request to its whole answer."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS) + 1)
        self.total = 0.0

    def note(self, seconds: float) -> None:
        self.counts[bisect_left(_BOUNDS, seconds)] += 1
        self.total += seconds

    def samples(self, labels: Labels) -> Iterator[tuple[str, Labels, float]]:
        """Suffix, labels and value, buckets cumulative."""
        bounds = (*(f"{bound:g}" for bound in _BOUNDS), "+Inf")
        for bound, count in zip(bounds, accumulate(self.counts), strict=True):
            yield "_bucket", {**labels, "le": bound}, count
        yield "_sum", labels, self.total
        yield "_count", labels, sum(self.counts)


def exposition(
    progress: Progress,
    account: Account,
    teachers: Mapping[str, TeacherStats],
    latencies: Mapping[str, Latencies],
    *,
    labels: Labels,
    state: str,
) -> str:
    """The text, one family after the other.

    Args:
        labels: stand on every sample.
        state: how the run ended, or `running`.
    """
    lines: list[str] = []

    def family(kind: Literal["counter", "gauge"], name: str, about: str, samples: Samples) -> None:
        lines.extend(_head(name, kind, about))
        lines.extend(_sample(name, {**labels, **own}, value) for own, value in samples)

    def each(value: str) -> Samples:
        return [({"teacher": name}, float(getattr(stats, value))) for name, stats in teachers.items()]

    family("gauge", "distill_run_state", "1 for the state the run is in.", [({"state": state}, 1)])
    family("gauge", "distill_run_seconds", "Seconds of this session.", [({}, progress.seconds)])
    family("gauge", "distill_run_cost_usd", "USD paid by the run, all sessions.", [({}, float(progress.cost_usd))])
    family("gauge", "distill_rows_target", "Rows wanted.", [({}, progress.target)])
    family("gauge", "distill_round", "Round of slots.", [({}, progress.round)])
    family("counter", "distill_rows_kept_total", "Rows kept.", [({}, progress.kept)])
    rejected: Samples = [
        ({"filter": name, "reason": reason}, count)
        for name, reasons in account.rejected.items()
        for reason, count in reasons.items()
    ]
    family("counter", "distill_rows_rejected_total", "Rows rejected, by filter and reason.", rejected)
    failed: Samples = [({"failure": failure}, count) for failure, count in account.failed.items()]
    family("counter", "distill_rows_failed_total", "Slots that made no row, by failure class.", failed)
    family("gauge", "distill_rows_pending", "Rows planned and not decided.", [({}, progress.pending)])
    family("gauge", "distill_rows_per_second", "Rows kept a second, last minute.", [({}, progress.rows_per_second)])
    if progress.seconds_left is not None:
        family("gauge", "distill_seconds_left", "Seconds left at this pace.", [({}, progress.seconds_left)])
    family("counter", "distill_requests_total", "Attempts sent.", each("sent"))
    family("counter", "distill_retries_total", "Attempts made again after a failure that passes.", each("retries"))
    answers: Samples = [
        ({"teacher": name, "source": source}, count)
        for name, stats in teachers.items()
        for source, count in (("asked", stats.answered), ("replayed", stats.replayed), ("reused", stats.reused))
    ]
    family("counter", "distill_answers_total", "Answers: asked now, or stored by this run or another.", answers)
    failures: Samples = [
        ({"teacher": name, "failure": failure}, count)
        for name, stats in teachers.items()
        for failure, count in stats.by_failure.items()
    ]
    family("counter", "distill_request_failures_total", "Attempts that failed, by failure class.", failures)
    tokens: Samples = [
        ({"teacher": name, "kind": kind}, float(getattr(stats, kind)))
        for name, stats in teachers.items()
        for kind in ("input", "output", "cached", "reasoning")
    ]
    about = "Tokens; cached ones are part of the input, reasoning of the output."
    family("counter", "distill_tokens_total", about, tokens)
    family("counter", "distill_cost_usd_total", "USD paid for answers.", each("cost"))
    family("counter", "distill_unknown_cost_usd_total", "USD that lost calls may have cost.", each("unknown_cost"))
    family("gauge", "distill_requests_in_flight", "Requests under way.", each("in_flight"))
    family("gauge", "distill_concurrency_limit", "Requests allowed under way at the moment.", each("limit"))
    parked: Samples = [({"teacher": name}, float(bool(stats.state))) for name, stats in teachers.items()]
    family("gauge", "distill_teacher_parked", "1 while the teacher is parked or given up.", parked)
    lines.extend(_head("distill_request_seconds", "histogram", "Seconds that answers took."))
    for name, latency in latencies.items():
        for suffix, own, value in latency.samples({**labels, "teacher": name}):
            lines.append(_sample(f"distill_request_seconds{suffix}", own, value))
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, about: str) -> tuple[str, str]:
    return f"# HELP {name} {about}", f"# TYPE {name} {kind}"


def _sample(name: str, labels: Labels, value: float) -> str:
    told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{told}}} {value!r}" if told else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
