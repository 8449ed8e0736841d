"""Full disks, folders that cannot be written, and files that are not what they were: a clear message, then go on."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distill.engine import open_run
from distill.errors import InputError, RunError, StoreDamaged
from tests.support.commands import distill
from tests.support.loopback import Loopback
from tests.support.sessions import check_books, session
from tests.support.workspaces import probe

STORE = ".distill/answers.sqlite"


@pytest.fixture
async def server():
    async with Loopback() as running:
        yield running


def limited(kilobytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))


async def test_a_full_disk_stops_the_run_and_room_continues_it(tmp_path: Path, server: Loopback) -> None:
    probe(tmp_path, server.base_url, target=400)
    full = await distill("generate", "probe.yaml", "--json", cwd=tmp_path, before=lambda: limited(150))
    assert full.code == 1
    assert full.json["error"] == "RunError"
    assert "answers.sqlite" in full.json["message"]
    assert "full" in str(full.json["message"]) + str(full.json["hint"]) or "could not be stored" in full.json["message"]
    assert 0 < full.json["kept"] < 400  # what was decided before is on disk, and said
    assert pq.read_table(tmp_path / "runs/probe-1/rows.parquet").num_rows == full.json["kept"]
    paid = server.requests
    done = await session(tmp_path / "probe.yaml")
    assert (done.code, done.told["kept"]) == (0, 400)
    assert server.requests - paid == 400 - done.told["resumed_answers"]
    # Held in memory and tried again until the end; only what was under way at the end is asked twice, and was counted.
    assert server.stats()["paid_twice"] <= 32


async def test_a_disk_that_is_full_when_rows_are_written_keeps_the_rows_that_were_there(
    tmp_path: Path, server: Loopback
) -> None:
    recipe = probe(tmp_path, server.base_url, target=300, budget={"usd": 0.004})
    first = await session(recipe)
    assert first.told["state"] == "stopped"
    before = (first.path / "rows.parquet").read_bytes()
    probe(tmp_path, server.base_url, target=300, budget={"usd": 5})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def fill(rows: object) -> None:  # the answers are stored by now; the rows are not written yet
        resource.setrlimit(resource.RLIMIT_FSIZE, (6 * 1024, hard))

    try:
        full = await session(recipe, emit=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(full.error, RunError)
    assert "the disk is full" in full.error.message
    assert full.code == 1
    assert (first.path / "rows.parquet").read_bytes() == before
    done = await session(recipe)
    assert (done.told["state"], done.told["kept"]) == ("complete", 300)
    check_books(done)


async def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, server: Loopback) -> None:
    recipe = probe(tmp_path, server.base_url, target=100, budget={"usd": 0.002})
    stopped = await session(recipe)
    shutil.rmtree(stopped.path / "dataset")
    (stopped.path / "dataset").write_text("not a folder")
    failed = await session(recipe)
    assert isinstance(failed.error, RunError)
    assert str(stopped.path / "dataset") in failed.error.message
    (stopped.path / "dataset").unlink()
    assert (await session(recipe)).code == 3


@pytest.mark.parametrize("place", ["/proc/distill", "/dev/null/run"])
async def test_a_place_that_cannot_be_written_is_named_before_the_first_request(
    place: str, tmp_path: Path, server: Loopback
) -> None:
    recipe = probe(tmp_path, server.base_url)
    ended = await session(recipe, run=Path(place))
    assert isinstance(ended.error, RunError)
    assert place.split("/")[1] in ended.error.message
    assert server.requests == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
async def test_a_read_only_run_is_named(tmp_path: Path, server: Loopback) -> None:
    recipe = probe(tmp_path, server.base_url)
    run = tmp_path / "runs/probe-1"
    run.mkdir(parents=True)
    run.chmod(0o500)
    ended = await session(recipe, run=run)
    run.chmod(0o700)
    assert isinstance(ended.error, RunError)
    assert "no permission" in ended.error.message
    assert server.requests == 0


# -- the store -----------------------------------------------------------------------------------------------------


async def _stored(folder: Path, server: Loopback) -> Path:
    """A workspace with a stopped run and a closed store; returns the recipe."""
    recipe = probe(folder, server.base_url, target=200, budget={"usd": 0.005})
    assert (await session(recipe)).told["state"] == "stopped"
    return probe(folder, server.base_url, target=200)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def _tail(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-20_000, os.SEEK_END)
        file.write(os.urandom(20_000))


def _garbage(path: Path) -> None:
    path.write_bytes(b"this was never a database\n" * 400)


@pytest.mark.parametrize("damage", [_cut, _tail, _garbage])
async def test_a_damaged_store_is_said_and_the_next_command_goes_on(
    damage: object, tmp_path: Path, server: Loopback
) -> None:
    recipe = await _stored(tmp_path, server)
    assert callable(damage)
    damage(tmp_path / STORE)
    told = await session(recipe)
    assert isinstance(told.error, StoreDamaged)
    assert "damaged" in told.error.message
    assert "Run the same command again" in (told.error.hint or "")
    assert list((tmp_path / ".distill").glob("damaged-*/answers.sqlite"))
    done = await session(recipe)
    assert (done.told["state"], done.told["kept"]) == ("complete", 200)
    check_books(done)
    if damage is not _garbage:
        assert done.told["resumed_answers"] > 0


async def test_an_empty_store_is_a_new_one(tmp_path: Path, server: Loopback) -> None:
    recipe = await _stored(tmp_path, server)
    (tmp_path / STORE).write_bytes(b"")
    assert (await session(recipe)).told["kept"] == 200


async def test_a_log_left_by_a_killed_process_is_taken_up(tmp_path: Path, server: Loopback) -> None:
    recipe = probe(tmp_path / "a", server.base_url, target=50)
    await session(recipe)
    shutil.copytree(tmp_path / "a", tmp_path / "b", ignore=shutil.ignore_patterns("runs"))
    # As a process leaves it that is killed after its last commit: everything stands in the log.
    path = tmp_path / "b" / STORE
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        for name in ("other", "mock"):
            connection.execute("UPDATE answers SET model = ?", (name,))
            connection.commit()
        copy = {name: (path.parent / name).read_bytes() for name in ("answers.sqlite", "answers.sqlite-wal")}
    assert len(copy["answers.sqlite-wal"]) > 10_000
    for name, data in copy.items():
        (path.parent / name).write_bytes(data)
    (path.parent / "answers.sqlite-shm").unlink(missing_ok=True)
    sent = server.requests
    done = await session(tmp_path / "b" / "probe.yaml")
    assert (done.told["kept"], done.told["resumed_answers"], server.requests - sent) == (50, 50, 0)


# -- run.json ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\x00\xff\xfe", b"[]", b'{"inputs": 3}', b'"text"', b'{"state": "complete"}']
)
async def test_a_run_that_cannot_be_read_is_left_alone(content: bytes, tmp_path: Path, server: Loopback) -> None:
    recipe = probe(tmp_path, server.base_url, target=20)
    first = await session(recipe)
    (first.path / "run.json").write_bytes(content)
    with pytest.raises(InputError, match=r"run\.json"):
        open_run(recipe, run=first.path).finished()
    again = await session(recipe)
    assert (again.path.name, again.told["kept"], again.told["requests"]) == ("probe-2", 20, 0)
    assert (first.path / "run.json").read_bytes() == content
    assert again.told["reused_cost_usd"] == pytest.approx(first.told["cost_usd"])
    check_books(again)


async def test_a_description_without_its_members_is_refused_not_trusted(tmp_path: Path, server: Loopback) -> None:
    recipe = probe(tmp_path, server.base_url, target=20)
    run = open_run(recipe)
    run.directory.write({"inputs": run.prepared.inputs})
    ended = await session(recipe)
    assert isinstance(ended.error, InputError)
    assert "damaged" in ended.error.message
    run.directory.write(
        {"inputs": run.prepared.inputs, "id": "x", "sessions": 1, "state": "complete", "summary": {"kept": "many"}}
    )
    assert open_run(recipe).finished() is None
    assert (await session(recipe)).told["kept"] == 20


async def test_a_directory_in_which_no_run_began_is_taken_again(
    tmp_path: Path, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = probe(tmp_path, server.base_url, target=20)
    monkeypatch.delenv("TEACHER_KEY")
    assert isinstance((await session(recipe)).error, InputError)
    monkeypatch.setenv("TEACHER_KEY", "k" * 12)
    assert (await session(recipe)).path.name == "probe-1"
