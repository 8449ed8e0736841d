"""What a run hands on to later ones is what it kept at its end: no row is lost for a row that nobody has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from distill.dataset import Row
from distill.engine.accounting import Account
from distill.engine.decide import Decider
from distill.errors import InputError
from distill.filters import FilterContext, build_chain, filter_file
from distill.filters.selection import passes
from distill.planning import Slot, Topic
from distill.recipe import FilterStep, parse
from distill.teachers import Message
from tests.support.filtering import steps, write_rows

LONG = "the red fox of the north crossed the frozen river before dawn and was not seen again"
ANOTHER = "a quarterly report names the sums that were paid, by whom, to whom, and on which day"
THIRD = "she tuned the old piano by ear while the children argued about the rules of the game"


def kept_index(path: Path) -> list[str]:
    return pq.read_table(path).column("id").to_pylist()


@pytest.mark.parametrize("kind", ["exact", "minhash"])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_later_step_drops_is_not_handed_on(kind: str, workers: int, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows", 400)
    index = tmp_path / "index.parquet"
    chain = steps(
        {"kind": "length", "fields": ["prompt"], "min_chars": 12},
        {"kind": kind, "fields": ["prompt"], "index": str(index)},
        {"kind": "refusal"},
    )
    report = filter_file(rows, chain, tmp_path / "out", workers=workers)
    assert report.rejected["refusal"]
    kept = pq.read_table(report.kept_path).column("id").to_pylist()
    assert kept_index(index) == kept


@pytest.mark.parametrize("kind", ["exact", "minhash"])
def test_a_row_that_was_never_kept_drops_none_of_the_next_run(kind: str, tmp_path: Path) -> None:
    def write(name: str, answer: str) -> Path:
        path = tmp_path / f"{name}.jsonl"
        path.write_text(f'{{"id": "{name}", "prompt": "{LONG}", "response": "{answer}"}}\n')
        return path

    dedup = {"kind": kind, "fields": ["prompt"], "index": str(tmp_path / "index.parquet")}
    chain = steps(dedup, {"kind": "refusal"})
    refused = filter_file(write("first", "I'm sorry, but I can't help with that."), chain, tmp_path / "1")
    assert (refused.kept, refused.rejected) == (0, {"refusal": {"declines": 1}})
    again = filter_file(write("second", "It went north."), chain, tmp_path / "2")
    assert again.kept == 1
    assert filter_file(write("third", "It went south."), chain, tmp_path / "3").kept == 0  # of `second`, which is there


def test_a_longer_survivor_is_what_is_handed_on(tmp_path: Path) -> None:
    texts = {"a": LONG, "b": f"{LONG} after that", "c": ANOTHER, "d": f"{ANOTHER} or so", "e": THIRD}
    path, index = tmp_path / "rows.jsonl", tmp_path / "index.parquet"
    answers = {"b": "I'm sorry, but I can't help with that."}
    path.write_text(
        "".join(f'{{"id": "{n}", "prompt": "{t}", "response": "{answers.get(n, "Yes.")}"}}\n' for n, t in texts.items())
    )
    dedup = {"kind": "minhash", "fields": ["prompt"], "index": str(index), "keep": "longest", "short_threshold": 0.7}
    report = filter_file(path, steps(dedup, {"kind": "refusal"}), tmp_path / "out")
    assert pq.read_table(report.kept_path).column("id").to_pylist() == ["d", "e"]
    assert sorted(kept_index(index)) == ["d", "e"]


def test_what_a_choice_leaves_out_is_not_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Embedder:
        def embed(self, texts: list[str], **_: Any) -> NDArray[np.float32]:
            made = np.random.default_rng(0).normal(size=(len(texts), 8)).astype(np.float32)
            return made / np.linalg.norm(made, axis=1, keepdims=True)

    monkeypatch.setattr(passes, "load_embedder", lambda *_, **__: Embedder())
    rows, index = write_rows(tmp_path / "rows", 3000), tmp_path / "index.parquet"
    dedup = {"kind": "exact", "fields": ["prompt"], "index": str(index)}
    chain = steps(dedup, {"kind": "refusal"}, {"kind": "diversity", "keep": 0.3})
    report = filter_file(rows, chain, tmp_path / "out", context=FilterContext(folder=rows.parent))
    assert report.rejected["diversity"]["not_chosen"] > 1000
    assert kept_index(index) == pq.read_table(report.kept_path).column("id").to_pylist()


def test_no_index_holds_what_a_later_step_masks(tmp_path: Path) -> None:
    dedup = {"kind": "minhash", "index": str(tmp_path / "index.parquet")}
    with pytest.raises(InputError, match="put the pii step before"):
        build_chain(steps(dedup, {"kind": "pii"}))
    build_chain(steps({"kind": "pii"}, dedup))
    build_chain(steps({"kind": "exact", "index": dedup["index"]}, {"kind": "pii"}))  # digests


async def test_a_row_over_the_quota_is_not_handed_on(tmp_path: Path) -> None:
    said = (LONG, ANOTHER, THIRD, "")
    rows = [
        Row(
            id=str(number),
            slot=Slot(f"s-{number}", number, Topic(("cards",))),
            messages=(Message("user", text), Message("assistant", "I cannot help with that." if number == 1 else "")),
            teacher="t",
        )
        for number, text in enumerate(said)
    ]
    declared = [
        {"kind": kind, "fields": ["prompt"], "index": str(tmp_path / f"{kind}.parquet")}
        for kind in ("exact", "minhash")
    ]
    chain = build_chain(parse(tuple[FilterStep, ...], [*declared, {"kind": "refusal"}]))
    with Decider(chain, Account.open({("cards",): 1}), tmp_path, target=1, by_leaf=True) as decider:
        for row in rows:  # one at a time, as they come
            await decider.decide([(("cards",), [row])])
    assert kept_index_all(chain, tmp_path / "index") == {"exact": ["0"], "minhash": ["0"]}


def kept_index_all(chain: Any, folder: Path) -> dict[str, list[str]]:
    folder.mkdir()
    chain.save(folder)
    return {path.stem: kept_index(path) for path in sorted(folder.iterdir())}
