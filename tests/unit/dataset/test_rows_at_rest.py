from __future__ import annotations

import contextlib
import hashlib
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.dataset import ROW_SCHEMA, Failure, Row, RowWriter, failures_to_table, rows_to_table
from distill.dataset.parquet import ROW_GROUP
from distill.dataset.schema import FAILED_SCHEMA, KEPT_SCHEMA
from distill.errors import FailureClass, UnreadableText
from distill.planning import Seed, Slot, Topic
from distill.teachers import Message


def make(index: int, text: str = "hello", **fields) -> Row:
    slot = Slot(
        id=f"r-{index}",
        index=index,
        topic=Topic(("cards", "lost")),
        dims={"tone": "calm"},
        labels={"intent": "lost"},
        seeds=(Seed("s1", "a"), Seed("s2", "b")),
        twist="injection" if index % 2 else None,
    )
    messages = (Message("user", text), Message("assistant", f"answer {index}"))
    return Row(id=f"r-{index}", slot=slot, messages=messages, teacher="main", cost=Decimal("0.25"), **fields)


def test_a_row_reads_back_as_it_was():
    table = rows_to_table([make(0), make(1, scores={"a": 0.5}, reasoning="since", keys=("k1", "k2"), finish="length")])
    table.validate(full=True)
    assert table.schema == ROW_SCHEMA
    first, second = table.to_pylist(maps_as_pydicts="strict")
    assert first["messages"] == [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "answer 0"}]
    assert (first["leaf"], first["seeds"], first["kind"], first["dims"]) == (
        ["cards", "lost"], ["s1", "s2"], "standard", {"tone": "calm"}
    )  # fmt: skip
    assert (first["reasoning"], first["scores"], first["cost_usd"]) == (None, {}, 0.25)
    assert (second["kind"], second["scores"], second["keys"]) == ("injection", {"a": 0.5}, ["k1", "k2"])
    assert (second["reasoning"], second["finish"]) == ("since", "length")
    assert rows_to_table([]).equals(ROW_SCHEMA.empty_table())


def test_a_lone_surrogate_names_its_row():
    with pytest.raises(UnreadableText, match="row r-1: lone surrogate"):
        rows_to_table([make(0), make(1, "bad \ud800")])


def test_failures_keep_what_was_said_even_unreadable():
    failure = Failure("r-3", make(3).slot, FailureClass.UNREADABLE, "lone surrogate", raw="x\ud800y", keys=("k",))
    table = failures_to_table([failure])
    assert table.schema == FAILED_SCHEMA
    row = table.to_pylist()[0]
    assert (row["failure"], row["kind"], row["keys"]) == ("unreadable", "injection", ["k"])
    assert row["raw"].startswith("x")
    assert row["raw"].endswith("y")


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8))
def test_bytes_do_not_depend_on_batches(tmp_path_factory, sizes):
    folder = tmp_path_factory.mktemp("bytes")
    table = rows_to_table([make(n, f"text {n * 7919 % 501}") for n in range(ROW_GROUP + 700)])
    digests = set()
    for name, cuts in (("whole", [table.num_rows]), ("cut", sizes)):
        with RowWriter(folder / name) as writer:
            first = 0
            for size in [*cuts, table.num_rows]:
                writer.write(table.slice(first, size))
                first += size
        assert writer.rows == table.num_rows
        digests.add(hashlib.sha256((folder / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    assert pq.read_table(folder / "whole").equals(table)
    assert pq.ParquetFile(folder / "whole").num_row_groups == 2


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "rows.parquet"
    with RowWriter(path, KEPT_SCHEMA):
        pass
    assert pq.read_schema(path) == KEPT_SCHEMA
    before = path.read_bytes()
    with contextlib.suppress(KeyError), RowWriter(path) as writer:
        writer.write(rows_to_table([make(n) for n in range(ROW_GROUP)]))
        raise KeyError
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]
    writer = RowWriter(path)
    writer.abort()
    writer.abort()
    assert path.read_bytes() == before
    with RowWriter(path) as writer:
        writer.write(rows_to_table([make(1)]).append_column("more", pa.array([1])))
        writer.close()
    assert pq.read_table(path).column("id").to_pylist() == ["r-1"]
    with pytest.raises((ValueError, KeyError)), RowWriter(path) as writer:
        writer.write(pa.table({"id": ["x"]}))
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]
