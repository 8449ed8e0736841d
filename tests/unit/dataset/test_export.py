from __future__ import annotations

from decimal import Decimal

import orjson
import pyarrow.parquet as pq
import pytest
import yaml

from distill.dataset import CardFacts, Row, RowWriter, TeacherFacts, rows_to_table, write_dataset
from distill.dataset.card import escape
from distill.dataset.terms import terms_of
from distill.errors import InputError
from distill.planning import Slot, Topic
from distill.recipe import DatasetConfig
from distill.teachers import Message

FACTS = CardFacts(
    name="probe",
    description="Messages <script>alert(1)</script> | of a [bank](http://x)",
    recipe_digest="abc123",
    planned=250,
    rejected={"minhash": {"near_duplicate": 30}},
    failed={"timeout": 20},
    cost_usd=Decimal("1.5"),
    teachers=(
        TeacherFacts("main", "openai", "gpt-4o-mini", 300, Decimal("1.5")),
        TeacherFacts("small", "local", "qwen2.5-coder-1.5b-instruct"),
        TeacherFacts("odd", "openai", "my|model`"),
    ),
    versions={"distill": "0.1.0"},
)


def rows(count: int, **fields) -> list[Row]:
    return [
        Row(
            id=f"r-{n}",
            slot=Slot(f"r-{n}", n, Topic(("cards", "lost" if n % 2 else "fee|<b>"))),
            messages=(Message("user", f"question\u2028{n}"), Message("assistant", f"answer {n}")),
            teacher="main",
            **fields,
        )
        for n in range(count)
    ]


def store(path, items):
    with RowWriter(path) as writer:
        writer.write(rows_to_table(items))
    return path


def test_load_dataset_gives_the_rows_of_the_folder_and_not_of_another(tmp_path):
    datasets = pytest.importorskip("datasets")
    source = store(tmp_path / "rows.parquet", rows(200))
    seen = []
    for run, seed, layout in (("a", 3, "messages"), ("b", 4, "messages"), ("a", 3, "sharegpt")):
        out = tmp_path / run / "dataset"
        write_dataset(source, out, DatasetConfig(format=layout), seed=seed, card=FACTS)
        loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
        seen.append((loaded["train"].column_names, loaded["validation"]["id"]))
        assert loaded["validation"]["id"] == [item["id"] for item in read(out / "validation.jsonl")]
    assert [names for names, _ in seen] == [["id", "messages"], ["id", "messages"], ["id", "conversations"]]


def read(path):
    return [orjson.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_load_dataset_opens_the_folder(tmp_path):
    datasets = pytest.importorskip("datasets")
    source, out = store(tmp_path / "rows.parquet", rows(200)), tmp_path / "dataset"
    report = write_dataset(source, out, DatasetConfig(), seed=3, card=FACTS)
    assert report.rows == {"train": 180, "validation": 20}
    assert report.format == "messages"
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset(str(out), cache_dir=cache)
    assert {name: split.num_rows for name, split in loaded.items()} == report.rows
    assert loaded["train"][0]["messages"][0]["content"].startswith("question\u2028")
    ids = [item["id"] for item in read(out / "train.jsonl")]
    assert ids == sorted(ids, key=lambda id_: int(id_[2:]))


def test_the_same_rows_give_the_same_bytes(tmp_path):
    source = store(tmp_path / "rows.parquet", rows(50))
    texts = []
    for name in ("a", "b"):
        write_dataset(source, tmp_path / name, DatasetConfig(), seed=3, card=FACTS)
        texts.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert texts[0] == texts[1]
    assert set(texts[0]) == {"README.md", "train.jsonl", "validation.jsonl"}


def test_layouts_and_their_errors(tmp_path):
    source = store(tmp_path / "rows.parquet", rows(4, reasoning="since it is so", answer="42"))
    report = write_dataset(source, tmp_path / "auto", DatasetConfig(validation=0), seed=1, card=FACTS)
    assert report.format == "reasoning"
    turn = read(tmp_path / "auto" / "train.jsonl")[0]["messages"][-1]
    assert turn["content"] == "<think>\nsince it is so\n</think>\n\n42"
    with pytest.raises(InputError, match="row r-0 cannot be written as preference"):
        write_dataset(source, tmp_path / "no", DatasetConfig(format="preference"), seed=1, card=FACTS)
    assert not list((tmp_path / "no").iterdir())
    with pytest.raises(InputError, match=r"nosuch\.parquet: cannot be read"):
        write_dataset(tmp_path / "nosuch.parquet", tmp_path / "no", DatasetConfig(), seed=1, card=FACTS)
    pq.write_table(rows_to_table(rows(1)).select(["id"]), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="not the rows of a run: no column slot"):
        write_dataset(tmp_path / "other.parquet", tmp_path / "no", DatasetConfig(), seed=1, card=FACTS)


def test_without_a_wish_all_rows_get_the_layout_that_every_one_of_them_fits(tmp_path):
    items = [*rows(3, reasoning="since it is so"), *rows(1)]
    report = write_dataset(
        store(tmp_path / "rows.parquet", items), tmp_path / "out", DatasetConfig(), seed=1, card=FACTS
    )
    assert report.format == "messages"
    assert "1 of 4 rows have no chain of thought" in report.notes[0]


def test_an_old_validation_file_does_not_stay(tmp_path):
    out = tmp_path / "dataset"
    write_dataset(store(tmp_path / "a.parquet", rows(50)), out, DatasetConfig(), seed=1, card=FACTS)
    report = write_dataset(store(tmp_path / "b.parquet", rows(1)), out, DatasetConfig(), seed=1, card=FACTS)
    assert "no validation split" in report.notes[0]
    assert sorted(file.name for file in out.iterdir()) == ["README.md", "train.jsonl"]
    front = yaml.safe_load((out / "README.md").read_text().split("---")[1])
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "train.jsonl"}]
    empty = write_dataset(store(tmp_path / "c.parquet", []), out, DatasetConfig(), seed=1, card=FACTS)
    assert empty.rows == {"train": 0}


def test_the_card_tells_the_whole_story(tmp_path):
    source = store(tmp_path / "rows.parquet", rows(200))
    write_dataset(source, tmp_path / "d", DatasetConfig(license="cc-by-4.0"), seed=3, card=FACTS)
    card = (tmp_path / "d" / "README.md").read_text("utf-8")
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc-by-4.0"
    for line in (
        "| train | 180 |",
        "| kept | | 200 |",
        "| rejected by minhash | near\\_duplicate | 30 |",
        "| failed | timeout | 20 |",
        "| **planned** | | **250** |",
        "Cost: 1.5000 USD, 0.007500 USD a kept row.",
        "Check this yourself",
        "compete with OpenAI",
        "Apache\\-2\\.0",
        "Not in the table",
        "compared with no eval set",
    ):
        assert line in card
    assert "SIMULATED" not in card
    assert "<script>" not in card
    assert "<b>" not in card
    assert "[bank](" not in card


def test_simulated_rows_are_labelled_loudly(tmp_path):
    facts = CardFacts(name="x", simulated=True, teachers=(TeacherFacts("t", "simulated", "gpt-4o"),))
    write_dataset(store(tmp_path / "r.parquet", rows(3)), tmp_path / "d", DatasetConfig(), seed=1, card=facts)
    card = (tmp_path / "d" / "README.md").read_text()
    assert "**SIMULATED DATA. No language model wrote these rows.**" in card
    assert "simulated" in yaml.safe_load(card.split("---")[1])["tags"]
    assert "no model was asked" in card
    assert "compete with OpenAI" not in card


def test_escape_and_terms():
    assert escape("a|b\n# c <img>") == "a\\|b \\# c &lt;img\\>"
    assert len(escape("x" * 1000)) == 200
    names = {
        ("openai", "gpt-4o"): "OpenAI", ("openai", "o3-mini"): "OpenAI",
        ("openai", "gpt-oss-20b"): "OpenAI open weights",
        ("anthropic", "claude-sonnet-4-5"): "Anthropic", ("openai", "deepseek-r1-distill-qwen-7b"): "DeepSeek",
        ("openai", "meta-llama/Llama-3.3-70B"): "Meta Llama", ("local", "smollm2-135m"): "SmolLM",
        ("openai", "gemini-2.5-flash"): "Google Gemini", ("openai", "gemma-3-4b"): "Google Gemma",
    }  # fmt: skip
    assert {key: terms and terms.name for key, terms in ((k, terms_of(*k)) for k in names)} == names
    assert terms_of("openai", "mock") is None
    assert terms_of("simulated", "gpt-4o") is None
