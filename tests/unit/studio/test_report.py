"""The report shows a run in every state, loads nothing, and lets no text of a model become markup."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from distill.dataset import Failure, Row, RowWriter, failures_to_table, rows_to_table
from distill.dataset.schema import FAILED_SCHEMA
from distill.errors import FailureClass, InputError
from distill.evaluate.intervals import Interval
from distill.evaluate.scorecard import GateResult, Latency, Scorecard, SystemScore
from distill.planning import Slot, Topic
from distill.studio.report import write_report
from distill.teachers import Message
from tests.support.terminal import distill
from tests.support.workspaces import rehearsal

HOSTILE = "</pre></title><script>alert(1)</script><img src=//evil.test onerror=alert(2)> ' \" & &lt; \x1b[31m"


class _Page(HTMLParser):
    """Tags, attributes that load or run something, and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.suspect: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "srcset") or name.startswith("on"):
                self.suspect.append((name, value))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


def page_of(run: Path) -> _Page:
    text = write_report(run).read_text("utf-8")
    page = _Page(text)
    assert not {"script", "img", "iframe", "link", "object", "embed", "form", "base"} & set(page.tags)
    assert page.suspect == []
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert "@import" not in text
    return page


def run_of(folder: Path, *, code: int = 0, **recipe: Any) -> Path:
    path = rehearsal(folder, **recipe)
    return Path(distill("generate", path, "--json", "--run", folder / "run", cwd=folder, code=code).json["run"])


def describe(run: Path, **fields: Any) -> None:
    file = run / "run.json"
    value = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({key: item for key, item in value.items() if item is not None}))


@pytest.mark.parametrize(
    ("recipe", "code", "shown"),
    [
        ({}, 0, ("complete: 12 rows kept", "cards/lost")),
        ({"filters": [{"kind": "length", "min_words": 5000}]}, 3, ("short: ", "rejected by length", "Rows rejected")),
        ({"budget": {"tokens": 400}}, 3, ("stopped: ", "pending")),
    ],
    ids=["complete", "short", "stopped"],
)
def test_a_run_is_shown_however_it_ended(
    tmp_path: Path, recipe: dict[str, Any], code: int, shown: tuple[str, ...]
) -> None:
    page = page_of(run_of(tmp_path, code=code, **recipe))
    for text in shown:
        assert text in page.text
    assert "Simulated: these rows come from the offline rehearsal" in page.text


def test_a_run_that_was_killed_or_has_failed_is_shown_too(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    describe(run, state="failed", reason="the disk is full")
    assert "failed: the disk is full" in page_of(run).text
    describe(run, state="running", reason=None, summary=None, leaves=None)
    for file in ("rows.parquet", "rejected.parquet", "failed.parquet"):
        (run / file).unlink()
    assert "running" in page_of(run).text


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run\.json here"):
        write_report(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InputError, match="not a run of distill"):
        write_report(tmp_path)
    (tmp_path / "run.json").write_text("[")
    with pytest.raises(InputError, match="not JSON"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    run = run_of(tmp_path, description=HOSTILE.replace("\x1b", ""))
    slot = Slot("p-0", 0, Topic((HOSTILE, "leaf")))
    row = Row(
        id=HOSTILE,
        slot=slot,
        messages=(Message("user", HOSTILE), Message("assistant", HOSTILE)),
        teacher=HOSTILE,
        reasoning=HOSTILE,
        chosen=HOSTILE,
        rejected=HOSTILE,
    )
    with RowWriter(run / "rows.parquet") as writer:
        writer.write(rows_to_table([row]))
    lost = Failure(id="p-1", slot=slot, failure=FailureClass.UNPARSED, message=HOSTILE, raw=HOSTILE)
    with RowWriter(run / "failed.parquet", FAILED_SCHEMA) as writer:
        writer.write(failures_to_table([lost]))
    summary = json.loads((run / "run.json").read_text())["summary"]
    describe(
        run,
        reason=HOSTILE,
        leaves={HOSTILE: {"target": 1, "slots": 1, "kept": 1, "rejected": 0, "failed": 0, "cost_usd": 0.0}},
        summary=summary
        | {"rejected": {HOSTILE: {HOSTILE: 1}}, "failed": {HOSTILE: 1}, "teachers": {HOSTILE: {HOSTILE: HOSTILE}}},
        versions={HOSTILE: HOSTILE},
    )
    scored(run, name=HOSTILE)
    (run / f"train/{'x' * 8}<script>").mkdir(parents=True)
    (run / f"train/{'x' * 8}<script>/train.json").write_text(json.dumps({"example": HOSTILE, HOSTILE: HOSTILE}))
    page = page_of(run)
    assert page.text.count("<script>alert(1)</script>") > 15


def scored(run: Path, *, name: str = "student") -> None:
    metrics = {"exact_match": Interval(0.5, 0.4, 0.6)}
    about: dict[str, Any] = {"per_leaf": {}, "per_kind": {}, "tokens_per_second": 10.0, "seconds": 3.0}
    Scorecard(
        n=20,
        holdout="holdout.jsonl",
        holdout_digest="0123456789abcdef",
        systems={
            name: SystemScore(metrics=metrics, latency=Latency(0.25, 0.5, 8, "one at a time"), **about),
            "teacher": SystemScore(metrics=metrics, latency=None, **about),
        },
        subject=name,
        definitions={},
        gates=(GateResult(f"{name} >= 0.9", 0.5, False),),
    ).write(run / "eval/scorecard.json")


def test_scores_and_training_stand_in_the_report(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    scored(run)
    (run / "train/s-lora").mkdir(parents=True)
    losses = [{"step": step, "loss": 2.0 / step} for step in (1, 2, 3)]
    (run / "train/s-lora/train.json").write_text(json.dumps({"losses": losses, "steps": 3, "dtype": "bfloat16"}))
    page = page_of(run)
    assert "0.500 [0.400, 0.600]" in page.text
    assert "250 ms" in page.text
    assert "student >= 0.9" in page.text
    assert "holdout items: not looked for" in page.text
    assert "bfloat16" in page.text
    assert "polyline" in page.tags
