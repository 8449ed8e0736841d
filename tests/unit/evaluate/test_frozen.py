"""A holdout that was trained against stays what it was, or becomes another version."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from distill.errors import InputError, RunError
from distill.evaluate.frozen import Frozen, freeze
from distill.evaluate.holdout import read_holdout


def write(folder: Path, **answers: str) -> Path:
    path = folder / "test.jsonl"
    rows = [{"id": i, "messages": [{"role": "user", "content": i}], "answer": a} for i, a in answers.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def frozen(file: Path, workspace: Path, *, new: bool = False) -> Frozen:
    day = datetime(2026, 11, 22, tzinfo=UTC)
    return freeze(read_holdout(file), file, workspace, new_version=new, now=lambda: day)


def test_the_first_training_freezes_and_later_ones_find_the_same(tmp_path: Path) -> None:
    file = write(tmp_path, a="1", b="2")
    first = frozen(file, tmp_path)
    assert (first.version, first.items, first.new) == (1, 2, True)
    again = frozen(file, tmp_path)
    assert (again.version, again.new) == (1, False)
    file.touch()  # the file's time says nothing, nor does its layout
    file.write_text(file.read_text().replace('": "', '":"'))
    assert frozen(file, tmp_path).version == 1


def test_a_change_is_refused_and_named(tmp_path: Path) -> None:
    frozen(write(tmp_path, a="1", b="2", c="3"), tmp_path)
    with pytest.raises(InputError) as caught:
        frozen(write(tmp_path, a="1", b="x", d="4"), tmp_path)
    said = str(caught.value)
    assert "when version 1 was frozen on 2026-11-22: 1 changed (b); 1 gone (c); 1 new (d)" in said
    assert "--new-holdout-version" in said
    with pytest.raises(InputError, match="the items are in another order"):
        frozen(write(tmp_path, c="3", b="2", a="1"), tmp_path)


def test_a_change_that_is_meant_is_a_new_version(tmp_path: Path) -> None:
    frozen(write(tmp_path, a="1"), tmp_path)
    changed = write(tmp_path, a="2")
    assert frozen(changed, tmp_path, new=True).version == 2
    assert frozen(changed, tmp_path).version == 2
    with pytest.raises(InputError, match="version 2"):
        frozen(write(tmp_path, a="1"), tmp_path)
    # Back to what it was: the old version, not a third one.
    assert frozen(write(tmp_path, a="1"), tmp_path, new=True).version == 1


def test_labels_count_and_files_do_not_mix(tmp_path: Path) -> None:
    file = write(tmp_path, a="1")
    frozen(file, tmp_path)
    row = json.loads(file.read_text())
    file.write_text(json.dumps({**row, "difficulty": "hard"}))
    with pytest.raises(InputError, match="1 changed"):
        frozen(file, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    assert frozen(write(other, z="1"), tmp_path).version == 1


def test_damaged_books_are_not_taken_for_none(tmp_path: Path) -> None:
    file = write(tmp_path, a="1")
    frozen(file, tmp_path)
    (tmp_path / ".distill/holdouts.json").write_text('{"test.jsonl": [1]}')
    with pytest.raises(RunError, match="damaged"):
        frozen(file, tmp_path)
