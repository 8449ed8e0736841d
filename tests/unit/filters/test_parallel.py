"""Any number of processes, and any number of interruptions, give the rows that one process gives in one go."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import InputError, RunError
from distill.filters import FilterContext
from distill.filters.building import build_chain
from distill.filters.parallel import choice
from distill.filters.parallel import pool as pools
from distill.filters.parallel.segments import cut
from distill.filters.quality.length import LengthFilter
from tests.support.filtering import results, run, steps, write_rows


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("once")
    source = write_rows(folder)
    report = run(source, folder / "out")
    assert set(report.rejected) == {"length", "exact", "minhash", "decontaminate", "refusal"}
    assert report.masked["email"] > 50
    return source, results(report, folder / "out")


def test_two_processes_give_what_one_gives(once, tmp_path):
    source, expected = once
    report = run(source, tmp_path / "out", workers=2)
    assert results(report, tmp_path / "out") == expected
    assert report.as_json()["workers"] == 2
    assert report.worker_peak_mb > 10


@pytest.mark.heavy
def test_eight_processes_and_lines_give_what_one_gives(once, tmp_path):
    source, expected = once
    assert results(run(source, tmp_path / "eight", workers=8), tmp_path / "eight") == expected
    found = [results(run(source, tmp_path / f"{n}", workers=n, format="jsonl"), tmp_path / f"{n}") for n in (1, 2)]
    assert found[0] == found[1]


class Stop(BaseException):
    """What an interrupt is."""


def broken_off(source: Path, out: Path, after: int, **options) -> None:
    """A run that is stopped when so many batches are written."""
    seen = 0

    def progress(report) -> None:
        nonlocal seen
        seen += report.read > 0
        if seen == after:
            raise Stop

    with pytest.raises(Stop):
        run(source, out, progress=progress, journal=out / ".unfinished", **options)


@pytest.mark.parametrize("after", [1, 2])
def test_a_run_that_was_broken_off_goes_on(once, tmp_path, after, monkeypatch):
    source, expected = once
    out = tmp_path / "out"
    broken_off(source, out, after)
    assert not (out / "kept.parquet").exists()
    judged: list[int] = []
    judge = LengthFilter.judge
    monkeypatch.setattr(LengthFilter, "judge", lambda self, rows: judged.append(rows.num_rows) or judge(self, rows))
    report = run(source, out, journal=out / ".unfinished")
    assert results(report, out) == expected
    assert any("goes on" in note for note in report.notes)
    assert sum(judged) == 3000 - 1024 * after
    assert not (out / ".unfinished").exists()


def test_what_a_kill_left_half_written_is_not_believed(once, tmp_path):
    source, expected = once
    out = tmp_path / "out"
    broken_off(source, out, 2)
    file = out / ".unfinished" / "verdicts.bin"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF  # a damaged record
    file.write_bytes(data[:-7])  # and one that is cut off
    assert results(run(source, out, journal=out / ".unfinished"), out) == expected


def test_another_chain_or_another_input_begins_anew(once, tmp_path):
    source, _ = once
    out = tmp_path / "out"
    other = steps({"kind": "length", "fields": ["prompt"], "min_chars": 40})
    broken_off(source, out, 1)
    report = run(source, out, chain=other, journal=out / ".unfinished")
    assert any("begun anew" in note for note in report.notes)
    assert report.kept == run(source, tmp_path / "plain", chain=other).kept
    broken_off(source, out, 1)
    evals = source.parent / "eval.jsonl"
    held = evals.read_bytes()
    try:
        evals.write_text('{"q": "something else entirely that no row has ever said"}\n')
        assert any("begun anew" in note for note in run(source, out, journal=out / ".unfinished").notes)
    finally:
        evals.write_bytes(held)


def test_a_folder_belongs_to_one_run(once, tmp_path):
    source, _ = once
    out = tmp_path / "out"

    def progress(report) -> None:
        with pytest.raises(InputError, match="another process"):
            run(source, out, journal=out / ".unfinished")

    run(source, out, chain=steps({"kind": "exact"}), journal=out / ".unfinished", progress=progress)


def test_an_error_of_a_worker_is_the_users_and_a_lost_worker_is_said(once, tmp_path):
    source, _ = once
    with pools.open_pool(1) as pool:
        with pytest.raises(InputError, match=r"rows\.jsonl:7: wrong") as caught:
            list(pool.over(_refuse, [source]))
        assert (caught.value.line, caught.value.hint) == (7, "mend it")
        with pytest.raises(RunError, match="worker process was killed"):
            list(pool.over(_die, [1]))


def test_a_system_without_processes_is_told(monkeypatch):
    def refuse(*_, **__):
        raise OSError("Function not implemented")

    monkeypatch.setattr(pools, "ProcessPoolExecutor", refuse)
    with pytest.raises(RunError, match="no worker process can be started: Function not implemented") as caught:
        pools.open_pool(2).__enter__()
    assert caught.value.hint == "use --workers 1"


def test_a_fault_of_the_program_is_told_with_its_place():
    with pools.open_pool(1) as pool, pytest.raises(ZeroDivisionError) as caught:
        list(pool.over(_divide, [0]))
    assert "in _divide" in str(caught.value.__cause__)


def test_results_are_in_order_whatever_their_size():
    data = [bytes([n]) * (n << 18) for n in (1, 9, 0, 2, 17, 3, 4, 1, 1, 30)]
    with pools.open_pool(3) as pool:
        assert list(pool.over(_doubled, data)) == [2 * each for each in data]


def test_workers_end_with_their_pool():
    with pools.open_pool(3) as pool:
        assert os.getpid() not in set(pool.over(_pid, range(40)))
        workers = [child.pid for child in multiprocessing.active_children()]
    assert len(workers) == 3
    assert not any(_alive(pid) for pid in workers)


FEEDER = """\
import multiprocessing, operator, os, time
from distill.filters.parallel.pool import open_pool
with open_pool(2) as pool:
    list(pool.over(operator.call, [os.getpid] * 40))
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)
"""  # no `if __name__ == "__main__"` is needed


def test_workers_end_when_their_feeder_is_killed():
    feeder = subprocess.Popen([sys.executable, "-c", FEEDER], stdout=subprocess.PIPE, text=True)
    assert feeder.stdout is not None
    workers = {int(pid) for pid in feeder.stdout.readline().split()}
    assert len(workers) == 2
    assert all(_alive(pid) for pid in workers)
    feeder.kill()
    feeder.wait()
    end = time.monotonic() + 60
    while any(_alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in workers)


def _alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _divide(by: int) -> float:
    return 1 / by


def _doubled(data: bytes) -> bytes:
    return 2 * data


def _pid(_: int) -> int:
    return os.getpid()


@pytest.mark.parametrize(
    ("rows", "chain", "processes"),
    [
        (3_000, [{"kind": "pii"}], 1),
        (3_000_000, [{"kind": "pii"}], 4),
        (60_000, [{"kind": "exact"}], 1),  # half a minute of text, and nothing to do with it
        (60_000, [{"kind": "exact"}, {"kind": "language", "languages": ["en"]}], 4),
        (400_000, [{"kind": "minhash"}, {"kind": "decontaminate"}], 4),  # what is read is parsed
        (200_000, [{"kind": "minhash", "keep": "longest"}, {"kind": "language", "languages": ["en"]}], 1),  # all here
    ],
)
def test_processes_are_started_where_they_pay(tmp_path, monkeypatch, rows, chain, processes):
    monkeypatch.setattr(choice, "cores", lambda: 4)
    source = tmp_path / "rows.jsonl"
    line = b'{"prompt": "%s"}\n' % (b"word " * 100)
    with source.open("wb") as file:
        file.write(line * 2500)
        file.truncate(len(line) * rows)  # the rest is not looked at
    assert choice.fitting(source, steps(*chain)) == processes
    monkeypatch.setattr(choice, "cores", lambda: 1)
    assert choice.fitting(source, steps(*chain)) == 1


def test_a_parquet_file_is_measured_as_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "cores", lambda: 4)
    source = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": [f"{n} " + "the same words " * 40 for n in range(40_000)]}), source)
    assert choice.fitting(source, steps({"kind": "language", "languages": ["en"]})) == 4
    assert choice.fitting(source, steps({"kind": "score", "column": "n", "min": 1})) == 1
    assert choice.fitting(tmp_path / "absent.parquet", steps({"kind": "pii"})) == 1


def _refuse(path: Path) -> None:
    raise InputError("wrong", path=path, line=7, hint="mend it")


def _die(code: int) -> None:
    import os

    os._exit(code)


def test_which_steps_may_be_done_anywhere(tmp_path):
    chain = steps({"kind": "length", "min_chars": 1}, {"kind": "exact"}, {"kind": "minhash"}, {"kind": "pii"})
    segments = cut(chain, build_chain(chain, FilterContext(folder=tmp_path)))
    assert [(list(each.span), each.anywhere, each.prepares) for each in segments] == [
        ([0], True, (1,)),
        ([1, 2], False, ()),
        ([3], True, ()),
    ]


def test_no_batch_depends_on_what_was_prepared():
    exact = build_chain(steps({"kind": "exact"})).steps[0]
    rows = pa.table({"id": list("abc"), "prompt": ["One", "one", ""], "response": ["x", "X!", ""]})
    other = build_chain(steps({"kind": "exact"})).steps[0]
    assert exact.judge(rows).matched_id == other.judge_prepared(rows, exact.prepare(rows)).matched_id == ["", "a", ""]
