"""Files that hold what no one meant: every row is kept, rejected, or named with its line."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import InputError
from distill.filters import FilterContext, filter_file
from distill.filters.text import texts
from distill.recipe import EvalSet, FilterStep, parse

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


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("in.jsonl.gz", b"", r"compressed.*\n.*gunzip"),
        ("in.jsonl", b"\x1f\x8b\x08\x00rest", r"in\.jsonl: gzip data, not text.*\n.*gunzip"),
        ("in.csv", b"\x28\xb5\x2f\xfdrest", r"in\.csv: zstd data, not text"),
        ("in.jsonl", b"PAR1 and so on", r"in\.jsonl: Parquet data, not text\n.*\.parquet"),
        ("in.jsonl", b'[{"prompt": "a"}]', r"a JSON array, not one object a line\n.*jq -c"),
        ("in.json", b'[\n {"prompt": "a"}\n]', r"a JSON array, not one object a line\n.*jq -c"),
    ],
)
def test_the_way_out_of_another_kind_of_file_is_named(tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=why):
        filter_file(tmp_path / name, EXACT, tmp_path / "out")


def test_what_a_step_lacks_is_told_with_file_step_and_nearest_name(tmp_path):
    source = lines(tmp_path / "in.jsonl", {"prompt": "a", "response": "b"})
    chain = parse(tuple[FilterStep, ...], [{"kind": "length", "min_chars": 1}, {"kind": "exact", "fields": ["promt"]}])
    with pytest.raises(InputError, match=r"in\.jsonl: exact: fields: no column promt; did you mean prompt\?"):
        filter_file(source, chain, tmp_path / "out")
    chain = parse(tuple[FilterStep, ...], [{"kind": "code"}])
    with pytest.raises(InputError, match=r"in\.jsonl: code: fields: no column response"):
        filter_file(lines(tmp_path / "in.jsonl", {"prompt": "a"}), chain, tmp_path / "out")
    chain = parse(tuple[FilterStep, ...], [{"kind": "score", "column": "q", "min": 1}])
    with pytest.raises(InputError, match=r"in\.jsonl: score: column: no column q"):
        filter_file(source, chain, tmp_path / "out")
    with pytest.raises(InputError, match=r"regex: must\.0: not an expression"):
        filter_file(source, parse(tuple[FilterStep, ...], [{"kind": "regex", "must": ["("]}]), tmp_path / "out")


def test_a_column_of_nothing_but_nulls_is_a_field_that_no_row_has(tmp_path):
    pq.write_table(pa.table({"prompt": pa.nulls(2), "n": [1, 2]}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match=r"in\.parquet:1: no prompt"):
        filter_file(tmp_path / "in.parquet", EXACT, tmp_path / "out")
    assert skipping(tmp_path / "in.parquet", tmp_path).invalid == 2


def test_views_of_text_are_text(tmp_path):
    values = ["mail ann@example.org", "b", "b"]
    table = pa.table(
        {
            "prompt": pa.array(values, pa.string_view()),
            "tags": pa.array([["x"], ["y"], ["y"]], pa.list_(pa.string_view())),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    chain = parse(tuple[FilterStep, ...], [{"kind": "exact", "fields": ["prompt"]}, {"kind": "pii"}])
    report = filter_file(tmp_path / "in.parquet", chain, tmp_path / "out")
    assert (report.kept, report.rejected_total) == (2, 1)
    assert pq.read_table(report.kept_path).column("prompt").to_pylist() == ["mail [EMAIL_1]", "b"]
    assert pq.read_table(report.kept_path).column("tags").to_pylist() == [["x"], ["y"]]


def test_turns_may_hold_parts(tmp_path):
    def row(text):
        parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": "x.png"}}]
        answer = [{"type": "text", "text": "An answer"}, {"type": "text", "text": "in two parts"}]
        return {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]}

    source = lines(tmp_path / "in.jsonl", row("What is it?"), row("what is it"), row("And this?"))
    report = filter_file(source, EXACT, tmp_path / "out")
    assert (report.kept, report.rejected_total) == (2, 1)
    whole = pq.read_table(report.kept_path)
    assert texts(whole, ("response",)) == ["An answer\nin two parts"] * 2
    assert texts(whole, ("prompt",)) == ["What is it?", "And this?"]


def test_a_decontaminating_step_without_eval_sets_says_so(tmp_path):
    source = lines(tmp_path / "in.jsonl", {"prompt": "a"})
    report = filter_file(source, parse(tuple[FilterStep, ...], [{"kind": "decontaminate"}]), tmp_path / "out")
    assert any("decontaminate: no eval set is named" in note for note in report.notes)
    lines(tmp_path / "eval.jsonl", {"prompt": "q of the set"})
    context = FilterContext(folder=tmp_path, eval_sets=[EvalSet(path="eval.jsonl")])
    with pytest.raises(InputError, match=r"no step compares rows with the eval sets that are given"):
        filter_file(source, EXACT, tmp_path / "out", context=context)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"kind": "length", "min_chars": 10, "max_chars": 5}, "min_chars: is greater than max_chars"),
        ({"kind": "length", "min_words": 10, "max_words": 5}, "min_words: is greater than max_words"),
        ({"kind": "language", "languages": ["xx"]}, "languages: no such language: xx"),
        ({"kind": "language", "languages": ["en", "english"]}, "not a language code: english"),
    ],
)
def test_steps_that_would_reject_every_row_are_refused(tmp_path, step, why):
    source = lines(tmp_path / "in.jsonl", {"prompt": "a"})
    with pytest.raises(InputError, match=why):
        filter_file(source, parse(tuple[FilterStep, ...], [step]), tmp_path / "out")


def test_turns_of_large_strings_are_joined(tmp_path):
    turn = pa.struct([("role", pa.large_string()), ("content", pa.large_string())])
    said = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    row = [{"role": role, "content": content} for role, content in said]
    pq.write_table(pa.table({"messages": pa.array([row, row], pa.list_(turn))}), tmp_path / "in.parquet")
    report = filter_file(tmp_path / "in.parquet", EXACT, tmp_path / "out")
    assert (report.kept, report.rejected_total) == (1, 1)
    assert texts(pq.read_table(report.kept_path), ("prompt",)) == ["a\nc"]
