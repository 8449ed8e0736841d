"""A night of faults and kills: 2 % of the requests go wrong, in every way that passes or costs a row, and the process
is killed with SIGKILL ten times and started again by the same command. By the server's own count: rows lost, answers
paid twice, and whether the rows are those of a run that was never killed.

The server's faults depend on the payload: what would be refused, cut or odd is so each time; what passes, passes at the
second try. So a tool that is killed can end with the same rows as one that is not. Every session is killed when it has
sent about an eleventh of the rows.

`paid twice` counts answers to a payload that had been billed before. Each is one of three, by what had become of the
request before, with the server's and the killer's times on one clock:

- `asked again`: no kill lay between, or the reply had been broken (cut short, NaN) before the kill: the tool asked
  again by itself, and an uninterrupted run of it pays the same twice;
- `under way`: the server had not replied when the tool was killed. It had worked, so it bills, and nobody gets the
  answer: no tool can save these, and there are at most as many a kill as requests at once;
- `on their way`: the server had handed the whole reply to the network, and the tool died before it was safe. `oldest`
  is how long before the kill that had been, at most: the time from the server to the tool's disk, with what waits in
  sockets and for the processor. A tool that keeps answers in memory shows here.

A promise of "at most what was under way" holds where `oldest` is the time of one commit, not of a batch or a run.

    OVERNIGHT_PEERS=FOLDER python -m benchmarks overnight-faults [--rows 20000] [--kills 10] [--only distill,curator]
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Loopback, loopback, table
from benchmarks.overnight.options import parser, read
from benchmarks.overnight.tools import accepted, call, missing, scratch, version_of
from tests.support.faults import BROKEN, PASSING

CONCURRENCY = 256
LATENCY = 0.5
SHARE = 0.02
LASTING = (
    *("duplicate_keys", "u2028", "nul", "think", "lone_surrogate", "empty_choices", "empty_text", "refusal"),
    *("content_filter", "content_filter_400", "length", "400", "400_context", "422"),
)
"""Odd answers and refusals, each the fate of one row."""
KINDS = (*sorted(PASSING - {"huge"}), *LASTING)
"""Left out are 32 MiB a reply, and what is the account's or the address's trouble: that ends any run."""
_LOOK_S = 0.05
HEAD = [
    "tool",
    "rows wanted",
    "rows calm",
    "rows after kills",
    "lost by kills",
    "kills",
    "requests",
    "paid",
    "paid twice",
    "asked again",
    "under way",
    "on their way",
    "oldest, ms",
    "same rows",
    "minutes calm",
    "minutes with kills",
    "note",
]


@dataclass(frozen=True)
class Again:
    """What was billed again, by what had become of the request before."""

    by_itself: int
    under_way: int
    on_their_way: tuple[float, ...]
    """Seconds from the server's reply to the kill, of each."""


@dataclass(frozen=True)
class Night:
    rows: dict[str, str]
    files: dict[str, bytes]
    kills: int
    requests: int
    paid: int
    twice: int
    again: Again
    minutes: float
    trouble: str


def main() -> None:
    given = parser("overnight-faults", peers=("curator", "data_designer"), limit=3600)
    given.add_argument("--rows", type=int, default=20_000, metavar="N")
    given.add_argument("--kills", type=int, default=10, metavar="N")
    options = read(given, "overnight-faults")
    faults = [part for name in KINDS for part in ("--fault", f"{name}={SHARE / len(KINDS)}")]
    print(f"{len(KINDS)} kinds of faults, together {SHARE:.0%} of the payloads\n", flush=True)
    rows: list[list[object]] = []
    for tool in options.only:
        if missing(tool):
            rows.append([tool, *["–"] * (len(HEAD) - 2), version_of(tool)])
            continue
        with loopback("--latency", str(LATENCY), "--steady", *faults) as server:
            calm = _night(tool, server, options.rows, 0, options.limit)
            stormy = _night(tool, server, options.rows, options.kills, options.limit)
        lost = sum(prompt not in stormy.rows for prompt in calm.rows)
        same = "yes" if calm.rows == stormy.rows else "no"
        if tool == "distill":
            same = "yes, byte for byte" if calm.files == stormy.files and calm.files else "no"
        rows.append(
            [
                f"{tool} {version_of(tool)}",
                options.rows,
                len(calm.rows),
                len(stormy.rows),
                lost,
                stormy.kills,
                stormy.requests,
                stormy.paid,
                stormy.twice,
                stormy.again.by_itself,
                stormy.again.under_way,
                len(stormy.again.on_their_way),
                1000 * max(stormy.again.on_their_way, default=0.0),
                same,
                calm.minutes,
                stormy.minutes,
                stormy.trouble or calm.trouble,
            ]
        )
    table(HEAD, rows)


def _night(tool: str, server: Loopback, rows: int, kills: int, limit: float) -> Night:
    """Sessions until one ends by itself; the first `kills` of them are killed."""
    server.reset()
    chance = random.Random(5)
    began = time.monotonic()
    kills_at: list[float] = []
    trouble = ""
    with scratch() as name:
        folder = Path(name)
        while True:
            left = limit - (time.monotonic() - began)
            after = round(rows / (kills + 1) * chance.uniform(0.7, 1.3))
            moment = _Moment(server, after) if len(kills_at) < kills else None
            told = call(
                tool,
                folder,
                base_url=server.base_url,
                rows=rows,
                concurrency=CONCURRENCY,
                limit=left,
                until=moment,
            )
            if told.ended.code is not None:  # it came to its end
                trouble = told.trouble
                break
            if time.monotonic() - began >= limit:
                trouble = f"not done after {limit:g} s"
                break
            assert told.ended.killed is not None
            kills_at.append(told.ended.killed)
            time.sleep(2 * LATENCY)  # what was under way is answered to nobody, as it would be by a provider
        stats = server.stats("?repeats=1")
        return Night(
            rows=accepted(folder),
            files=_files(folder) if tool == "distill" else {},
            kills=len(kills_at),
            requests=stats["requests"],
            paid=stats["paid"],
            twice=stats["paid_twice"],
            again=sort(stats["repeats"], kills_at),
            minutes=(time.monotonic() - began) / 60,
            trouble=trouble,
        )


class _Moment:
    """The moment of a kill: the session has sent so many requests. Asks the server now and then."""

    def __init__(self, server: Loopback, after: int) -> None:
        self._server = server
        self._at = server.stats()["requests"] + after
        self._looked = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return False
        self._looked = now
        return self._server.stats()["requests"] >= self._at


def sort(repeats: Iterable[dict[str, Any]], kills: Sequence[float]) -> Again:
    """Say of each answer that was billed again why that was. `kills` are moments, in order."""
    by_itself = under_way = 0
    on_their_way: list[float] = []
    for repeat in repeats:
        kill = next((at for at in kills if repeat["arrived"] < at < repeat["again"]), None)
        replied = repeat["replied"]
        if kill is None or (repeat["fault"] in BROKEN and replied is not None and replied < kill):
            by_itself += 1
        elif replied is None or replied >= kill:
            under_way += 1
        else:
            on_their_way.append(kill - replied)
    return Again(by_itself, under_way, tuple(on_their_way))


def _files(folder: Path) -> dict[str, bytes]:
    names = ("rows.parquet", "rejected.parquet", "failed.parquet", "dataset/train.jsonl", "dataset/README.md")
    return {name: (folder / "out" / name).read_bytes() for name in names if (folder / "out" / name).exists()}
