"""What every answer store promises, on the workspace's file and on a real server alike."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.errors import InputError, RunError
from distill.gateway import PostgresCare, PostgresStore, Record, SqliteCare, SqliteStore, check, request_key, unite
from distill.gateway.budget import Amount
from distill.io import canonical

WIRE = {"model": "m", "messages": [{"role": "user", "content": "wie spät? \u2028"}], "temperature": 0.7}


def key(n: int) -> str:
    return random.Random(n).randbytes(16).hex()


def record(n: int, *, run: str = "one", body: bytes | None = None) -> Record:
    body = b"answer %d " % n + b"x" * 400 if body is None else body
    return Record(key(n), "openai", "m", n, 200, body, 10, 5, 2, 1, 3, 2_500_000, "stop", run, 1.5)


def asked(n: int) -> Record:
    wire = {**WIRE, "n": n}
    return record(n)._replace(key=request_key("openai", wire, n)[0], request=canonical(wire))


class Place:
    """Where one kind of store stands: opened as a run does, and as its keeper does."""

    def __init__(self, kind: str, at: str) -> None:
        self.kind, self.at = kind, at

    def open(self) -> Any:
        return SqliteStore.open(Path(self.at)) if self.kind == "sqlite" else PostgresStore.open(self.at)

    def care(self) -> Any:
        return SqliteCare(Path(self.at), make=True) if self.kind == "sqlite" else PostgresCare(self.at)

    def spoil(self, name: str) -> None:
        """Change the body of an answer behind the store's back."""
        if self.kind == "sqlite":
            import sqlite3

            connection: Any = sqlite3.connect(self.at, isolation_level=None)
            connection.execute("UPDATE answers SET body = ? WHERE key = ?", (b"other", bytes.fromhex(name)))
        else:
            import psycopg

            connection = psycopg.connect(self.at, autocommit=True)
            connection.execute("UPDATE distill_answers SET body = %s WHERE key = %s", (b"other", bytes.fromhex(name)))
        connection.close()


@pytest.fixture(params=["sqlite", "postgres"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Place]:
    """Makes new, empty places of one kind."""
    if request.param == "sqlite":
        numbers = iter(range(100))
        return lambda: Place("sqlite", str(tmp_path / str(next(numbers)) / ".distill" / "answers.sqlite"))
    server = request.getfixturevalue("postgres_server")
    return lambda: Place("postgres", server.fresh())


@pytest.fixture
def place(places: Callable[[], Place]) -> Place:
    return places()


async def fill(place: Place, numbers: range, *, run: str = "one") -> None:
    with place.open() as store:
        await asyncio.gather(*(store.put(record(n, run=run)) for n in numbers))


async def test_an_answer_comes_back_as_it_was(place: Place) -> None:
    body = bytes(range(256)) * 3
    with place.open() as store:
        await store.put(record(1, body=body))
        assert store.get(key(1)) == record(1, body=body)
        assert store.get(key(2)) is None
    with place.open() as store:
        assert store.get(key(1)) == record(1, body=body)


async def test_the_first_answer_wins_also_over_another_process(place: Place) -> None:
    with place.open() as one, place.open() as two:
        mine, others = record(1, body=b"first"), record(1, body=b"second", run="two")
        assert await one.put(mine) is mine
        assert await two.put(others) == mine
        assert two.get(key(1)) == mine
        assert two.spent("two").tokens == 15  # it was paid all the same
        assert await two.put(others, replace=True) is others
        assert one.get(key(1)) == others


async def test_two_writers_of_the_same_keys_end_with_one_answer_each(place: Place) -> None:
    with place.open() as one, place.open() as two:
        numbers = list(range(300))
        forward = [one.put(record(n, run="a", body=b"a%d" % n)) for n in numbers]
        backward = [two.put(record(n, run="b", body=b"b%d" % n)) for n in reversed(numbers)]
        first, second = await asyncio.gather(asyncio.gather(*forward), asyncio.gather(*backward))
        assert first == list(reversed(second))
        assert one.stats().answers == 300
        assert one.spent("a").tokens == two.spent("b").tokens == 300 * 15


async def test_a_batch_keeps_what_stands_there_whatever_its_size(place: Place) -> None:
    large = b"y" * 700_000  # several of them fill a statement
    await fill(place, range(0, 240, 7))
    with place.open() as store:
        mine = [asked(n)._replace(key=key(n), body=large if n % 90 == 1 else b"mine %d" % n) for n in range(240)]
        found = await asyncio.gather(*(store.put(each) for each in [*mine, *mine[:10]]))
        # What stood there comes back without what was asked: those that came twice may fall into one batch or into two.
        expected = [record(n) if n % 7 == 0 else mine[n] for n in [*range(240), *range(10)]]
        assert [each._replace(request=b"") for each in found] == [each._replace(request=b"") for each in expected]
        assert store.stats().answers == 240
        assert store.spent("one").tokens == (35 + 250) * 15  # paid, whoever came first
    with place.care() as care:
        entries = {entry.record.key: entry.record for entry in care.entries()}
    assert entries == {key(n): record(n) if n % 7 == 0 else mine[n] for n in range(240)}


async def test_answers_of_another_process_are_noticed(place: Place) -> None:
    with place.open() as one, place.open() as two:
        await one.put(record(1))
        await two.put(record(2))
        assert two.get(key(1)) == record(1)


async def test_doubles_of_a_batch_hide_no_answer_of_another_process(place: Place) -> None:
    with place.open() as one, place.open() as two:
        await two.put(record(5))
        await asyncio.gather(one.put(record(1)), one.put(record(5)))  # the second is there already
        await two.put(record(6))
        await two.put(record(7))
        await one.put(record(8))
        assert [one.get(key(n)) for n in (5, 6, 7)] == [record(n) for n in (5, 6, 7)]


async def test_money_is_summed_by_run_and_survives(place: Place) -> None:
    with place.open() as store:
        for n in range(4):
            await store.put(record(n, run="a" if n else "b"))
        store.lose("a", Amount(7, 8))
    with place.open() as store:
        assert store.amounts("a") == (Amount(7_500_000, 45), Amount(7, 8))
        assert store.spent("b").usd * 10**12 == 2_500_000
        assert store.amounts("nobody") == (Amount(), Amount())
        stats = store.stats()
        assert (stats.answers, stats.tokens, stats.models) == (4, 60, {"openai/m": 4})
        assert stats.bytes == store.size() > 0


async def test_what_was_under_way_at_a_kill_counts_as_lost_once(place: Place) -> None:
    with place.open() as store:
        await store.expose("a", Amount(100, 50))
        store.relax("a", Amount(40, 20))
    for _ in range(2):
        with place.open() as store:
            store.recover("a")
            assert store.amounts("a")[1] == Amount(40, 20)


async def test_a_changed_byte_makes_an_answer_absent_and_replaceable(place: Place) -> None:
    await fill(place, range(1))
    place.spoil(key(0))
    with place.open() as store:
        assert store.get(key(0)) is None
        assert await store.put(record(0)) == record(0)
        assert store.get(key(0)) == record(0)


async def test_what_is_read_ahead_is_what_stands_there(place: Place) -> None:
    await fill(place, range(200))
    with place.open() as store:
        for n in [*range(150), *random.Random(3).sample(range(200), 100), *range(199, -1, -1)]:
            assert store.get(key(n)) == record(n)
            if n == 120:
                await store.put(record(121, body=b"newer"), replace=True)
                assert store.get(key(121)) == record(121, body=b"newer")
                await store.put(record(121), replace=True)
        assert store.get(key(301)) is None


async def test_what_was_asked_stands_beside_the_answer_and_proves_its_key(place: Place) -> None:
    with place.open() as store:
        await asyncio.gather(*(store.put(asked(n)) for n in range(5)), store.put(record(9)))
        await store.put(asked(3), replace=True)
    with place.care() as care:
        entries = {entry.record.key: entry.record for entry in care.entries()}
        assert entries[asked(3).key] == asked(3)
        found = check(care)
        assert (found.answers, found.proven, found.sound) == (6, 5, True)


async def test_a_check_names_every_damaged_answer_and_removal_makes_it_absent(place: Place) -> None:
    wrong = asked(1)._replace(key=key(77))  # not the digest of what it says was asked
    with place.open() as store:
        await asyncio.gather(store.put(asked(0)), store.put(wrong), store.put(asked(2)))
    place.spoil(asked(2).key)
    with place.care() as care:
        found = check(care)
        assert {(flaw.record.key, flaw.record.run, flaw.why.split(" (")[0]) for flaw in found.flaws} == {
            (wrong.key, "one", "the key is not the digest of the stored request"),
            (asked(2).key, "one", "the body is not what was stored"),
        }
        assert care.remove([bytes.fromhex(flaw.record.key) for flaw in found.flaws]) == 2
        care.compact()
        assert check(care).sound
        assert [line.answers for line in care.ledger()] == [3]  # what was paid stays counted
    with place.open() as store:
        assert store.get(wrong.key) is None


async def test_a_union_keeps_the_first_answer_and_counts_no_money_twice(places: Callable[[], Place]) -> None:
    mine, theirs = places(), places()
    await fill(mine, range(10), run="mine")
    with theirs.open() as store:
        await asyncio.gather(*(store.put(record(n, run="theirs", body=b"other")) for n in range(5, 20)))
        await store.expose("theirs", Amount(100, 50))
        store.lose("theirs", Amount(7, 8))
    for again in range(3):
        with mine.care() as target, theirs.care() as source:
            found = unite(target, source)
            assert (found.added, found.present) == ((10, 5) if not again else (0, 15))
    with mine.open() as store:
        assert store.get(key(5)) == record(5, run="mine")
        assert store.get(key(15)) == record(15, run="theirs", body=b"other")
        assert store.amounts("mine")[0] == Amount(10 * 2_500_000, 150)
        assert store.amounts("theirs") == (Amount(15 * 2_500_000, 225), Amount(107, 58))


async def test_a_union_that_is_cut_off_is_finished_by_doing_it_again(places: Callable[[], Place]) -> None:
    mine, theirs = places(), places()
    await fill(theirs, range(1200), run="theirs")

    class Cut(Exception):
        pass

    with mine.care() as target, theirs.care() as source:
        absorb, calls = target.absorb, []

        def cut(records: Any) -> int:
            calls.append(1)
            if len(calls) == 2:
                raise Cut
            return absorb(records)

        target.absorb = cut
        with pytest.raises(Cut):
            unite(target, source)
    with mine.open() as store:
        assert store.stats().answers == 500
        assert store.spent("theirs").tokens == 1200 * 15  # never less than was paid
    with mine.care() as target, theirs.care() as source:
        found = unite(target, source)
        assert (found.added, found.present) == (700, 500)
    with mine.open() as store:
        assert store.spent("theirs").tokens == 1200 * 15


# -- the server alone ------------------------------------------------------------------------------------------


async def test_a_connection_that_breaks_at_the_commit_pays_nothing_twice(postgres_server: Any) -> None:
    import psycopg

    url = postgres_server.fresh()
    with PostgresStore.open(url) as store:
        await store.put(record(0))
        committer = store._writer._committer
        connection = committer.connection
        execute = connection.execute

        def broken(query: Any, *rest: Any, **more: Any) -> Any:
            done = execute(query, *rest, **more)
            if query == "COMMIT":  # it happened, and nobody is told
                connection.close()
                raise psycopg.OperationalError("the connection is lost")
            return done

        connection.execute = broken
        with pytest.raises(RunError, match="cannot be reached"):
            await store.put(record(1))
        assert await store.flush(10) == 0
        assert store.get(key(1)) == record(1)
        assert store.spent("one").tokens == 2 * 15


async def test_a_server_that_refuses_is_said_at_once_and_tried_again(postgres_server: Any) -> None:
    import psycopg

    url = postgres_server.fresh()
    with PostgresStore.open(url) as store, psycopg.connect(url, autocommit=True) as other:
        other.execute("ALTER TABLE distill_answers ADD CONSTRAINT no_room CHECK (sample <> 1)")
        with pytest.raises(RunError, match="cannot be used"):
            await store.put(record(1))
        assert store.unsaved == 1
        other.execute("ALTER TABLE distill_answers DROP CONSTRAINT no_room")
        assert await store.flush(10) == 0
        assert store.get(key(1)) == record(1)
        assert store.spent("one").tokens == 15


async def test_a_server_that_ends_a_connection_is_asked_again(postgres_server: Any) -> None:
    import psycopg

    url = postgres_server.fresh()
    with PostgresStore.open(url) as store:
        await store.put(record(0))
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'distill r%'"
            )
        await asyncio.sleep(0.1)
        assert store.get(key(0)) == record(0)


def test_what_is_wrong_with_an_address_is_said_without_its_password(postgres_server: Any) -> None:
    from tests.support.postgres import PASSWORD

    good = postgres_server.fresh()
    wrong = "canary-of-a-wrong-password"
    for url in (
        good.replace(PASSWORD, wrong),
        good.replace("127.0.0.1", "127.0.0.2"),
        good + "x",
        good + f"?sslmode=nonsense&password={wrong}",
        f"postgresql://u:{PASSWORD}@h:notaport/d",
        f"postgresql://u:{PASSWORD}@[::1/d",
        f"mysql://u:{PASSWORD}@h/d",
    ):
        with pytest.raises((RunError, InputError)) as caught:
            PostgresStore.open(url)
        assert PASSWORD not in f"{caught.value} {caught.value!r}"
        assert wrong not in f"{caught.value} {caught.value!r}"
