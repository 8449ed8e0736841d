"""Evaluations with systems that answer from a list, and with a tiny student and a teacher behind an `ask`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from distill.errors import FailureClass, InputError, TeacherError
from distill.evaluate import Generated, Item, Prediction, Student, TeacherSystem, evaluate, parse_metric, read_holdout
from distill.evaluate.generation import latency_of
from distill.evaluate.holdout import Holdout
from distill.teachers import Answer, Request, Usage
from distill.train.data import Conversation

ANSWERS = ['{"intent": "lost"}', '{"intent": "rate"}', '{"intent": "lost"}', '{"intent": "rate"}']
METRICS = [parse_metric(name) for name in ("json_valid", "exact_match", "macro_f1:field=intent")]


@pytest.fixture
def holdout(tmp_path: Path) -> Holdout:
    return read_holdout(write(tmp_path, ANSWERS))


def write(folder: Path, answers: list[str]) -> Path:
    path = folder / "test.jsonl"
    system = {"role": "system", "content": "Route."}
    rows = [
        {"messages": [system, {"role": "user", "content": f"question {n}"}], "answer": answer}
        for n, answer in enumerate(answers)
    ]
    leaves = ("cards", "loans")
    path.write_text("".join(json.dumps({**row, "leaf": leaves[n % 2]}) + "\n" for n, row in enumerate(rows)))
    return path


class Listed:
    """Answers from a list and counts how often it is asked to."""

    def __init__(self, name: str, answers: list[str], version: int = 1) -> None:
        self.name, self.answers, self.version, self.asked = name, answers, version, 0

    def about(self) -> dict[str, Any]:
        return {"version": self.version}

    async def answer(self, items: Sequence[Item], progress: Callable[[int], None]) -> Generated:
        self.asked += 1
        progress(len(items))
        return Generated([Prediction(text, 5) for text in self.answers], 2.0)


def score(systems: list[Any], holdout: Holdout, out: Path, **options: Any) -> Any:
    return asyncio.run(evaluate(systems, holdout, options.pop("metrics", METRICS), out, **options))


def test_the_scorecard_says_what_each_system_did(holdout: Holdout, tmp_path: Path) -> None:
    base = Listed("base", ["I am sorry"] * 4)
    student = Listed("student", [*ANSWERS[:3], "{}"])
    card = score([base, student], holdout, tmp_path, gates=["json_valid >= 1", "exact_match >= 0.9"])
    assert card.subject == "student"
    assert {n: f.value for n, f in card.systems["student"].metrics.items()} == pytest.approx(
        {"json_valid": 1, "exact_match": 0.75, "macro_f1:field=intent": (1 + 2 / 3) / 2}
    )
    assert card.systems["base"].metrics["json_valid"].value == 0
    assert card.systems["student"].per_leaf["loans"] == {
        "n": 2,
        "json_valid": 1,
        "exact_match": 0.5,
        "macro_f1:field=intent": 0.5,
    }
    assert card.systems["student"].tokens_per_second == 10
    difference = next(d for d in card.differences if d.metric == "json_valid")
    assert (difference.system, difference.against, difference.value) == ("student", "base", 1)
    assert [gate.passed for gate in card.gates] == [True, False]
    assert not card.passed
    written = json.loads((tmp_path / "scorecard.json").read_bytes())
    assert (written["n"], written["holdout_digest"]) == (4, holdout.digest)
    assert written["systems"]["student"]["metrics"]["exact_match"]["value"] == 0.75


def test_predictions_are_written_with_question_answer_and_verdicts(holdout: Holdout, tmp_path: Path) -> None:
    score([Listed("student", [*ANSWERS[:3], "{}"])], holdout, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_bytes().splitlines()]
    assert [row["id"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[3]["messages"][1]["content"] == "question 3"
    assert (rows[3]["answer"], rows[3]["prediction"], rows[3]["leaf"]) == (ANSWERS[3], "{}", "loans")
    assert rows[3]["metrics"] == {"json_valid": 1, "exact_match": 0, "macro_f1:field=intent": 0}


def test_a_second_evaluation_counts_without_answering(tmp_path: Path) -> None:
    system = Listed("student", ANSWERS)
    score([system], read_holdout(write(tmp_path, ANSWERS)), tmp_path, metrics=METRICS[:1])
    corrected = read_holdout(write(tmp_path, [ANSWERS[1], *ANSWERS[1:]]))
    card = score([system], corrected, tmp_path)
    assert system.asked == 1
    assert card.systems["student"].reused
    assert card.systems["student"].metrics["exact_match"].value == 0.75
    assert card.systems["student"].seconds == 2.0


def test_other_weights_or_other_questions_are_answered_again(holdout: Holdout, tmp_path: Path) -> None:
    score([Listed("student", ANSWERS)], holdout, tmp_path)
    changed = Listed("student", ANSWERS, version=2)
    score([changed], holdout, tmp_path)
    assert changed.asked == 1
    again = Listed("student", ANSWERS[:2], version=2)
    score([again], read_holdout(write(tmp_path, ANSWERS[:2])), tmp_path)
    # The first two questions are the same, but the set is another one.
    assert again.asked == 1


def test_saved_answers_go_with_their_questions_and_not_with_their_ids(tmp_path: Path) -> None:
    def named(*ids: str) -> Holdout:
        holdout = read_holdout(write(tmp_path, ANSWERS[:2]))
        return replace(holdout, items=tuple(replace(i, id=n) for i, n in zip(holdout.items, ids, strict=True)))

    score([Listed("student", ANSWERS[:2])], named("a", "b"), tmp_path)
    again = Listed("student", ANSWERS[:2])
    card = score([again], named("b", "a"), tmp_path)
    assert card.systems["student"].metrics["exact_match"].value == 1


def test_a_metric_that_is_named_twice_is_counted_once(holdout: Holdout, tmp_path: Path) -> None:
    systems = [Listed("base", ["{}"] * 4), Listed("student", ANSWERS)]
    card = score(systems, holdout, tmp_path, metrics=[METRICS[1], METRICS[1]])
    assert [d.metric for d in card.differences] == ["exact_match"]


def test_a_gate_on_what_was_not_timed_fails_and_the_figures_are_kept(holdout: Holdout, tmp_path: Path) -> None:
    card = score([Listed("student", ANSWERS)], holdout, tmp_path, gates=["p95_ms <= 800", "exact_match >= 1"])
    assert [(gate.passed, gate.note) for gate in card.gates] == [(False, "latency was not measured"), (True, "")]
    assert (tmp_path / "scorecard.json").is_file()


def test_an_earlier_score_without_the_figure_is_found_before_anything_is_answered(
    holdout: Holdout, tmp_path: Path
) -> None:
    score([Listed("student", ANSWERS)], holdout, tmp_path / "first", metrics=METRICS[:1])
    system = Listed("student", ANSWERS)
    for kind, says in (("drop", "no figure of exact_match"), ("leaf_drop", "no figures of exact_match by leaf")):
        with pytest.raises(InputError, match=says):
            score([system], holdout, tmp_path, gates=[f"{kind}(exact_match, file:{tmp_path / 'first'}) <= 0"])
    assert system.asked == 0


def test_a_place_that_cannot_be_written_is_found_before_anything_is_answered(holdout: Holdout, tmp_path: Path) -> None:
    system = Listed("student", ANSWERS)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, not a folder"):
        score([system], holdout, tmp_path / "file")
    assert system.asked == 0


def test_questions_that_are_asked_twice_are_reported(tmp_path: Path) -> None:
    holdout = read_holdout(write(tmp_path, ANSWERS[:2]))
    twice = replace(holdout, items=(*holdout.items, replace(holdout.items[0], id="9")))
    card = score([Listed("student", [*ANSWERS[:2], ANSWERS[0]])], twice, tmp_path)
    assert [(each.id, each.first) for each in card.repeats] == [("9", "1")]


def test_a_gate_without_its_metric_is_found_before_anything_is_answered(holdout: Holdout, tmp_path: Path) -> None:
    system = Listed("student", ANSWERS)
    with pytest.raises(InputError, match="no such metric"):
        score([system], holdout, tmp_path, gates=["rouge >= 0.5"])
    assert system.asked == 0


def test_a_gate_that_no_value_passes_is_found_before_anything_is_answered(holdout: Holdout, tmp_path: Path) -> None:
    system = Listed("student", ANSWERS)
    for gate in ("exact_match >= 90", "p95_ms < 0", "json_valid < 0"):
        with pytest.raises(InputError, match=f"gate '{gate}' can never hold"):
            score([system], holdout, tmp_path, gates=[gate])
    assert system.asked == 0


def test_leaks_are_reported(holdout: Holdout, tmp_path: Path) -> None:
    turns = ({"role": "user", "content": "Question 2."}, {"role": "assistant", "content": "x"})
    row = Conversation(turns, "train.jsonl:9")
    card = score([Listed("student", ANSWERS)], holdout, tmp_path, training_rows=[row])
    assert [(leak.id, leak.where, leak.exact) for leak in card.leaks] == [("3", "train.jsonl:9", False)]
    assert score([Listed("student", ANSWERS)], holdout, tmp_path).leaks is None


class Ask:
    """A gateway that answers with the right answer, fails on one question, and remembers who asked how."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.flying = self.most = 0

    async def __call__(self, request: Request, *, sample: int = 0) -> Answer:
        self.requests.append(request)
        self.flying += 1
        self.most = max(self.most, self.flying)
        await asyncio.sleep(0)
        self.flying -= 1
        number = int(request.messages[-1].content.split()[-1])
        if number == 3:
            raise TeacherError(FailureClass.REFUSED, "no")
        return Answer(ANSWERS[number], None, "stop", Usage(20, 7), Decimal(0), f"key{number}")


def test_a_teacher_is_asked_with_its_own_instructions_and_a_failure_is_a_wrong_answer(
    holdout: Holdout, tmp_path: Path
) -> None:
    ask = Ask()
    teacher = TeacherSystem("big", ask, model="m", system="Answer in JSON.", max_tokens=32, window=2)
    card = score([Listed("student", ANSWERS), teacher], holdout, tmp_path)
    assert ask.most == 2
    assert [m.content for m in ask.requests[0].messages] == ["Answer in JSON.", "question 0"]
    assert (ask.requests[0].params.max_tokens, ask.requests[0].params.temperature) == (32, 0.0)
    found = card.systems["teacher"]
    assert (found.metrics["exact_match"].value, found.failures) == (0.75, 1)
    assert found.latency is not None
    assert found.latency.n == 3
    # A failed request is tried again next time.
    again = TeacherSystem("big", ask, model="m", system="Answer in JSON.", max_tokens=32)
    score([Listed("student", ANSWERS), again], holdout, tmp_path)
    assert len(ask.requests) == 8


def test_a_student_answers_as_generate_does(holdout: Holdout, student: Path, tmp_path: Path) -> None:
    import torch

    from distill.train.student import load_model, load_tokenizer

    system = Student(str(student), None, max_tokens=6, batch_size=3, latency_items=2, dtype="float32")
    card = score([system], holdout, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_bytes().splitlines()]
    tokenizer, model = load_tokenizer(student), load_model(student, dtype="float32")
    for row, item in zip(rows, holdout.items, strict=True):
        prompt = tokenizer.apply_chat_template(list(item.messages), add_generation_prompt=True, return_tensors="pt")
        ids = prompt["input_ids"]
        with torch.no_grad():
            made = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
        assert row["prediction"] == tokenizer.decode(made, skip_special_tokens=True)
    assert card.systems["student"].latency.n == 2
    assert card.systems["student"].about["dtype"] == "float32"


def test_a_prompt_too_long_for_the_model_is_named(student: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"id": "long", "messages": [{"role": "user", "content": "a b " * 600}], "answer": "x"}))
    system = Student(str(student), None, max_tokens=4, dtype="float32")
    with pytest.raises(InputError, match=r"item long: \d+ tokens and 4 of answer pass the model's 512"):
        score([system], read_holdout(path), tmp_path, metrics=METRICS[:1])


def test_a_folder_that_is_no_adapter_is_refused(student: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no adapter_config.json"):
        Student(str(student), tmp_path)


def test_latency_is_median_and_nearest_rank() -> None:
    found = latency_of([0.4, 0.1, 0.2, 0.3], "single")
    assert found is not None
    assert (found.p50, found.p95, found.n) == (0.25, 0.4, 4)
    assert latency_of([], "single") is None
