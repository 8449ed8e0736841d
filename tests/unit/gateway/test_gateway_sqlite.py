# ruff: noqa: PT012, ASYNC240 - what raises is often a loop; files are damaged by hand
from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from distill.errors import RunError, StoreDamaged
from distill.gateway import Record, SqliteStore
from distill.gateway.budget import Amount
from distill.gateway.store.known import KnownKeys


def key(n: int) -> str:
    return random.Random(n).randbytes(16).hex()


def record(n: int, *, run: str = "one", body: bytes | None = None, status: int = 200) -> Record:
    body = b"answer %d " % n + b"x" * 400 if body is None else body
    return Record(key(n), "openai", "m", 0, status, body, 10, 5, 2, 1, 3, 2_500_000, "stop", run, 1.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".distill" / "answers.sqlite"


async def fill(path: Path, count: int, *, run: str = "one") -> None:
    with SqliteStore.open(path) as store:
        await asyncio.gather(*(store.put(record(n, run=run)) for n in range(count)))


async def test_an_answer_comes_back_as_it_was(path: Path) -> None:
    body = bytes(range(256)) * 3
    with SqliteStore.open(path) as store:
        await store.put(record(1, body=body))
        assert store.get(key(1)) == record(1, body=body)
        assert store.get(key(2)) is None
    with SqliteStore.open(path) as store:
        assert store.get(key(1)) == record(1, body=body)


async def test_only_the_user_can_read_it_and_git_ignores_it(path: Path) -> None:
    with SqliteStore.open(path) as store:
        await store.put(record(1))
        for file in path.parent.glob("answers.sqlite*"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert (path.parent / ".gitignore").read_text() == "*\n"


async def test_the_first_answer_wins_also_over_another_process(path: Path) -> None:
    with SqliteStore.open(path) as one, SqliteStore.open(path) as two:
        mine, others = record(1, body=b"first"), record(1, body=b"second", run="two")
        assert await one.put(mine) is mine
        assert await two.put(others) == mine  # and whoever asked is given the one that stays
        assert two.get(key(1)) == mine
        assert two.spent("two").tokens == 15  # it was paid all the same
        assert await two.put(others, replace=True) is others
        assert one.get(key(1)) == others


async def test_answers_of_another_process_are_noticed(path: Path) -> None:
    with SqliteStore.open(path) as one, SqliteStore.open(path) as two:
        await one.put(record(1))
        await two.put(record(2))
        assert two.get(key(1)) == record(1)


async def test_money_is_summed_by_run_and_survives(path: Path) -> None:
    with SqliteStore.open(path) as store:
        for n in range(4):
            await store.put(record(n, run="a" if n else "b"))
        store.lose("a", Amount(7, 8))
    with SqliteStore.open(path) as store:
        assert store.amounts("a") == (Amount(7_500_000, 45), Amount(7, 8))
        assert store.spent("b").usd * 10**12 == 2_500_000
        assert store.amounts("nobody") == (Amount(), Amount())
        stats = store.stats()
        assert (stats.answers, stats.tokens, stats.models) == (4, 60, {"openai/m": 4})


async def test_what_was_under_way_at_a_kill_counts_as_lost_once(path: Path) -> None:
    with SqliteStore.open(path) as store:
        await store.expose("a", Amount(100, 50))
        store.relax("a", Amount(40, 20))
    for _ in range(2):
        with SqliteStore.open(path) as store:
            store.recover("a")
            assert store.amounts("a")[1] == Amount(40, 20)


async def test_a_full_disk_is_said_at_once_and_the_answers_are_tried_again(path: Path) -> None:
    with SqliteStore.open(path, max_bytes=200_000) as store:
        stored = 0
        with pytest.raises(RunError, match="disk is full") as caught:
            for n in range(2000):
                await store.put(record(n))
                stored += 1
        assert str(path) in str(caught.value)
        assert store.unsaved == 1
        assert await store.flush(0.1) == 1
        store._writer._committer.connection.execute("PRAGMA max_page_count=100000")  # somebody makes room
        assert await store.flush(5) == 0
        assert store.get(key(stored)) == record(stored)
    with SqliteStore.open(path) as store:
        assert store.stats().answers == stored + 1


async def test_a_changed_byte_makes_an_answer_absent_and_replaceable(path: Path) -> None:
    await fill(path, 1)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE answers SET body = ?", (b"answer 0 " + b"y" * 400,))
    connection.close()
    with SqliteStore.open(path) as store:
        assert store.get(key(0)) is None
        await store.put(record(0))
        assert store.get(key(0)) == record(0)


@pytest.mark.parametrize("place", [0.02, 0.3, 0.5, 0.9])
async def test_a_damaged_store_is_kept_and_what_is_readable_recovered(path: Path, place: float) -> None:
    await fill(path, 1000)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(int(size * place) // 4096 * 4096)
        file.write(os.urandom(8192))
    with pytest.raises(StoreDamaged, match="answers were recovered") as caught:
        SqliteStore.open(path)
    kept = next(path.parent.glob("damaged-*"))
    assert str(kept) in str(caught.value)
    assert (kept / path.name).stat().st_size == size
    with SqliteStore.open(path) as store:
        count = store.stats().answers
        assert count >= 900
        found = [store.get(key(n)) for n in range(1000)]
        assert sum(answer is not None for answer in found) == count
        assert all(answer == record(n) for n, answer in enumerate(found) if answer is not None)
        assert store.spent("one").tokens in (15_000, 15 * count)


async def test_a_store_cut_short_is_recovered(path: Path) -> None:
    await fill(path, 1000)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 + 1000)
    with pytest.raises(StoreDamaged):
        SqliteStore.open(path)
    with SqliteStore.open(path) as store:
        assert store.stats().answers >= 300


async def test_a_file_that_is_no_database_is_moved_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"hello, this is not a database at all " * 100)
    with pytest.raises(StoreDamaged, match="0 answers were recovered"):
        SqliteStore.open(path)
    with SqliteStore.open(path) as store:
        await store.put(record(1))
    assert next(path.parent.glob("damaged-*/answers.sqlite")).read_bytes().startswith(b"hello")


async def test_a_damaged_store_in_use_is_left_alone(path: Path) -> None:
    await fill(path, 1000)
    with SqliteStore.open(path):
        damaged = path.read_bytes()
        with path.open("r+b") as file:
            file.seek(4096 * 3)
            file.write(os.urandom(4096 * 3))
        changed = path.read_bytes()
        assert changed != damaged
        with pytest.raises(StoreDamaged, match="another process is using it"):
            SqliteStore.open(path)
        assert path.read_bytes() == changed


async def test_a_torn_log_loses_only_its_tail(path: Path) -> None:
    store = SqliteStore.open(path)
    for n in range(20):
        await store.put(record(n))
    log = Path(f"{path}-wal").read_bytes()
    database = path.read_bytes()
    store.close()
    path.write_bytes(database)
    Path(f"{path}-wal").write_bytes(log[: len(log) - 5000] + os.urandom(700))
    with SqliteStore.open(path) as store:
        count = store.stats().answers
        assert 10 <= count < 20
        assert all(store.get(key(n)) == record(n) for n in range(count))


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / ".distill").write_text("a file in the way")
    with pytest.raises(RunError, match="cannot be opened") as caught:
        SqliteStore.open(tmp_path / ".distill" / "answers.sqlite")
    assert caught.value.hint is not None


def test_a_store_of_a_later_version_is_refused(path: Path) -> None:
    SqliteStore.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(RunError, match="later version"):
        SqliteStore.open(path)


def test_the_filter_never_forgets_a_key() -> None:
    known = KnownKeys()
    known.add_all(bytes.fromhex(key(n)) for n in range(5000))
    for n in range(5000, 6000):
        known.add(key(n))
    assert all(known.maybe(key(n)) for n in range(6000))
    assert sum(known.maybe(key(n)) for n in range(6000, 16000)) < 20


async def test_what_is_read_ahead_is_what_stands_in_the_file(path: Path) -> None:
    await fill(path, 300)
    with SqliteStore.open(path) as store:
        for n in [*range(150), *random.Random(3).sample(range(300), 300), *range(299, -1, -1)]:
            assert store.get(key(n)) == record(n)
            if n == 120:
                await store.put(record(121, body=b"newer"), replace=True)
                assert store.get(key(121)) == record(121, body=b"newer")
                await store.put(record(121), replace=True)
        assert store.get(key(301)) is None


async def test_a_body_of_any_size_is_found_once_what_is_held_is_let_go(path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("distill.gateway.store.ahead._HELD_BYTES", 2_000)
    await fill(path, 200)
    with SqliteStore.open(path) as store:
        for n in range(200):
            assert store.get(key(n)) == record(n)
            assert store.get(key((7 * n) % 200)) == record((7 * n) % 200)
