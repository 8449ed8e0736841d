from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from distill.cli.filter import filter_
from distill.errors import InputError
from distill.filters import FilterContext, build_chain, filter_file
from distill.filters.semantic.embedding import Embedder
from distill.filters.semantic.neighbours import NeighbourIndex
from distill.filters.semantic.semantic import SemanticFilter
from distill.filters.semantic.threshold import Calibration, calibrate
from distill.recipe import SemanticStep
from tests.support.tiny_embedder import make_static

RANDOM = np.random.default_rng(5)
WORDS = [f"w{number}" for number in range(400)]


class Counted:
    """An encoder whose vectors a test chooses: `x <number>` is row <number> of a matrix."""

    name, digest = "chosen", "0" * 32

    def __init__(self, vectors):
        self.vectors = np.asarray(vectors, np.float32)
        self.size = self.vectors.shape[1]

    def encode(self, texts, done):
        done(len(texts))
        return self.vectors[[int(text.split()[1]) for text in texts]]


def table(count, **columns):
    numbers = range(count)
    return pa.table({"id": [f"r{n}" for n in numbers], "text": [f"x {n}" for n in numbers], **columns})


def unrelated(count, size=48):
    return RANDOM.normal(size=(count, size))


def with_copies(count, size=48, share=0.25, noise=0.15):
    vectors = unrelated(count, size)
    copies = {}
    for row in range(1, count):
        if RANDOM.random() < share:
            first = int(RANDOM.integers(0, row))
            while first in copies:
                first = copies[first]
            vectors[row] = vectors[first] + noise * RANDOM.normal(size=size)
            copies[row] = first
    return vectors, copies


def judge(step, vectors, cuts, **options):
    filter_ = SemanticFilter(step, embedder=Embedder(Counted(vectors)), **options)
    rows = table(len(vectors))
    found = [filter_.judge(rows.slice(start, stop - start)) for start, stop in itertools.pairwise(cuts)]
    keep = np.concatenate([verdicts.keep for verdicts in found])
    matched = [id_ for verdicts in found for id_ in verdicts.matched_id]
    scores = np.concatenate([verdicts.score for verdicts in found])
    return keep, matched, scores


def test_the_first_row_stays_and_a_later_one_is_dropped_with_its_match_and_similarity():
    vectors = [[1, 0, 0], [0, 1, 0], [0.99, 0.141, 0], [0, 0, 1], [0, 0.6, 0.8]]
    filter_ = SemanticFilter(SemanticStep(kind="semantic", threshold=0.9), embedder=Embedder(Counted(vectors)))
    verdicts = filter_.judge(table(5))
    assert verdicts.keep.tolist() == [True, True, False, True, True]
    assert verdicts.reason[2] == "same_meaning"
    assert verdicts.matched_id[2] == "r0"
    assert verdicts.score[2] == pytest.approx(0.99, abs=1e-3)
    assert "x 0" in verdicts.evidence[2]
    assert "x 2" in verdicts.evidence[2]


def test_a_chain_of_small_steps_never_drops_a_row_that_is_unlike_its_survivor():
    angles = np.linspace(0, np.pi / 2, 40)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    keep, matched, scores = judge(SemanticStep(kind="semantic", threshold=0.95), vectors, [0, 40])
    assert 3 <= keep.sum() <= 6
    assert (scores[~keep] >= 0.95).all()
    assert all(keep[int(id_[1:])] for id_ in matched if id_)


@pytest.mark.parametrize("threshold", ["auto", 0.9])
def test_verdicts_do_not_depend_on_where_batches_end(threshold):
    vectors, _ = with_copies(2500)
    step = SemanticStep(kind="semantic", threshold=threshold)
    whole = judge(step, vectors, [0, 2500])
    for cuts in ([0, 1, 999, 1000, 1001, 2047, 2500], [*range(0, 2500, 97), 2500]):
        parts = judge(step, vectors, cuts)
        assert (whole[0] == parts[0]).all()
        assert whole[1] == parts[1]
        assert np.array_equal(whole[2], parts[2], equal_nan=True)
    assert not whole[0].all()


def test_seeds_are_compared_too_and_an_empty_text_matches_nothing():
    vectors = [[0, 0], [0, 0], [1, 0], [1, 0.01], [0, 1]]
    seeds = [("s1", "x 2")]
    step = SemanticStep(kind="semantic", threshold=0.9, fields=("text",))
    filter_ = SemanticFilter(step, seeds=seeds, embedder=Embedder(Counted(vectors)))
    verdicts = filter_.judge(table(5))
    assert verdicts.keep.tolist() == [True, True, False, False, True]
    assert verdicts.reason[3] == "same_as_seed"
    assert verdicts.matched_id[3] == "s1"


def test_auto_keeps_what_repeats_nothing_and_finds_the_copies():
    vectors, copies = with_copies(3000)
    filter_ = SemanticFilter(SemanticStep(kind="semantic"), embedder=Embedder(Counted(vectors)))
    filter_.calibrate(table(3000))
    verdicts = filter_.judge(table(3000))
    dropped = set(np.flatnonzero(~verdicts.keep).tolist())
    assert len(dropped - set(copies)) <= 0.01 * (3000 - len(copies))
    assert len(dropped & set(copies)) >= 0.99 * len(copies)
    assert 0.8 <= filter_.calibrated["threshold"] < 0.95
    assert filter_.calibrated["rows"] == 3000


def test_where_rows_lie_too_close_nothing_is_dropped_and_it_is_said():
    topics = RANDOM.normal(size=(10, 48))
    vectors = topics[RANDOM.integers(0, 10, 1000)] + RANDOM.gamma(0.3, 0.6, size=(1000, 1)) * RANDOM.normal(
        size=(1000, 48)
    )
    filter_ = SemanticFilter(SemanticStep(kind="semantic"), embedder=Embedder(Counted(vectors)))
    filter_.calibrate(table(1000))
    assert filter_.judge(table(1000)).keep.all()
    assert filter_.calibrated["threshold"] is None
    assert "nothing is removed" in filter_.calibrated["warning"]
    fixed = SemanticFilter(SemanticStep(kind="semantic", threshold=0.8), embedder=Embedder(Counted(vectors)))
    fixed.calibrate(table(1000))
    assert "% of the sampled rows have a neighbour at or over 0.8" in fixed.calibrated["warning"]


@pytest.mark.parametrize(("over", "said"), [(0, False), (5, True), (30, False)])
def test_what_falls_by_chance_alone_is_said(over, said):
    nearest = np.array([0.95] * over + [0.5] * (1000 - over), np.float32)
    found = Calibration(0.9, 0.01, 1000, typical=0.5, per_doubling=0.0, apart=None, nearest=nearest)
    assert ("no more than unrelated rows would (1.0%)" in (found.warning(None) or "")) is said


def test_apart_measures_between_rows_of_different_values():
    topics = RANDOM.normal(size=(10, 48))
    labels = RANDOM.integers(0, 10, 2000)
    vectors = topics[labels] + 0.2 * RANDOM.normal(size=(2000, 48))
    rows = table(2000, intent=[f"i{label}" for label in labels])
    step = SemanticStep(kind="semantic", apart="intent", rate=0.01)
    filter_ = SemanticFilter(step, embedder=Embedder(Counted(vectors)))
    filter_.calibrate(rows)
    verdicts = filter_.judge(rows)
    dropped = np.flatnonzero(~verdicts.keep)
    wrong = [row for row in dropped if labels[row] != labels[int(verdicts.matched_id[row][1:])]]
    assert len(dropped) > 100
    assert len(wrong) <= 0.01 * 2000
    with pytest.raises(InputError, match="no column leaf"):
        SemanticFilter(SemanticStep(kind="semantic", apart="leaf"), embedder=Embedder(Counted(vectors))).judge(rows)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4])
def test_the_requested_rate_holds_on_rows_that_were_not_looked_at(share):
    vectors, _ = with_copies(3000, share=share)
    found = calibrate((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), 0.01)
    fresh = unrelated(3000)
    fresh = (fresh / np.linalg.norm(fresh, axis=1, keepdims=True)).astype(np.float32)
    similar = fresh @ fresh.T
    np.fill_diagonal(similar, -1)
    assert found is not None
    assert (similar.max(axis=1) >= found.threshold).mean() <= 0.01


def test_the_lists_find_what_the_exhaustive_search_finds():
    vectors, _ = with_copies(3000)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    exact = NeighbourIndex(48).judge(vectors, 0.9)
    small = NeighbourIndex(48, exact_rows=500, portion=200, shard=900)
    first = small.judge(vectors[:1300], 0.9)
    rest = small.judge(vectors[1300:], 0.9)
    found, score = (np.concatenate(pair) for pair in zip(first, rest, strict=True))
    both = (exact[0] >= 0) & (found >= 0)
    assert both.sum() >= 0.99 * (exact[0] >= 0).sum()
    assert np.abs(exact[1][both] - score[both]).max() < 1e-3
    assert (found >= 0).sum() <= (exact[0] >= 0).sum() + 1
    again = NeighbourIndex(48, exact_rows=500, portion=200, shard=900).judge(vectors, 0.9)
    assert (again[0] == found).all()


def test_a_file_is_calibrated_before_its_first_row_is_judged(tmp_path: Path):
    model = make_static(tmp_path / "model", WORDS)
    lines = []
    for number in range(400):
        words = RANDOM.choice(WORDS, 12, replace=False)
        lines.append(" ".join(words))
        if number % 5 == 0:
            lines.append(" ".join(RANDOM.permutation(words)))
    source = tmp_path / "rows.csv"
    source.write_text("text\n" + "\n".join(lines) + "\n")
    step = SemanticStep(kind="semantic", model=str(model), fields=("text",))
    report = filter_file(source, [step], tmp_path / "out", context=FilterContext(folder=tmp_path))
    assert report.rejected == {"semantic": {"same_meaning": 80}}
    shown = report.as_json()["calibrated"]["semantic"]
    assert shown["threshold"] >= 0.8
    assert shown["rows"] >= 400
    assert list((tmp_path / ".distill").glob("embeddings-*.sqlite"))


def test_the_command_warns_before_it_removes(tmp_path: Path, monkeypatch):
    model = make_static(tmp_path / "model", WORDS)
    source, chain = tmp_path / "rows.csv", tmp_path / "chain.yaml"
    stem = " ".join(WORDS[:20])
    source.write_text("text\n" + "".join(f"{stem} {word}\n" for word in WORDS[20:220]))
    chain.write_text(f"- {{kind: semantic, fields: [text], threshold: 0.9, model: {model}}}\n")
    app = typer.Typer()
    app.command()(filter_)
    seen: list[str] = []
    judge = SemanticFilter.judge
    said: list[str] = []
    monkeypatch.setattr("distill.cli.filter.err.print", lambda *parts, **_: said.extend(map(str, parts)))
    monkeypatch.setattr(SemanticFilter, "judge", lambda self, rows: (seen.extend(said), judge(self, rows))[1])
    arguments = [str(source), "--chain", str(chain), "--out", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    report = json.loads(result.stdout)
    assert report["rejected"]["semantic"]["same_meaning"] > 100
    assert any("100% of the sampled rows have a neighbour at or over 0.9" in line for line in seen)
    assert "100% of the sampled rows" in report["calibrated"]["semantic"]["warning"]
    assert len(report["notes"]) == 1


def test_a_model_that_is_not_here_is_an_error_before_any_row(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "empty"))
    with pytest.raises(InputError, match="distill models pull"):
        build_chain([SemanticStep(kind="semantic")], FilterContext(folder=tmp_path))


@pytest.mark.heavy
def test_the_packaged_encoder_finds_paraphrases_and_keeps_different_requests(tmp_path: Path):
    from distill import models

    try:
        models.path("all-minilm-l6-v2")
    except InputError as error:
        pytest.skip(f"{error}")
    lines = [
        "How do I reset the password of my account?",
        "What is the way to reset my account's password?",
        "My card has not arrived yet.",
        "Please bake a chocolate cake for six people.",
    ]
    source = tmp_path / "rows.csv"
    source.write_text("text\n" + "\n".join(lines) + "\n")
    step = SemanticStep(kind="semantic", model="all-MiniLM-L6-v2", threshold=0.8)
    report = filter_file(source, [step], tmp_path / "out", context=FilterContext(folder=tmp_path))
    assert report.rejected == {"semantic": {"same_meaning": 1}}
