"""The answers of a workspace and the runs that refer to them: what may be removed, what can be handed on.

A run refers to the answers that it paid (its number stands in each of them) and to those of other runs that its rows
are made of (their keys stand in its files). Everything else in the store was asked for a preview, an estimate, or a
run that is no longer there.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from distill.engine.rundir import RunDir, list_runs
from distill.errors import AnswerError, InputError
from distill.gateway import Flaw, Record, StoreCare
from distill.io import write_jsonl
from distill.teachers.reading import read_chat

__all__ = ["Unreferred", "as_lines", "known_runs", "quarantine", "remove", "unreferred"]

_AT_ONCE = 1_000
_FILES = ("rows", "rejected", "failed")


@dataclass(frozen=True, slots=True)
class Unreferred:
    """Answers that `run` paid and no run refers to."""

    run: str
    keys: list[bytes]
    bytes: int
    pico: int


def known_runs(workspaces: Iterable[Path], more: Iterable[Path] = ()) -> dict[str, RunDir]:
    """The runs of workspaces, and those in further run directories, by their number in the store.

    Raises:
        InputError: one cannot be read: what it refers to is not known.
    """
    found: dict[str, RunDir] = {}
    for run in [*(run for folder in workspaces for run in list_runs(folder)), *map(RunDir, more)]:
        description = run.describe()
        if description is None:
            raise InputError("no run here: no run.json", path=run.path)
        found[str(description.get("id"))] = run
    return found


def unreferred(care: StoreCare, runs: dict[str, RunDir]) -> list[Unreferred]:
    """What none of `runs` refers to, by the run that paid it."""
    referred = {bytes.fromhex(key) for run in runs.values() for key in _keys(run)}
    names = {run.name for run in runs.values()}
    found: list[Unreferred] = []
    for payer in dict.fromkeys(tally.run for tally in care.tallies()):
        base, slash, _ = payer.partition("/")
        if payer in runs or (slash and base in names):  # an evaluation is named after its run
            continue
        gone = [entry for entry in care.paid_by(payer) if entry[0] not in referred]
        if gone:
            keys = [key for key, _, _ in gone]
            found.append(Unreferred(payer, keys, sum(size for _, size, _ in gone), sum(pico for _, _, pico in gone)))
    return found


def remove(care: StoreCare, keys: Sequence[bytes]) -> int:
    """Take answers out, a thousand at a time: cut off half way, the rest goes next time. Money stays counted."""
    return sum(care.remove(keys[start : start + _AT_ONCE]) for start in range(0, len(keys), _AT_ONCE))


def quarantine(care: StoreCare, flaws: Sequence[Flaw], path: Path) -> int:
    """Move damaged answers to a file: first they are written there, then they are absent and will be asked again."""
    write_jsonl(path, (_told(flaw) for flaw in flaws))
    return remove(care, [bytes.fromhex(flaw.record.key) for flaw in flaws])


def _told(flaw: Flaw) -> dict[str, Any]:
    record = flaw.record
    facts = {name: getattr(record, name) for name in ("key", "run", "provider", "model", "sample", "status", "finish")}
    return {**facts, "why": flaw.why, "body": base64.b64encode(record.body).decode("ascii")}


def as_lines(care: StoreCare) -> Iterator[dict[str, Any]]:
    """Every sound answer as JSON values: what was asked and said, tokens and price; no key, no host."""
    for entry in care.entries():
        if entry.sound:
            yield _line(entry.record)


def _line(record: Record) -> dict[str, Any]:
    answer, reasoning = _read(record)
    return {
        "id": record.key,
        "provider": record.provider,
        "model": record.model,
        "sample": record.sample,
        "request": orjson.loads(record.request) if record.request else None,
        "answer": answer,
        "reasoning": reasoning,
        "finish": record.finish or "refused by the provider",
        "usage": {name: getattr(record, name) for name in ("input", "output", "cached", "cache_write", "reasoning")},
        "cost_usd": float(record.cost),
        "run": record.run,
        "created": record.created,
    }


def _read(record: Record) -> tuple[str | None, str | None]:
    if not record.finish:
        return None, None
    try:
        if record.provider == "anthropic":
            from distill.teachers.anthropic import read_message  # brings the provider's library along

            reading = read_message(record.body, record.model)
        else:
            reading = read_chat(record.body, record.model)
    except (AnswerError, ValueError):
        return None, None
    return reading.text, reading.reasoning


def _keys(run: RunDir) -> Iterator[str]:
    for name in _FILES:
        path = run.path / f"{name}.parquet"
        if not path.is_file():
            continue
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=["keys"]):
                    lists: Any = batch.column(0)
                    yield from lists.flatten().to_pylist()
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"cannot be read: {str(error).splitlines()[0]}", path=path) from None
