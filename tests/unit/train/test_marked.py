"""Training on marked answers (KTO) and without a reference (ORPO): what is read, what is minimised, what is left."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.errors import Halted, InputError
from distill.recipe import TrainConfig
from distill.train import Marked, MarkedData, Pair, PairData, Progress, TrainResult, train_preferences
from distill.train.marked import marked
from distill.train.marking import EncodedAnswer, build, encode, held_out, settings, weights
from distill.train.pairing import odds_ratio
from distill.train.watch import Watch

WORDS = ("lost", "stolen", "blocked", "declined")


def question(number: int) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": f"my card was {WORDS[number % 4]}, please help {number}"},)


def answers(number: int) -> tuple[Marked, Marked]:
    word, where = WORDS[number % 4], f"marked.jsonl:{number}"
    right = Marked(question(number), json.dumps({"intent": word}), True, where)
    return right, Marked(question(number), f"It was {word}.", False, where)


ROWS = tuple(row for number in range(8) for row in answers(number))
DATA = MarkedData(ROWS, tuple(row for number in range(20, 24) for row in answers(number)), ("marked.jsonl",))


def config(student: Path, **over: Any) -> TrainConfig:
    plain = {"batch_size": 4, "max_steps": 8, "learning_rate": 5e-3, "dtype": "float32", "method": "kto"}
    return TrainConfig(model=str(student), **{**plain, **over})


@pytest.fixture(scope="module")
def trained(student: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, list[Progress]]:
    seen: list[Progress] = []
    out = tmp_path_factory.mktemp("kto")
    return train_preferences(config(student), DATA, out, seed=1, progress=seen.append), seen


def test_good_answers_gain_and_bad_ones_lose_on_rows_that_were_not_trained_on(
    trained: tuple[TrainResult, list[Progress]],
) -> None:
    facts = trained[0].facts
    assert (facts["method"], facts["rows"], facts["good_rows"], facts["reference"]) == ("kto", 16, 8, "the base")
    told = facts["held_out"]
    assert (told["answers"], told["good"]) == (8, 4)
    assert told["margin"] > 0.05
    assert told["good_change"] > told["bad_change"]
    # The student starts at its reference: every answer is worth one half.
    assert facts["losses"][0]["loss"] == pytest.approx(0.5, abs=1e-4)
    assert facts["loss_last"] < 0.5
    assert [p.step for p in trained[1]] == list(range(1, 9))


def test_the_folder_is_that_of_every_training(trained: tuple[TrainResult, list[Progress]], student: Path) -> None:
    out = trained[0].out
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/chat_template.jinja",
        "adapter/distill.json",
        "chat_template.jinja",
        "train.json",
        "log.jsonl",
    }
    assert trained[0].facts["example"]["text"].startswith("good: <|im_start|>user\n")
    assert trained[0].facts["example"]["text"].endswith('⟦{"intent": "lost"}<|im_end|>⟧')
    assert str(student.parent) not in (out / "train.json").read_text()


def test_an_interrupted_training_goes_on_to_the_same_weights(
    trained: tuple[TrainResult, list[Progress]], student: Path, tmp_path: Path
) -> None:
    steps: list[int] = []

    def count(progress: Progress) -> None:
        steps.append(progress.step)

    with pytest.raises(Halted, match="stopped at step 2 of 8"):
        train_preferences(config(student), DATA, tmp_path, seed=1, progress=count, stop=lambda: len(steps) >= 1)
    result = train_preferences(config(student), DATA, tmp_path, seed=1, progress=count)
    assert result.facts["weights_digest"] == trained[0].facts["weights_digest"]


def built(student: Path, folder: Path, rows: list[EncodedAnswer] | None = None, **over: Any) -> Any:
    from distill.train import student as students

    tokenizer = students.load_tokenizer(student)
    chosen = config(student, **over)
    train = rows or encode(ROWS, tokenizer, max_length=512)[0]
    model = students.load_model(student, dtype="float32")
    arguments = settings(chosen, folder, seed=1, dtype="float32", rows=len(train), watched=0)
    peft = students.adapter_config(chosen.lora, model)
    return build(chosen, arguments, model, tokenizer, train, [], Watch(), peft=peft, tolerance=1e-3)


def test_the_average_distance_is_taken_of_the_same_answers_after_other_prompts(student: Path, tmp_path: Path) -> None:
    trainer = built(student, tmp_path)
    rows = [trainer.train_dataset[i] for i in (3, 0, 5)]
    batch = trainer.data_collator(rows)
    decode = trainer.processing_class.decode
    said, others = (
        [decode(row[mask == 1]) for row, mask in zip(batch[f"{p}input_ids"], batch[f"{p}completion_mask"], strict=True)]
        for p in ("", "KL_")
    )
    assert said == ["It was stolen.<|im_end|>", '{"intent": "lost"}<|im_end|>', "It was blocked.<|im_end|>"]
    assert others == [said[2], said[0], said[1]]
    assert "help 1" in decode(batch["KL_input_ids"][0])
    alone = trainer.data_collator(rows[:1])
    assert not torch.equal(alone["KL_input_ids"], alone["input_ids"])


def test_the_rarer_kind_is_weighted_up_unless_weights_are_given(student: Path) -> None:
    rows = [EncodedAnswer([1], [2], good) for good in (True, False, False, False)]
    assert weights(config(student), rows) == (3.0, 1.0)
    assert weights(config(student), [rows[0], *rows[:2]]) == (1.0, 2.0)
    assert weights(config(student, preference={"undesirable": 0.5}), rows) == (1.0, 0.5)


def test_a_pass_of_one_row_is_refused_for_it_has_nothing_to_compare(student: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train.micro_batch_size: kto needs two rows"):
        train_preferences(config(student, micro_batch_size=1), DATA, tmp_path)


def test_held_out_answers_of_one_kind_have_no_margin() -> None:
    rows = [EncodedAnswer([1], [2], True)] * 2
    assert held_out(rows, [-3.0, -3.0], [-2.0, -4.0], beta=0.1) == {
        "answers": 2,
        "good": 2,
        "accuracy": 0.5,
        "margin": None,
        "good_change": 0.0,
        "bad_change": None,
    }
    assert held_out([], [], [], beta=0.1) is None


PROMPT = [{"role": "user", "content": "Where is my card?"}]
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("In the post.", "No idea."))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Where is my card?", "completion": "In the post.", "label": True},
        {"prompt": PROMPT, "completion": [GOOD], "label": 1},
        {"messages": [*PROMPT, GOOD], "label": True},
    ],
)
def test_every_layout_of_a_marked_answer_is_the_same_answer(row: dict[str, Any]) -> None:
    assert marked(row) == (Marked(tuple(PROMPT), "In the post.", True),)


def test_a_pair_is_two_marked_answers() -> None:
    both = marked({"prompt": PROMPT, "chosen": [GOOD], "rejected": [BAD]})
    assert [(row.answer, row.good) for row in both] == [("In the post.", True), ("No idea.", False)]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "a", "completion": "b"}, "label: the row says not whether its answer is good"),
        ({"prompt": "a", "completion": "b", "label": "yes"}, "label: should be true or false"),
        ({"prompt": "a", "completion": " ", "label": True}, "the assistant turn is empty"),
    ],
)
def test_what_is_no_marked_answer_is_named_with_its_line(row: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "marked.jsonl"
    path.write_text(json.dumps({"prompt": "a", "completion": "b", "label": False}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(InputError) as caught:
        MarkedData.read(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert says in str(caught.value)


def test_marks_of_one_kind_teach_nothing(tmp_path: Path) -> None:
    path = tmp_path / "marked.jsonl"
    path.write_text(json.dumps({"prompt": "a", "completion": "b", "label": False}) + "\n")
    with pytest.raises(InputError, match="holds no answer with label true"):
        MarkedData.read(path)


# -- ORPO ----------------------------------------------------------------------------------------------------------

PAIRS = PairData(
    tuple(Pair(good.prompt, good.answer, bad.answer, good.where) for good, bad in map(answers, range(8))),
    tuple(Pair(good.prompt, good.answer, bad.answer, good.where) for good, bad in map(answers, range(20, 24))),
)


def test_the_loss_is_that_of_the_paper() -> None:
    chosen, rejected = torch.tensor([-0.3, -1.2]), torch.tensor([-1.0, -0.4])
    loss, ratio = odds_ratio(chosen, rejected, weight=0.25)
    for n in range(2):
        p, q = math.exp(chosen[n]), math.exp(rejected[n])
        wanted = math.log((p / (1 - p)) / (q / (1 - q)))
        assert ratio[n].item() == pytest.approx(wanted, rel=1e-4)
        term = -math.log(1 / (1 + math.exp(-wanted)))
        assert loss[n].item() == pytest.approx(-chosen[n].item() + 0.25 * term, rel=1e-4)


def test_orpo_learns_the_chosen_answers_and_drops_the_rejected_ones(student: Path, tmp_path: Path) -> None:
    result = train_preferences(config(student, method="orpo", preference={"beta": 1.0}), PAIRS, tmp_path, seed=1)
    told = result.facts["held_out"]
    assert (result.facts["method"], result.facts["reference"], told["pairs"]) == ("orpo", "none", 4)
    assert told["accuracy"] == 1
    assert told["chosen_change"] > 1
    assert told["chosen_change"] > told["rejected_change"]
    assert result.facts["loss_last"] < result.facts["loss_first"]
    assert not (tmp_path / "adapter/ref").exists()


@pytest.mark.parametrize(
    ("method", "preference", "says"),
    [
        ("kto", {"loss": "ipo"}, "train.preference.loss: is for method: dpo"),
        ("orpo", {"sft": 1.0}, "train.preference.sft: is for method: dpo"),
        ("orpo", {"desirable": 2.0}, "train.preference.desirable: is for method: kto"),
    ],
)
def test_settings_of_another_method_are_refused(
    student: Path, tmp_path: Path, method: str, preference: dict[str, Any], says: str
) -> None:
    data = DATA if method == "kto" else PAIRS
    with pytest.raises(InputError, match=says):
        train_preferences(config(student, method=method, preference=preference), data, tmp_path)
