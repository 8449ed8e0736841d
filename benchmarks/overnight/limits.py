"""A limit of 600 requests a minute, kept by the server too: the share of it that is used, and the requests that are
wasted because the server answers them 429. Each tool is told the limit where it takes one (Data Designer takes none: it
adapts to the 429s). 256 requests may be under way.

    OVERNIGHT_PEERS=FOLDER python -m benchmarks overnight-limits [--rows 1200] [--only distill,curator]
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import loopback, table
from benchmarks.overnight.options import parser, read
from benchmarks.overnight.tools import call, missing, scratch, version_of

RPM = 600
CONCURRENCY = 256
LATENCY = 0.5
HEAD = ["tool", "rows", "seconds", "of the limit used", "requests", "answered 429", "wasted", "note"]


def main() -> None:
    given = parser("overnight-limits", peers=("curator", "data_designer"), limit=900)
    given.add_argument("--rows", type=int, default=1_200, metavar="N", help="600 take a minute")
    options = read(given, "overnight-limits")
    rows: list[list[object]] = []
    for tool in options.only:
        if missing(tool):
            rows.append([tool, *["–"] * 6, version_of(tool)])
            continue
        with loopback("--latency", str(LATENCY), "--rpm", str(RPM)) as server, scratch() as name:
            told = call(
                tool,
                Path(name),
                base_url=server.base_url,
                rows=options.rows,
                concurrency=CONCURRENCY,
                limit=options.limit,
                rpm=RPM,
            )
            stats = server.stats()
        refused = stats["faults"].get("limit", 0)
        accepted = told.rows or stats["answered"] - refused
        note = told.trouble or ("" if told.rows == options.rows else f"{told.rows} of {options.rows} rows accepted")
        rows.append(
            [
                f"{tool} {version_of(tool)}",
                accepted,
                told.seconds,
                f"{accepted / told.seconds * 60 / RPM:.1%}",
                stats["requests"],
                refused,
                f"{refused / stats['requests']:.2%}",
                note,
            ]
        )
    table(HEAD, rows)
