"""Files are whole or absent; JSON is strict; what was written reads back equal."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import InputError, UnreadableText
from distill.io import atomic_path, canonical, check_text, digest, loads, read_jsonl, write_jsonl, write_text
from distill.io.redact import RedactingFilter, Redactor
from distill.io.yamlfile import read_yaml

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text(str(1 // 0))
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@given(values)
def test_canonical_json_reads_back_and_is_stable(value: object) -> None:
    data = canonical(value)
    assert loads(data) == value
    assert canonical(loads(data)) == data


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})
    assert digest({"model": "m", "n": 1}) == "46263ddf4cb4285ec6a7cc95d92f4d7f"


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": 1, "a": 2}', '"\\ud800"', "{", "", '{"a": 1} x'])
def test_what_json_forbids_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


def test_a_lone_surrogate_is_refused_by_name() -> None:
    check_text("fine: \u2028 and \x00 and 😀")
    with pytest.raises(UnreadableText, match="ud83d"):
        check_text("half \ud83d")
    with pytest.raises(UnreadableText):
        canonical({"a": "\ud83d"})


def test_line_separators_do_not_end_a_line(tmp_path: Path) -> None:
    rows = [{"text": "a\u2028b\u0085c\x0bd"}, {"text": "e\r\nf"}]
    assert write_jsonl(tmp_path / "x.jsonl", rows) == 2
    assert [row for _, row in read_jsonl(tmp_path / "x.jsonl")] == rows


@pytest.mark.parametrize(
    ("line", "said"), [('{"a": ', "not valid JSON"), ("[1]", "not a JSON object"), ('{"a":1,"a":2}', "stands twice")]
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"ok": 1}\n\n' + line + "\n")
    with pytest.raises(InputError, match=rf"x\.jsonl:3: .*{said}"):
        list(read_jsonl(path))


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(InputError, match=r"x\.jsonl:1"):
        list(read_jsonl(path))


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    assert [row for _, row in read_jsonl(path)] == [{"a": 1}]


def test_yaml_knows_its_lines_and_refuses_a_key_twice(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a:\n  - b: 1\n    c: 2\n")
    value, lines = read_yaml(path)
    assert value == {"a": [{"b": 1, "c": 2}]}
    assert lines["a", 0, "c"] == 3
    path.write_text("a: 1\nb: 2\na: 3\n")
    with pytest.raises(InputError, match=r"x\.yaml:3: a: the key stands twice"):
        read_yaml(path)
    path.write_text("a: [1\n")
    with pytest.raises(InputError, match=r"x\.yaml:2: not valid YAML"):
        read_yaml(path)
    path.write_text("a:\n  b: 1\n\tc: 2\n")
    with pytest.raises(InputError, match=r"x\.yaml:3: not valid YAML: a tab where only spaces may stand"):
        read_yaml(path)
    for number in ("9223372036854775807", "-0x7fff_ffff", "1e400"):
        path.write_text(f"a: {number}\n")
        read_yaml(path)
    path.write_text("a: 1\nb: [2, -9223372036854775809]\n")
    with pytest.raises(InputError, match=r"x\.yaml:2: b\.1: a number of more than 64 bits"):
        read_yaml(path)
    path.write_text("a: !!python/object/apply:os.system [id]\n")
    with pytest.raises(InputError, match="not valid YAML"):
        read_yaml(path)


def test_secrets_are_masked_in_texts_values_and_log_records(caplog: pytest.LogCaptureFixture) -> None:
    redact = Redactor(("sk-secret", "sk-secret-longer"))
    assert redact("use sk-secret-longer now") == "use *** now"
    assert redact.value({"a": ["sk-secret", 1], "sk-secret": None}) == {"a": ["***", 1], "***": None}
    logger = logging.getLogger("test.redact")
    masking = RedactingFilter(redact)
    logger.addFilter(masking)
    try:
        raise ValueError("sk-secret in an exception")
    except ValueError:
        logger.exception("failed with %s", "sk-secret")
    record = caplog.records[-1]
    assert "sk-secret" not in record.getMessage() + str(record.exc_text) + str(record.exc_info)
