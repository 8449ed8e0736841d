"""Files that filters of a run read and leave: an index for the next run, what was calibrated and found."""

from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq

from distill.errors import InputError
from tests.support.sessions import session
from tests.support.workspaces import rehearsal

STEP = {"kind": "exact", "fields": ["prompt"], "index": "known.parquet"}


async def test_what_a_run_kept_is_known_to_the_next_one(tmp_path):
    first = await session(rehearsal(tmp_path, filters=[STEP]))
    index = first.path / "index" / "exact.parquet"
    assert pq.read_table(index).num_rows == first.told["kept"] == 12
    assert not (tmp_path / "known.parquet").exists(), "a resumed run must find its inputs as they were"
    again = await session(rehearsal(tmp_path, filters=[STEP]), run=first.path)
    assert again.told["kept"] == 12, "a run does not meet its own index"

    step = STEP | {"index": str(index)}
    second = await session(rehearsal(tmp_path, filters=[step]), run=tmp_path / "runs" / "second")
    assert second.told["rejected"]["exact"]["duplicate"] == 12, "the same slots make the same rows, and others follow"
    assert second.told["kept"] == 12
    known = pq.read_table(second.path / "index" / "exact.parquet")["id"].to_pylist()
    rows = [pq.read_table(ended.path / "rows.parquet")["id"].to_pylist() for ended in (first, second)]
    assert {*rows[0], *rows[1]} <= {*known}


async def test_a_run_is_not_continued_with_another_index(tmp_path):
    first = await session(rehearsal(tmp_path, filters=[STEP]))
    shutil.copy(first.path / "index" / "exact.parquet", tmp_path / "known.parquet")
    again = await session(rehearsal(tmp_path, filters=[STEP]), run=first.path)
    assert isinstance(again.error, InputError)
    assert "other inputs" in str(again.error)


async def test_the_figures_of_a_run_tell_what_filters_found(tmp_path):
    (tmp_path / "eval.jsonl").write_text(json.dumps({"question": "Write one customer message about cards"}) + "\n")
    filters = [{"kind": "decontaminate", "against": [{"path": "eval.jsonl", "name": "ours"}]}, {"kind": "pii"}]
    ended = await session(rehearsal(tmp_path, filters=filters))
    found = json.loads((ended.path / "decontamination.json").read_text())["decontaminate"]["ours"]
    assert found["items"] == 1
    assert found["contaminated_rows"] == sum(ended.told["rejected"].get("decontaminate", {}).values())
