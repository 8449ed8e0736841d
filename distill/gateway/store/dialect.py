"""What both databases are asked, each in its own words.

The stores in SQLite and in PostgreSQL have the same tables and mean the same by them, so the statements stand here
once; a `Dialect` says how a database spells them. What one of them does in a way of its own (how answers are inserted,
how the database is checked) stands beside its connection.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

from distill.gateway.store.ahead import AHEAD
from distill.gateway.store.base import Record

__all__ = ["COLUMNS", "PAGE", "Dialect", "Execute", "record_of", "values_of"]

COLUMNS = (
    "provider, model, sample, status, body, input, output, cached, cache_write, reasoning,"
    " cost_pico, finish, run, created"
)
"""Of an answer, in the order of `Record`; its key stands before them, its checksum after."""
PAGE = 1_000
"""Rows read at once where all are read."""

Execute = Callable[[str, Sequence[Any]], object]
"""How a statement of a transaction is carried out."""


class Dialect:
    """The statements, as one database spells them. `?` marks a parameter.

    Args:
        tables: what the names of the tables begin with.
        mark: how the database marks a parameter.
        larger: its function for the larger of two values.
        floor: how it rounds down, `{}` being the value.
    """

    def __init__(self, *, tables: str, mark: str, larger: str, floor: str) -> None:
        def say(text: str) -> str:
            for name, meant in words.items():
                text = text.replace(f"<{name}>", meant)
            return text.replace("?", mark)

        def raised(*names: str) -> str:
            return ", ".join(f"{name} = {larger}(r.{name}, excluded.{name})" for name in names)

        words = {name: tables + name for name in ("answers", "requests", "runs")}
        words |= {"columns": COLUMNS, "ahead": str(AHEAD), "page": str(PAGE), "slice": floor.format("created / 600")}
        words["of_a"] = ", ".join(f"a.{name.strip()}" for name in COLUMNS.split(","))
        words["raise_paid"] = raised("answers", "pico", "input", "output")
        words["raise_lost"] = raised("lost_pico", "lost_tokens")

        self.get = say("SELECT <columns>, crc, id FROM <answers> WHERE key = ?")
        self.following = say("SELECT key, <columns>, crc, id FROM <answers> WHERE id > ? ORDER BY id LIMIT <ahead>")
        self.exposed = say("SELECT exposed_pico, exposed_tokens FROM <runs> WHERE run = ?")
        self.amounts = say("SELECT pico, input + output, lost_pico, lost_tokens FROM <runs> WHERE run = ?")
        self.used = say(
            "SELECT <slice> * 600.0, run, count(*), CAST(sum(input + output) AS BIGINT) FROM <answers>"
            " WHERE created >= ? AND provider = ? AND model = ? GROUP BY 1, 2 ORDER BY 1, 2"
        )
        self.models = say(
            "SELECT provider || '/' || model, count(*), count(*) FILTER (WHERE finish = '') FROM <answers>"
            " GROUP BY 1 ORDER BY 1"
        )
        self.totals = say(
            "SELECT CAST(coalesce(sum(pico), 0) AS BIGINT), CAST(coalesce(sum(input + output), 0) AS BIGINT)"
            " FROM <runs>"
        )
        # -- of the writer
        self.pay = say(
            "INSERT INTO <runs> AS r (run, answers, pico, input, output) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (run) DO UPDATE SET answers = r.answers + excluded.answers, pico = r.pico + excluded.pico,"
            " input = r.input + excluded.input, output = r.output + excluded.output"
        )
        self.lose = say(
            "INSERT INTO <runs> AS r (run, lost_pico, lost_tokens) VALUES (?, ?, ?)"
            " ON CONFLICT (run) DO UPDATE SET lost_pico = r.lost_pico + excluded.lost_pico,"
            " lost_tokens = r.lost_tokens + excluded.lost_tokens"
        )
        self.expose = say(
            "INSERT INTO <runs> (run, exposed_pico, exposed_tokens) VALUES (?, ?, ?) ON CONFLICT (run) DO UPDATE SET"
            " exposed_pico = excluded.exposed_pico, exposed_tokens = excluded.exposed_tokens"
        )
        # -- of the keeper
        self.entries = say(
            "SELECT a.id, a.key, <of_a>, a.crc, r.wire FROM <answers> a LEFT JOIN <requests> r ON r.id = a.id"
            " WHERE a.id > ? ORDER BY a.id LIMIT <page>"
        )
        self.tallies = say(
            "SELECT provider, model, run, count(*), count(*) FILTER (WHERE finish = ''), CAST(sum(input) AS BIGINT),"
            " CAST(sum(output) AS BIGINT), CAST(sum(cost_pico) AS BIGINT), CAST(sum(length(body)) AS BIGINT)"
            " FROM <answers> GROUP BY provider, model, run ORDER BY provider, model, run"
        )
        self.ledger = say(
            "SELECT run, answers, pico, input, output, lost_pico, lost_tokens, exposed_pico, exposed_tokens"
            " FROM <runs> ORDER BY run"
        )
        self.paid_by = say("SELECT key, length(body), cost_pico FROM <answers> WHERE run = ?")
        self.enter = say(
            "INSERT INTO <runs> AS r (run, answers, pico, input, output, lost_pico, lost_tokens)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run) DO UPDATE SET <raise_paid>, <raise_lost>"
        )
        self.balance = say(
            "INSERT INTO <runs> AS r (run, answers, pico, input, output) SELECT run, count(*),"
            " CAST(sum(cost_pico) AS BIGINT), CAST(sum(input) AS BIGINT), CAST(sum(output) AS BIGINT)"
            " FROM <answers> WHERE true GROUP BY run ON CONFLICT (run) DO UPDATE SET <raise_paid>"
        )


def values_of(record: Record) -> tuple[Any, ...]:
    """Key, `COLUMNS` and checksum, as they are inserted."""
    return (bytes.fromhex(record.key), *record[1:-1], zlib.crc32(record.body))


def record_of(key: str, row: Sequence[Any]) -> Record | None:
    """The answer in `COLUMNS` and checksum; None where the body is not the one that was stored."""
    return Record(key, *row[:-1]) if zlib.crc32(row[4]) == row[-1] else None
