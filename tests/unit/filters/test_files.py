from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import InputError
from distill.filters import filter_file
from distill.filters.reading import MAX_LINE
from distill.recipe import FilterStep, parse

EXACT = parse(tuple[FilterStep, ...], [{"kind": "exact", "fields": ["prompt"]}])
LINES = [
    {"prompt": "Where is my card?", "n": 1, "tags": ["a"], "meta": {"x": 1}},
    {"prompt": "where is my card", "n": 2.5, "meta": {"y": None}},
    {"prompt": "Another\u2028thing", "n": None, "tags": []},
]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def run(source, tmp_path, steps=EXACT, **options):
    report = filter_file(source, steps, tmp_path / "out", **options)
    assert report.read == report.kept + report.rejected_total + report.invalid
    kept, rejected = pq.read_table(report.kept_path), pq.read_table(report.rejected_path)
    assert (kept.num_rows, rejected.num_rows) == (report.kept, report.rejected_total)
    return report, kept, rejected


def test_columns_stay_in_order_and_rejected_rows_say_why(tmp_path):
    report, kept, rejected = run(jsonl(tmp_path / "in.jsonl", LINES), tmp_path)
    assert kept.column_names == ["prompt", "n", "tags", "meta", "id"]
    assert rejected.column_names == [*kept.column_names, "filter", "reason", "evidence", "matched_id", "score"]
    assert rejected.to_pylist() == [
        {
            "prompt": "where is my card", "n": 2.5, "tags": None, "meta": {"x": None, "y": None}, "id": "line-2",
            "filter": "exact", "reason": "duplicate", "evidence": "where is my card",
            "matched_id": "line-1", "score": 1.0,
        }
    ]  # fmt: skip
    assert kept.column("prompt").to_pylist() == ["Where is my card?", "Another\u2028thing"]
    value = report.as_json()
    assert (value["in"], value["kept"], value["invalid"]) == (3, 2, 0)
    assert value["rejected"] == {"exact": {"duplicate": 1}}
    assert value["cpu_seconds"] >= 0
    assert value["peak_mb"] > 0


def test_json_rows_leave_as_they_came(tmp_path):
    source = jsonl(tmp_path / "in.jsonl", LINES)
    report = filter_file(source, EXACT, tmp_path / "out", format="jsonl")
    kept = [json.loads(line) for line in report.kept_path.read_bytes().split(b"\n")[:-1]]
    assert kept == [{**LINES[0], "id": "line-1"}, {**LINES[2], "id": "line-3"}]
    rejected = json.loads(report.rejected_path.read_text())
    assert rejected["reason"] == "duplicate"
    assert "tags" not in rejected


def test_parquet_and_csv(tmp_path):
    table = pa.table({"id": pa.array([7, 8, None]), "prompt": pa.array(["a", "A", "b"], pa.large_string())})
    pq.write_table(table, tmp_path / "in.parquet")
    _, kept, rejected = run(tmp_path / "in.parquet", tmp_path)
    assert kept.schema == table.schema  # ids keep their type
    assert rejected.column("matched_id").to_pylist() == ["7"]
    (tmp_path / "in.csv").write_bytes(b'\xef\xbb\xbfid,prompt\r\n1,"a, b\nc"\r\n,x\r\n')
    _, kept, _ = run(tmp_path / "in.csv", tmp_path)
    assert kept.to_pylist() == [{"id": "1", "prompt": "a, b\nc"}, {"id": "line-4", "prompt": "x"}]


BAD = [
    ('{"prompt": "x"', "not valid JSON"),
    ("[1]", "not a JSON object"),
    ('{"prompt": "x", "n": "text"}', "n: text here, whole number in earlier rows"),
    ('{"prompt": "x", "m": {"k": [1]}}', r"m\.k\[\]: whole number here, text in earlier rows"),
    ('{"n": 3}', "no prompt"),
    ('{"prompt": null, "n": 3}', "no prompt"),
    ('{"prompt": "x", "prompt": "y"}', "the key 'prompt' stands twice"),
    ('{"prompt": "x", "n": NaN}', "not valid JSON"),
    ('{"prompt": "\\ud800"}', "not valid JSON"),
    ('{"prompt": "x", "n": 99999999999999999999}', "not valid JSON|does not fit"),
    ('{"prompt": "x", "id": "a"}', "the id 'a' came before"),
]


@pytest.mark.parametrize(("line", "why"), BAD)
def test_a_bad_line_is_named_and_the_rest_goes_on_when_asked(tmp_path, line, why):
    source = tmp_path / "in.jsonl"
    good = '{"prompt": "first", "n": 1, "id": "a", "m": {"k": ["t"]}}'
    source.write_text(f'{good}\n\n{line}\n{{"prompt": "last", "n": 2, "id": "z"}}\n')
    with pytest.raises(InputError, match=rf"in\.jsonl:3: .*({why})"):
        filter_file(source, EXACT, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
    report, kept, _ = run(source, tmp_path, on_error="skip")
    assert (report.read, report.kept, report.invalid) == (3, 2, 1)
    assert kept.column("prompt").to_pylist() == ["first", "last"]
    assert report.problems[0].startswith("in.jsonl:3: ")


def test_bytes_that_are_not_utf8(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b'{"prompt": "a"}\n{"prompt": "\xff"}\n')
    (tmp_path / "in.csv").write_bytes(b"prompt\na\n\xff\nb,c\n")
    for name, line in (("in.jsonl", 2), ("in.csv", 3)):
        with pytest.raises(InputError, match=rf"{name}:{line}: not UTF-8"):
            filter_file(tmp_path / name, EXACT, tmp_path / "out")
    report, _, _ = run(tmp_path / "in.csv", tmp_path, on_error="skip")
    assert (report.read, report.kept, report.invalid) == (3, 1, 2)
    assert report.problems[1] == "in.csv:4: 2 fields, the header has 1"


def test_a_line_too_long_is_skipped_without_being_held(tmp_path):
    source = tmp_path / "in.jsonl"
    with source.open("wb") as file:
        file.write(b'{"prompt": "a"}\n{"prompt": "')
        file.write(b"x" * (MAX_LINE + 10))
        file.write(b'"}\n{"prompt": "b"}\n')
    report, kept, _ = run(source, tmp_path, on_error="skip")
    assert kept.column("prompt").to_pylist() == ["a", "b"]
    assert "in.jsonl:2: 17 MB in one line, at most 16 MiB can be read" in report.problems


def test_columns_called_like_a_verdicts(tmp_path):
    source = jsonl(tmp_path / "in.jsonl", [{"prompt": "a", "score": 1}, {"prompt": "a", "score": 2}])
    with pytest.raises(InputError, match="columns score have the names"):
        filter_file(source, EXACT, tmp_path / "out")
    report, _, rejected = run(source, tmp_path, on_error="skip")
    assert rejected.column("score").to_pylist() == [2]
    assert rejected.column("distill_score").to_pylist() == [1.0]
    assert "distill_" in report.notes[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [("in.jsonl", b""), ("in.jsonl", b"\n \n"), ("in.csv", b""), ("in.csv", b"prompt\n"), ("in.parquet", None)],
)
def test_an_empty_file(tmp_path, name, content):
    if content is None:
        pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="holds no rows"):
        filter_file(tmp_path / name, EXACT, tmp_path / "out")
    report, kept, _ = run(tmp_path / name, tmp_path, on_error="skip")
    assert report.read == 0
    assert kept.column_names[-1] == "id"
    assert not list(tmp_path.glob("out/.*"))


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("in.txt", b"x", r"in\.txt: unknown ending \.txt"),
        ("in.parquet", b"PAR1 no", r"in\.parquet: not a Parquet file"),
        ("in.csv", b"a,a\n1,2\n", r"in\.csv:1: columns with the same name: a"),
        ("in.jsonl", b'{"text": "a"}\n', "no column nosuch"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    steps = parse(tuple[FilterStep, ...], [{"kind": "exact", "fields": ["nosuch"]}])
    with pytest.raises(InputError, match=why):
        filter_file(tmp_path / name, steps, tmp_path / "out")


def test_objects_without_keys_survive_as_text(tmp_path):
    source = jsonl(tmp_path / "in.jsonl", [{"prompt": "a", "meta": {}}, {}, {"prompt": "b"}])
    report, kept, _ = run(source, tmp_path, on_error="skip")
    assert kept.column("meta").to_pylist() == ["{}", None]
    assert report.invalid == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["prompt", "x", "y", "id"]), VALUES, max_size=4), max_size=8))
def test_whatever_the_rows_hold_none_is_lost(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    source = jsonl(folder / "in.jsonl", [{"prompt": "text"}, *rows])
    report, kept, _ = run(source, folder, on_error="skip")
    assert report.read == len(rows) + 1
    assert report.kept == kept.num_rows >= 1
