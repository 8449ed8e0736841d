from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import InputError
from distill.filters import build_chain, filter_file
from distill.filters.privacy.detect import GATE, Detector
from distill.filters.privacy.pii import PiiFilter
from distill.filters.privacy.secrets import entropy
from distill.recipe import FilterStep, PiiStep, parse
from distill.recipe.quality import FOUND_BY_RULE

# No value here is anybody's: cards, accounts and numbers are the ones their standards print as examples.
FOUND = [
    ("email", "write to jane.doe+news@mail.example.co.uk today", "jane.doe+news@mail.example.co.uk"),
    ("email", '{"mail":"müller@exämple.de"}', "müller@exämple.de"),
    ("phone", "ring +44 20 7946 0958 after six", "+44 20 7946 0958"),
    ("phone", "the desk is at (415) 555-2671, ask for me", "(415) 555-2671"),
    ("phone", "call me on 4155552671", "4155552671"),
    ("phone", "Phone: (123) 456-7891", "(123) 456-7891"),
    ("ip", "from 93.184.216.34 at noon", "93.184.216.34"),
    ("ip", "host 2001:db8:85a3::8a2e:370:7334 answered", "2001:db8:85a3::8a2e:370:7334"),
    ("credit_card", "card 4111 1111 1111 1111, thanks", "4111 1111 1111 1111"),
    ("credit_card", "378282246310005", "378282246310005"),
    ("iban", "pay to DE89 3704 0044 0532 0130 00 NOW PLEASE", "DE89 3704 0044 0532 0130 00"),
    ("iban", "GB82WEST12345698765432.", "GB82WEST12345698765432"),
    ("ssn", "SSN 536-90-4399", "536-90-4399"),
    ("ssn", "his social security number, 536904399,", "536904399"),
    ("national_id", "DNI 12345678Z", "12345678Z"),
    ("national_id", "codice fiscale RCCMNL83S18D969H", "RCCMNL83S18D969H"),
    ("national_id", "PESEL 44051401359", "44051401359"),
    ("national_id", "CPF 390.533.447-05", "390.533.447-05"),
    ("national_id", "NHS number 943 476 5919", "943 476 5919"),
    ("national_id", "AHV 756.9217.0769.85", "756.9217.0769.85"),
    ("credentials", "postgres://admin:hunt3r22@db.internal:5432/x", "admin:hunt3r22"),
    ("credentials", "https://api.example.org/v1?api_key=Zx81kdjf92kdq&page=2", "Zx81kdjf92kdq"),
    ("api_key", "AKIAJ4QXZ7PLM2KD3RTV", "AKIAJ4QXZ7PLM2KD3RTV"),
    ("api_key", "token ghp_16C7e42F292c6912E7710c838347Ae178B4a", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
    ("api_key", 'OPENAI_API_KEY="sk-proj-abc123DEF456ghi789JKL012"', "sk-proj-abc123DEF456ghi789JKL012"),
    ("secret", "password: Tr0ub4dor&3", "Tr0ub4dor&3"),
    ("secret", "Authorization: Bearer 7f3a9c51e08b4d2fa6c7", "7f3a9c51e08b4d2fa6c7"),
    ("secret", "db_secret_key = 'a8f5f167f44f4964e6c998dee827110c'", "a8f5f167f44f4964e6c998dee827110c"),
    ("iban", "iban: de89370400440532013000", "de89370400440532013000"),
    # Scripts without spaces: the letters beside a value are no part of it.
    ("email", "メールはtaro@example.jpまで", "taro@example.jp"),
    ("email", "邮件：用户@例子.公司。", "用户@例子.公司"),
    ("phone", "电话+86 138 0013 8000谢谢", "+86 138 0013 8000"),
    ("credit_card", "卡号4111111111111111。", "4111111111111111"),
    ("ip", "服务器203.0.113.42坏了", "203.0.113.42"),
    ("ssn", "番号は536-90-4399です", "536-90-4399"),
    ("iban", "账户DE89370400440532013000的", "DE89370400440532013000"),
    ("api_key", "密钥AKIAJ4QXZ7PLM2KD3RTV泄露了", "AKIAJ4QXZ7PLM2KD3RTV"),
    ("phone", "โทร+66 2 123 4567ครับ", "+66 2 123 4567"),
    ("private_key", "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\nbye", None),
    ("private_key", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk", None),
]
LEFT = [
    "Natalia sold 48/2 = 24 clips in May, 48+24 = 72 altogether, for $1,234.50 in 2023-2024.",
    "On 2023-01-15 at 10:30:45 version 1.2.3.4 of std::a::b was built: 9fceb02d0ae598e95dc970b74767f19372d61af8.",
    "order 4155552671, tracking 1Z999AA10123456784, card 4111 1111 1111 1112, IBAN DE89 3704 0044 0532 0130 01",
    "The password is incorrect. token: required. api_key = os.environ['API_KEY_2024']; password=your_password_1",
    "git clone git@github.com:owner/project.git, then set sk-your-key-here-please-replace-it",
    "def f(x: int) -> dict[str, int]: return {'key': 123456}  # max_tokens: 4096000",
    "user@localhost and @decorator, 127.0.0.1, 255.255.255.0, aaaa@b",
    "postgres://user:password@localhost/db",
    "Call it 1000000 times, reach 1000000 users; the number is 1234567.",
    "The network 10.0.0.0/8 and the route 203.0.113.0/24",
]  # fmt: skip


def pii(**options):
    return PiiFilter(PiiStep(kind="pii", **options))


@pytest.mark.parametrize(("kind", "text", "value"), FOUND)
def test_values_are_found_whole_and_as_what_they_are(kind, text, value):
    found = Detector(FOUND_BY_RULE, regions=("US", "GB")).find(text)
    assert [(item.kind, text[item.start : item.end]) for item in found] == [(kind, value or text.removesuffix("\nbye"))]
    rows = pa.table({"text": [text]})
    assert pii().rewrite(rows, [""]).columns["text"].to_pylist() == [
        text.replace(value or text.removesuffix("\nbye"), f"[{kind.upper()}_1]")
    ]


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_a_value_stays(text):
    assert Detector(FOUND_BY_RULE, regions=("US", "GB")).find(text) == []


def test_one_value_has_one_placeholder_in_every_column_and_turn():
    rows = pa.table(
        {
            "id": ["jane@example.org"],
            "messages": [
                [
                    {"role": "user", "content": "I am JANE@example.org, phone 415-555-2671, pin code: Zk4-99xw."},
                    {"role": "assistant", "content": "Zk4-99xw it is, jane@example.org. Is +1 (415) 555-2671 right?"},
                ]
            ],
            "tags": [["bob@example.org", "none"]],
            "meta": [{"contact": {"mail": "bob@example.org"}}],
            "pairs": pa.array([[("mail", "jane@example.org")]], pa.map_(pa.string(), pa.string())),
            "label": pa.array(["bob@example.org"]).dictionary_encode(),
            "json": ['{"card": 4111111111111111, "other": [4111111111111111]}'],
        }
    )
    filter_ = pii()
    made = filter_.rewrite(rows, [""])
    changed = {name: column.to_pylist()[0] for name, column in made.columns.items()}
    assert changed["messages"] == [
        {"role": "user", "content": "I am [EMAIL_1], phone [PHONE_1], pin code: [SECRET_1]."},
        {"role": "assistant", "content": "[SECRET_1] it is, [EMAIL_1]. Is [PHONE_1] right?"},
    ]
    assert changed["tags"] == ["[EMAIL_2]", "none"]
    assert changed["meta"] == {"contact": {"mail": "[EMAIL_2]"}}
    assert changed["pairs"] == [("mail", "[EMAIL_1]")]
    assert changed["label"] == "[EMAIL_2]"
    assert json.loads(changed["json"]) == {"card": "[CREDIT_CARD_1]", "other": ["[CREDIT_CARD_1]"]}
    assert "id" not in changed  # rows are found by it
    assert all(made.columns[name].type == rows.schema.field(name).type for name in changed)
    assert filter_.counts == {"email": 6, "phone": 2, "secret": 2, "credit_card": 2}
    assert made.verdicts.score[0] == 12


def test_masking_twice_changes_nothing_and_numbers_do_not_collide():
    rows = pa.table({"text": ["old [EMAIL_1], new a@example.org and b@example.org"]})
    once = pii().rewrite(rows, [""]).columns["text"]
    assert once.to_pylist() == ["old [EMAIL_1], new [EMAIL_2] and [EMAIL_3]"]
    assert pii().rewrite(pa.table({"text": once}), [""]).columns == {}


def test_kinds_fields_regions_and_allowed_values():
    rows = pa.table({"prompt": ["a@example.org or 030 901820"], "note": ["a@example.org"]})
    assert pii(kinds=("ip",)).rewrite(rows, [""]).columns == {}
    assert list(pii(fields=("note",)).rewrite(rows, [""]).columns) == ["note"]
    assert pii(allow=("A@example.org",)).rewrite(rows, [""]).columns == {}
    german = pii(regions=("DE",)).rewrite(rows, [""]).columns["prompt"].to_pylist()
    assert german == ["[EMAIL_1] or [PHONE_1]"]
    with pytest.raises(InputError, match="regions: no such region: UK"):
        pii(regions=("UK",))
    talk = pa.table({"messages": [[{"role": "user", "content": "a@example.org"}]], "other": ["b@example.org"]})
    assert list(pii(fields=("response",)).rewrite(talk.append_column("response", pa.array(["x"])), [""]).columns) == []
    assert list(pii(fields=("prompt",)).rewrite(talk, [""]).columns) == ["messages"]


@pytest.mark.parametrize(
    "step", [{}, {"name": "", "kinds": ["name"]}, {"model": "en_core_web_sm"}, {"kinds": []}, {"kinds": ["mail"]}]
)
def test_steps_that_make_no_sense_are_refused(step):
    if not step:
        assert parse(tuple[FilterStep, ...], [{"kind": "pii"}])
        return
    with pytest.raises(InputError):
        parse(tuple[FilterStep, ...], [{"kind": "pii", **step}])


CHAIN = [
    {"kind": "exact", "fields": ["prompt"]},
    {"kind": "regex", "fields": ["prompt"], "must_not": ["again$"]},
    {"kind": "refusal", "patterns": ["mail us at desk@example.org"]},
    {"kind": "pii"},
    {"kind": "length", "fields": ["prompt"], "max_words": 30},
]
SECRETS = ("jane.doe@example.org", "4155552671", "4111 1111 1111 1111", "desk@example.org")


def nasty_rows():
    line = "My mail is jane.doe@example.org, call me at 4155552671, the card is 4111 1111 1111 1111 and it is blocked"
    prompts = [line, line, line + " again", "Hello", "word " * 40 + SECRETS[0]]
    return [
        {"prompt": text, "response": "Please mail us at desk@example.org" if text == "Hello" else "Yes."}
        for text in prompts
    ]


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
@pytest.mark.parametrize("action", ["mask", "drop"])
def test_what_was_masked_reaches_no_file(tmp_path, format, action):
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in nasty_rows()))
    steps = parse(
        tuple[FilterStep, ...], [{**step, "action": action} if step["kind"] == "pii" else step for step in CHAIN]
    )
    report = filter_file(source, steps, tmp_path / "out", format=format)
    assert report.read == report.kept + report.rejected_total == 5
    if action == "mask":
        assert report.rejected == {
            "exact": {"duplicate": 1}, "regex": {"forbidden": 1}, "refusal": {"phrase": 1},
            "length": {"too_long": 1},
        }  # fmt: skip
    else:
        assert report.rejected["pii"] == {"credit_card": 1, "email": 1}
    assert report.as_json()["masked"] == {"credit_card": 3, "email": 5, "phone": 3}
    written = [path.read_bytes() for path in (tmp_path / "out").iterdir()]
    if format == "parquet":
        tables = [pq.read_table(path).to_pylist() for path in (tmp_path / "out").iterdir()]
        written.append(json.dumps(tables).encode())
        assert "[EMAIL_1]" in json.dumps(tables)
    for secret in (*SECRETS, "jane.doe", "4111 1111"):
        assert not any(secret.encode() in data for data in written), secret


def test_absent_keys_stay_absent_in_masked_json(tmp_path):
    source = tmp_path / "in.jsonl"
    rows = [{"prompt": "a@example.org", "meta": {"x": "b@example.org"}}, {"prompt": "b", "meta": {"y": {}}, "n": 1}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = filter_file(source, parse(tuple[FilterStep, ...], [{"kind": "pii"}]), tmp_path / "out", format="jsonl")
    kept = [json.loads(line) for line in report.kept_path.read_text().splitlines()]
    assert kept == [
        {"prompt": "[EMAIL_1]", "meta": {"x": "[EMAIL_2]"}, "id": "line-1"},
        {"prompt": "b", "meta": {"y": {}}, "n": 1, "id": "line-2"},
    ]


@settings(max_examples=40)
@given(
    st.lists(
        st.lists(st.sampled_from([*(text for _, text, _ in FOUND), *LEFT, "and", "\n", "{", "“"]), max_size=4).map(
            " ".join
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 3),
)
def test_batches_make_no_difference_and_nothing_found_is_left(contents, size):
    rows = pa.table({"id": [f"r{n}" for n in range(len(contents))], "text": contents})
    steps = parse(tuple[FilterStep, ...], [{"kind": "pii"}])
    whole = build_chain(steps).judge(rows).rewritten(rows).column("text").to_pylist()
    chain, parts = build_chain(steps), []
    for first in range(0, len(contents), size):
        batch = rows.slice(first, size)
        parts += chain.judge(batch).rewritten(batch).column("text").to_pylist()
    assert parts == whole
    again = Detector(FOUND_BY_RULE, regions=("US", "GB"))
    for before, after in zip(contents, whole, strict=True):
        assert not again.find(after) or before == after


@pytest.mark.parametrize(
    "unit", ["a", "a.", "a@", "1 ", "-----BEGIN PRIVATE KEY-----\n", "key=", "1:", "AB12 ", "://a:", "+1("]
)
def test_a_megabyte_of_anything_takes_linear_time(unit):
    import time

    detector = Detector(FOUND_BY_RULE, regions=("US",))
    short, long = unit * (30_000 // len(unit)), unit * (240_000 // len(unit))
    started = time.process_time()
    detector.find(short)
    first = time.process_time() - started
    detector.find(long)
    second = time.process_time() - started - first
    assert second < 40 * max(first, 0.02)


def test_the_gate_opens_for_every_value():
    column = pa.array([text for _, text, _ in FOUND])
    assert pa.compute.all(pa.compute.match_substring_regex(column, GATE)).as_py()


def test_entropy_is_bits_a_character():
    assert entropy("aaaa") == 0
    assert entropy("abcd") == 2


def test_people_are_one_by_their_whole_name_and_by_a_part_of_it(tmp_path):
    spacy = pytest.importorskip("spacy", reason="names need the extra distill[names]")
    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": name} for name in ("Rose Miller", "Rose", "Tom Reed")])
    pipeline.to_disk(tmp_path / "names")
    filter_ = pii(kinds=("name", "email"), model=str(tmp_path / "names"))
    rows = pa.table(
        {"prompt": ["Rose Miller wrote to Tom Reed."], "response": ["Mr Reed: a rose for Rose, reed@x.org"]}
    )
    made = filter_.rewrite(rows, [""])
    assert made.columns["prompt"].to_pylist() == ["[NAME_1] wrote to [NAME_2]."]
    assert made.columns["response"].to_pylist() == ["Mr [NAME_2]: a rose for [NAME_1], [EMAIL_1]"]
    with pytest.raises(InputError, match="no such pipeline"):
        pii(kinds=("name",), model="no_such_pipeline")


def test_names_without_spacy_say_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(InputError, match=r"distill\[names\]"):
        pii(kinds=("name",), model="en_core_web_sm")
