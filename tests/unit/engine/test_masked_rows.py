"""A run whose chain masks: what was masked stands in no file of the run, and in no row that is handed out."""

from __future__ import annotations

import json

import pyarrow.parquet as pq

from distill.dataset import Failure, Row
from distill.dataset.schema import KEPT_SCHEMA, REJECTED_SCHEMA
from distill.engine.accounting import Account
from distill.engine.decide import Decider
from distill.errors import FailureClass
from distill.filters import build_chain
from distill.planning import Slot, Topic
from distill.recipe import FilterStep, parse
from distill.teachers import Message

CHAIN = [{"kind": "refusal", "patterns": ["write to desk@example.org"]}, {"kind": "pii"}]


async def test_masked_values_reach_no_file_of_a_run(tmp_path):
    slots = [Slot(f"s-{n}", n, Topic(("cards",))) for n in range(3)]
    turns = (Message("user", "I am jane@example.org"), Message("assistant", "Hello jane@example.org."))
    refused = (Message("user", "jane@example.org?"), Message("assistant", "Please write to desk@example.org now"))
    first = Row(id="a", slot=slots[0], messages=turns, teacher="t", keys=("9f" * 16,), reasoning="jane@example.org")
    second = Row(id="b", slot=slots[1], messages=refused, teacher="t")
    third = Failure("c", slots[2], FailureClass.UNPARSED, "not JSON", raw="{jane@example.org")
    outcomes = [(("cards",), [item]) for item in (first, second, third)]
    chain = build_chain(parse(tuple[FilterStep, ...], CHAIN))
    account = Account.open({("cards",): 5})
    with Decider(chain, account, tmp_path, target=5, by_leaf=True) as decider:
        kept = await decider.decide(outcomes)
    assert [row.messages[1].content for row in kept] == ["Hello [EMAIL_1]."]
    assert kept[0].reasoning == "[EMAIL_1]"
    tables = {name: pq.read_table(tmp_path / f"{name}.parquet") for name in ("rows", "rejected", "failed")}
    assert tables["rows"].schema == KEPT_SCHEMA
    assert tables["rejected"].schema == REJECTED_SCHEMA
    row, rejected, failed = (tables[name].to_pylist()[0] for name in tables)
    assert row["messages"][0]["content"] == "I am [EMAIL_1]"
    assert row["keys"] == ["9f" * 16]  # the way back to the raw answer
    assert rejected["evidence"] == "write to [EMAIL_2]"
    assert failed["raw"] == "{[EMAIL_1]"
    assert "example.org" not in json.dumps([table.to_pylist() for table in tables.values()])
    assert chain.masked == {"email": 5}
