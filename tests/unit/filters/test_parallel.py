"""Any number of processes, and any number of interruptions, give the rows that one process gives in one go."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from distill.errors import InputError, RunError
from distill.filters import FilterContext
from distill.filters.building import build_chain
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
