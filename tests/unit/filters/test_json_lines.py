"""However a file is cut into blocks, its lines are the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.filters import json_lines
from distill.filters.reading import open_source

LINES = st.lists(
    st.sampled_from(
        [b'{"a": 1}', b'{"a": "text"}', b'{"b": [1, 2], "a": 7}', b"", b"  ", b"[1]", b"{", b'{"a": "\xff"}',
         '{"a": "é\u2028", "c": {"x": null}}'.encode(), b'{"a": 1.5, "a": 2}', b'{"n": 99999999999999999999}']
    ),
    max_size=14,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(LINES, st.integers(1, 60), st.booleans(), st.booleans())
def test_blocks_change_nothing(tmp_path_factory, lines, block, bom, end):
    path = tmp_path_factory.mktemp("blocks") / "in.jsonl"
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + b"\n".join(lines) + (b"\n" if end else b""))

    def everything():
        told: list[tuple[int, str]] = []
        source = open_source(path, lambda place, why: told.append((place, why)))
        batches = list(source.batches())
        places = [place for batch in batches for place in batch.places]
        rows = [row for batch in batches for row in batch.originals or ()]
        return told, source.schema, places, rows, [row for batch in batches for row in batch.table.to_pylist()]

    whole = everything()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "BLOCK", block)
        assert everything() == whole
    assert len(whole[0]) + len(whole[3]) == sum(bool(line.strip()) for line in lines)


def test_a_line_over_many_blocks_is_skipped_once(tmp_path, monkeypatch):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "' + b"x" * 500 + b'"}\n{"a": 3}\n')
    monkeypatch.setattr(json_lines, "MAX_LINE", 100)
    monkeypatch.setattr(json_lines, "BLOCK", 64)
    told: list[tuple[int, str]] = []
    source = open_source(path, lambda place, why: told.append((place, why)))
    rows = [row for batch in source.batches() for row in batch.originals or ()]
    assert rows == [{"a": 1}, {"a": 3}]
    assert [place for place, _ in told] == [2]


def test_what_was_found_once_is_found_again_without_reading(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": [{"x": null}], "s": {"k": "v"}}\n{"a": 1}\n{broken\n')
    told: list[tuple[int, str]] = []
    found = json_lines.layout(path, frozenset(), lambda place, why: told.append((place, why)))
    again = json_lines.Layout.of_json(json.loads(json.dumps(found.as_json())))
    assert again == found
    assert [batch.table for batch in json_lines.read(path, again)] == [b.table for b in json_lines.read(path, found)]
    assert [place for place, _ in told] == [3]
