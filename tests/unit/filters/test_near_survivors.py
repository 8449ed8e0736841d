from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import InputError
from distill.filters import build_chain, filter_file
from distill.recipe import FilterStep, parse

STORY = "the lamp on the harbour wall went out at midnight and nobody in the small town noticed it until the boats came"
LONGER = STORY + " home late"
BEST = {"keep": "best", "score": "judge"}
OTHER = "my bank card was swallowed by the machine in the station hall this morning and I need the cash for a long trip"


def steps(*values: dict[str, Any]) -> tuple[FilterStep, ...]:
    return parse(tuple[FilterStep, ...], list(values))


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(source: Path, out: Path, *values: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Ids kept, and whom each dropped row repeats."""
    filter_file(source, steps(*values), out)
    dropped = pq.read_table(out / "rejected.parquet").to_pylist()
    kept = pq.read_table(out / "kept.parquet").column("id").to_pylist()
    return kept, {row["id"]: row["matched_id"] for row in dropped}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write(
        tmp_path / "rows.jsonl",
        {"id": "a", "text": STORY, "judge": 0.5},
        {"id": "b", "text": OTHER, "judge": None},
        {"id": "c", "text": LONGER, "judge": 0.1},
        {"id": "d", "text": STORY.upper(), "judge": 0.9},
    )


def test_the_declared_row_of_a_group_survives(rows: Path, tmp_path: Path) -> None:
    assert run(rows, tmp_path / "1", {"kind": "minhash"}) == (["a", "b"], {"c": "a", "d": "a"})
    longest = {"kind": "minhash", "keep": "longest"}
    assert run(rows, tmp_path / "2", longest) == (["b", "c"], {"a": "c", "d": "c"})
    best = {"kind": "minhash", "keep": "best", "score": "judge"}
    assert run(rows, tmp_path / "3", best) == (["b", "d"], {"a": "d", "c": "d"})
    exact = {"kind": "exact", "keep": "best", "score": "judge"}
    assert run(rows, tmp_path / "4", exact, best) == (["b", "d"], {"a": "d", "c": "d"})


def test_rows_of_equal_rank_stay_in_the_order_of_the_file(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", *({"id": str(n), "text": STORY, "judge": 1} for n in range(9)))
    best = {"kind": "exact", "keep": "best", "score": "judge"}
    assert run(source, tmp_path / "out", best)[0] == ["0"]


def test_survivors_that_cannot_be_had_are_refused(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="score: names the column"):
        steps({"kind": "minhash", "keep": "best"})
    with pytest.raises(InputError, match="no column nosuch"):
        run(rows, tmp_path / "1", {"kind": "minhash", "keep": "best", "score": "nosuch"})
    with pytest.raises(InputError, match="not numbers"):
        run(rows, tmp_path / "2", {"kind": "minhash", "keep": "best", "score": "text"})
    with pytest.raises(InputError, match="the same row"):
        run(rows, tmp_path / "3", {"kind": "exact", "keep": "longest"},
            {"kind": "minhash", "keep": "best", "score": "judge"})  # fmt: skip
    with pytest.raises(InputError, match="the same row"):  # in a run, too
        build_chain(steps({"kind": "exact", "keep": "longest"}, {"kind": "minhash"}, {"kind": "minhash", **BEST}))


@pytest.mark.parametrize("kind", ["exact", "minhash"])
def test_rows_of_other_datasets_must_not_come_again(kind: str, rows: Path, tmp_path: Path) -> None:
    write(tmp_path / "old.jsonl", {"body": "nothing like it"}, {"body": OTHER})
    step = {"kind": kind, "against": [{"path": str(tmp_path / "old.jsonl"), "field": "body"}]}
    kept, dropped = run(rows, tmp_path / "out", step)
    assert "b" not in kept
    assert dropped["b"] == "old:line-2"
    with pytest.raises(InputError, match="field"):
        run(
            rows,
            tmp_path / "out",
            {"kind": kind, "fields": ["text"], "against": [{"path": str(tmp_path / "old.jsonl")}]},
        )


@pytest.mark.parametrize("kind", ["exact", "minhash"])
def test_a_later_run_knows_what_an_earlier_one_kept(kind: str, rows: Path, tmp_path: Path) -> None:
    step = {"kind": kind, "fields": ["text"], "index": str(tmp_path / "kept.index.parquet")}
    old = write(tmp_path / "old.jsonl", {"id": "z", "text": "a row of another dataset"})
    first, _ = run(rows, tmp_path / "1", {**step, "against": [{"path": str(old)}]})
    index = pq.read_table(tmp_path / "kept.index.parquet")
    assert index.column("id").to_pylist() == first  # not the other dataset's
    again = write(tmp_path / "more.jsonl", {"id": "x", "text": OTHER}, {"id": "y", "text": "quite another matter"})
    assert run(again, tmp_path / "2", step) == (["y"], {"x": "b"})
    assert run(again, tmp_path / "3", step) == ([], {"x": "b", "y": "y"})
    with pytest.raises(InputError, match="no index of a"):
        run(again, tmp_path / "4", {**step, "fields": ["id"]})
    (tmp_path / "kept.index.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="cannot be read as an index"):
        run(again, tmp_path / "5", step)


def test_the_report_says_how_near_duplicates_are_found(rows: Path, tmp_path: Path) -> None:
    report = filter_file(rows, steps({"kind": "minhash"}), tmp_path / "out").as_json()["calibrated"]["minhash"]
    assert (report["bands"], report["rows_of_a_band"]) == (22, 5)
    assert report["expected_recall"]["0.7"] == pytest.approx(0.9825, abs=0.0001)
    assert report["shingles"] == "5 characters; 3 words over 300 words"
    assert report["long_rows"] == 0


def test_the_words_of_a_template_can_be_left_out_of_account(tmp_path: Path) -> None:
    frame = " ".join(f"frame{n * n}part{n * 37}" for n in range(70))
    rng = random.Random(3)
    own = [" ".join(f"w{rng.randrange(10**5)}" for _ in range(8)) for _ in range(30)]
    source = write(
        tmp_path / "rows.jsonl",
        *({"id": str(n), "text": f"{frame} {text}"} for n, text in enumerate(own)),
        {"id": "again", "text": f"{frame} {own[3]} yes"},
        {"id": "frame", "text": frame},
        {"id": "frame again", "text": frame},
    )
    kept, _ = run(source, tmp_path / "1", {"kind": "minhash"})
    assert kept == ["0"]
    kept, dropped = run(source, tmp_path / "2", {"kind": "minhash", "ignore_common": 0.5})
    assert kept == [*(str(n) for n in range(30)), "frame"]
    assert dropped == {"again": "3", "frame again": "frame"}


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_run_learns_the_words_of_a_template_from_the_rows_that_have_come(size: int) -> None:
    frame = " ".join(f"frame{n * n}part{n * 37}" for n in range(70))
    rng = random.Random(3)
    own = [" ".join(f"w{rng.randrange(10**5)}" for _ in range(8)) for _ in range(40)]
    texts = [*(f"{frame} {text}" for text in own), f"{frame} {own[3]}", f"{frame} {own[38]} yes"]
    texts.insert(5, texts[2])
    rows = pa.table({"id": [str(n) for n in range(len(texts))], "text": texts})

    def lost(step: dict[str, Any]) -> dict[str, str]:
        chain = build_chain(steps(step))
        found: dict[str, str] = {}
        for first in range(0, rows.num_rows, size):
            said = chain.judge(rows.slice(first, size))
            found |= {str(first + n): each for n, each in enumerate(said.matched_id) if not said.keep[n]}
        return found

    assert len(lost({"kind": "minhash"})) == len(texts) - 1
    assert lost({"kind": "minhash", "ignore_common": 0.5}) == {"5": "2", "41": "3", "42": "39"}
