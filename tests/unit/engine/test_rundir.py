"""A run directory belongs to one writer, and a command finds the run it belongs to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill.engine.rundir import RunDir, find_run, list_runs
from distill.errors import InputError, RunLocked


def _made(workspace: Path, name: str, inputs: str) -> RunDir:
    run = RunDir(workspace / "runs" / name)
    run.write({"inputs": inputs})
    return run


def test_the_newest_run_with_the_same_inputs_is_continued(tmp_path: Path) -> None:
    for number, inputs in ((1, "x"), (2, "y"), (10, "x")):
        _made(tmp_path, f"probe-{number}", inputs)
    assert find_run(tmp_path, "probe", "x").name == "probe-10"
    assert find_run(tmp_path, "probe", "y").name == "probe-2"
    assert find_run(tmp_path, "probe", "z").name == "probe-11"
    assert find_run(tmp_path, "probe", "x", new=True).name == "probe-11"
    assert find_run(tmp_path, "other", "x").name == "other-1"


def test_recipes_whose_names_begin_alike_are_kept_apart(tmp_path: Path) -> None:
    _made(tmp_path, "probe-2-1", "x")
    assert find_run(tmp_path, "probe", "x").name == "probe-1"
    assert find_run(tmp_path, "probe-2", "x").name == "probe-2-1"


def test_runs_are_listed_by_number(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        _made(tmp_path, f"probe-{number}", "x")
    assert [run.name for run in list_runs(tmp_path)] == ["probe-1", "probe-9", "probe-10"]


def test_a_second_process_is_told_who_holds_the_run(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "runs" / "probe-1")
    with run.lock():
        script = (
            "import sys; from pathlib import Path; from distill.engine.rundir import RunDir\n"
            "with RunDir(Path(sys.argv[1])).lock(): pass"
        )
        other = subprocess.run([sys.executable, "-c", script, str(run.path)], capture_output=True, text=True)
        assert other.returncode != 0
        assert "RunLocked" in other.stderr
        assert "is being written by process" in other.stderr
    with run.lock():
        pass


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r")
    with pytest.raises(ZeroDivisionError), run.lock():
        raise ZeroDivisionError
    with run.lock(), pytest.raises(RunLocked), RunDir(tmp_path / "r").lock():
        pass


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"something": "else"}')
    with pytest.raises(InputError, match=r"run\.json: not a run of distill"):
        RunDir(tmp_path).describe()
    (tmp_path / "run.json").write_text('{"inputs": ')
    with pytest.raises(InputError, match="cannot be read"):
        RunDir(tmp_path).describe()


def test_a_lock_that_a_killed_process_left_is_taken_over_and_said(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r")
    script = (
        "import os, sys; from pathlib import Path; from distill.engine.rundir import RunDir\n"
        "with RunDir(Path(sys.argv[1])).lock(): os._exit(9)"
    )
    killed = subprocess.Popen([sys.executable, "-c", script, str(run.path)])
    assert killed.wait() == 9
    with run.lock() as before:
        assert before.startswith(f"process {killed.pid} on ")
    with run.lock() as before:  # who ends in order leaves nothing
        assert before == ""


def test_a_lock_of_another_machine_holds_while_it_shows_signs_of_life(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r")
    run.path.mkdir()
    lock = run.path / ".lock"
    lock.write_text("process 7 on faraway\n")
    with pytest.raises(RunLocked, match="process 7 on faraway: its last sign of life") as caught, run.lock():
        pass
    assert "takes the run over" in str(caught.value)
    assert lock.read_text() == "process 7 on faraway\n"
    old = lock.stat().st_mtime - 100
    os.utime(lock, (old, old))
    with run.lock() as before:
        assert before == "process 7 on faraway"
        assert f"process {os.getpid()} on" in lock.read_text()


def test_the_owner_shows_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.engine.lock._ALIVE_EVERY_S", 0.02)
    run = RunDir(tmp_path / "r")
    with run.lock():
        lock = run.path / ".lock"
        os.utime(lock, (1, 1))
        deadline = time.monotonic() + 5
        while lock.stat().st_mtime < 1e9 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lock.stat().st_mtime > 1e9
