from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from distill.cli.filter import filter_
from distill.errors import InputError
from distill.filters import FilterContext, build_chain, filter_file
from distill.filters.selection.diversity import choose, quotas
from distill.filters.selection.report import figures
from distill.recipe import DiversityStep, ExactStep
from tests.support.tiny_embedder import make_static

RANDOM = np.random.default_rng(3)
TOPICS = ("card", "loan", "bread", "chess")
WORDS = [f"{topic}{number}" for topic in TOPICS for number in range(30)]


def unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 300))
def test_quotas_use_what_is_there_and_are_even_where_they_can_be(sizes, count):
    found = quotas(sizes, count)
    assert sum(found) == min(count, sum(sizes))
    assert all(0 <= quota <= size for quota, size in zip(found, sizes, strict=True))
    open_ = [quota for quota, size in zip(found, sizes, strict=True) if quota < size]
    assert not open_ or max(found) - min(open_) <= 1


@pytest.mark.parametrize("method", ["farthest", "facility"])
def test_every_cluster_is_reached_where_a_random_choice_misses_some(method):
    centres = RANDOM.normal(size=(20, 32))
    owner = np.concatenate([np.zeros(800, int), np.repeat(np.arange(1, 20), 5)])
    vectors = unit(centres[owner] + 0.1 * RANDOM.normal(size=(len(owner), 32)))
    chosen = choose(vectors, 20, method=method)
    assert len(chosen) == 20
    assert len(set(owner[chosen])) == 20
    assert (choose(vectors, 20, method=method) == chosen).all()


def test_near_copies_are_the_last_to_be_taken():
    vectors = unit(RANDOM.normal(size=(50, 32)))
    doubled = np.concatenate([vectors, unit(vectors + 0.01 * RANDOM.normal(size=vectors.shape))])
    chosen = choose(doubled, 50)
    assert len({row % 50 for row in chosen}) == 50


@pytest.mark.parametrize("method", ["farthest", "facility"])
def test_a_better_row_is_preferred_among_equals(method):
    vectors = unit(RANDOM.normal(size=(40, 32)))
    twice = np.concatenate([vectors, vectors])
    scores = np.concatenate([np.zeros(40), np.ones(40)])
    chosen = choose(twice, 20, scores=scores, method=method)
    assert (chosen >= 40).all()


def test_large_sets_are_cut_into_pieces_and_still_give_the_number():
    vectors = unit(RANDOM.normal(size=(9000, 8)))
    chosen = choose(vectors, 100, groups=["a"] * 8900 + ["b"] * 100)
    assert len(chosen) == 100
    assert (chosen >= 8900).sum() == 50


def test_the_effective_number_counts_what_is_different():
    vectors = unit(np.eye(8))
    assert figures(["a"] * 8, vectors, None)["effective_number"] == pytest.approx(8, abs=0.01)
    same = np.repeat(vectors[:1], 8, axis=0)
    assert figures(["a"] * 8, same, None)["effective_number"] == pytest.approx(1, abs=0.01)
    assert figures(["a b", "a b"], vectors[:2], ["x", "y"])["groups"]["covered"] == 2
    assert figures(["a b", "a b"], vectors[:2], None)["distinct_1"] == 0.5


def rows(folder: Path) -> tuple[Path, DiversityStep]:
    lines = []
    for number in range(300):
        topic = TOPICS[0] if number % 10 else TOPICS[1 + number // 10 % 3]
        words = RANDOM.choice([word for word in WORDS if word.startswith(topic)], 6)
        lines.append({"text": " ".join(words), "leaf": [topic, "any"], "scores": {"judge": number % 5}})
    lines.append(lines[0])
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = make_static(folder / "model", WORDS)
    step = DiversityStep(kind="diversity", keep=40, by="leaf", fields=("text",), score="scores.judge", model=str(model))
    return source, step


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_the_last_step_of_a_chain_chooses_among_what_the_others_kept(tmp_path, format):
    source, step = rows(tmp_path)
    context = FilterContext(folder=tmp_path)
    report = filter_file(source, [ExactStep(kind="exact"), step], tmp_path / "out", format=format, context=context)
    lost = report.rejected["exact"]["duplicate"]
    assert report.kept == 40
    assert report.rejected["diversity"]["not_chosen"] == 301 - 40 - lost
    assert report.read == report.kept + report.rejected_total
    assert report.diversity["after"]["groups"] == {"covered": 4, "smallest": 10, "largest": 10}
    assert report.diversity["after"]["effective_number"] > report.diversity["random"]["effective_number"]
    shown = (tmp_path / "out" / "diversity.html").read_text()
    assert shown.count("<svg") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["diversity.html", f"kept.{format}", f"rejected.{format}"]
    )
    if format == "parquet":
        rejected = pq.read_table(report.rejected_path)
        assert pq.read_table(report.kept_path).num_rows == 40
        assert rejected.num_rows == report.rejected_total
        assert set(rejected.column("filter").to_pylist()) == {"exact", "diversity"}
    else:
        rejected = [json.loads(line) for line in report.rejected_path.read_text().splitlines()]
        assert len(rejected) == report.rejected_total
        assert rejected[-1]["reason"] == "not_chosen"


def test_a_share_and_a_set_that_is_small_enough(tmp_path):
    source, step = rows(tmp_path)
    context = FilterContext(folder=tmp_path)
    half = step.model_copy(update={"keep": 0.5, "by": None, "score": None})
    assert filter_file(source, [half], tmp_path / "half", context=context).kept == 150
    everything = filter_file(source, [step.model_copy(update={"keep": 5000})], tmp_path / "all", context=context)
    assert (everything.kept, everything.rejected) == (301, {})


def test_what_it_cannot_do_is_said(tmp_path):
    source, step = rows(tmp_path)
    context = FilterContext(folder=tmp_path)
    with pytest.raises(InputError, match="no column topic"):
        filter_file(source, [step.model_copy(update={"by": "topic"})], tmp_path / "out", context=context)
    with pytest.raises(InputError, match="not a number"):
        filter_file(source, [step.model_copy(update={"score": "text"})], tmp_path / "out", context=context)
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(InputError, match="last step"):
        build_chain([step, ExactStep(kind="exact")], context)


def test_the_command_shows_the_figures(tmp_path, monkeypatch):
    source, step = rows(tmp_path)
    chain = tmp_path / "chain.yaml"
    chain.write_text(f"- kind: exact\n- {{kind: diversity, keep: 20, by: leaf, fields: [text], model: {step.model}}}\n")
    app = typer.Typer()
    app.command()(filter_)
    arguments = [str(source), "--chain", str(chain), "--out", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    report = json.loads(result.stdout)
    assert report["kept"] == 20
    assert report["diversity"]["after"]["groups"]["covered"] == 4
    assert report["files"]["diversity"].endswith("diversity.html")
    assert "effective number" in result.stderr
