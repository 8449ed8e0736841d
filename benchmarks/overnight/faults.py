"""A night of faults and kills: 2 % of the requests go wrong, in every way that passes or costs a row, and the process
is killed with SIGKILL ten times and started again by the same command. By the server's own count: rows lost, answers
paid twice, and whether the rows are those of a run that was never killed.

The server's faults depend on the payload: what would be refused, cut or odd is so each time; what passes, passes at the
second try. So a tool that is killed can end with the same rows as one that is not. Every session is killed when it has
sent about an eleventh of the rows. `paid twice` counts answers to a payload that had been answered before; `of them
calm` is how many an uninterrupted run of the same tool pays twice, because a reply was broken or came too late; `under
way at kills` are requests without a reply at the last look, up to 50 ms before the kill.

    OVERNIGHT_PEERS=FOLDER python -m benchmarks overnight-faults [--rows 20000] [--kills 10] [--only distill,curator]
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Loopback, loopback, table
from benchmarks.overnight.options import parser, read
from benchmarks.overnight.tools import accepted, call, missing, scratch, version_of
from tests.support.faults import PASSING

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
    "of them calm",
    "under way at kills",
    "same rows",
    "minutes calm",
    "minutes with kills",
    "note",
]


@dataclass(frozen=True)
class Night:
    rows: dict[str, str]
    files: dict[str, bytes]
    kills: int
    requests: int
    paid: int
    twice: int
    under_way: int
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
                calm.twice,
                stormy.under_way,
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
    done = under_way = 0
    trouble = ""
    with scratch() as name:
        folder = Path(name)
        while True:
            left = limit - (time.monotonic() - began)
            after = round(rows / (kills + 1) * chance.uniform(0.7, 1.3))
            moment = _Moment(server, after) if done < kills else None
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
            under_way += moment.under_way if moment is not None else 0
            done += 1
            time.sleep(2 * LATENCY)  # what was under way is answered to nobody, as it would be by a provider
        stats = server.stats()
        return Night(
            rows=accepted(folder),
            files=_files(folder) if tool == "distill" else {},
            kills=done,
            requests=stats["requests"],
            paid=stats["paid"],
            twice=stats["paid_twice"],
            under_way=under_way,
            minutes=(time.monotonic() - began) / 60,
            trouble=trouble,
        )


class _Moment:
    """The moment of a kill: the session has sent so many requests. Asks the server now and then."""

    def __init__(self, server: Loopback, after: int) -> None:
        self._server = server
        self._at = server.stats()["requests"] + after
        self._looked = 0.0
        self.under_way = 0
        """Requests without a reply at that moment."""

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return False
        self._looked = now
        stats = self._server.stats()
        self.under_way = stats["in_flight"]
        return stats["requests"] >= self._at


def _files(folder: Path) -> dict[str, bytes]:
    names = ("rows.parquet", "rejected.parquet", "failed.parquet", "dataset/train.jsonl", "dataset/README.md")
    return {name: (folder / "out" / name).read_bytes() for name in names if (folder / "out" / name).exists()}
