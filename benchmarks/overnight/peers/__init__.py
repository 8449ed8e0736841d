"""The same one-call work for distill and its peers, against one loopback teacher of 500 ms: accepted rows a second, CPU
a row and memory of the client's process tree. The server shares the machine. `of ideal` is the rate's share of
concurrency / latency; `x best peer` compares distill with the best peer of the same cell, so that more is better in all
three. Rates and CPU are those of the call, from configuration to rows on disk; `start` is the rest of the command.

    OVERNIGHT_PEERS=FOLDER python -m benchmarks overnight-peers [--short] [--only distill,curator] [--rows 2000,20000]
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Loopback, loopback, table
from benchmarks.overnight.options import numbers, parser, read
from benchmarks.overnight.tools import Told, call, missing, scratch, version_of

LATENCY = 0.5
HEAD = ["rows", "concurrent", "tool", "rows/s", "of ideal", "CPU ms/row", "peak MB", "start s", "note"]


@dataclass(frozen=True)
class Cell:
    rows: int
    concurrency: int


def main() -> None:
    given = parser("overnight-peers", limit=900)
    given.add_argument("--rows", type=numbers, default=(2_000, 20_000), metavar="N,…")
    given.add_argument("--concurrency", type=numbers, default=(32, 256, 1_000), metavar="N,…")
    given.add_argument(
        "--short",
        action="store_true",
        help="2,000 rows at all concurrencies, then 20,000 at 1000 for distill and the two fastest peers",
    )
    options = read(given, "overnight-peers")
    limit = min(options.limit, 150.0) if options.short else options.limit
    cells = [Cell(rows, concurrency) for rows in options.rows for concurrency in options.concurrency]
    if options.short:
        cells = [Cell(2_000, concurrency) for concurrency in options.concurrency]
    print("versions: " + "; ".join(f"{tool} {version_of(tool)}" for tool in options.only) + "\n", flush=True)
    ratios: list[list[object]] = []
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD), flush=True)
    with loopback("--latency", str(LATENCY)) as server:
        found: dict[str, Told] = {}
        for cell in cells:
            found = _cell(server, cell, options.only, limit, options.keep)
            ratios += _ratio(cell, found)
        if options.short:
            last = Cell(20_000, max(options.concurrency))
            peers = sorted((tool for tool in found if tool != "distill"), key=lambda tool: -_rate(found[tool]))
            tools = tuple(tool for tool in options.only if tool == "distill" or tool in peers[:2])
            ratios += _ratio(last, _cell(server, last, tools, limit, options.keep))
    print()
    table(["rows", "concurrent", "rows/s x best peer", "CPU x best peer", "memory x best peer"], ratios)


def _cell(server: Loopback, cell: Cell, tools: tuple[str, ...], limit: float, keep: Path | None) -> dict[str, Told]:
    found: dict[str, Told] = {}
    for tool in tools:
        if missing(tool):
            _row([cell.rows, cell.concurrency, tool, "–", "–", "–", "–", "–", version_of(tool)])
            continue
        server.reset()
        with scratch() as name:
            told = call(
                tool,
                Path(name),
                base_url=server.base_url,
                rows=cell.rows,
                concurrency=cell.concurrency,
                limit=limit,
            )
            if keep is not None:
                kept = keep / f"{tool}-{cell.rows}-{cell.concurrency}"
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(name, kept)
                (kept / "stdout.txt").write_text(told.ended.out)
                (kept / "stderr.txt").write_text(told.ended.err)
        note = told.trouble
        if told.ended.code is None:  # over its limit: what the server had answered by then
            answered = server.stats()["answered"]
            told = Told(told.ended, answered, told.ended.wall, told.cpu, 0.0, told.trouble)
            note = f"not done after {limit:g} s, answers so far"
        elif told.rows != cell.rows:
            note = f"{told.rows} of {cell.rows} rows accepted {note}"
        found[tool] = told
        ideal = cell.concurrency / LATENCY
        per_row = told.cpu / told.rows * 1e3 if told.rows else float("nan")
        _row(
            [
                cell.rows,
                cell.concurrency,
                tool,
                _rate(told),
                f"{_rate(told) / ideal:.0%}",
                per_row,
                f"{told.ended.peak_mb:.0f}",
                f"{told.start:.1f}",
                note,
            ]
        )
    return found


def _ratio(cell: Cell, found: dict[str, Told]) -> list[list[object]]:
    """distill against the best peer in each column."""
    ours = found.get("distill")
    peers = [told for tool, told in found.items() if tool != "distill" and told.rows]
    if ours is None or not ours.rows or not peers:
        return []
    cpu = min(told.cpu / told.rows for told in peers) / (ours.cpu / ours.rows)
    memory = min(told.ended.peak_mb for told in peers) / ours.ended.peak_mb
    return [[cell.rows, cell.concurrency, _rate(ours) / max(map(_rate, peers)), cpu, memory]]


def _rate(told: Told) -> float:
    return told.rows / told.seconds if told.seconds else 0.0


def _row(cells: list[object]) -> None:
    told = [f"{cell:.3g}" if isinstance(cell, float) and cell < 1000 else str(_plain(cell)) for cell in cells]
    print("| " + " | ".join(told) + " |", flush=True)


def _plain(cell: object) -> object:
    return round(cell) if isinstance(cell, float) and cell == cell else cell
