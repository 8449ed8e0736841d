"""Files that hold what no one meant: every row is kept, rejected, or named with its line."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import InputError
from distill.filters import filter_file
from distill.recipe import FilterStep, parse

EXACT = parse(tuple[FilterStep, ...], [{"kind": "exact", "fields": ["prompt"]}])


def skipping(source, tmp_path, **options):
    report = filter_file(source, EXACT, tmp_path / "out", on_error="skip", **options)
    assert report.read == report.kept + report.rejected_total + report.invalid
    return report


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_one_odd_row_at_the_top_does_not_make_the_others_odd(tmp_path):
    source = lines(
        tmp_path / "in.jsonl", {"prompt": 1}, {"prompt": "a", "n": 1}, {"prompt": "b"}, {"prompt": "c", "m": []}
    )
    with pytest.raises(InputError, match=r"in\.jsonl:1: prompt: whole number here, text in other rows"):
        filter_file(source, EXACT, tmp_path / "out")
    report = skipping(source, tmp_path)
    assert (report.kept, report.invalid) == (3, 1)
    assert pq.read_table(report.kept_path).column_names == ["prompt", "n", "m", "id"]


def test_every_bad_row_is_named_once_and_in_order(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt":"a","n":1}\n{\n{"prompt":"b","n":"x"}\n{"prompt":"c","n":2}\n{"prompt":["d"]}\n')
    report = skipping(source, tmp_path)
    assert sorted(problem.split(": ")[0] for problem in report.problems) == ["in.jsonl:2", "in.jsonl:3", "in.jsonl:5"]
    assert report.kept == 2


def test_a_name_given_to_a_row_clashes_with_no_id(tmp_path):
    source = lines(tmp_path / "in.jsonl", {"prompt": "a", "id": "line-2"}, {"prompt": "b"}, {"prompt": "c", "id": "x"})
    report = filter_file(source, EXACT, tmp_path / "out")
    assert pq.read_table(report.kept_path).column("id").to_pylist() == ["line-2", "line-2_", "x"]


def test_columns_that_have_even_the_other_names_of_the_verdicts(tmp_path):
    row = {"prompt": "a", "filter": "x", "distill_filter": "y"}
    report = skipping(lines(tmp_path / "in.jsonl", row, row), tmp_path)
    rejected = pq.read_table(report.rejected_path).to_pylist()
    assert (rejected[0]["filter"], rejected[0]["distill_filter"]) == ("x", "y")
    assert rejected[0]["distill_distill_filter"] == "exact"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("in.json", b'[\n{"prompt": "a"}\n]\n', r"in\.json:1: a JSON array, not one object a line"),
        ("in.jsonl", b'[{"prompt": "a"}]', r"in\.jsonl:1: a JSON array"),
        ("in.jsonl", '{"prompt": "a"}\n'.encode("utf-16"), r"in\.jsonl: the text is UTF-16"),
        ("in.csv", b"pro\xffmpt,id\na,1\n", r"in\.csv:1: the header is not UTF-8"),
    ],
)
def test_files_of_another_kind_say_which(tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=why):
        filter_file(tmp_path / name, EXACT, tmp_path / "out")


def test_a_broken_header_is_not_replaced_by_the_first_row(tmp_path):
    (tmp_path / "in.csv").write_bytes(b"pro\xffmpt,id\na,1\n")
    with pytest.raises(InputError, match="the header"):
        skipping(tmp_path / "in.csv", tmp_path)


def test_parquet_rows_that_are_not_utf8_are_skipped_alone(tmp_path):
    offsets, data = pa.array([0, 1, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xffc")
    pq.write_table(pa.table({"prompt": pa.StringArray.from_buffers(3, offsets, data)}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match=r"in\.parquet:2: not UTF-8"):
        filter_file(tmp_path / "in.parquet", EXACT, tmp_path / "out")
    report = skipping(tmp_path / "in.parquet", tmp_path)
    assert report.problems == ["in.parquet:2: not UTF-8"]
    assert pq.read_table(report.kept_path).column("id").to_pylist() == ["row-1", "row-3"]


@pytest.mark.parametrize("depth", [100, 400, 900, 100_000])
def test_nesting_of_any_depth_is_read_or_named(tmp_path, depth):
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt":"a"}\n{"prompt":"b","x":' + "[" * depth + "]" * depth + '}\n{"prompt":"c"}\n')
    report = skipping(source, tmp_path)
    assert report.kept + report.invalid == 3
    assert report.kept >= 2
    assert not report.problems or report.problems[0].startswith("in.jsonl:2: ")
